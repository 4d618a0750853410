// A second chart beside the first: the same page in a frame, which then shows little but its chart. Their crosshairs go in
// step, and the first page remembers what the second shows.

import { $, element } from "./dom.js";
import { t } from "./i18n.js";
import { isBeside, remember } from "./preferences.js";

/** On less there is no room for two (CSS pixels). */
const WIDE = "(min-width: 900px)";

export class Beside {
  #frame = null;
  #place;
  #first;
  #onCross;

  /**
   * `place`: what the second chart showed before (`symbol`, `source`, `timeframe` and `studies`), or null when there was none.
   * `first()` gives what the first shows; `onCross(time)` is called with the moment that is pointed at on the other chart,
   * or null.
   */
  constructor({ place, first, onCross }) {
    [this.#place, this.#first, this.#onCross] = [place, first, onCross];
    addEventListener("message", ({ data, source, origin }) => {
      if (origin !== location.origin || source !== this.#other) return;
      if ("cross" in data) this.#onCross(data.cross);
      if (data.place) this.#remember(data.place);
    });
    if (isBeside) {
      document.documentElement.dataset.beside = "";
      return;
    }
    const wide = matchMedia(WIDE);
    const show = () => {
      if (this.#place && wide.matches) this.#open();
      else this.#close();
    };
    wide.addEventListener("change", show);
    show();
  }

  /** Show the second chart, at first with a longer timeframe, or take it away. */
  toggle() {
    if (isBeside) return;
    if (this.#frame) {
      this.#close();
      this.#remember(null);
      return;
    }
    const { symbol, source, timeframe, studies } = this.#first();
    if (!symbol || !matchMedia(WIDE).matches) return;
    this.#remember({ symbol, source, timeframe: timeframe === "H1" ? "D1" : "H1", studies });
    this.#open();
  }

  /** Tell the other chart what is pointed at on this one: a moment, or null. */
  cross(time) {
    this.#other?.postMessage({ cross: time }, location.origin);
  }

  /** Say it in the page's language. */
  label() {
    if (this.#frame) this.#frame.title = t("besideTitle");
  }

  get #other() {
    return isBeside ? parent : this.#frame?.contentWindow;
  }

  #remember(place) {
    this.#place = place;
    remember({
      second: place?.symbol ?? "", "second-source": place?.source ?? "", "second-timeframe": place?.timeframe ?? "",
      "second-studies": place?.studies ?? "",
    });
  }

  #open() {
    if (this.#frame) return;
    // Without indicators it begins with none, whatever the first shows.
    const wanted = Object.entries({ studies: "", ...this.#place }).filter(([name, value]) => value || name === "studies");
    this.#frame = element("iframe", "beside", [], { src: `?${new URLSearchParams([["beside", ""], ...wanted])}` });
    this.label();
    $("stage").after(this.#frame);
    $("beside-toggle").setAttribute("aria-pressed", "true");
  }

  #close() {
    if (!this.#frame) return;
    this.#frame.remove();
    this.#frame = null;
    $("beside-toggle").setAttribute("aria-pressed", "false");
    this.#onCross(null);
  }
}
