// The dialog that asks what the chart shows besides candles, on which scale, and gives out what it shows.

import { $ } from "./dom.js";
import { remember } from "./preferences.js";

const SCALES = ["normal", "log", "percent"];

export class ViewDialog {
  #chosen;
  #handlers;

  /**
   * What was chosen before may have `quote`, `spread`, `broker` and `scale`. `onQuote(isShown)`, `onSpread(isShown)`,
   * `onBroker(isShown)` and `onScale(name)` are called with what is chosen, at first by `show`; `csvUrl()` says where the
   * loaded bars are, `picture()` gives the chart as a canvas, and `name()` what both are called.
   */
  constructor({ quote = true, spread, broker, scale, ...handlers }) {
    this.#chosen = { quote: Boolean(quote), spread: Boolean(spread), broker: Boolean(broker), scale: SCALES.includes(scale) ? scale : "normal" };
    this.#handlers = handlers;
    for (const name of ["quote", "spread", "broker"]) $(`view-${name}`).addEventListener("change", () => this.toggle(name));
    $("view-scale").addEventListener("change", () => this.#choose({ scale: $("view-scale").value }));
    $("view-csv").addEventListener("click", () => save(this.#handlers.csvUrl(), `${this.#handlers.name()}.csv`));
    $("view-picture").addEventListener("click", () => this.#savePicture());
  }

  open() {
    $("view").showModal();
  }

  /** Show what is chosen: all of it, or what is another than before. */
  show(before = {}) {
    const { quote, spread, broker, scale } = this.#chosen;
    [$("view-quote").checked, $("view-spread").checked, $("view-broker").checked, $("view-scale").value] = [quote, spread, broker, scale];
    if (quote !== before.quote) this.#handlers.onQuote(quote);
    if (spread !== before.spread) this.#handlers.onSpread(spread);
    if (broker !== before.broker) this.#handlers.onBroker(broker);
    if (scale !== before.scale) this.#handlers.onScale(scale);
  }

  /** Show bid and ask, the spread, or the broker's bars, or not. */
  toggle(name) {
    this.#choose({ [name]: !this.#chosen[name] });
  }

  get isComparing() {
    return this.#chosen.broker;
  }

  #choose(choice) {
    const before = { ...this.#chosen };
    Object.assign(this.#chosen, choice);
    remember(choice);
    this.show(before);
  }

  #savePicture() {
    this.#handlers.picture()?.toBlob((blob) => {
      const url = URL.createObjectURL(blob);
      save(url, `${this.#handlers.name()}.png`);
      URL.revokeObjectURL(url);
    });
  }
}

function save(url, name) {
  const link = document.createElement("a");
  [link.href, link.download] = [url, name];
  link.click();
}
