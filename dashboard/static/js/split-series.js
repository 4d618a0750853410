// A series of the chart library that keeps its last point, the one that moves, in a short series of its own.
//
// The library recreates every point of a series when one of them is updated: at sixty updates a second of six series with
// 1,500 bars that is 150 MB of garbage a second, and frames came late when it was collected.

/** What belongs to the last point is said by the series that holds it. */
const OF_THE_LAST = ["lastValueVisible", "priceLineVisible", "title"];
const NOTHING = { lastValueVisible: false, priceLineVisible: false, title: "" };

export class SplitSeries {
  #library;
  #chart;
  #settled;
  #tip;
  #isLine;
  #isSplit = true;
  /** The last point, and of a line also the one before it, to which it leads. */
  #last = null;
  #before = null;
  /** Whether the last point is in the series of its own. */
  #isTipped = false;
  #ofTheLast = {};
  #marks = [];
  /** The library's markers of both series, once there were any. */
  #markers = null;

  /** `type` and `options` as the library's `addSeries` takes them, `pane` the index of its pane. */
  constructor(library, chart, type, options, pane) {
    [this.#library, this.#chart] = [library, chart];
    this.#isLine = type === library.LineSeries;
    this.#settled = chart.addSeries(type, options, pane);
    this.#tip = chart.addSeries(type, { ...options, ...NOTHING }, this.#settled.getPane().paneIndex());
    const chosen = this.#settled.options();
    this.#ofTheLast = Object.fromEntries(OF_THE_LAST.map((name) => [name, chosen[name]]));
  }

  /** The series with all points but the last, for what does not depend on points: its pane, its scale, lines at prices. */
  get settled() {
    return this.#settled;
  }

  /** Options recreate every point as well, so those that are already set are left out. */
  applyOptions(options) {
    const known = { ...this.#settled.options(), ...this.#ofTheLast };
    const changed = Object.fromEntries(Object.entries(options).filter(([name, value]) => known[name] !== value));
    if (!Object.keys(changed).length) return;
    this.#settled.applyOptions(changed);
    this.#tip.applyOptions(changed);
    for (const name of OF_THE_LAST) if (name in changed) this.#ofTheLast[name] = changed[name];
    this.#showLast();
  }

  /** On a scale of percent a series is relative to its own first point on the screen: it has to hold all of them. */
  split(isSplit) {
    this.#isSplit = isSplit;
  }

  /** Take all points, ascending. */
  setData(points) {
    // Of one point the library would draw a line as a dash, and mark the time axis otherwise.
    const isTipped = this.#isSplit && points.length > 2;
    this.#settled.setData(isTipped ? points.slice(0, -1) : points);
    this.#last = points.at(-1) ?? null;
    this.#before = points.findLast((point) => point !== this.#last && hasValue(point)) ?? null;
    this.#setTip(isTipped);
  }

  /** Take one point, the last or one behind it; `isOld`: one before it. */
  update(point, isOld = false) {
    if (isOld) {
      this.#settled.update(point, true);
      if (point.time !== this.#before?.time) return;
      this.#before = point;
      this.#setTip(this.#isTipped);
    } else if (point.time === this.#last?.time) {
      this.#last = point;
      (this.#isTipped ? this.#tip : this.#settled).update(point);
    } else this.#append(point);
  }

  #append(point) {
    if (this.#isTipped) this.#settled.update(this.#last);
    const isTipped = this.#isSplit && this.#before !== null;
    if (hasValue(this.#last)) this.#before = this.#last;
    this.#last = point;
    if (!isTipped) this.#settled.update(point);
    this.#setTip(isTipped);
  }

  #setTip(isTipped) {
    const isMoved = isTipped !== this.#isTipped;
    this.#isTipped = isTipped;
    if (isTipped) this.#tip.setData(this.#isLine && this.#before !== null ? [this.#before, this.#last] : [this.#last]);
    else this.#tip.setData([]);
    if (isMoved) this.#showLast();
    this.#showMarks();
  }

  #showLast() {
    this.#settled.applyOptions(this.#isTipped ? NOTHING : this.#ofTheLast);
    this.#tip.applyOptions(this.#isTipped ? this.#ofTheLast : NOTHING);
  }

  /** Take marks at points, as the library's markers are. */
  setMarkers(marks) {
    this.#marks = marks;
    this.#showMarks();
  }

  #showMarks() {
    if (!this.#marks.length && this.#markers === null) return;
    this.#markers ??= [this.#settled, this.#tip].map((series) => this.#library.createSeriesMarkers(series, []));
    const isOfTip = ({ time }) => this.#isTipped && time >= this.#last.time;
    this.#markers[0].setMarkers(this.#marks.filter((mark) => !isOfTip(mark)));
    this.#markers[1].setMarkers(this.#marks.filter(isOfTip));
  }

  remove() {
    this.#chart.removeSeries(this.#tip);
    this.#chart.removeSeries(this.#settled);
  }
}

const hasValue = (point) => point !== null && ("value" in point || "open" in point);
