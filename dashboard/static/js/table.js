// The bars as a table: for those who do not see the chart, and to copy from.

import { iso } from "./api.js";
import { $, element } from "./dom.js";
import { count, dateTime, price } from "./format.js";
import { t } from "./i18n.js";
import { zoneLabel } from "./zone.js";

/** Bars at most. */
export const ROWS = 500;

export class BarTable {
  #bars = [];
  #digits = 5;
  #isDrawing = false;

  get isOpen() {
    return !$("table").hidden;
  }

  toggle(isOpen = !this.isOpen) {
    $("table").hidden = !isOpen;
    $("table-toggle").setAttribute("aria-pressed", String(isOpen));
    if (isOpen) {
      this.#render();
      $("table").focus();
    }
  }

  /** Take the bars; they are drawn at once, or when the table is opened. */
  show(bars, digits) {
    this.#bars = bars;
    this.#digits = digits;
    if (!this.isOpen || this.#isDrawing) return;
    this.#isDrawing = true;
    requestAnimationFrame(() => {
      this.#isDrawing = false;
      if (this.isOpen) this.#render();
    });
  }

  #render() {
    const number = (text) => element("td", "number", text);
    const rows = this.#bars.slice(-ROWS).reverse().map((bar) => element("tr", "", [
      element("th", "", dateTime(bar.time), { scope: "row" }),
      ...["open", "high", "low", "close"].map((name) => number(price(bar[name], this.#digits))),
      number(count(bar.volume)),
    ], { "data-ts": iso(bar.time).slice(0, 16) }));
    const zone = zoneLabel(this.#bars.at(-1)?.time ?? Date.now());
    const names = ["barTime", "openWord", "highWord", "lowWord", "closeWord", "volumeWord"];
    const head = element("tr", "", names.map((name) => element("th", "", t(name, { zone }), { scope: "col" })));
    $("table").replaceChildren(element("table", "", [
      element("caption", "visually-hidden", t("tableCaption", { count: String(rows.length) })),
      element("thead", "", head), element("tbody", "", rows),
    ]));
  }
}
