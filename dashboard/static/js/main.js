// The page: what is chosen, what is shown, and what happens when.

import { candlesUrl, firstOf, listSymbols } from "./api.js";
import { AlertDialog } from "./alert-dialog.js";
import { Appearance } from "./appearance.js";
import { Beside } from "./beside.js";
import { Chart } from "./chart.js";
import { Comparison } from "./comparison.js";
import { $, oncePerFrame } from "./dom.js";
import { Following } from "./following.js";
import { Foot } from "./foot.js";
import { dateTime, digitsOf } from "./format.js";
import { Gaps } from "./gaps.js";
import { GoingDialog } from "./going.js";
import { t } from "./i18n.js";
import { listen } from "./keys.js";
import { drawLegend } from "./legend.js";
import { notice } from "./notice.js";
import { Picker, feedOf } from "./picker.js";
import { PipelinePane } from "./pipeline.js";
import { addressed, isBeside, preferences, remember } from "./preferences.js";
import { ProofPane } from "./proof.js";
import { Reading } from "./reading.js";
import { StatusLine } from "./status.js";
import { BarTable, ROWS } from "./table.js";
import { TIMEFRAMES, TimeframeButtons, widthOf } from "./timeframes.js";
import { ViewDialog } from "./view.js";
import { zoneLabel } from "./zone.js";

const RETRY_MS = 3_000;

const chosen = { timeframe: "M1", zone: "UTC", ...preferences() };
if (!TIMEFRAMES.includes(chosen.timeframe)) chosen.timeframe = "M1";

const view = { barEnd: 0, pointed: null, digits: 5, isQuoted: true, now: undefined, span: null };
const reading = new Reading({
  begun: () => following.begun,
  onBusy: (isBusy) => { $("loading").hidden = !isBusy; },
  onFail: notice,
  onRead: showRead,
  onPage: (isPresent) => {
    redraw();
    if (isPresent) arrive();
  },
});

const chart = globalThis.LightweightCharts
  ? new Chart($("chart"), {
      onPast: () => reading.older(),
      onFuture: () => reading.newer(),
      onPoint: (bar, time) => {
        beside.cross(time);
        // What is being replaced is not told any more.
        view.pointed = reading.bars?.list.length ? bar : null;
        showLegend();
      },
      onPick: showProof,
      onStudies: showLegend,
      onView: (isAway) => {
        $("latest").hidden = !isAway && !reading.bars?.hasNewer;
        comparison.look(...chart.span);
        gaps.look(...chart.span);
      },
    })
  : null;
const pane = new PipelinePane({ onChoose: choose, onClose: () => showPane(false) });
const proof = new ProofPane({ onToggle: (isOpen) => { $("pane").hidden = isOpen || !chosen.pane; } });
const comparison = new Comparison({
  onChange: () => {
    chart?.overlays.showBroker(comparison.bars);
    showLegend();
  },
});
const gaps = new Gaps({
  onChange: (list) => {
    chart?.showGaps(list);
    showLegend();
  },
});
const dialog = new ViewDialog({
  ...chosen,
  onQuote: (isShown) => {
    chart?.lines.show(isShown);
    view.isQuoted = isShown;
    showLegend();
  },
  onSpread: (isShown) => chart?.overlays.showSpread(isShown),
  onBroker: compare,
  onScale: (name) => chart?.setScale(name),
  onStudies: (studies) => {
    chart?.chooseStudies(studies);
    showLegend();
  },
  onMeasure: () => chart?.measure.arm(),
  csvUrl: () => candlesUrl({ ...feed(), format: "csv" }, reading.bars?.list ?? []),
  picture: () => chart?.picture(titleOf(shownBar())),
  name: () => `${chosen.symbol} ${chosen.timeframe}`,
});
const alerts = new AlertDialog({
  // The first of two charts watches for both.
  isWatching: !isBeside,
  feed: () => {
    const { last, hasNewer } = reading.bars ?? {};
    return { ...feed(), digits: view.digits, now: last && !hasNewer ? last.close : view.now };
  },
  onPrices: (waiting) => chart?.lines.setAlerts(waiting),
});
const beside = new Beside({
  place: chosen.second
    ? { symbol: chosen.second, source: chosen["second-source"], timeframe: chosen["second-timeframe"], studies: chosen["second-studies"] }
    : null,
  first: () => ({ ...feed(), studies: dialog.studies }),
  onCross: (time) => {
    view.pointed = chart?.cross(time) ?? null;
    showLegend();
  },
});
const table = new BarTable();
const status = new StatusLine();
const timeframes = new TimeframeButtons({ onChoose: chooseTimeframe });
const following = new Following(chosen, {
  onLink: (link, refusal) => status.noteLink(link, refusal),
  onFeed: (told) => {
    status.noteTick(Date.parse(told.last_tick));
    takeDigits(told.digits);
    view.now = told.close;
  },
  onPipeline: (state) => {
    if (foot.takeDay(state.day)) showTimes();
    pane.show(state);
    status.notePipeline(state);
  },
});
const going = new GoingDialog({ onGo: goTo, onSpan: showSpan, first: () => firstOf(feed()).catch(() => null) });
new ResizeObserver(() => chart?.keepClear($("legend").offsetTop + $("legend").offsetHeight)).observe($("legend"));
const foot = new Foot({ chosen: chosen.zone, onChoose: showTimes });
const appearance = new Appearance({ ...chosen, onLanguage: showWords, onTheme: () => chart?.recolour() });
// The list that it opens with may be old; without an answer that stays.
const picker = new Picker({ onChoose: choose, onSearch: (text) => refreshSymbols(text).catch(() => {}) });

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
  view.now = undefined;
  if (lastTick) status.noteTick(Date.parse(lastTick));
  clear();
  start();
}

function chooseTimeframe(timeframe) {
  if (timeframe === chosen.timeframe) return;
  chosen.timeframe = timeframe;
  // Who looks at the past goes on to look at it.
  if (chosen.at !== null) chosen.at = (reading.bars?.list.length ? chart?.middle : null) ?? chosen.at;
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

/** Show so many milliseconds of the newest bars of a timeframe. */
function showSpan(timeframe, spanMs) {
  goTo(null);
  view.span = spanMs;
  if (timeframe !== chosen.timeframe) chooseTimeframe(timeframe);
  else if (reading.bars?.holds(null)) takeSpan();
}

/** The newest bars, those of the span that was asked for or as many as at the first zoom. */
function takeSpan() {
  chart?.reset(view.span);
  view.span = null;
}

/** Show the chosen moment, and read what is there if that is not loaded. */
function showMoment() {
  const { at } = chosen;
  if (!reading.bars?.holds(at)) read();
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
  if (isElsewhere) {
    picker.choose(chosen);
    timeframes.show(chosen.timeframe);
    restart();
  } else showMoment();
}

async function refreshSymbols(search = "") {
  const { symbols, isWhole } = await listSymbols(search);
  picker.list(symbols, { search, isWhole });
  return { symbols, isWhole };
}

/** Choose the feed of a link, else the remembered symbol, or of those that are listed the one with the newest candle. */
async function begin() {
  // Without a source the list tells it; with one, nothing has to be waited for: a feed that there is not yet is said
  // to be missing, or found, but never replaced.
  const address = addressed();
  const isLink = Boolean(address.symbol && address.source);
  if (isLink) choose(chosen);
  let told;
  let first;
  try {
    ({ told, first } = await feedOf(chosen, await refreshSymbols(), Boolean(address.symbol)));
  } catch (error) {
    if (isLink) return;
    notice(error);
    setTimeout(begin, RETRY_MS);
    return;
  }
  if (isLink) {
    if (told) status.noteTick(Date.parse(told.last_tick));
    return;
  }
  if (first) {
    choose(first);
    return;
  }
  picker.choose(null);
  notice(null, t("noSymbols"), t("noSymbolsHint"));
  following.connect({ candle: choose, resync: begin });
}

// --- the bars ---------------------------------------------------------------------------------------------------

function start() {
  alerts.render();
  document.title = `${chosen.symbol} · Tickpipe`;
  following.connect({
    candle: takeMinute,
    stale: ({ ts, bar }) => reading.again(Date.parse(bar ?? ts)),
    resync: () => reading.again(reading.bars.list[0]?.time),
  });
  view.barEnd = 0;
  read();
}

/** Read the bars, those of the chosen moment or the newest. */
function read() {
  view.pointed = null;
  reading.begin(chosen);
}

/** Take what is drawn away. */
function clear() {
  reading.end();
  view.pointed = null;
  proof.close();
  gaps.begin(null);
  notice();
  Object.assign($("chart").dataset, { bars: 0, first: "" });
  chart?.draw([], view.digits);
  dialog.offer(false);
  chart?.lines.take(null);
  showBars();
}

/** What was read is shown; the first time, at the newest bar or at the moment that was gone to. */
function showRead(isFirst) {
  const { bars } = reading;
  if (!chosen.source && bars.list.length) {
    chosen.source = bars.last.source;
    picker.choose(chosen);
    remember({ symbol: chosen.symbol, source: chosen.source });
  }
  if (bars.list.length) notice();
  else notice(null, t(chosen.source ? "noSuchFeed" : "noSuchSymbol", chosen), t("noSuchSymbolHint"));
  redraw();
  if (!isFirst) return;
  if (chosen.at === null) takeSpan();
  else chart?.goTo(chosen.at);
  compare(dialog.isComparing);
  gaps.begin(feed());
  if (chart) gaps.look(...chart.span);
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
  chart?.lines.take(minute);
  if (minute.bar_end && Date.parse(minute.bar) <= Date.now()) view.barEnd = Math.max(view.barEnd, Date.parse(minute.bar_end));
  const wasEmpty = !reading.bars.list.length;
  const result = reading.bars.take(minute);
  if (result === "stale") reading.again(minute.bar === null ? reading.bars.list.at(-2)?.time : Date.parse(minute.bar));
  else if (result === "reordered" || (result && (wasEmpty || (reading.bars.digits === null && digitsOf([result]) > view.digits)))) redraw();
  else if (result) {
    $("chart").dataset.bars = reading.bars.list.length;
    chart?.update(result);
    if (chart && result === reading.bars.last) comparison.look(...chart.span, { isNew: true });
    showBarsSoon();
  } else showLegend();
  status.show();
}

/** The sender has said, or changed, the decimals of its prices. */
function takeDigits(digits) {
  if (!reading.bars || digits === null || digits === reading.bars.digits) return;
  reading.bars.digits = digits;
  if (reading.bars.list.length) redraw();
}

/** The reader has come to the present: what moves is read as well, and the moment that was gone to is left. */
function arrive() {
  chosen.at = null;
  remember({ at: null });
  reading.again(reading.bars.last.time, 0);
}

function redraw() {
  const { list, hasNewer, hasOlder } = reading.bars;
  Object.assign($("chart").dataset, { bars: list.length, first: list.length ? new Date(list[0].time).toISOString() : "" });
  if (list.length) notice();
  dialog.offer(list.length > 0);
  view.digits = reading.bars.digits ?? digitsOf(list);
  chart?.draw(list, view.digits, { widthMs: widthOf(chosen.timeframe), isPresent: !hasNewer, isWhole: !hasOlder });
  showBars();
}

// --- what is shown ----------------------------------------------------------------------------------------------

/** The bar that the legend tells of while none is pointed at: the newest, or that of the moment that was gone to. */
function shownBar() {
  return chosen.at === null ? reading.bars?.last : reading.bars?.at(chosen.at);
}

function showLegend() {
  const bar = view.pointed ?? shownBar();
  const isBar = chart && bar && !bar.gap;
  drawLegend(chosen, bar, view.digits, {
    isOpen: isBar && chart.isOpen(bar), isLate: isBar && chart.overlays.isLate(bar.time), comparison: comparison.bars && comparison,
    studies: isBar ? chart.studiesAt(bar) : [], known: bar?.gap && gaps.at(bar.gap[0])?.state,
    quote: isBar && view.isQuoted && bar === reading.bars.last && !reading.bars.hasNewer ? chart.lines.quote : null,
  });
}

/** What a picture of the chart says of it. */
function titleOf({ time }) {
  return `${chosen.symbol} · ${chosen.timeframe} · ${chosen.source} · ${dateTime(time)} ${zoneLabel(time)}`;
}

/** Show the proof of a bar: of the one that is pointed at, else of the one that the legend tells of. */
function showProof(bar = view.pointed?.gap ? null : view.pointed ?? shownBar()) {
  if (bar) proof.open(feed(), bar, view.digits);
}

/** Lay the broker's bars over ours, or not. */
function compare(isComparing) {
  comparison.begin(isComparing && chosen.source ? feed() : null);
  if (chart) comparison.look(...chart.span);
}

function feed() {
  return { symbol: chosen.symbol, source: chosen.source, timeframe: chosen.timeframe };
}

/** What is told of the bars beside the chart; of the past, the table has those around the moment that was gone to. */
function showBars() {
  const list = reading.bars?.list ?? [];
  const end = reading.bars?.hasNewer ? list.indexOf(shownBar()) + ROWS / 2 : list.length;
  table.show(list.slice(Math.max(0, end - ROWS), end), view.digits);
  showLegend();
}

const showBarsSoon = oncePerFrame(showBars);

/** Show times on another clock. */
function showTimes() {
  chart?.relabel(t("locale"));
  showBars();
  status.show();
  pane.render();
  proof.render();
  alerts.render();
  foot.tick(view.barEnd);
}

/** Say everything in another language. */
function showWords() {
  foot.label();
  beside.label();
  showTimes();
}

/** Show the pipeline, or not; it stands where the proof does. */
function showPane(isOpen) {
  if (isOpen) proof.close();
  chosen.pane = isOpen;
  pane.toggle(isOpen);
}

// --- what starts it ---------------------------------------------------------------------------------------------
addEventListener("popstate", walk);
// The second of two charts looks as the first does.
if (isBeside) addEventListener("storage", () => {
  const { language, theme, zone } = preferences();
  appearance.take({ language, theme });
  if (foot.takeZone(zone)) showTimes();
});

listen({ alerts, appearance, beside, chart, chooseTimeframe, dialog, goTo, going, picker, proof, showPane, showProof, table });

timeframes.show(chosen.timeframe);
appearance.show();
dialog.show();
showPane(!isBeside && (chosen.pane ?? false));
setInterval(() => {
  foot.tick(view.barEnd);
  status.show();
}, 1000);
if (!chart) notice();
begin();
