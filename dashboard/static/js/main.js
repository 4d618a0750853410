// The page: what is chosen, and what happens when.

import { firstOf } from "./api.js";
import { AlertDialog } from "./alert-dialog.js";
import { Appearance } from "./appearance.js";
import { Beside } from "./beside.js";
import { $ } from "./dom.js";
import { Following } from "./following.js";
import { Foot } from "./foot.js";
import { GoingDialog } from "./going.js";
import { t } from "./i18n.js";
import { listen } from "./keys.js";
import { notice } from "./notice.js";
import { Picker } from "./picker.js";
import { PipelinePane } from "./pipeline.js";
import { addressed, isBeside, preferences, remember } from "./preferences.js";
import { ProofPane } from "./proof.js";
import { Stage } from "./stage.js";
import { StatusLine } from "./status.js";
import { TIMEFRAMES, TimeframeButtons } from "./timeframes.js";
import { ViewDialog } from "./view.js";

const RETRY_MS = 3_000;

const chosen = { timeframe: "M1", zone: "UTC", ...preferences() };
if (!TIMEFRAMES.includes(chosen.timeframe)) chosen.timeframe = "M1";
/** When the bar that moves closes, or 0. */
let barEnd = 0;

const stage = new Stage(chosen, {
  begun: () => following.begun,
  onSource: (source) => {
    chosen.source = source;
    picker.choose(chosen);
    remember({ symbol: chosen.symbol, source });
  },
  onPresent: () => {
    chosen.at = null;
    remember({ at: null });
  },
  onBars: (hasAny) => dialog.offer(hasAny),
  onCross: (time) => beside.cross(time),
  onPick: showProof,
});
const { chart, table } = stage;
const pane = new PipelinePane({ onChoose: choose, onClose: () => showPane(false) });
const proof = new ProofPane({ onToggle: (isOpen) => { $("pane").hidden = isOpen || !chosen.pane; } });
const dialog = new ViewDialog({
  ...chosen,
  onQuote: (isShown) => stage.showQuote(isShown),
  onSpread: (isShown) => chart?.overlays.showSpread(isShown),
  onBroker: (isComparing) => stage.compare(isComparing),
  onScale: (name) => chart?.setScale(name),
  onStudies: (studies) => stage.chooseStudies(studies),
  onMeasure: () => chart?.measure.arm(),
  csvUrl: () => stage.csvUrl,
  picture: () => stage.picture(),
  name: () => `${chosen.symbol} ${chosen.timeframe}`,
});
const alerts = new AlertDialog({
  // The first of two charts watches for both.
  isWatching: !isBeside,
  feed: () => ({ ...stage.feed, digits: stage.digits, now: stage.now }),
  onPrices: (waiting) => chart?.lines.setAlerts(waiting),
});
const beside = new Beside({
  place: chosen.second
    ? { symbol: chosen.second, source: chosen["second-source"], timeframe: chosen["second-timeframe"], studies: chosen["second-studies"] }
    : null,
  first: () => ({ ...stage.feed, studies: dialog.studies }),
  onCross: (time) => stage.point(time),
});
const status = new StatusLine();
const timeframes = new TimeframeButtons({ onChoose: chooseTimeframe });
const following = new Following(chosen, {
  onLink: (link, refusal) => status.noteLink(link, refusal),
  onFeed: (told) => {
    status.noteTick(Date.parse(told.last_tick));
    stage.takeFeed(told);
  },
  onPipeline: (state) => {
    if (foot.takeDay(state.day)) showTimes();
    pane.show(state);
    status.notePipeline(state);
  },
});
const going = new GoingDialog({ onGo: goTo, onSpan: showSpan, first: () => firstOf(stage.feed).catch(() => null) });
const foot = new Foot({ chosen: chosen.zone, onChoose: showTimes });
const appearance = new Appearance({ ...chosen, onLanguage: showWords, onTheme: () => chart?.recolour() });
const picker = new Picker({ onChoose: choose });

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
  stage.forget();
  if (lastTick) status.noteTick(Date.parse(lastTick));
  start();
}

function chooseTimeframe(timeframe) {
  if (timeframe === chosen.timeframe) return;
  chosen.timeframe = timeframe;
  // Who looks at the past goes on to look at it.
  if (chosen.at !== null) chosen.at = (stage.bars?.list.length ? chart?.middle : null) ?? chosen.at;
  remember({ symbol: chosen.symbol, source: chosen.source, timeframe, at: chosen.at });
  timeframes.show(timeframe);
  if (chosen.symbol) start();
}

/** Go to a moment: 0 is the start of history, null the newest bar. */
function goTo(at) {
  if (!chosen.symbol) return;
  if (at !== chosen.at) remember({ at }, { isStep: true });
  chosen.at = at;
  stage.showMoment();
}

/** Show so many milliseconds of the newest bars of a timeframe. */
function showSpan(timeframe, spanMs) {
  goTo(null);
  if (timeframe !== chosen.timeframe) chooseTimeframe(timeframe);
  stage.showSpan(spanMs);
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
  } else stage.showMoment();
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
    ({ told, first } = await picker.find(chosen, Boolean(address.symbol)));
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

/** Follow what is chosen, and read its bars in the place of what was shown. */
function start() {
  proof.close();
  stage.clear();
  alerts.render();
  document.title = `${chosen.symbol} · Tickpipe`;
  following.connect({
    candle: takeMinute,
    stale: ({ ts, bar }) => stage.again(Date.parse(bar ?? ts)),
    resync: () => stage.again(stage.bars.list[0]?.time),
  });
  barEnd = 0;
  stage.read();
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
  if (minute.bar_end && Date.parse(minute.bar) <= Date.now()) barEnd = Math.max(barEnd, Date.parse(minute.bar_end));
  stage.take(minute);
  status.show();
}

// --- what is shown ----------------------------------------------------------------------------------------------

/** Show the proof of a bar: of the one that is pointed at, else of the one that the legend tells of. */
function showProof(bar = stage.told) {
  if (bar) proof.open(stage.feed, bar, stage.digits);
}

/** Show times on another clock. */
function showTimes() {
  stage.relabel();
  status.show();
  pane.render();
  proof.render();
  alerts.render();
  foot.tick(barEnd);
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
  foot.tick(barEnd);
  status.show();
}, 1000);
if (!chart) notice();
begin();
