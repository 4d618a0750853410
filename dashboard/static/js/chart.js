// The drawing: candles and volume with lightweight-charts, in the colours of the page.

import { dateTime, price, tickMark } from "./format.js";
import { Timeline } from "./timeline.js";
import { wall } from "./zone.js";

/** Bars on the screen at first; the library's default is as many as fit at 6 pixels. */
const FIRST_BARS = 140;
/** Bars beside the screen at which more is fetched. */
const NEAR_THE_END = 80;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

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

  /**
   * `onPast` and `onFuture` are called when the reader nears the first or the last bar, `onPoint` with what is under the
   * cursor, a bar or a gap, or with null.
   */
  constructor(element, { onPast, onFuture, onPoint, onView }) {
    this.#element = element;
    const { createChartEx, CandlestickSeries, HistogramSeries, CrosshairMode } = this.#library;
    this.#chart = createChartEx(element, wallClock(this.#library), {
      autoSize: true,
      // Its logo would bring a style element, which the CSP forbids; the link stands in the footer.
      layout: { attributionLogo: false, background: { color: "transparent" }, fontSize: 12 },
      crosshair: { mode: CrosshairMode.Normal },
      rightPriceScale: { borderVisible: false, scaleMargins: { top: 0.1, bottom: 0.22 } },
      timeScale: { borderVisible: false, timeVisible: true, rightOffset: 6, minBarSpacing: 0.6, tickMarkFormatter: tickMark },
      localization: { timeFormatter: (time) => dateTime(time * 1000), priceFormatter: (value) => price(value, this.#digits) },
    });
    this.#volume = this.#chart.addSeries(HistogramSeries, {
      priceScaleId: "volume", priceFormat: { type: "volume" }, lastValueVisible: false, priceLineVisible: false,
    });
    this.#chart.priceScale("volume").applyOptions({ scaleMargins: { top: 0.86, bottom: 0 } });
    this.#candles = this.#chart.addSeries(CandlestickSeries, { borderVisible: false, priceLineStyle: 1 });
    this.recolour();
    this.#chart.subscribeCrosshairMove((point) => onPoint(point.time === undefined ? null : this.#timeline.at(point.time * 1000)));
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
    const line = colour("grid");
    this.#chart.applyOptions({
      layout: { textColor: colour("muted"), fontFamily: getComputedStyle(document.body).fontFamily },
      grid: { vertLines: { color: line }, horzLines: { color: line } },
      crosshair: {
        vertLine: { color: colour("cross"), labelBackgroundColor: colour("label") },
        horzLine: { color: colour("cross"), labelBackgroundColor: colour("label") },
      },
    });
    this.#candles.applyOptions({
      upColor: colour("up"), downColor: colour("down"), wickUpColor: colour("up"), wickDownColor: colour("down"),
    });
    this.#drawVolume();
  }

  /**
   * Draw all bars, `widthMs` apart where none is missing; what the reader looks at stays where it is. `isPresent`: the
   * last of them is the newest there is, and who looks at it goes on to look at the newest.
   */
  draw(bars, digits, { widthMs = null, isPresent = true } = {}) {
    const shown = this.#shown;
    const follows = this.#isPresent && (!shown || shown.to >= this.#timeline.length - 0.5);
    const place = shown && Math.max(0, Math.ceil(shown.from));
    const anchor = follows ? null : this.#timeline.timeAt(place);
    [this.#timeline, this.#isPresent] = [new Timeline(bars, widthMs), isPresent];
    if (digits !== this.#digits) {
      this.#digits = digits;
      this.#candles.applyOptions({ priceFormat: { type: "price", precision: digits, minMove: 10 ** -digits } });
    }
    // The last bar that is loaded of the past has no price of now.
    this.#candles.applyOptions({ priceLineVisible: isPresent, lastValueVisible: isPresent });
    this.#setData();
    if (anchor !== null && this.#timeline.length) {
      const by = this.#timeline.indexOf(anchor) - place;
      this.#show(shown.from + by, shown.to + by);
    }
  }

  /** Draw one bar, the newest or one before it. */
  update(bar) {
    if (this.#timeline.replace(bar)) this.#put(bar, bar.time < this.#timeline.points.at(-1).time);
    else for (const point of this.#timeline.append(bar)) this.#put(point, false);
  }

  #put(point, isOld) {
    this.#candles.update(candle(point), isOld);
    if (point.open !== undefined) this.#volume.update(this.#volumeOf(point), isOld);
  }

  /** The newest bars, at the first zoom. */
  reset() {
    const bars = this.#firstZoom();
    this.#show(this.#timeline.length - bars, this.#timeline.length + 5);
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
    // A narrow screen has the legend over more of the chart.
    const top = this.#element.clientWidth < 620 ? 0.16 : 0.1;
    this.#chart.priceScale("right").applyOptions({ scaleMargins: { top, bottom: 0.22 }, autoScale: true });
    const fitting = Math.min(FIRST_BARS, Math.round(this.#element.clientWidth / 8));
    return Math.min(fitting, Math.max(60, this.#timeline.length + 2)) + 5;
  }

  /** Words and numbers of another language, or times on another clock. */
  relabel(locale) {
    this.#chart.applyOptions({ localization: { locale } });
    // Which bars begin a day is found out when they are set.
    const [shown, timeline] = [this.#shown, this.#timeline];
    this.#timeline = new Timeline();
    this.#setData();
    this.#timeline = timeline;
    this.#setData();
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
    this.#candles.setData(this.#timeline.points.map(candle));
    this.#drawVolume();
    this.#isDrawing = false;
  }

  #drawVolume() {
    this.#volume.setData(this.#timeline.points.filter(({ open }) => open !== undefined).map((bar) => this.#volumeOf(bar)));
  }

  #volumeOf(bar) {
    return { time: bar.time / 1000, value: bar.volume, color: colour(bar.close < bar.open ? "down-soft" : "up-soft") };
  }
}

/** A bar as the library takes it; an empty place has a time alone. */
const candle = ({ time, open, high, low, close }) => (open === undefined ? { time: time / 1000 } : { time: time / 1000, open, high, low, close });

/** The library's time axis, on which days and hours begin by the clock that the reader has chosen. */
function wallClock({ defaultHorzScaleBehavior }) {
  class WallClock extends defaultHorzScaleBehavior() {
    fillWeightsForPoints(points, start) {
      const shown = points.map((point) => ({ ...point, time: this.convertHorzItemToInternal(wall(this.key(point.time) * 1000) / 1000) }));
      super.fillWeightsForPoints(shown, start);
      for (let index = start; index < points.length; index += 1) points[index].timeWeight = shown[index].timeWeight;
    }
  }
  return new WallClock();
}
