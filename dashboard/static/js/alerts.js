// Alerts of this browser, watched while the page is open: a price is reached, or a feed falls silent.

import { Stream } from "./api.js";
import { preferences, remember } from "./preferences.js";

const MINUTE_MS = 60_000;
const TICK_MS = 1_000;

export class Alerts {
  /** Each with id, symbol, source, digits, `fired` (when, or null), and a `price` with its `side`, or `silence` in seconds. */
  list = [];
  #stream = null;
  #watched = "";
  /** Newest tick of each feed, as far as it is not ahead of the clock. */
  #ticks = new Map();
  #clock = { at: 0, heard: 0 };
  #isWatching;
  #onFire;
  #onChange;

  /** `onFire(alert)` is called when one is due, if they are watched here; `onChange()` when the list is another. */
  constructor({ isWatching, onFire, onChange }) {
    [this.#isWatching, this.#onFire, this.#onChange] = [isWatching, onFire, onChange];
    this.#take(preferences().alerts);
    // Another tab has changed them.
    addEventListener("storage", () => this.#take(preferences().alerts));
    setInterval(() => this.#listen(), TICK_MS);
  }

  /** Watch for a price of a feed, which now stands at `now`, or for so many seconds without a tick. */
  add({ symbol, source, digits, price, now, silence }) {
    const side = price === undefined ? undefined : price >= now ? 1 : -1;
    const alert = { id: crypto.getRandomValues(new Uint32Array(1))[0], symbol, source, digits, price, side, silence, since: Date.now(), fired: null };
    this.#save([...this.list, alert]);
  }

  remove(id) {
    this.#save(this.list.filter((alert) => alert.id !== id));
  }

  /** Those of a feed that wait for a price. */
  pricesOf({ symbol, source }) {
    return this.list.filter((alert) => alert.price !== undefined && !alert.fired && alert.symbol === symbol && alert.source === source);
  }

  #save(list) {
    remember({ alerts: list });
    this.#take(list);
  }

  #take(list = []) {
    this.list = list;
    const symbols = [...new Set(list.map(({ symbol }) => symbol))].sort();
    if (this.#isWatching && symbols.join("\t") !== this.#watched) {
      this.#watched = symbols.join("\t");
      this.#stream?.close();
      this.#stream = symbols.length ? new Stream([["timeframe", "M1"], ...symbols.map((symbol) => ["symbol", symbol])], {
        state: () => {}, candle: (minute) => this.#minute(minute), pipeline: (state) => this.#pipeline(state),
      }) : null;
    }
    this.#onChange();
  }

  #minute(minute) {
    this.#note(minute);
    for (const alert of this.list) {
      if (alert.price !== undefined && !alert.fired && isOf(alert, minute) && reaches(alert, minute)) this.#fire(alert);
    }
  }

  #pipeline({ at, feeds }) {
    this.#clock = { at: Date.parse(at), heard: Date.now() };
    for (const feed of feeds) this.#note(feed);
    this.#listen();
  }

  get #now() {
    return this.#clock.at ? this.#clock.at + Date.now() - this.#clock.heard : Date.now();
  }

  #note({ symbol, source, last_tick: lastTick }) {
    const key = `${symbol}\t${source}`;
    const [time, known] = [Date.parse(lastTick), this.#ticks.get(key)];
    if (known === undefined || time > known.time) this.#ticks.set(key, { time, at: Math.min(time, this.#now) });
  }

  /** Whether a feed has been silent for too long: once, until it has told of another tick. */
  #listen() {
    if (!this.#clock.at) return;
    for (const alert of this.list) {
      const tick = alert.silence && this.#ticks.get(`${alert.symbol}\t${alert.source}`);
      if (!tick) continue;
      const isSilent = this.#now - tick.at > alert.silence * 1000;
      if (isSilent && !alert.fired) this.#fire(alert);
      else if (!isSilent && alert.fired) this.#save(this.list.map((each) => (each === alert ? { ...alert, fired: null } : each)));
    }
  }

  #fire(alert) {
    this.#save(this.list.map((each) => (each.id === alert.id ? { ...alert, fired: Date.now() } : each)));
    this.#onFire(alert);
  }
}

const isOf = (alert, { symbol, source }) => alert.symbol === symbol && alert.source === source;

/** Whether the minute holds a tick, since the alert was set, at its price or beyond. */
function reaches(alert, { ts, high, low, close }) {
  const { price, side, since } = alert;
  const began = Math.floor(since / MINUTE_MS) * MINUTE_MS;
  const time = Date.parse(ts);
  if (time < began) return false;
  const [best, now] = side > 0 ? [high - price, close - price] : [price - low, price - close];
  if (time > began) return best >= 0;
  // Of the minute in which it was set, what was reached before does not count.
  const before = alert.best;
  alert.best = Math.max(best, before ?? -Infinity);
  return now >= 0 || (before !== undefined && best > before && best >= 0);
}
