// The drawing: candles and volume with lightweight-charts, in the colours of the page.

import { oncePerFrame } from "./dom.js";
import { dateTime, price, tickMark } from "./format.js";
import { GapBand } from "./gap-band.js";
import { Measure } from "./measure.js";
import { Overlays } from "./overlays.js";
import { PriceLines } from "./price-lines.js";
import { SplitSeries } from "./split-series.js";
import { Studies } from "./studies.js";
import { Timeline, wallClock } from "./timeline.js";

/** Bars on the screen at first; the library's default is as many as fit at 6 pixels. */
const FIRST_BARS = 140;
/** Bars beside the screen at which more is fetched. */
const NEAR_THE_END = 80;

/** Shares of the height above and below the candles, and the most that the legend may have of it. */
const MARGINS = { top: 0.1, bottom: 0.22 };
const MOST_CLEAR = 0.4;

const MINUTE_MS = 60_000;

const COLOURS = ["grid", "muted", "cross", "label", "line", "quote", "up", "down", "up-soft", "down-soft", "accent", "warn", "separator",
  ...[1, 2, 3, 4, 5, 6].map((number) => `study-${number}`)];

export class Chart {
  #library = globalThis.LightweightCharts;
  #element;
  #chart;
  #candles;
  #volume;
  #digits = 0;
  #isPresent = true;
  #isDrawing = false;
  /** The range that is asked for, which the library takes with its next frame. */
  #target = null;
  #onRange;
  /** Whether the reader has a zoom of their own already. */
  #isZoomed = false;
  #timeline = new Timeline();
  #widthMs = null;
  #overlays;
  #lines;
  #studies;
  #measure;
  #paint = {};
  #gaps;
  /** What the legend has covered at this width (pixels). */
  #clear = { height: 0, width: 0 };
  /** Bars that changed since the last frame, by time. */
  #changed = new Map();

  /**
   * `onPast` and `onFuture` are called when the reader nears the first or the last bar, `onPoint` with what is under the
   * cursor, a bar or a gap, and the moment there, or with null, `onPick` with the bar that is clicked, and `onStudies` when
   * indicators have other values than they had when their bars changed.
   */
  constructor(element, { onPast, onFuture, onPoint, onPick, onView, onStudies }) {
    this.#element = element;
    const { createChartEx, CandlestickSeries, HistogramSeries, CrosshairMode } = this.#library;
    this.#chart = createChartEx(element, wallClock(this.#library), {
      autoSize: true,
      // Its logo would bring a style element, which the CSP forbids; the link stands in the footer.
      layout: { attributionLogo: false, background: { color: "transparent" }, fontSize: 12 },
      crosshair: { mode: CrosshairMode.Normal },
      rightPriceScale: { borderVisible: false, scaleMargins: MARGINS },
      timeScale: { borderVisible: false, timeVisible: true, rightOffset: 6, minBarSpacing: 0.6, tickMarkFormatter: tickMark },
      localization: { timeFormatter: (time) => dateTime(time * 1000) },
    });
    this.#volume = new SplitSeries(this.#library, this.#chart, HistogramSeries, {
      priceScaleId: "volume", priceFormat: { type: "volume" }, lastValueVisible: false, priceLineVisible: false,
    });
    this.#chart.priceScale("volume").applyOptions({ scaleMargins: { top: 0.86, bottom: 0 } });
    this.#candles = new SplitSeries(this.#library, this.#chart, CandlestickSeries, { priceLineStyle: 1 });
    const { settled } = this.#candles;
    this.#overlays = new Overlays(this.#library, this.#chart, this.#candles);
    this.#lines = new PriceLines(this.#candles);
    this.#studies = new Studies(this.#library, this.#chart, onStudies);
    this.#measure = new Measure(element, this.#chart, settled, { place: (x) => this.#placeAt(x), digits: () => this.#digits });
    this.#gaps = new GapBand(this.#chart, settled, () => this.#timeline);
    this.recolour();
    let [isCrossed, isLeaving] = [false, false];
    // A touch that takes the crosshair away does nothing else.
    element.addEventListener("pointerdown", ({ pointerType }) => { isLeaving = pointerType === "touch" && isCrossed; }, true);
    this.#chart.subscribeCrosshairMove(({ time }) => {
      isCrossed = time !== undefined;
      if (time === undefined) onPoint(null, null);
      else onPoint(this.#timeline.at(time * 1000), time * 1000);
    });
    this.#chart.subscribeClick((point) => {
      const bar = point.time === undefined ? null : this.#timeline.at(point.time * 1000);
      if (bar && !bar.gap && !isLeaving) onPick(bar);
    });
    this.#onRange = ({ from, to }) => {
      onView(to < this.#timeline.length - 0.5);
      if (from < NEAR_THE_END) onPast();
      if (to > this.#timeline.length - NEAR_THE_END) onFuture();
    };
    this.#chart.timeScale().subscribeVisibleLogicalRangeChange((range) => {
      // While bars are set, and until the library has taken the range that is asked for, it is not what it will be.
      if (range && !this.#target && !this.#isDrawing) this.#onRange(range);
    });
  }

  /** Take the colours of the page's theme. */
  recolour() {
    const style = getComputedStyle(document.documentElement);
    const paint = Object.fromEntries(COLOURS.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    this.#paint = paint;
    this.#chart.applyOptions({
      layout: {
        textColor: paint.muted, fontFamily: getComputedStyle(document.body).fontFamily,
        panes: { separatorColor: paint.line, separatorHoverColor: paint.grid },
      },
      grid: { vertLines: { color: paint.grid }, horzLines: { color: paint.grid } },
      crosshair: {
        vertLine: { color: paint.cross, labelBackgroundColor: paint.label },
        horzLine: { color: paint.cross, labelBackgroundColor: paint.label },
      },
    });
    this.#candles.applyOptions({
      upColor: paint.up, downColor: paint.down, wickUpColor: paint.up, wickDownColor: paint.down,
      borderUpColor: paint.up, borderDownColor: paint.down,
    });
    this.#setData();
    this.#overlays.recolour(paint);
    this.#lines.recolour(paint);
    this.#studies.recolour(paint);
    this.#measure.recolour(paint);
    this.#gaps.recolour(paint);
  }

  /**
   * Draw all bars, `widthMs` apart where none is missing; what the reader looks at stays where it is. `isPresent`: the
   * last of them is the newest there is, and who looks at it goes on to look at the newest. `isWhole`: the first
   * of them is the oldest there is.
   */
  draw(bars, digits, { widthMs = null, isPresent = true, isWhole = false } = {}) {
    this.#changed.clear();
    const shown = this.#shown;
    const follows = this.#isPresent && (!shown || shown.to >= this.#timeline.length - 0.5);
    const place = shown && Math.max(0, Math.ceil(shown.from));
    const anchor = follows ? null : this.#timeline.timeAt(place);
    [this.#timeline, this.#isPresent, this.#widthMs] = [new Timeline(bars, widthMs), isPresent, widthMs];
    if (digits !== this.#digits) {
      this.#digits = digits;
      this.#formatPrices();
    }
    this.#lines.setPresent(isPresent);
    if (!bars.length) this.#measure.clear();
    this.#setData();
    this.#overlays.draw(bars, widthMs);
    this.#studies.draw(bars, widthMs, isWhole);
    if (anchor !== null && this.#timeline.length) {
      const by = this.#timeline.indexOf(anchor) - place;
      this.#show(shown.from + by, shown.to + by);
    }
  }

  /** Draw one bar, the newest or one before it, with the next frame: what changes in between would not be seen. */
  update(bar) {
    this.#changed.set(bar.time, bar);
    this.#updateSoon();
  }

  #updateSoon = oncePerFrame(() => {
    const changed = [...this.#changed.values()].sort((a, b) => a.time - b.time);
    this.#changed.clear();
    for (const bar of changed) this.#update(bar);
  });

  #update(bar) {
    const before = this.#timeline.points.at(-1);
    const isNew = !this.#timeline.replace(bar);
    const isOld = !isNew && bar.time < before.time;
    if (isNew) {
      for (const point of this.#timeline.append(bar)) this.#put(point, false);
      // It moves no more, and was drawn as if it did.
      if (before?.closed === false) this.#put(before, true);
    } else this.#put(bar, isOld);
    this.#overlays.update(bar, { isNew, isOld, widthMs: this.#widthMs });
    this.#studies.update(bar, { isNew, isOld });
  }

  #put(point, isOld) {
    this.#candles.update(this.#candle(point), isOld);
    if (point.open !== undefined) this.#volume.update(this.#volumeOf(point), isOld);
  }

  /** Lines at bid and ask of the newest tick, and at prices of alerts. */
  get lines() {
    return this.#lines;
  }

  /** The spread, the broker's bars, and which bars are late. */
  get overlays() {
    return this.#overlays;
  }

  /** Show indicators; see `Studies.choose`. */
  chooseStudies(text) {
    this.#studies.choose(text);
  }

  /** The indicators at a bar; see `Studies.at`. */
  studiesAt(bar) {
    return this.#studies.at(bar.time, this.#digits);
  }

  /** Mark what is known of gaps; see `GapBand.show`. */
  showGaps(gaps) {
    this.#gaps.show(gaps);
  }

  /** Prices as they are, by their logarithm, or in percent of the first on the screen: normal, log or percent. */
  setScale(name) {
    const { PriceScaleMode } = this.#library;
    const mode = { log: PriceScaleMode.Logarithmic, percent: PriceScaleMode.Percentage }[name] ?? PriceScaleMode.Normal;
    this.#chart.priceScale("right").applyOptions({ mode });
    this.#studies.setPercent(name === "percent");
    this.#candles.split(name !== "percent");
    this.#setData();
  }

  /** Show the crosshair at a moment that is pointed at elsewhere, or nowhere; returns the bar there, or null. */
  cross(time) {
    const bar = time === null ? null : this.#timeline.barOf(time);
    const x = bar && this.#chart.timeScale().timeToCoordinate(bar.time / 1000);
    if (x === null || x < 0 || x > this.#element.clientWidth) {
      this.#chart.clearCrosshairPosition();
      return null;
    }
    this.#chart.setCrosshairPosition(bar.close, bar.time / 1000, this.#candles.settled);
    return bar;
  }

  /** The tool that measures between two points. */
  get measure() {
    return this.#measure;
  }

  /** What is on the screen, as a canvas, with a line of text where the page has its legend. */
  picture(title) {
    const drawn = this.#chart.takeScreenshot();
    const picture = document.createElement("canvas");
    [picture.width, picture.height] = [drawn.width, drawn.height];
    const style = getComputedStyle(document.documentElement);
    const ratio = drawn.width / this.#element.clientWidth;
    const pen = picture.getContext("2d");
    pen.fillStyle = style.getPropertyValue("--surface");
    pen.fillRect(0, 0, drawn.width, drawn.height);
    pen.drawImage(drawn, 0, 0);
    pen.fillStyle = style.getPropertyValue("--text");
    pen.font = `600 ${Math.round(14 * ratio)}px ${getComputedStyle(document.body).fontFamily}`;
    pen.fillText(title, 14 * ratio, 26 * ratio);
    return picture;
  }

  /** Whether a bar still moves: one longer than a minute is told to be over only when it is read again. */
  isOpen(bar) {
    return bar.closed === false && (this.#widthMs === MINUTE_MS || bar.time === this.#timeline.points.at(-1)?.time);
  }

  /** The times of the first and the last bar on the screen, or nulls. */
  get span() {
    const shown = this.#shown;
    const last = this.#timeline.length - 1;
    if (!shown || last < 0) return [null, null];
    const at = (index) => this.#timeline.timeAt(Math.max(0, Math.min(last, Math.round(index))));
    return [at(shown.from), at(shown.to)];
  }

  /** The newest bars: those of so many milliseconds, or as many as at the first zoom. */
  reset(spanMs = null) {
    const bars = this.#firstZoom();
    const newest = this.#timeline.timeAt(this.#timeline.length - 1);
    const from = spanMs === null || newest === null ? this.#timeline.length - bars : this.#timeline.indexOf(newest - spanMs);
    this.#show(from, this.#timeline.length + 5);
  }

  /**
   * Keep candles below the legend, which covers so many pixels. It says more of some bars than of others: prices move
   * down for the longest, and not up and down again with each.
   */
  keepClear(height) {
    const width = this.#element.clientWidth;
    if (width === this.#clear.width && height <= this.#clear.height) return;
    this.#clear = { height, width };
    const share = (height + 6) / (this.#chart.panes()[0].getHeight() || this.#element.clientHeight);
    const top = Math.max(MARGINS.top, Math.min(MOST_CLEAR, share));
    this.#chart.priceScale("right").applyOptions({ scaleMargins: { ...MARGINS, top } });
  }

  /** The bars around a moment, with that in the middle; at the first zoom where nothing was shown yet. */
  goTo(time) {
    const shown = this.#shown;
    const bars = this.#isZoomed && shown ? shown.to - shown.from : this.#firstZoom();
    // Prices of then may be far from those of now.
    this.#chart.priceScale("right").applyOptions({ autoScale: true });
    const index = this.#timeline.indexOf(time);
    const from = Math.max(-5, Math.min(index - bars / 2, this.#timeline.length + 5 - bars));
    this.#show(from, from + bars);
  }

  /** The first zoom, with prices to fit; returns its number of bars. */
  #firstZoom() {
    this.#isZoomed = true;
    this.#chart.priceScale("right").applyOptions({ autoScale: true });
    const fitting = Math.min(FIRST_BARS, Math.round(this.#element.clientWidth / 8));
    return Math.min(fitting, Math.max(60, this.#timeline.length + 2)) + 5;
  }

  /** Words and numbers of another language, or times on another clock. */
  relabel(locale) {
    this.#chart.applyOptions({ localization: { locale } });
    this.#formatPrices();
    // Which bars begin a day is found out when they are set, in the first of all series.
    const shown = this.#shown;
    this.#isDrawing = true;
    for (const series of this.#chart.panes().flatMap((pane) => pane.getSeries())) series.setData([]);
    this.#setData();
    this.#overlays.redraw(this.#widthMs);
    this.#lines.recolour(this.#paint);
    this.#studies.redraw(this.#widthMs);
    if (shown) this.#show(shown.from, shown.to);
  }

  toNewest() {
    const shown = this.#shown;
    const to = this.#timeline.length + 5;
    if (shown) this.#show(to - (shown.to - shown.from), to);
  }

  /** Move by a share of what is shown; negative into the past. */
  scroll(share) {
    const shown = this.#shown;
    if (!shown) return;
    const by = (shown.to - shown.from) * share;
    this.#show(shown.from + by, shown.to + by);
  }

  /** Show `factor` times as many bars; the newest shown stays. */
  zoom(factor) {
    const shown = this.#shown;
    if (shown) this.#show(shown.to - (shown.to - shown.from) * factor, shown.to);
  }

  /** Time of what is in the middle of the screen, or null. */
  get middle() {
    const shown = this.#shown;
    return shown && this.#timeline.timeAt(Math.round(Math.max(0, Math.min((shown.from + shown.to) / 2, this.#timeline.length - 1))));
  }

  /** Time of what is drawn at a coordinate, and how many bars are up to there; null where nothing is drawn. */
  #placeAt(x) {
    const index = this.#timeline.nearest(this.#chart.timeScale().coordinateToLogical(x));
    return index === null ? null : { time: this.#timeline.timeAt(index), number: this.#timeline.barsUpTo(index) };
  }

  get #shown() {
    return this.#target ?? this.#chart.timeScale().getVisibleLogicalRange();
  }

  #show(from, to) {
    const target = { from, to };
    this.#target = target;
    this.#chart.timeScale().setVisibleLogicalRange(target);
    requestAnimationFrame(() => requestAnimationFrame(() => {
      if (this.#target !== target) return;
      this.#target = null;
      if (this.#shown) this.#onRange(this.#shown);
    }));
  }

  #setData() {
    this.#isDrawing = true;
    this.#candles.setData(this.#timeline.points.map((point) => this.#candle(point)));
    this.#volume.setData(this.#timeline.points.filter(({ open }) => open !== undefined).map((bar) => this.#volumeOf(bar)));
    this.#isDrawing = false;
  }

  /** Prices as the reader's language has them; the library would write all of the chart's numbers alike. */
  #formatPrices() {
    const digits = this.#digits;
    this.#candles.applyOptions({ priceFormat: { type: "custom", formatter: (value) => price(value, digits), minMove: 10 ** -digits } });
  }

  #volumeOf(bar) {
    return { time: bar.time / 1000, value: bar.volume, color: this.#paint[bar.close < bar.open ? "down-soft" : "up-soft"] };
  }

  /** A point as the library takes it: an empty place has a time alone, a bar that still moves is hollow. */
  #candle(point) {
    const { time, open, high, low, close } = point;
    if (open === undefined) return { time: time / 1000 };
    const drawn = { time: time / 1000, open, high, low, close };
    return this.isOpen(point) ? { ...drawn, color: this.#paint[close < open ? "down-soft" : "up-soft"] } : drawn;
  }
}
