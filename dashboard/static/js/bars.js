// The bars of one symbol, source and timeframe: pages of the past, and a present that moves.
//
// A live minute changes the bar that holds it. For bars longer than a minute the newest two are kept in parts (hours
// and minutes), so that the bar is always the exact fold of its minutes, volume included.

import { candlePage, candlesFrom } from "./api.js";

const PAGE = 1000;
const FIRST_PAGE = 1500;
/** A gap of more pages than this is not filled, the chart begins anew. */
const GAP_PAGES = 4;
const LIVE_MINUTES = 30;
const LONG = new Set(["D1", "W1", "MN1"]);

export class Bars {
  /** Ascending; each with time (epoch milliseconds), open, high, low, close, volume, closed. */
  list = [];
  hasOlder = true;
  #query;
  #parts = new Map();
  #abort = new AbortController();
  #older = null;
  #reading = Promise.resolve();
  #isReady = false;
  /** The newest live minutes: the database is a moment behind them. */
  #live = new Map();

  constructor(symbol, source, timeframe) {
    this.#query = { symbol, source, timeframe };
  }

  get timeframe() {
    return this.#query.timeframe;
  }

  get last() {
    return this.list.at(-1);
  }

  /** Stop whatever is being read; nothing of it arrives any more. */
  close() {
    this.#abort.abort();
  }

  /** Read the newest bars, or after the first time those from a moment on. One reading at a time. */
  sync(from) {
    const reading = this.#reading.then(() => this.#sync(from));
    this.#reading = reading.catch(() => {});
    return reading;
  }

  async #sync(from) {
    this.#isReady = false;
    try {
      await this.#read(from);
      this.#isReady = true;
    } finally {
      // What is drawn already goes on moving; the rest is read at the next try.
      this.#isReady ||= this.list.length > 0;
    }
    for (const minute of this.#live.values()) this.#apply(minute);
  }

  async #read(from) {
    const start = from ?? this.last?.time;
    let fresh = start === undefined ? null : await candlesFrom(this.#query, start, GAP_PAGES, this.#signal);
    if (fresh === null) {
      const page = await candlePage({ ...this.#query, limit: FIRST_PAGE }, this.#signal);
      fresh = page.candles;
      this.hasOlder = page.next !== null;
      this.list = fresh;
    } else {
      this.list = [...this.list.filter((bar) => bar.time < start), ...fresh];
    }
    await this.#readParts();
  }

  /** Read one page of the past; false when there is none. One reading at a time. */
  loadOlder() {
    if (!this.hasOlder || !this.list.length) return Promise.resolve(false);
    this.#older ??= this.#loadOlder().finally(() => {
      this.#older = null;
    });
    return this.#older;
  }

  async #loadOlder() {
    const before = new Date(this.list[0].time).toISOString();
    const page = await candlePage({ ...this.#query, before, limit: PAGE }, this.#signal);
    this.hasOlder = page.next !== null;
    const first = this.list[0].time;
    this.list = [...page.candles.filter((bar) => bar.time < first), ...this.list];
    return page.candles.length > 0;
  }

  /**
   * Take a live minute. Returns the bar that changed, "reordered" when the list must be drawn anew, "stale" when what
   * is stored has to be read again from the minute's bar on, or null when nothing changed yet.
   */
  take(minute) {
    this.#live.delete(minute.ts);
    this.#live.set(minute.ts, minute);
    if (this.#live.size > LIVE_MINUTES) this.#live.delete(this.#live.keys().next().value);
    return this.#isReady ? this.#apply(minute) : null;
  }

  get #signal() {
    return this.#abort.signal;
  }

  async #readParts() {
    this.#parts.clear();
    if (this.timeframe === "M1" || !this.list.length) return;
    const { symbol, source } = this.#query;
    // The bar before the newest too: its last minute is told to be over when the newest has begun.
    const bars = this.list.slice(-2);
    const read = (timeframe, from) => candlesFrom({ symbol, source, timeframe }, from, 20, this.#signal);
    let coarse = [];
    let fineFrom = bars[0].time;
    if (LONG.has(this.timeframe)) {
      coarse = (await read("H1", fineFrom)) ?? [];
      fineFrom = coarse.at(-1)?.time ?? fineFrom;
      coarse.pop();
    }
    const fine = (await read("M1", fineFrom)) ?? [];
    for (const [index, bar] of bars.entries()) {
      const end = bars[index + 1]?.time ?? Infinity;
      const inside = (part) => part.time >= bar.time && part.time < end;
      const parts = new Map([...coarse, ...fine].filter(inside).map((part) => [part.time, part]));
      this.#parts.set(bar.time, { fineFrom: Math.max(fineFrom, bar.time), parts });
    }
  }

  #apply(minute) {
    // Without the database the server cannot tell; later it can.
    if (minute.bar === null) return "stale";
    const time = Date.parse(minute.ts);
    const barTime = Date.parse(minute.bar);
    const candle = { ...minute, time };
    if (this.timeframe === "M1") return this.#put(candle);
    let bar = this.#parts.get(barTime);
    if (!bar && (!this.list.length || barTime > this.last.time)) {
      bar = { fineFrom: barTime, parts: new Map() };
      this.#parts.set(barTime, bar);
      for (const old of [...this.#parts.keys()].slice(0, -2)) this.#parts.delete(old);
    }
    if (!bar) return this.#isNews(barTime) ? "stale" : null;
    if (time < bar.fineFrom) return "stale";
    const known = bar.parts.get(time);
    if (known && known.volume > candle.volume) return null;
    bar.parts.set(time, candle);
    return this.#put(fold(barTime, bar.parts));
  }

  /** Whether a bar so old can be on the chart. */
  #isNews(barTime) {
    return !this.list.length || barTime >= this.list[0].time;
  }

  #put(bar) {
    let index = this.list.length - 1;
    while (index >= 0 && this.list[index].time > bar.time) index -= 1;
    const found = this.list[index];
    if (index === this.list.length - 1 && found?.time !== bar.time) {
      this.list.push(bar);
      return bar;
    }
    if (found?.time === bar.time) {
      if (found.volume > bar.volume) return null;
      this.list[index] = bar;
      return bar;
    }
    if (index < 0 && this.hasOlder) return null;
    this.list.splice(index + 1, 0, bar);
    return "reordered";
  }
}

/** The bar that its parts make. */
export function fold(time, parts) {
  const ordered = [...parts.values()].sort((a, b) => a.time - b.time);
  return {
    time,
    open: ordered[0].open,
    high: Math.max(...ordered.map((part) => part.high)),
    low: Math.min(...ordered.map((part) => part.low)),
    close: ordered.at(-1).close,
    volume: ordered.reduce((sum, part) => sum + part.volume, 0),
    closed: false,
  };
}
