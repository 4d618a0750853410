// The timeframes: their buttons, and how far apart their bars are.

import { $, element } from "./dom.js";
// The server makes it of its own list (dashboard/app.py).
import { WIDTHS } from "./timeframe-widths.js";

export const TIMEFRAMES = Object.keys(WIDTHS);

/** Milliseconds from a bar to the next, or null. */
export const widthOf = (timeframe) => WIDTHS[timeframe];

export class TimeframeButtons {
  #chosen = null;

  constructor({ onChoose }) {
    $("timeframes").replaceChildren(...TIMEFRAMES.map((name) => {
      const button = element("button", "", name, { role: "radio", "data-key": name });
      button.addEventListener("click", () => onChoose(name));
      return button;
    }));
    $("timeframes").addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      onChoose(TIMEFRAMES[(TIMEFRAMES.indexOf(this.#chosen) + step + TIMEFRAMES.length) % TIMEFRAMES.length]);
      $("timeframes").querySelector("[aria-checked=true]").focus();
    });
  }

  show(chosen) {
    this.#chosen = chosen;
    for (const button of $("timeframes").children) {
      const isChosen = button.dataset.key === chosen;
      button.setAttribute("aria-checked", String(isChosen));
      button.tabIndex = isChosen ? 0 : -1;
      if (isChosen) button.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  }
}
