// The dialog that lists alerts and takes new ones, and how one that is due is told: on the page, as a notification of the
// browser where that is allowed, and with a sound where that is wanted.

import { $, element } from "./dom.js";
import { Alerts } from "./alerts.js";
import { clock, count, price, typable, typed } from "./format.js";
import { t } from "./i18n.js";
import { preferences, remember } from "./preferences.js";

export class AlertDialog {
  #alerts;
  #feed;
  #onPrices;

  /**
   * `feed()` gives what is shown, its digits and, where it is known, the price `now`; `onPrices(alerts)` is told those of it
   * that wait for a price; `isWatching`: whether this page is the one that looks when they are due.
   */
  constructor({ feed, onPrices, isWatching }) {
    [this.#feed, this.#onPrices] = [feed, onPrices];
    this.#alerts = new Alerts({ isWatching, onFire: (alert) => this.#tell(alert), onChange: () => this.render() });
    $("alert-sound").checked = preferences().sound === true;
    // The other chart, or another tab, has changed it.
    addEventListener("storage", () => { $("alert-sound").checked = preferences().sound === true; });
    $("alert-sound").addEventListener("change", () => {
      remember({ sound: $("alert-sound").checked });
      if ($("alert-sound").checked) beep();
    });
    $("alert-allow").addEventListener("click", async () => {
      await Notification.requestPermission();
      this.render();
    });
    for (const kind of ["price", "silence"]) {
      $(`alert-${kind}-form`).addEventListener("submit", (event) => this.#add(event, kind));
      $(`alert-${kind}`).addEventListener("input", ({ target }) => target.setCustomValidity(""));
    }
  }

  open() {
    const { symbol, source, now, digits } = this.#feed();
    if (!symbol) return;
    $("alerts-feed").textContent = source ? `${symbol} · ${source}` : symbol;
    $("alert-price").value = now === undefined ? "" : typable(now, digits);
    this.render();
    $("alerts").showModal();
  }

  /** Show the list as it is now, in the page's language. */
  render() {
    // Called by the alerts while they are being made.
    if (!this.#alerts) return;
    this.#onPrices(this.#alerts.pricesOf(this.#feed()));
    const rows = this.#alerts.list.map((alert) => {
      const words = `${alert.symbol} · ${alert.source}: ${wordsOf(alert)}`;
      const remove = element("button", "close", "×", { type: "button", "aria-label": t("alertRemove", { alert: words }) });
      remove.addEventListener("click", () => this.#alerts.remove(alert.id));
      return element("li", alert.fired ? "fired" : "", [
        element("span", "", words), element("small", "", alert.fired ? t("alertFired", { time: clock(alert.fired) }) : ""), remove,
      ]);
    });
    $("alert-list").replaceChildren(...(rows.length ? rows : [element("li", "hint", t("alertsNone"))]));
    $("alerts-open").setAttribute("aria-pressed", String(this.#alerts.list.length > 0));
    const permission = globalThis.Notification?.permission;
    $("alert-allow").hidden = permission !== "default";
    $("alert-hint").textContent = t(permission === "granted" ? "alertsHint" : "alertsHere");
  }

  #add(event, kind) {
    event.preventDefault();
    const input = $(`alert-${kind}`);
    const value = typed(input.value);
    const feed = this.#feed();
    let wrong = "";
    if (!Number.isFinite(value) || (kind === "silence" && value < 1)) wrong = t(kind === "price" ? "alertNoNumber" : "alertNoSeconds");
    // Whether a price is reached from below or from above is not known without that of now.
    else if (kind === "price" && feed.now === undefined) wrong = t("alertNoPrice");
    input.setCustomValidity(wrong);
    if (wrong) input.reportValidity();
    else this.#alerts.add({ ...feed, [kind]: value });
  }

  #tell(alert) {
    const words = t(alert.silence ? "alertSilent" : "alertReached", {
      symbol: alert.symbol, source: alert.source, price: price(alert.price ?? 0, alert.digits), seconds: count(alert.silence ?? 0),
    });
    const close = element("button", "close", "×", { "aria-label": t("close") });
    const toast = element("div", "toast", [element("span", "", `${clock(Date.now())} ${words}`), close], { role: "alert" });
    close.addEventListener("click", () => toast.remove());
    $("toasts").append(toast);
    // Tabs that watch the same show it once.
    if (globalThis.Notification?.permission === "granted") new Notification("Tickpipe", { body: words, tag: String(alert.id) });
    if ($("alert-sound").checked) beep();
  }
}

function wordsOf({ price: wanted, digits, side, silence }) {
  if (silence) return t("alertSilenceRow", { seconds: count(silence) });
  return `${side > 0 ? "≥" : "≤"} ${price(wanted, digits)}`;
}

/** Two short tones. */
function beep() {
  const audio = new AudioContext();
  const gain = audio.createGain();
  gain.gain.value = 0.15;
  gain.connect(audio.destination);
  for (const [start, frequency] of [[0, 660], [0.18, 880]]) {
    const tone = audio.createOscillator();
    tone.frequency.value = frequency;
    tone.connect(gain);
    tone.start(audio.currentTime + start);
    tone.stop(audio.currentTime + start + 0.14);
  }
  setTimeout(() => audio.close(), 1000);
}
