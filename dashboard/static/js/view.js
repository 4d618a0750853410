// The dialog that asks what the chart shows besides candles, on which scale, and gives out what it shows.

import { $ } from "./dom.js";
import { indicatorsOf } from "./indicators.js";
import { remember } from "./preferences.js";

const SCALES = ["normal", "log", "percent"];

export class ViewDialog {
  #chosen;
  #handlers;

  /**
   * What was chosen before may have `quote`, `spread`, `broker`, `scale` and `studies`. `onQuote(isShown)`, `onSpread(isShown)`,
   * `onBroker(isShown)`, `onScale(name)` and `onStudies(text)` are called with what is chosen, at first by `show`; `onMeasure()` asks to measure; `csvUrl()` says where the
   * loaded bars are, or null, `picture()` gives the chart as a canvas, and `name()` what both are called.
   */
  constructor({ quote = true, spread, broker, scale, studies, ...handlers }) {
    this.#chosen = { quote: Boolean(quote), spread: Boolean(spread), broker: Boolean(broker), scale: SCALES.includes(scale) ? scale : "normal", studies: cleaned(studies) };
    this.#handlers = handlers;
    for (const name of ["quote", "spread", "broker"]) $(`view-${name}`).addEventListener("change", () => this.toggle(name));
    $("view-scale").addEventListener("change", () => this.#choose({ scale: $("view-scale").value }));
    for (const input of $("view-studies").querySelectorAll("input")) {
      input.addEventListener("change", () => this.#choose({ studies: this.#asked() }));
    }
    $("view-measure").addEventListener("click", () => {
      $("view").close();
      this.#handlers.onMeasure();
    });
    $("view-csv").addEventListener("click", () => save(this.#handlers.csvUrl(), `${this.#handlers.name()}.csv`));
    $("view-picture").addEventListener("click", () => this.#savePicture());
  }

  open() {
    $("view").showModal();
  }

  /** Whether there are bars to save. */
  offer(hasBars) {
    $("view-csv").disabled = $("view-picture").disabled = !hasBars;
  }

  /** Show what is chosen: all of it, or what is another than before. */
  show(before = {}) {
    const { quote, spread, broker, scale, studies } = this.#chosen;
    [$("view-quote").checked, $("view-spread").checked, $("view-broker").checked, $("view-scale").value] = [quote, spread, broker, scale];
    if (quote !== before.quote) this.#handlers.onQuote(quote);
    if (spread !== before.spread) this.#handlers.onSpread(spread);
    if (broker !== before.broker) this.#handlers.onBroker(broker);
    this.#showStudies();
    if (scale !== before.scale) this.#handlers.onScale(scale);
    if (studies !== before.studies) this.#handlers.onStudies(studies);
  }

  /** Show bid and ask, the spread, or the broker's bars, or not. */
  toggle(name) {
    this.#choose({ [name]: !this.#chosen[name] });
  }

  /** The indicators, as `indicatorsOf` reads them. */
  get studies() {
    return this.#chosen.studies;
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

  /** What the fields ask for, as `indicatorsOf` reads it. */
  #asked() {
    const periods = ["sma", "ema", "rsi"].map((kind) => ($(`view-${kind}`).value.match(/\d+/g) ?? []).map((period) => `${kind}${Number(period)}`));
    return cleaned([...periods.flat(), ...($("view-vwap").checked ? ["vwap"] : [])].join());
  }

  #showStudies() {
    const shown = indicatorsOf(this.#chosen.studies);
    for (const kind of ["sma", "ema", "rsi"]) {
      $(`view-${kind}`).value = shown.filter((each) => each.kind === kind).map(({ period }) => period).join(", ");
    }
    $("view-vwap").checked = shown.some(({ kind }) => kind === "vwap");
  }

  #savePicture() {
    this.#handlers.picture()?.toBlob((blob) => {
      const url = URL.createObjectURL(blob);
      save(url, `${this.#handlers.name()}.png`);
      URL.revokeObjectURL(url);
    });
  }
}

const cleaned = (studies) => indicatorsOf(studies).map(({ name }) => name).join();

function save(url, name) {
  const link = document.createElement("a");
  [link.href, link.download] = [url, name];
  link.click();
}
