// Lines across the chart at a price: bid and ask, as the newest tick tells them, and prices that alerts wait for.

import { t } from "./i18n.js";

/** A tick that is stamped further ahead is not the newest for that. */
const AHEAD_MS = 60_000;
const SIDES = { bid: "quote", ask: "down" };

export class PriceLines {
  #candles;
  #lines = {};
  #alerts = [];
  #quote = null;
  #isShown = true;
  #isPresent = true;
  #paint = {};

  constructor(candles) {
    this.#candles = candles;
  }

  /** Bid and ask of the newest tick that is known, each null where it has none; null while no tick is. */
  get quote() {
    return this.#quote;
  }

  recolour(paint) {
    this.#paint = paint;
    this.#draw();
  }

  /** Take a live minute, whose tick may be older than the newest; null forgets what is known. */
  take(minute) {
    if (minute === null) this.#quote = null;
    else {
      const { bid, ask, close, last_tick: lastTick } = minute;
      const at = Date.parse(lastTick);
      // Rows of the table have no quote.
      if (bid === null && ask === null) return;
      if (at < this.#quote?.at && this.#quote.at < Date.now() + AHEAD_MS) return;
      this.#quote = { bid, ask, at, isClose: bid === close };
    }
    this.#draw();
  }

  show(isShown) {
    this.#isShown = isShown;
    this.#draw();
  }

  /** Draw the prices of these alerts. */
  setAlerts(alerts) {
    this.#alerts = alerts;
    for (const name of Object.keys(this.#lines)) if (!(name in SIDES)) this.#put(name, null);
    this.#draw();
  }

  /** `isPresent`: the last bar is the newest there is, and has a price of now. */
  setPresent(isPresent) {
    this.#isPresent = isPresent;
    this.#draw();
  }

  #draw() {
    const isQuoted = this.#isShown && this.#isPresent && this.#quote !== null;
    for (const [side, colour] of Object.entries(SIDES)) {
      const price = isQuoted ? this.#quote[side] : null;
      this.#put(side, price, { color: this.#paint[colour], title: t(`${side}Word`) });
    }
    for (const { id, price } of this.#alerts) {
      this.#put(`alert ${id}`, price, { color: this.#paint.warn, lineStyle: 2, title: t("alert") });
    }
    // The line of the close would lie on that of the bid.
    const hasOwn = this.#isPresent && !(isQuoted && this.#quote.isClose);
    this.#candles.applyOptions({ priceLineVisible: hasOwn, lastValueVisible: hasOwn });
  }

  #put(name, price, look) {
    if (price === null) {
      if (this.#lines[name]) this.#candles.settled.removePriceLine(this.#lines[name]);
      delete this.#lines[name];
    } else if (this.#lines[name]) this.#lines[name].applyOptions({ price, ...look });
    else this.#lines[name] = this.#candles.settled.createPriceLine({ price, lineWidth: 1, lineStyle: 1, ...look });
  }
}
