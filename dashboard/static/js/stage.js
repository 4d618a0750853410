// The stage: the bars of what is chosen, as they are read and as they move, on the chart, in the legend and in the table.

import { candlesUrl } from "./api.js";
import { Chart } from "./chart.js";
import { Comparison } from "./comparison.js";
import { $, oncePerFrame } from "./dom.js";
import { dateTime, digitsOf } from "./format.js";
import { Gaps } from "./gaps.js";
import { t } from "./i18n.js";
import { drawLegend } from "./legend.js";
import { notice } from "./notice.js";
import { Reading } from "./reading.js";
import { BarTable, ROWS } from "./table.js";
import { widthOf } from "./timeframes.js";
import { zoneLabel } from "./zone.js";

export class Stage {
  /** Null without the chart library. */
  chart;
  table = new BarTable();
  #chosen;
  #handlers;
  #reading;
  #comparison;
  #gaps;
  #isComparing = false;
  #isQuoted = true;
  /** The bar or the gap that is pointed at, or null. */
  #pointed = null;
  #digits = 5;
  /** The price that the pipeline tells of the feed. */
  #close;
  /** Milliseconds that the first zoom shows, or null. */
  #spanMs = null;

  /**
   * `chosen` (symbol, source, timeframe and at) may change: its source is found with the first bars. `begun()` is awaited
   * before anything is read. Called are `onSource(source)` when that is so, `onPresent()` when the reader has come to the
   * newest bar, `onBars(hasAny)` when bars are drawn, `onCross(time)` with the moment that is pointed at, or null, and
   * `onPick(bar)` with the bar that is clicked.
   */
  constructor(chosen, handlers) {
    [this.#chosen, this.#handlers] = [chosen, handlers];
    this.#reading = new Reading({
      begun: handlers.begun,
      onBusy: (isBusy) => { $("loading").hidden = !isBusy; },
      onFail: notice,
      onRead: (isFirst) => this.#showRead(isFirst),
      onPage: (isPresent) => {
        this.#redraw();
        if (isPresent) this.#arrive();
      },
    });
    this.chart = globalThis.LightweightCharts ? this.#makeChart() : null;
    this.#comparison = new Comparison({
      onChange: () => {
        this.chart?.overlays.showBroker(this.#comparison.bars);
        this.showLegend();
      },
    });
    this.#gaps = new Gaps({
      onChange: (list) => {
        this.chart?.showGaps(list);
        this.showLegend();
      },
    });
    new ResizeObserver(() => this.chart?.keepClear($("legend").offsetTop + $("legend").offsetHeight)).observe($("legend"));
  }

  #makeChart() {
    const chart = new Chart($("chart"), {
      onPast: () => this.#reading.older(),
      onFuture: () => this.#reading.newer(),
      onPoint: (bar, time) => {
        this.#handlers.onCross(time);
        // What is being replaced is not told any more.
        this.#pointed = this.bars?.list.length ? bar : null;
        this.showLegend();
      },
      onPick: this.#handlers.onPick,
      onStudies: () => this.showLegend(),
      onView: (isAway) => {
        $("latest").hidden = !isAway && !this.bars?.hasNewer;
        this.#comparison.look(...chart.span);
        this.#gaps.look(...chart.span);
      },
    });
    return chart;
  }

  /** What is read: null while nothing is chosen. */
  get bars() {
    return this.#reading.bars;
  }

  get digits() {
    return this.#digits;
  }

  get feed() {
    const { symbol, source, timeframe } = this.#chosen;
    return { symbol, source, timeframe };
  }

  /** The price of now, as far as it is known. */
  get now() {
    const { last, hasNewer } = this.bars ?? {};
    return last && !hasNewer ? last.close : this.#close;
  }

  /** Where what is loaded can be had as a file, or null. */
  get csvUrl() {
    return candlesUrl({ ...this.feed, format: "csv" }, this.bars?.list ?? []);
  }

  /** The bar that is pointed at, else the one that the legend tells of; undefined where there is none. */
  get told() {
    return this.#pointed?.gap ? undefined : this.#pointed ?? this.#shown;
  }

  /** The bar that the legend tells of while none is pointed at: the newest, or that of the moment that was gone to. */
  get #shown() {
    const { at } = this.#chosen;
    return at === null ? this.bars?.last : this.bars?.at(at);
  }

  /** What is on the screen, as a canvas. */
  picture() {
    const { symbol, source, timeframe } = this.#chosen;
    const { time } = this.#shown;
    return this.chart?.picture(`${symbol} · ${timeframe} · ${source} · ${dateTime(time)} ${zoneLabel(time)}`);
  }

  // --- what is read -----------------------------------------------------------------------------------------------

  /** Read the bars, those of the chosen moment or the newest. */
  read() {
    this.#pointed = null;
    this.#reading.begin(this.#chosen);
  }

  /** Read the bars again from the opening of one on; without one, from the newest that is known. */
  again(from) {
    this.#reading.again(from);
  }

  /** Take what is drawn away. */
  clear() {
    this.#reading.end();
    this.#pointed = null;
    this.#gaps.begin(null);
    notice();
    this.#tell([]);
    this.chart?.draw([], this.#digits);
    this.chart?.lines.take(null);
    this.showBars();
  }

  /** Another feed is shown, of which no price is known yet. */
  forget() {
    this.#close = undefined;
  }

  /** Show the chosen moment, and read what is there if that is not loaded. */
  showMoment() {
    const { at } = this.#chosen;
    if (!this.bars?.holds(at)) this.read();
    else if (at === null) this.chart?.toNewest();
    else this.chart?.goTo(at);
    this.showBars();
  }

  /** Show so many milliseconds of the newest bars, which may have to be read first. */
  showSpan(spanMs) {
    this.#spanMs = spanMs;
    if (this.bars?.holds(null)) this.#takeSpan();
  }

  /** The newest bars, those of the span that was asked for or as many as at the first zoom. */
  #takeSpan() {
    this.chart?.reset(this.#spanMs);
    this.#spanMs = null;
  }

  /** What was read is shown; the first time, at the newest bar or at the moment that was gone to. */
  #showRead(isFirst) {
    const { list, last } = this.bars;
    if (!this.#chosen.source && list.length) this.#handlers.onSource(last.source);
    const { source, at } = this.#chosen;
    if (!list.length) notice(null, t(source ? "noSuchFeed" : "noSuchSymbol", this.#chosen), t("noSuchSymbolHint"));
    this.#redraw();
    if (!isFirst) return;
    if (at === null) this.#takeSpan();
    else this.chart?.goTo(at);
    this.compare(this.#isComparing);
    this.#gaps.begin(this.feed);
    if (this.chart) this.#gaps.look(...this.chart.span);
  }

  /** The reader has come to the present: what moves is read as well, and the moment that was gone to is left. */
  #arrive() {
    this.#handlers.onPresent();
    this.#reading.again(this.bars.last.time, 0);
  }

  /** Take a live minute of what is chosen. */
  take(minute) {
    const { bars, chart } = this;
    chart?.lines.take(minute);
    const wasEmpty = !bars.list.length;
    const result = bars.take(minute);
    if (result === "stale") this.again(minute.bar === null ? bars.list.at(-2)?.time : Date.parse(minute.bar));
    else if (result === "reordered" || (result && (wasEmpty || (bars.digits === null && digitsOf([result]) > this.#digits)))) this.#redraw();
    else if (result) {
      $("chart").dataset.bars = bars.list.length;
      chart?.update(result);
      if (chart && result === bars.last) this.#comparison.look(...chart.span, { isNew: true });
      this.#showBarsSoon();
    } else this.showLegend();
  }

  /** The pipeline tells the price of the feed, and its decimals: the sender has said, or changed, those. */
  takeFeed({ close, digits }) {
    this.#close = close;
    if (!this.bars || digits === null || digits === this.bars.digits) return;
    this.bars.digits = digits;
    if (this.bars.list.length) this.#redraw();
  }

  // --- what is shown ----------------------------------------------------------------------------------------------

  #redraw() {
    const { list, digits, hasNewer, hasOlder } = this.bars;
    if (list.length) notice();
    this.#tell(list);
    this.#digits = digits ?? digitsOf(list);
    this.chart?.draw(list, this.#digits, { widthMs: widthOf(this.#chosen.timeframe), isPresent: !hasNewer, isWhole: !hasOlder });
    this.showBars();
  }

  /** Tell how many bars there are, and when the first of them opens. */
  #tell(list) {
    Object.assign($("chart").dataset, { bars: list.length, first: list.length ? new Date(list[0].time).toISOString() : "" });
    this.#handlers.onBars(list.length > 0);
  }

  /** What is told of the bars beside the chart; of the past, the table has those around the moment that was gone to. */
  showBars() {
    const list = this.bars?.list ?? [];
    const end = this.bars?.hasNewer ? list.indexOf(this.#shown) + ROWS / 2 : list.length;
    this.table.show(list.slice(Math.max(0, end - ROWS), end), this.#digits);
    this.showLegend();
  }

  #showBarsSoon = oncePerFrame(() => this.showBars());

  showLegend() {
    const [chart, comparison] = [this.chart, this.#comparison];
    const bar = this.#pointed ?? this.#shown;
    const isBar = chart && bar && !bar.gap;
    drawLegend(this.#chosen, bar, this.#digits, {
      isOpen: isBar && chart.isOpen(bar), isLate: isBar && chart.overlays.isLate(bar.time), comparison: comparison.bars && comparison,
      studies: isBar ? chart.studiesAt(bar) : [], known: bar?.gap && this.#gaps.at(bar.gap[0])?.state,
      quote: isBar && this.#isQuoted && bar === this.bars.last && !this.bars.hasNewer ? chart.lines.quote : null,
    });
  }

  /** Say it in another language, or show times on another clock. */
  relabel() {
    this.chart?.relabel(t("locale"));
    this.showBars();
  }

  /** A moment is pointed at elsewhere, or none. */
  point(time) {
    this.#pointed = this.chart?.cross(time) ?? null;
    this.showLegend();
  }

  /** Show bid and ask of now, or not. */
  showQuote(isShown) {
    this.chart?.lines.show(isShown);
    this.#isQuoted = isShown;
    this.showLegend();
  }

  /** Show indicators; see `Studies.choose`. */
  chooseStudies(studies) {
    this.chart?.chooseStudies(studies);
    this.showLegend();
  }

  /** Lay the broker's bars over ours, or not. */
  compare(isComparing) {
    this.#isComparing = isComparing;
    this.#comparison.begin(isComparing && this.#chosen.source ? this.feed : null);
    if (this.chart) this.#comparison.look(...this.chart.span);
  }
}
