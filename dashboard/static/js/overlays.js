// What is drawn over the candles: where days and sessions begin, bars of which ticks came late, the broker's bars, and
// the spread in a pane of its own.

import { count } from "./format.js";
import { t } from "./i18n.js";
import { SplitSeries } from "./split-series.js";
import { inOwnPane } from "./studies.js";
import { wall } from "./zone.js";

const DAY_MS = 86_400_000;
/** No ticks for so long: the market was closed, and another session begins. */
const SESSION_GAP_MS = 3_600_000;
/** Lines that are closer than this say nothing (pixels). */
const CLOSEST_LINES = 24;
/** A tick that was received so much after those of a later bar came late: requests may overtake each other. */
const LATE_MS = 1_000;

export class Overlays {
  #library;
  #chart;
  #candles;
  #separators = new Separators();
  #broker = null;
  #spread = null;
  #paint = {};
  #bars = [];
  #compared = null;
  #late = new Set();

  constructor(library, chart, candles) {
    [this.#library, this.#chart, this.#candles] = [library, chart, candles];
    candles.settled.attachPrimitive(this.#separators);
  }

  /** `paint`: colours by name. */
  recolour(paint) {
    this.#paint = paint;
    this.#separators.colour = paint.separator;
    this.#spread?.applyOptions({ color: paint.accent });
    this.#drawBroker();
    this.#mark();
  }

  /** Take all bars, `widthMs` apart where none is missing; the list that is going to change with them. */
  draw(bars, widthMs) {
    this.#bars = bars;
    this.redraw(widthMs);
  }

  /** Draw what was taken once more: days begin on another clock. */
  redraw(widthMs) {
    this.#separators.lines = separatorsOf(this.#bars, widthMs);
    this.#spread?.applyOptions({ title: t("spread_") });
    this.#drawSpread();
    this.#drawBroker();
    this.#mark();
  }

  /** Take one bar of those that were drawn; `isNew`: it is behind all others. */
  update(bar, { isNew, isOld, widthMs }) {
    const index = this.#bars.lastIndexOf(bar);
    if (isNew && index > 0) this.#separators.lines.push(...separatorsOf(this.#bars.slice(index - 1, index + 1), widthMs));
    if (isOld) this.#mark();
    this.#spread?.update(spreadOf(bar), isOld);
  }

  /** Show the spread, or not. */
  showSpread(isShown) {
    if (isShown === Boolean(this.#spread)) return;
    if (isShown) {
      const { LineSeries, LineType } = this.#library;
      this.#spread = new SplitSeries(this.#library, this.#chart, LineSeries, {
        color: this.#paint.accent, lineWidth: 1, lineType: LineType.WithSteps, priceLineVisible: false, title: t("spread_"),
        priceFormat: { type: "custom", formatter: count, minMove: 1 },
      }, this.#chart.panes().length);
      inOwnPane(this.#library, this.#spread.settled);
      this.#drawSpread();
    } else {
      this.#spread.remove();
      this.#spread = null;
    }
  }

  /** Lay the broker's bars over the candles: a map of openings to bars of `/compared`; null takes them away. */
  showBroker(compared) {
    this.#compared = compared;
    if (compared && !this.#broker) {
      this.#broker = this.#chart.addSeries(this.#library.BarSeries, { thinBars: true, priceLineVisible: false, lastValueVisible: false });
    } else if (!compared && this.#broker) {
      this.#chart.removeSeries(this.#broker);
      this.#broker = null;
    }
    this.#drawBroker();
    this.#mark();
  }

  /** Whether ticks of the bar that opens then came late. */
  isLate(time) {
    return this.#late.has(time);
  }

  #drawSpread() {
    this.#spread?.setData(this.#bars.map(spreadOf));
  }

  #drawBroker() {
    if (!this.#broker) return;
    // Only where there is a candle: a place of its own would move the others.
    const bars = this.#bars.map(({ time }) => this.#compared.get(time)).filter((bar) => bar && bar.open !== null);
    this.#broker.setData(bars.map((bar) => ({
      time: bar.time / 1000, open: bar.open, high: bar.high, low: bar.low, close: bar.close,
      color: this.#paint[isEqual(bar) ? "accent" : "warn"],
    })));
  }

  #mark() {
    this.#late = lateBars(this.#bars);
    const marks = [];
    for (const { time } of this.#bars) {
      const compared = this.#compared?.get(time);
      if (compared && !isEqual(compared)) {
        marks.push({ time: time / 1000, position: "aboveBar", shape: compared.differs ? "circle" : "square", color: this.#paint.warn, size: 0.6 });
      }
      if (this.#late.has(time)) marks.push({ time: time / 1000, position: "belowBar", shape: "arrowUp", color: this.#paint.accent, size: 0.6 });
    }
    this.#candles.setMarkers(marks);
  }
}

/** Whether all minutes of a bar of `/compared` agree. */
export const isEqual = (bar) => !bar.differs && !bar.no_bar && !bar.no_candle;

/** The openings of the minutes that hold a tick which was received after those of a later one. */
export function lateBars(bars) {
  const late = new Set();
  let earliest = Infinity;
  for (let index = bars.length - 1; index >= 0; index -= 1) {
    const { time, received } = bars[index];
    if (received > earliest + LATE_MS) late.add(time);
    earliest = Math.min(earliest, received ?? Infinity);
  }
  return late;
}

/** Where a day begins on the chosen clock, or a session: `{ time, isDay }`; nowhere where a bar is longer than an hour. */
export function separatorsOf(bars, widthMs) {
  const lines = [];
  for (let index = 1; widthMs && index < bars.length; index += 1) {
    const [before, { time }] = [bars[index - 1].time, bars[index]];
    const isDay = Math.floor(wall(time) / DAY_MS) !== Math.floor(wall(before) / DAY_MS);
    if (isDay || time - before - widthMs >= SESSION_GAP_MS) lines.push({ time, isDay });
  }
  return lines;
}

const spreadOf = ({ time, spread }) => (spread === null || spread === undefined ? { time: time / 1000 } : { time: time / 1000, value: spread });

/** Vertical lines, as a primitive of the chart library. */
class Separators {
  lines = [];
  colour = "";
  #chart = null;

  attached({ chart }) {
    this.#chart = chart;
  }

  paneViews() {
    return [{ zOrder: () => "bottom", renderer: () => ({ draw: (target) => this.#draw(target) }) }];
  }

  #draw(target) {
    const scale = this.#chart.timeScale();
    const half = scale.options().barSpacing / 2;
    target.useBitmapCoordinateSpace(({ context, bitmapSize, horizontalPixelRatio: ratio }) => {
      const shown = this.lines
        .map(({ time, isDay }) => ({ x: (scale.timeToCoordinate(time / 1000) - half) * ratio, isDay }))
        .filter(({ x }) => x > 0 && x < bitmapSize.width);
      if (shown.some(({ x }, index) => index && x - shown[index - 1].x < CLOSEST_LINES * ratio)) return;
      context.strokeStyle = this.colour;
      context.lineWidth = Math.max(1, Math.floor(ratio));
      for (const { x, isDay } of shown) {
        context.setLineDash(isDay ? [] : [4 * ratio, 4 * ratio]);
        context.beginPath();
        context.moveTo(Math.round(x) + 0.5, 0);
        context.lineTo(Math.round(x) + 0.5, bitmapSize.height);
        context.stroke();
      }
      context.setLineDash([]);
    });
  }
}
