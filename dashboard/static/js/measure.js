// Measuring: dragged from one point of the chart to another, with Shift held or once after the key M. What was measured
// stays at its bars and prices until something else is pressed.

import { $ } from "./dom.js";
import { count, percent, price, span } from "./format.js";
import { t } from "./i18n.js";

export class Measure {
  #element;
  #chart;
  #candles;
  #place;
  #isArmed = false;
  #isDragging = false;
  #from = null;
  #to = null;
  #colours = {};
  #redraw = () => {};

  /** `place(x)` gives the bar's time there and its number among the bars, or null; `digits()` the decimals of prices. */
  constructor(element, chart, candles, { place, digits }) {
    [this.#element, this.#chart, this.#candles, this.#place] = [element, chart, candles, place];
    this.digits = digits;
    candles.attachPrimitive(this);
    element.addEventListener("pointerdown", (event) => this.#begin(event), true);
    element.addEventListener("pointermove", (event) => this.#drag(event), true);
    for (const name of ["pointerup", "pointercancel"]) element.addEventListener(name, () => { this.#isDragging = false; }, true);
    // The library scrolls with these.
    for (const name of ["mousedown", "touchstart"]) {
      element.addEventListener(name, (event) => {
        if (!this.#isDragging) return;
        event.stopPropagation();
        event.preventDefault();
      }, { capture: true, passive: false });
    }
  }

  /** Measure with the next drag. */
  arm() {
    this.#isArmed = true;
    this.#element.classList.add("measuring");
  }

  /** Take away what was measured, or is about to be; returns whether there was anything. */
  clear() {
    const was = this.#isArmed || this.#from !== null;
    this.#isArmed = this.#isDragging = false;
    this.#element.classList.remove("measuring");
    this.#from = this.#to = null;
    this.#show();
    return was;
  }

  recolour(paint) {
    this.#colours = { up: paint["up-soft"], down: paint["down-soft"] };
    this.#show();
  }

  // --- a primitive of the chart library ---

  attached({ requestUpdate }) {
    this.#redraw = requestUpdate;
  }

  updateAllViews() {
    const box = this.#box();
    $("measured").hidden = !box;
    if (!box) return;
    const { x, y, width, height } = box;
    const label = $("measured");
    const left = Math.max(8, Math.min(x + width / 2 - label.offsetWidth / 2, this.#element.clientWidth - label.offsetWidth - 80));
    const isBelow = this.#to.price < this.#from.price;
    const top = isBelow ? y + height + 8 : y - label.offsetHeight - 8;
    label.style.left = `${left}px`;
    label.style.top = `${Math.max(8, Math.min(top, this.#element.clientHeight - label.offsetHeight - 36))}px`;
  }

  paneViews() {
    return [{ zOrder: () => "top", renderer: () => ({ draw: (target) => this.#draw(target) }) }];
  }

  // --- dragging ---

  #begin(event) {
    if (event.button) return;
    const isWanted = this.#isArmed || event.shiftKey;
    this.clear();
    if (!isWanted) return;
    const point = this.#pointAt(event);
    if (!point) return;
    [this.#isDragging, this.#from, this.#to] = [true, point, point];
    this.#element.setPointerCapture(event.pointerId);
    this.#show();
  }

  #drag(event) {
    if (!this.#isDragging) return;
    this.#to = this.#pointAt(event) ?? this.#to;
    this.#show();
  }

  #pointAt({ clientX, clientY }) {
    const { left, top } = this.#element.getBoundingClientRect();
    const place = this.#place(clientX - left);
    const shown = this.#candles.coordinateToPrice(clientY - top);
    return place && shown !== null ? { ...place, price: Number(shown.toFixed(this.digits())) } : null;
  }

  // --- showing ---

  #show() {
    $("measured").textContent = this.#from ? this.#text() : "";
    this.updateAllViews();
    this.#redraw();
  }

  #text() {
    const [from, to, digits] = [this.#from, this.#to, this.digits()];
    const change = to.price - from.price;
    const sign = change > 0 ? "+" : "";
    return [
      `${sign}${price(change, digits)}`,
      from.price ? percent(change / Math.abs(from.price), 2) : "",
      t("measuredPoints", { count: `${sign}${count(Math.round(change * 10 ** digits))}` }),
      t("measuredBars", { count: count(Math.abs(to.number - from.number)) }),
      span(Math.abs(to.time - from.time)),
    ].filter(Boolean).join(" · ");
  }

  /** Where both points are on the screen, or null. */
  #box() {
    if (!this.#from) return null;
    const scale = this.#chart.timeScale();
    const xs = [this.#from, this.#to].map(({ time }) => scale.timeToCoordinate(time / 1000));
    const ys = [this.#from, this.#to].map((point) => this.#candles.priceToCoordinate(point.price));
    if ([...xs, ...ys].includes(null)) return null;
    const [x, y] = [Math.min(...xs), Math.min(...ys)];
    return { x, y, width: Math.max(...xs) - x, height: Math.max(...ys) - y };
  }

  #draw(target) {
    const box = this.#box();
    if (!box) return;
    target.useMediaCoordinateSpace(({ context }) => {
      context.fillStyle = this.#to.price < this.#from.price ? this.#colours.down : this.#colours.up;
      context.fillRect(box.x, box.y, Math.max(1, box.width), Math.max(1, box.height));
    });
  }
}
