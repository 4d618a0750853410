// The foot of the page: the time on the clock that the reader chooses, and how long until the bar closes.

import { $, element } from "./dom.js";
import { clock, remaining } from "./format.js";
import { t } from "./i18n.js";
import { remember } from "./preferences.js";
import { setZone, zoneLabel } from "./zone.js";

/** Where exchanges are whose clocks traders go by. */
const EXCHANGES = [
  ["New York", "America/New_York"], ["Chicago", "America/Chicago"], ["São Paulo", "America/Sao_Paulo"],
  ["London", "Europe/London"], ["Frankfurt", "Europe/Berlin"], ["Mumbai", "Asia/Kolkata"], ["Hong Kong", "Asia/Hong_Kong"],
  ["Tokyo", "Asia/Tokyo"], ["Sydney", "Australia/Sydney"],
];

const HOUR_MS = 3_600_000;

export class Foot {
  #chosen;
  #day = null;

  /** `chosen`: UTC, browser, day, or an IANA zone. `onChoose` is called when times are shown by another. */
  constructor({ chosen, onChoose }) {
    this.#chosen = chosen;
    this.#apply();
    $("zone").addEventListener("change", () => {
      this.#chosen = $("zone").value;
      this.#apply();
      remember({ zone: this.#chosen });
      onChoose();
    });
  }

  /** Take the zone that another page of this browser has chosen; returns whether it is another. */
  takeZone(zone) {
    if (zone === undefined || zone === this.#chosen) return false;
    this.#chosen = zone;
    this.#apply();
    return true;
  }

  /** Take the clock of the database's days; returns whether times are shown by it. */
  takeDay(day) {
    if (!day || (day.zone === this.#day?.zone && day.shift_ms === this.#day.shift_ms)) return false;
    this.#day = day;
    this.label();
    if (this.#chosen !== "day") return false;
    this.#apply();
    return true;
  }

  /** Say it in the page's language. */
  label() {
    const option = (value, text) => element("option", "", text, { value });
    const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
    const exchanges = element("optgroup", "", EXCHANGES.map(([name, zone]) => option(zone, name)), { label: t("exchanges") });
    const isOwn = this.#day && (this.#day.zone !== "UTC" || this.#day.shift_ms || this.#chosen === "day");
    const day = isOwn && option("day", t("dayZone", {
      zone: this.#day.zone, shift: this.#day.shift_ms ? ` ${this.#day.shift_ms < 0 ? "−" : "+"} ${Math.abs(this.#day.shift_ms) / HOUR_MS} h` : "",
    }));
    $("zone").replaceChildren(...[option("UTC", "UTC"), option("browser", t("browserZone", { zone: own })), day, exchanges].filter(Boolean));
    $("zone").value = this.#chosen;
  }

  /** `barEnd`: when the bar that moves closes, or 0. */
  tick(barEnd) {
    const now = Date.now();
    // Its zone stands beside it.
    $("clock").textContent = this.#chosen === "UTC" ? clock(now) : `${clock(now)} ${zoneLabel(now)}`;
    $("countdown").textContent = barEnd > now ? t("closesIn", { time: remaining(barEnd - now) }) : "";
  }

  #apply() {
    try {
      if (this.#chosen === "day") setZone(this.#day?.zone ?? "UTC", this.#day?.shift_ms ?? 0);
      else setZone(this.#chosen === "browser" ? Intl.DateTimeFormat().resolvedOptions().timeZone : this.#chosen);
    } catch {
      // A zone that this browser does not know.
      this.#chosen = "UTC";
      setZone("UTC");
    }
  }
}
