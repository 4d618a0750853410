// The places on the time axis: a bar each, and empty ones where bars are missing; and the axis by the chosen clock.

import { wall } from "./zone.js";

/** A gap is as wide as the bars that are missing, up to so many: a weekend of minutes would fill ten screens. */
const WIDEST_GAP = 12;

export class Timeline {
  /** Ascending: bars, and `{ time }` alone for an empty place. */
  points = [];
  #widthMs;

  /** `widthMs`: from a bar to the next; null where they are not equally far apart, and gaps are not shown. */
  constructor(bars = [], widthMs = null) {
    this.#widthMs = widthMs;
    for (const bar of bars) this.append(bar);
  }

  get length() {
    return this.points.length;
  }

  /** Put a bar behind the others; returns the points that this makes. */
  append(bar) {
    const last = this.points.at(-1);
    const missing = last && this.#widthMs ? Math.round((bar.time - last.time) / this.#widthMs) - 1 : 0;
    const added = [];
    for (let place = 1; place <= Math.min(missing, WIDEST_GAP); place += 1) added.push({ time: last.time + place * this.#widthMs });
    added.push(bar);
    this.points.push(...added);
    return added;
  }

  /** Take a bar in the place that it has already; false when it has none. */
  replace(bar) {
    const index = this.indexOf(bar.time);
    if (this.points[index]?.time !== bar.time) return false;
    this.points[index] = bar;
    return true;
  }

  timeAt(index) {
    return this.points[index]?.time ?? null;
  }

  /** The place that is nearest to a fraction of one, or null. */
  nearest(index) {
    return index === null || !this.length ? null : Math.max(0, Math.min(this.length - 1, Math.round(index)));
  }

  /** How many bars there are up to a place, without the empty ones. */
  barsUpTo(index) {
    return this.points.slice(0, index + 1).filter(({ open }) => open !== undefined).length;
  }

  /** Place of the first point at or after a moment. */
  indexOf(time) {
    let [low, high] = [0, this.points.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.points[middle].time < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The bar that holds a moment, or null. */
  barOf(time) {
    const bar = this.points[this.indexOf(time + 1) - 1];
    return bar?.open !== undefined && (this.#widthMs === null || time < bar.time + this.#widthMs) ? bar : null;
  }

  /** The bar at a moment, or the gap there as `{ gap: [from, to] }`, or null. */
  at(time) {
    let index = this.indexOf(time);
    const point = this.points[index];
    if (point?.time !== time) return null;
    if (point.open !== undefined) return point;
    let before = index;
    while (this.points[before].open === undefined) before -= 1;
    while (this.points[index].open === undefined) index += 1;
    return { gap: [this.points[before].time + this.#widthMs, this.points[index].time] };
  }
}

/** The library's time axis, on which days and hours begin by the clock that the reader has chosen. */
export function wallClock({ defaultHorzScaleBehavior }) {
  class WallClock extends defaultHorzScaleBehavior() {
    fillWeightsForPoints(points, start) {
      const shown = points.map((point) => ({ ...point, time: this.convertHorzItemToInternal(wall(this.key(point.time) * 1000) / 1000) }));
      super.fillWeightsForPoints(shown, start);
      for (let index = start; index < points.length; index += 1) points[index].timeWeight = shown[index].timeWeight;
    }
  }
  return new WallClock();
}
