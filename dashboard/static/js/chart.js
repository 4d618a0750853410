// The drawing: candles and volume with lightweight-charts, in the colours of the page.

import { dateTime, price, tickMark } from "./format.js";

/** Bars on the screen at first; the library's default is as many as fit at 6 pixels. */
const FIRST_BARS = 140;
/** Bars left of the screen at which more of the past is fetched. */
const NEAR_THE_PAST = 80;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

export class Chart {
  #library = globalThis.LightweightCharts;
  #element;
  #chart;
  #candles;
  #volume;
  #digits = 0;
  #bars = [];

  /** `onPast` is called when the reader nears the first bar, `onPoint` with the bar under the cursor or null. */
  constructor(element, { onPast, onPoint, onView }) {
    this.#element = element;
    const { createChart, CandlestickSeries, HistogramSeries, CrosshairMode } = this.#library;
    this.#chart = createChart(element, {
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
    this.#chart.subscribeCrosshairMove((point) => onPoint(point.time === undefined ? null : this.#barAt(point.time)));
    this.#chart.timeScale().subscribeVisibleLogicalRangeChange((range) => {
      if (!range) return;
      onView(range.to < this.#bars.length - 0.5);
      if (range.from < NEAR_THE_PAST) onPast();
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

  /** Draw all bars; what the reader looks at stays where it is. */
  draw(bars, digits) {
    this.#bars = bars;
    if (digits !== this.#digits) {
      this.#digits = digits;
      this.#candles.applyOptions({ priceFormat: { type: "price", precision: digits, minMove: 10 ** -digits } });
    }
    this.#candles.setData(bars.map(candle));
    this.#drawVolume();
  }

  /** Draw one bar, the newest or one before it. */
  update(bar) {
    const isOld = bar.time < (this.#bars.at(-1)?.time ?? 0);
    this.#candles.update(candle(bar), isOld);
    this.#volume.update(this.#volumeOf(bar), isOld);
  }

  /** The newest bars, at the first zoom. */
  reset() {
    // A narrow screen has the legend over more of the chart.
    const top = this.#element.clientWidth < 620 ? 0.16 : 0.1;
    this.#chart.priceScale("right").applyOptions({ scaleMargins: { top, bottom: 0.22 } });
    const fitting = Math.min(FIRST_BARS, Math.round(this.#element.clientWidth / 8));
    const bars = Math.min(fitting, Math.max(60, this.#bars.length + 2));
    this.#chart.priceScale("right").applyOptions({ autoScale: true });
    this.#chart.timeScale().setVisibleLogicalRange({ from: this.#bars.length - bars, to: this.#bars.length + 5 });
  }

  /** Words and numbers of another language. */
  relabel(locale) {
    this.#chart.applyOptions({ localization: { locale } });
  }

  toNewest() {
    const shown = this.#chart.timeScale().getVisibleLogicalRange();
    const to = this.#bars.length + 5;
    if (shown) this.#chart.timeScale().setVisibleLogicalRange({ from: to - (shown.to - shown.from), to });
  }

  toFirst() {
    const shown = this.#chart.timeScale().getVisibleLogicalRange();
    if (shown) this.#chart.timeScale().setVisibleLogicalRange({ from: 0, to: shown.to - shown.from });
  }

  /** Move by a share of what is shown; negative into the past. */
  scroll(share) {
    const shown = this.#chart.timeScale().getVisibleLogicalRange();
    if (!shown) return;
    const by = (shown.to - shown.from) * share;
    this.#chart.timeScale().setVisibleLogicalRange({ from: shown.from + by, to: shown.to + by });
  }

  /** Show `factor` times as many bars; the newest shown stays. */
  zoom(factor) {
    const shown = this.#chart.timeScale().getVisibleLogicalRange();
    if (shown) this.#chart.timeScale().setVisibleLogicalRange({ from: shown.to - (shown.to - shown.from) * factor, to: shown.to });
  }

  /** First and last bar on the screen, as positions in the list. */
  shown() {
    return this.#chart.timeScale().getVisibleLogicalRange();
  }

  #drawVolume() {
    this.#volume.setData(this.#bars.map((bar) => this.#volumeOf(bar)));
  }

  #volumeOf(bar) {
    return { time: bar.time / 1000, value: bar.volume, color: colour(bar.close < bar.open ? "down-soft" : "up-soft") };
  }

  #barAt(seconds) {
    const time = seconds * 1000;
    let low = 0;
    let high = this.#bars.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      if (this.#bars[middle].time === time) return this.#bars[middle];
      if (this.#bars[middle].time < time) low = middle + 1;
      else high = middle - 1;
    }
    return null;
  }
}

const candle = ({ time, open, high, low, close }) => ({ time: time / 1000, open, high, low, close });
