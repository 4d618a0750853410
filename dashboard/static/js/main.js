// The page: what is chosen, what is shown, and what happens when.

import { Stream, listSymbols } from "./api.js";
import { Appearance } from "./appearance.js";
import { Bars } from "./bars.js";
import { Chart } from "./chart.js";
import { $ } from "./dom.js";
import { Foot } from "./foot.js";
import { digitsOf } from "./format.js";
import { GoingDialog } from "./going.js";
import { t } from "./i18n.js";
import { listen } from "./keys.js";
import { drawLegend } from "./legend.js";
import { notice } from "./notice.js";
import { Picker } from "./picker.js";
import { PipelinePane } from "./pipeline.js";
import { addressed, preferences, remember } from "./preferences.js";
import { StatusLine } from "./status.js";
import { BarTable, ROWS } from "./table.js";
import { TIMEFRAMES, TimeframeButtons, widthOf } from "./timeframes.js";

/** What changed in the table is read again so soon: changes come in flocks. */
const STALE_MS = 150;
const RETRY_MS = 3_000;

const chosen = { timeframe: "M1", zone: "UTC", ...preferences() };
if (!TIMEFRAMES.includes(chosen.timeframe)) chosen.timeframe = "M1";

const view = {
  bars: null, stream: null, version: null, barEnd: 0, pointed: null, digits: 5, timer: 0, staleFrom: null,
};

const chart = globalThis.LightweightCharts
  ? new Chart($("chart"), {
      onPast: () => load("hasOlder", "loadOlder"),
      onFuture: () => load("hasNewer", "loadNewer"),
      onPoint: (bar) => {
        // What is being replaced is not told any more.
        view.pointed = view.bars?.list.length ? bar : null;
        showLegend();
      },
      onView: (isAway) => { $("latest").hidden = !isAway && !view.bars?.hasNewer; },
    })
  : null;
const pane = new PipelinePane({ onChoose: choose, onClose: () => showPane(false) });
const table = new BarTable();
const status = new StatusLine();
const timeframes = new TimeframeButtons({ onChoose: chooseTimeframe });
const going = new GoingDialog({ onGo: goTo });
const foot = new Foot({ chosen: chosen.zone, onChoose: chooseZone });
const appearance = new Appearance({ ...chosen, onLanguage: showWords, onTheme: () => chart?.recolour() });
// The list that it opens with may be old; without an answer that stays.
const picker = new Picker({ onChoose: choose, onOpen: () => refreshSymbols().catch(() => {}) });

// --- what is chosen ---------------------------------------------------------------------------------------------

function choose({ symbol, source, last_tick: lastTick }) {
  Object.assign(chosen, { symbol, source });
  remember({ symbol, source, timeframe: chosen.timeframe });
  picker.choose(chosen);
  restart(lastTick);
}

/** Nothing of the symbol before stays beside the name of this one. */
function restart(lastTick) {
  status.forget();
  if (lastTick) status.noteTick(Date.parse(lastTick));
  clear();
  start();
}

function chooseTimeframe(timeframe) {
  if (timeframe === chosen.timeframe) return;
  chosen.timeframe = timeframe;
  // Who looks at the past goes on to look at it.
  if (chosen.at !== null) chosen.at = (view.bars?.list.length ? chart?.middle : null) ?? chosen.at;
  remember({ symbol: chosen.symbol, source: chosen.source, timeframe, at: chosen.at });
  timeframes.show(timeframe);
  if (!chosen.symbol) return;
  clear();
  start();
}

/** Go to a moment: 0 is the start of history, null the newest bar. */
function goTo(at) {
  if (!chosen.symbol) return;
  if (at !== chosen.at) remember({ at }, { isStep: true });
  chosen.at = at;
  showMoment();
}

/** Show the chosen moment, and read what is there if that is not loaded. */
function showMoment() {
  const { bars } = view;
  const { at } = chosen;
  const isLoaded = bars?.list.length && (at === null
    ? !bars.hasNewer
    : (at >= bars.list[0].time || !bars.hasOlder) && (at <= bars.last.time || !bars.hasNewer));
  if (!isLoaded) read();
  else if (at === null) chart?.toNewest();
  else chart?.goTo(at);
  showBars();
}

/** The browser's buttons Back and Forward. */
function walk() {
  const { at, ...there } = addressed();
  const isElsewhere = Object.entries(there).some(([name, value]) => chosen[name] !== value);
  Object.assign(chosen, there, { at });
  if (!chosen.symbol) return;
  if (!isElsewhere) {
    showMoment();
    return;
  }
  picker.choose(chosen);
  timeframes.show(chosen.timeframe);
  restart();
}

async function refreshSymbols() {
  const listings = await listSymbols();
  picker.list(listings);
  return listings;
}

/** Choose the remembered symbol, or the one with the newest candle; without any wait for the first. */
async function begin() {
  let listings;
  try {
    listings = await refreshSymbols();
  } catch (error) {
    notice(error);
    setTimeout(begin, RETRY_MS);
    return;
  }
  const wanted = listings.filter(({ symbol }) => symbol === chosen.symbol);
  // The list may be older than what a link asks for: that is said to be missing, or found, but never replaced.
  if (wanted.length || new URLSearchParams(location.search).has("symbol")) {
    choose(wanted.find(({ source }) => source === chosen.source) ?? (chosen.source ? chosen : wanted[0] ?? chosen));
    return;
  }
  if (listings.length) {
    choose(listings.reduce((a, b) => (Date.parse(b.last) > Date.parse(a.last) ? b : a)));
    return;
  }
  picker.choose(null);
  notice(null, t("noSymbols"), t("noSymbolsHint"));
  connect({ candle: choose, resync: begin });
}

// --- the bars ---------------------------------------------------------------------------------------------------

function start() {
  document.title = `${chosen.symbol} · Tickpipe`;
  connect({
    candle: takeMinute,
    stale: ({ ts, bar }) => readAgain(Date.parse(bar ?? ts)),
    resync: () => readAgain(view.bars.list[0]?.time),
  });
  view.barEnd = 0;
  read();
}

/** Read the bars, those of the chosen moment or the newest. */
function read() {
  clearTimeout(view.timer);
  view.bars?.close();
  const bars = new Bars(chosen.symbol, chosen.source, chosen.timeframe, chosen.at);
  Object.assign(view, { timer: 0, bars, pointed: null, staleFrom: null });
  sync(bars);
}

/** Take what is drawn away. */
function clear() {
  view.bars?.close();
  view.bars = null;
  view.pointed = null;
  notice();
  Object.assign($("chart").dataset, { bars: 0, first: "" });
  chart?.draw([], view.digits);
  showBars();
}

async function sync(bars, from) {
  const isFirst = !bars.list.length;
  $("loading").hidden = false;
  let changed;
  try {
    await view.stream.begun;
    changed = await bars.sync(from);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (isFirst) notice(error);
    if (bars === view.bars) readAgain(from, RETRY_MS);
    return;
  } finally {
    if (bars === view.bars) $("loading").hidden = true;
  }
  if (bars !== view.bars) return;
  if (!chosen.source && bars.list.length) {
    chosen.source = bars.last.source;
    picker.choose(chosen);
    remember({ symbol: chosen.symbol, source: chosen.source });
  }
  if (bars.list.length) notice();
  else notice(null, t(chosen.source ? "noSuchFeed" : "noSuchSymbol", chosen), t("noSuchSymbolHint"));
  redraw();
  if (isFirst && chosen.at === null) chart?.reset();
  else if (isFirst) chart?.goTo(chosen.at);
  if (changed !== null) readAgain(changed);
}

/** Read the bars again from the opening of one on, soon; without one, from the newest that is known. */
function readAgain(from, delayMs = STALE_MS) {
  const bars = view.bars;
  if (from !== undefined) view.staleFrom = Math.min(from, view.staleFrom ?? from);
  // What comes meanwhile is read with it, and does not put it off.
  if (view.timer) return;
  view.timer = setTimeout(() => {
    const at = view.staleFrom ?? undefined;
    Object.assign(view, { timer: 0, staleFrom: null });
    sync(bars, at);
  }, delayMs);
}

function takeMinute(minute) {
  if (minute.symbol !== chosen.symbol) return;
  if (!chosen.source) {
    // Asked for by its symbol alone, before it had a candle.
    choose(minute);
    return;
  }
  if (minute.source !== chosen.source) return;
  status.noteTick(Date.parse(minute.last_tick));
  if (minute.bar_end && Date.parse(minute.bar) <= Date.now()) view.barEnd = Math.max(view.barEnd, Date.parse(minute.bar_end));
  const wasEmpty = !view.bars.list.length;
  const result = view.bars.take(minute);
  if (result === "stale") readAgain(minute.bar === null ? view.bars.list.at(-2)?.time : Date.parse(minute.bar));
  else if (result === "reordered" || (result && (wasEmpty || (view.bars.digits === null && digitsOf([result]) > view.digits)))) redraw();
  else if (result) {
    $("chart").dataset.bars = view.bars.list.length;
    chart?.update(result);
    showBars();
  }
  status.show();
}

/** The sender has said, or changed, the decimals of its prices. */
function takeDigits(digits) {
  if (!view.bars || digits === null || digits === view.bars.digits) return;
  view.bars.digits = digits;
  if (view.bars.list.length) redraw();
}

/** Load one page more at the end that the reader nears. */
async function load(hasMore, loadPage) {
  const bars = view.bars;
  if (!bars?.[hasMore] || !bars.list.length) return;
  const known = bars.list.length;
  try {
    await bars[loadPage]();
  } catch {
    // The next scroll asks again.
    return;
  }
  if (bars !== view.bars) return;
  if (bars.list.length !== known) redraw();
  if (hasMore === "hasNewer" && !bars.hasNewer) arrive();
}

/** The reader has come to the present: what moves is read as well, and the moment that was gone to is left. */
function arrive() {
  chosen.at = null;
  remember({ at: null });
  readAgain(view.bars.last.time, 0);
}

function redraw() {
  const { list, hasNewer } = view.bars;
  Object.assign($("chart").dataset, { bars: list.length, first: list.length ? new Date(list[0].time).toISOString() : "" });
  if (list.length) notice();
  view.digits = view.bars.digits ?? digitsOf(list);
  chart?.draw(list, view.digits, { widthMs: widthOf(chosen.timeframe), isPresent: !hasNewer });
  showBars();
}

// --- the stream -------------------------------------------------------------------------------------------------

function connect(handlers) {
  view.stream?.close();
  const query = { timeframe: chosen.timeframe };
  if (chosen.symbol) query.symbol = chosen.symbol;
  if (chosen.source) query.source = chosen.source;
  view.stream = new Stream(query, {
    ...handlers,
    state: (link, refusal) => status.noteLink(link, refusal),
    pipeline: (state) => {
      // Scripts and API belong together: those of another version are fetched.
      if (state.version !== (view.version ??= state.version)) location.reload();
      const feed = state.feeds.find(({ symbol, source }) => symbol === chosen.symbol && source === chosen.source);
      if (feed) {
        status.noteTick(Date.parse(feed.last_tick));
        takeDigits(feed.digits);
      }
      if (foot.takeDay(state.day)) showTimes();
      pane.show(state);
      status.notePipeline(state);
    },
  });
}

for (const event of ["online", "focus"]) addEventListener(event, () => view.stream?.hurry());

// --- what is shown ----------------------------------------------------------------------------------------------

/** The bar that the legend tells of while none is pointed at: the newest, or that of the moment that was gone to. */
function shownBar() {
  return chosen.at === null ? view.bars?.last : view.bars?.at(chosen.at);
}

function showLegend() {
  drawLegend(chosen, view.pointed ?? shownBar(), view.digits);
}

/** What is told of the bars beside the chart; of the past, the table has those around the moment that was gone to. */
function showBars() {
  const list = view.bars?.list ?? [];
  const end = view.bars?.hasNewer ? list.indexOf(shownBar()) + ROWS / 2 : list.length;
  table.show(list.slice(Math.max(0, end - ROWS), end), view.digits);
  showLegend();
}

/** Show times on another clock. */
function showTimes() {
  chart?.relabel(t("locale"));
  showBars();
  status.show();
  pane.render();
  foot.tick(view.barEnd);
}

function chooseZone(zone) {
  remember({ zone });
  showTimes();
}

/** Say everything in another language. */
function showWords() {
  foot.label();
  showTimes();
}

function showPane(isOpen) {
  $("pane").hidden = !isOpen;
  $("pane-toggle").setAttribute("aria-pressed", String(isOpen));
  remember({ pane: isOpen });
  pane.render();
}

function askWhere() {
  going.open(chart?.middle ?? Date.now());
}

// --- what starts it ---------------------------------------------------------------------------------------------

$("pane-toggle").addEventListener("click", () => showPane($("pane").hidden));
$("table-toggle").addEventListener("click", () => table.toggle());
$("help-toggle").addEventListener("click", () => $("help").showModal());
$("latest").addEventListener("click", () => goTo(null));
$("going-open").addEventListener("click", askWhere);
addEventListener("popstate", walk);

listen({
  ...Object.fromEntries(TIMEFRAMES.map((name, index) => [String(index + 1), () => chooseTimeframe(name)])),
  "/": () => picker.open(),
  ArrowLeft: () => chart?.scroll(-0.1),
  ArrowRight: () => chart?.scroll(0.1),
  "+": () => chart?.zoom(0.8),
  "=": () => chart?.zoom(0.8),
  "-": () => chart?.zoom(1.25),
  End: () => goTo(null),
  Home: () => goTo(0),
  g: askWhere,
  p: () => showPane($("pane").hidden),
  d: () => table.toggle(),
  Escape: () => (table.isOpen ? table.toggle(false) : showPane(false)),
  t: () => appearance.toggleTheme(),
  l: () => appearance.toggleLanguage(),
  "?": () => $("help").showModal(),
});

timeframes.show(chosen.timeframe);
appearance.show();
showPane(chosen.pane ?? false);
setInterval(() => {
  foot.tick(view.barEnd);
  status.show();
}, 1000);
if (!chart) notice();
begin();
