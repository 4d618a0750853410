// The dialog that asks where in time to go.

import { $ } from "./dom.js";
import { t } from "./i18n.js";
import { momentOf, wall, zoneLabel } from "./zone.js";

export class GoingDialog {
  /** `onGo` is called with a moment: 0 for the start of history, null for the newest bar. */
  constructor({ onGo }) {
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
  }

  /** Ask, beginning with a moment. */
  open(time) {
    $("going-time").value = new Date(wall(time)).toISOString().slice(0, 16);
    $("going-label").textContent = t("goingTime", { zone: zoneLabel(time) });
    $("going").showModal();
  }
}
