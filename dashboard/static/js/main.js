// The page: what is chosen, what is shown, and what happens when.

import { ApiError, Stream, listSymbols } from "./api.js";
import { Bars } from "./bars.js";
import { Chart } from "./chart.js";
import { $, element } from "./dom.js";
import { clock, digitsOf, setLocale } from "./format.js";
import { preferredLanguage, setLanguage, t } from "./i18n.js";
import { listen } from "./keys.js";
import { drawLegend } from "./legend.js";
import { Picker } from "./picker.js";
import { PipelinePane } from "./pipeline.js";
import { preferences, remember } from "./preferences.js";
import { LIVE_MS, statusOf } from "./status.js";
import { BarTable } from "./table.js";

const TIMEFRAMES = ["M1", "M5", "M15", "M30", "H1", "H4", "D1", "W1", "MN1"];
/** What changed in the table is read again so soon: changes come in flocks. */
const STALE_MS = 150;
const RETRY_MS = 3_000;

const chosen = { timeframe: "M1", language: preferredLanguage(), ...preferences() };
if (!TIMEFRAMES.includes(chosen.timeframe)) chosen.timeframe = "M1";

const view = {
  bars: null, stream: null, link: "connecting", refusal: null, pipeline: null, version: null, lastTick: 0, aheadTick: 0,
  pointed: null, digits: 5, timer: 0, staleFrom: null,
};

const chart = globalThis.LightweightCharts
  ? new Chart($("chart"), {
      onPast: loadOlder,
      onPoint: (bar) => {
        // What is being replaced is not told any more.
        view.pointed = view.bars?.list.length ? bar : null;
        showLegend();
      },
      onView: (isAway) => { $("latest").hidden = !isAway; },
    })
  : null;
const pane = new PipelinePane({ onChoose: choose, onClose: () => showPane(false) });
const table = new BarTable();
const picker = new Picker({ onChoose: choose, onOpen: refreshQuietly });

// --- what is chosen ---------------------------------------------------------------------------------------------

function choose({ symbol, source, last_tick: lastTick }) {
  Object.assign(chosen, { symbol, source });
  remember({ symbol, source, timeframe: chosen.timeframe });
  picker.choose(chosen);
  // Nothing of the symbol before stays beside the name of this one.
  Object.assign(view, { lastTick: 0, aheadTick: 0 });
  if (lastTick) noteTick(Date.parse(lastTick));
  clear();
  start();
}

function chooseTimeframe(timeframe) {
  if (timeframe === chosen.timeframe) return;
  chosen.timeframe = timeframe;
  remember({ symbol: chosen.symbol, source: chosen.source, timeframe });
  showTimeframes();
  if (!chosen.symbol) return;
  clear();
  start();
}

async function refreshSymbols() {
  const listings = await listSymbols();
  picker.list(listings);
  return listings;
}

/** The list that the picker opened with may be old; without an answer it stays. */
function refreshQuietly() {
  refreshSymbols().catch(() => {});
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
  clearTimeout(view.timer);
  Object.assign(view, { timer: 0, bars: new Bars(chosen.symbol, chosen.source, chosen.timeframe), pointed: null, staleFrom: null });
  document.title = `${chosen.symbol} · Tickpipe`;
  connect({
    candle: takeMinute,
    stale: ({ ts, bar }) => readAgain(Date.parse(bar ?? ts)),
    resync: () => readAgain(view.bars.list[0]?.time),
  });
  sync(view.bars);
}

/** Take what is drawn away. */
function clear() {
  view.bars?.close();
  view.bars = null;
  view.pointed = null;
  notice();
  Object.assign($("chart").dataset, { bars: 0, first: "" });
  chart?.draw([], view.digits);
  table.show([], view.digits);
  showLegend();
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
  if (isFirst) chart?.reset();
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

/** A tick of the chosen feed is known of. */
function noteTick(time) {
  // One that is stamped tomorrow does not make the feed live until then.
  if (time > Date.now() + LIVE_MS) view.aheadTick = Math.max(view.aheadTick, time);
  else view.lastTick = Math.max(view.lastTick, time);
}

function takeMinute(minute) {
  if (minute.symbol !== chosen.symbol) return;
  if (!chosen.source) {
    // Asked for by its symbol alone, before it had a candle.
    choose(minute);
    return;
  }
  if (minute.source !== chosen.source) return;
  noteTick(Date.parse(minute.last_tick));
  const wasEmpty = !view.bars.list.length;
  const result = view.bars.take(minute);
  if (result === "stale") readAgain(minute.bar === null ? view.bars.list.at(-2)?.time : Date.parse(minute.bar));
  else if (result === "reordered" || (result && (wasEmpty || (view.bars.digits === null && digitsOf([result]) > view.digits)))) redraw();
  else if (result) {
    $("chart").dataset.bars = view.bars.list.length;
    chart?.update(result);
    table.show(view.bars.list, view.digits);
    showLegend();
  }
  showStatus();
}

/** The sender has said, or changed, the decimals of its prices. */
function takeDigits(digits) {
  if (!view.bars || digits === null || digits === view.bars.digits) return;
  view.bars.digits = digits;
  if (view.bars.list.length) redraw();
}

async function loadOlder() {
  const bars = view.bars;
  if (!bars?.hasOlder || !bars.list.length) return;
  const known = bars.list.length;
  try {
    await bars.loadOlder();
  } catch {
    // The next scroll asks again.
    return;
  }
  if (bars === view.bars && bars.list.length !== known) redraw();
}

function redraw() {
  const { list } = view.bars;
  Object.assign($("chart").dataset, { bars: list.length, first: list.length ? new Date(list[0].time).toISOString() : "" });
  if (list.length) notice();
  view.digits = view.bars.digits ?? digitsOf(list);
  chart?.draw(list, view.digits);
  table.show(list, view.digits);
  showLegend();
}

// --- the stream -------------------------------------------------------------------------------------------------

function connect(handlers) {
  view.stream?.close();
  const query = { timeframe: chosen.timeframe };
  if (chosen.symbol) query.symbol = chosen.symbol;
  if (chosen.source) query.source = chosen.source;
  view.stream = new Stream(query, {
    ...handlers,
    state: (link, refusal = null) => {
      view.link = link;
      if (link === "refused") view.refusal = refusal;
      else if (link === "open" || link === "gone") view.refusal = null;
      showStatus();
    },
    pipeline: (state) => {
      // Scripts and API belong together: those of another version are fetched.
      if (state.version !== (view.version ??= state.version)) location.reload();
      view.pipeline = state;
      const feed = state.feeds.find(({ symbol, source }) => symbol === chosen.symbol && source === chosen.source);
      if (feed) {
        noteTick(Date.parse(feed.last_tick));
        takeDigits(feed.digits);
      }
      pane.show(state);
      showStatus();
    },
  });
}

for (const event of ["online", "focus"]) addEventListener(event, () => view.stream?.hurry());

// --- what is shown ----------------------------------------------------------------------------------------------

function showStatus() {
  const [kind, text] = statusOf(view);
  if ($("status").dataset.kind !== kind) $("status").dataset.kind = kind;
  if ($("status-text").textContent !== text) $("status-text").textContent = text;
  if ($("status").title !== text) $("status").title = text;
}

function showLegend() {
  drawLegend(chosen, view.pointed ?? view.bars?.last, view.digits);
}

/** Say something in the middle of the stage; without arguments say nothing. */
function notice(error, title = "", hint = "") {
  let [heading, text] = [title, hint];
  if (error) [heading, text] = [t("failed"), error instanceof ApiError && error.code !== "OFFLINE" ? error.message : t("offline")];
  if (!chart) [heading, text] = [t("noChart"), t("noChartHint")];
  $("notice").hidden = !heading;
  $("notice").replaceChildren(element("strong", "", heading), element("p", "", text));
}

function showTimeframes() {
  $("timeframes").replaceChildren(...TIMEFRAMES.map((name) => {
    const isChosen = name === chosen.timeframe;
    const button = element("button", "", name, { role: "radio", "aria-checked": String(isChosen), tabindex: isChosen ? "0" : "-1" });
    button.addEventListener("click", () => chooseTimeframe(name));
    return button;
  }));
  const active = $("timeframes").querySelector("[aria-checked=true]");
  active?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

$("timeframes").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  chooseTimeframe(TIMEFRAMES[(TIMEFRAMES.indexOf(chosen.timeframe) + step + TIMEFRAMES.length) % TIMEFRAMES.length]);
  $("timeframes").querySelector("[aria-checked=true]").focus();
});

function showLanguage() {
  setLanguage(chosen.language);
  setLocale(t("locale"));
  chart?.relabel(t("locale"));
  $("language").textContent = chosen.language === "en" ? "PT" : "EN";
  const keys = [
    ["1 … 9", "keyTimeframe"], ["/", "keySymbol"], ["← →", "keyScroll"], ["+ −", "keyZoom"], ["End", "keyLatest"],
    ["Home", "keyFit"], ["P", "keyPane"], ["D", "keyTable"], ["T", "keyTheme"], ["L", "keyLanguage"],
  ];
  $("key-list").replaceChildren(...keys.map(([key, name]) =>
    element("div", "", [element("dt", "", element("kbd", "", key)), element("dd", "", t(name))])));
  showLegend();
  showStatus();
  pane.render();
  table.show(view.bars?.list ?? [], view.digits);
}

function toggleLanguage() {
  chosen.language = chosen.language === "en" ? "pt" : "en";
  remember({ language: chosen.language });
  showLanguage();
}

const prefersDark = matchMedia("(prefers-color-scheme: dark)");

function showTheme() {
  const isDark = chosen.theme ? chosen.theme === "dark" : prefersDark.matches;
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  $("theme").setAttribute("aria-pressed", String(isDark));
  chart?.recolour();
}

/** The other one; who comes back to the system's follows the system again. */
function toggleTheme() {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  chosen.theme = (theme === "dark") === prefersDark.matches ? null : theme;
  remember({ theme: chosen.theme });
  showTheme();
}

function showPane(isOpen) {
  $("pane").hidden = !isOpen;
  $("pane-toggle").setAttribute("aria-pressed", String(isOpen));
  remember({ pane: isOpen });
  pane.render();
}

// --- what starts it ---------------------------------------------------------------------------------------------

$("language").addEventListener("click", toggleLanguage);
$("theme").addEventListener("click", toggleTheme);
prefersDark.addEventListener("change", showTheme);
$("pane-toggle").addEventListener("click", () => showPane($("pane").hidden));
$("table-toggle").addEventListener("click", () => table.toggle());
$("help-toggle").addEventListener("click", () => $("help").showModal());
$("latest").addEventListener("click", () => chart?.toNewest());

listen({
  ...Object.fromEntries(TIMEFRAMES.map((name, index) => [String(index + 1), () => chooseTimeframe(name)])),
  "/": () => picker.open(),
  ArrowLeft: () => chart?.scroll(-0.1),
  ArrowRight: () => chart?.scroll(0.1),
  "+": () => chart?.zoom(0.8),
  "=": () => chart?.zoom(0.8),
  "-": () => chart?.zoom(1.25),
  End: () => chart?.toNewest(),
  Home: () => chart?.toFirst(),
  p: () => showPane($("pane").hidden),
  d: () => table.toggle(),
  Escape: () => (table.isOpen ? table.toggle(false) : showPane(false)),
  t: toggleTheme,
  l: toggleLanguage,
  "?": () => $("help").showModal(),
});

showTimeframes();
showLanguage();
showTheme();
showPane(chosen.pane ?? false);
setInterval(() => {
  $("clock").textContent = `${clock(Date.now())} UTC`;
  showStatus();
}, 1000);
if (!chart) notice();
begin();
