// The dialog that asks where in time to go, or how much of the newest to see.

import { $, element } from "./dom.js";
import { t } from "./i18n.js";
import { momentOf, wall, zoneLabel } from "./zone.js";

const DAY_MS = 86_400_000;
/** Spans up to now in days, and the timeframe that shows each with a few hundred bars. */
const SPANS = [
  ["spanDay", 1, "M5"], ["spanWeek", 7, "M30"], ["spanMonth", 31, "H1"], ["spanQuarter", 92, "H4"], ["spanYear", 366, "D1"],
];
/** The same of a longer history. */
const LONG_SPANS = [[366 * 8, "W1"], [Infinity, "MN1"]];

export class GoingDialog {
  /**
   * `onGo` is called with a moment: 0 for the start of history, null for the newest bar; `onSpan(timeframe, span)` with a
   * timeframe and what to see of it up to now (milliseconds); `first()` reads the opening of the first bar there is.
   */
  constructor({ onGo, onSpan, first }) {
    const leave = (at) => {
      $("going").close();
      onGo(at);
    };
    $("going-form").addEventListener("submit", (event) => {
      event.preventDefault();
      // The field holds what the chosen clock shows.
      const shown = Date.parse(`${$("going-time").value}Z`);
      if (!Number.isNaN(shown)) leave(momentOf(shown));
    });
    $("going-first").addEventListener("click", () => leave(0));
    $("going-newest").addEventListener("click", () => leave(null));
    const button = (name, spanOf) => {
      const made = element("button", "secondary", "", { type: "button", "data-i18n": name });
      made.addEventListener("click", async () => {
        $("going").close();
        const span = await spanOf();
        if (span) onSpan(...span);
      });
      return made;
    };
    $("going-spans").replaceChildren(
      ...SPANS.map(([name, days, timeframe]) => button(name, () => [timeframe, days * DAY_MS])),
      button("spanAll", async () => spanFrom(await first())),
    );
  }

  /** Ask, beginning with a moment. */
  open(time) {
    $("going-time").value = new Date(wall(time)).toISOString().slice(0, 16);
    $("going-label").textContent = t("goingTime", { zone: zoneLabel(time) });
    $("going").showModal();
  }
}

/** Timeframe and span of a history that begins then, or null without one. */
function spanFrom(time) {
  if (time === null) return null;
  const days = (Date.now() - time) / DAY_MS;
  const [, timeframe] = [...SPANS.map(([, ...span]) => span), ...LONG_SPANS].find(([most]) => days <= most);
  return [timeframe, days * DAY_MS];
}
