// Indicators on the chart: averages over the candles, and RSI in a pane of its own.

import { oncePerFrame } from "./dom.js";
import { arithmeticOf, indicatorsOf } from "./indicators.js";
import { price } from "./format.js";
import { SplitSeries } from "./split-series.js";

/** Colours of the theme, one for each. */
const COLOURS = 6;
const RSI_LINES = [30, 70];

/** Give the pane that a series has for itself its height, and a scale of its own: the library begins with that of prices. */
export function inOwnPane({ PriceScaleMode }, series) {
  series.getPane().setStretchFactor(0.22);
  series.priceScale().applyOptions({ mode: PriceScaleMode.Normal, autoScale: true, scaleMargins: { top: 0.12, bottom: 0.12 } });
}

export class Studies {
  #library;
  #chart;
  #shown = [];
  #paint = {};
  #bars = [];
  #widthMs = null;
  #isWhole = false;
  #isPercent = false;
  #onLate;

  /** `onLate()` is called when values were computed again some time after the bars changed. */
  constructor(library, chart, onLate) {
    [this.#library, this.#chart, this.#onLate] = [library, chart, onLate];
  }

  /** Show the indicators that the text names, as `indicatorsOf` reads it. */
  choose(text) {
    for (const { series } of this.#shown) series.remove();
    this.#shown = [];
    for (const [index, indicator] of indicatorsOf(text).entries()) {
      this.#shown.push({ ...indicator, colour: `study-${(index % COLOURS) + 1}`, values: new Map(), ...this.#series(indicator) });
    }
    this.recolour(this.#paint);
    this.redraw(this.#widthMs);
  }

  recolour(paint) {
    this.#paint = paint;
    for (const { series, colour, lines } of this.#shown) {
      series.applyOptions({ color: paint[colour] });
      for (const line of lines) line.applyOptions({ color: paint.cross });
    }
  }

  /** On a scale of percent every line would begin at 0, and averages lie beside their candles: they are not shown. */
  setPercent(isPercent) {
    this.#isPercent = isPercent;
    for (const { kind, series } of this.#shown) series.applyOptions({ visible: kind === "rsi" || !isPercent });
  }

  /** Take all bars; `isWhole`: they begin with the first there is. */
  draw(bars, widthMs, isWhole) {
    [this.#bars, this.#isWhole] = [bars, isWhole];
    this.redraw(widthMs);
  }

  /** Compute what was taken once more. */
  redraw(widthMs) {
    this.#widthMs = widthMs;
    for (const shown of this.#shown) this.#compute(shown);
  }

  /** Take one bar of those that were drawn; `isNew`: it is behind all others. */
  update(bar, { isNew, isOld }) {
    if (isOld) {
      this.#redrawSoon();
      return;
    }
    for (const shown of this.#shown) {
      if (!shown.arithmetic) continue;
      if (isNew) shown.before = shown.after;
      const { day } = shown.before;
      shown.after = shown.arithmetic.step(shown.before, bar);
      this.#put(shown, bar.time, shown.after.value);
      // The line of the day before ends.
      if (isNew && shown.after.day !== day) this.#redrawSoon();
    }
  }

  /** Names, colours and values of the indicators at a bar, values as text or null. */
  at(time, digits) {
    return this.#shown.filter(({ kind }) => kind === "rsi" || !this.#isPercent).map(({ kind, period, colour, values }) => {
      const value = values.get(time) ?? null;
      return { name: `${kind.toUpperCase()}${period ? ` ${period}` : ""}`, colour, value: value === null ? null : price(value, kind === "rsi" ? 1 : digits) };
    });
  }

  #series({ kind, period }) {
    const look = { lineWidth: 1, priceLineVisible: false, lastValueVisible: kind === "rsi", crosshairMarkerVisible: false };
    if (kind !== "rsi") return { series: this.#made({ ...look, visible: !this.#isPercent }), lines: [] };
    const known = this.#shown.find((shown) => shown.kind === "rsi")?.series.settled.getPane().paneIndex();
    const series = this.#made({
      ...look, title: `RSI ${period}`, priceFormat: { type: "custom", formatter: (value) => price(value, 0), minMove: 0.1 },
      autoscaleInfoProvider: () => ({ priceRange: { minValue: 0, maxValue: 100 } }),
    }, known ?? this.#chart.panes().length);
    if (known === undefined) inOwnPane(this.#library, series.settled);
    const lines = known === undefined ? RSI_LINES : [];
    return { series, lines: lines.map((at) => series.settled.createPriceLine({ price: at, lineWidth: 1, lineStyle: 2, axisLabelVisible: false })) };
  }

  #made(options, pane) {
    return new SplitSeries(this.#library, this.#chart, this.#library.LineSeries, options, pane);
  }

  #compute(shown) {
    const points = [];
    shown.values = new Map();
    // Days, weeks and months have no day that a mean could begin with.
    shown.arithmetic = shown.kind === "vwap" && this.#widthMs === null ? null : arithmeticOf(shown, this.#bars, this.#isWhole);
    shown.before = shown.after = shown.arithmetic?.start;
    for (const bar of shown.arithmetic ? this.#bars : []) {
      shown.before = shown.after;
      shown.after = shown.arithmetic.step(shown.before, bar);
      const { day, value } = shown.after;
      if (value === null) continue;
      // From the last bar of a day no line leads to the first of the next.
      if (points.length && shown.before.day !== day) points.at(-1).color = "transparent";
      shown.values.set(bar.time, value);
      points.push({ time: bar.time / 1000, value });
    }
    shown.series.setData(points);
  }

  #put(shown, time, value) {
    if (value === null) return;
    shown.values.set(time, value);
    shown.series.update({ time: time / 1000, value });
  }

  /** A bar of the past changed, and with it all that follow; such changes come in flocks. */
  #redrawSoon = oncePerFrame(() => {
    if (!this.#shown.length) return;
    this.redraw(this.#widthMs);
    this.#onLate();
  });
}
