// The bars of one symbol, source and timeframe: pages of the past, and a present that moves.
//
// They begin with the newest, or around a moment that the reader goes to. From there they reach the present only when
// the reader has come to it; until then nothing that is live is added behind the last one.
//
// A live minute changes the bar that holds it. For bars longer than a minute those that move are held in parts (hours
// and minutes), so that such a bar is always the exact fold of its minutes, volume included. An older bar is read again
// when the table holds the minute that changed.

import { FROM_PAGE, candlePage, candlesFrom, iso } from "./api.js";
import { winner } from "./rule.js";
import { widthOf } from "./timeframes.js";

const PAGE = 1000;
const FIRST_PAGE = 1500;
/** Bars before the moment that the reader goes to, which are read with those after it. */
const PAST_PAGE = 500;
/** A gap of more pages than this is not filled, the chart starts over. */
const GAP_PAGES = 4;
const MINUTE_MS = 60_000;
/** Newest minutes that may be ahead of the table, which is a moment behind. */
const LIVE_MINUTES = 30;
/** Bars that move: the newest, and the one before it, whose last minute is told to be over when the newest has begun. */
const MOVING_BARS = 2;
const LONG = new Set(["D1", "W1", "MN1"]);

export class Bars {
  /** Ascending; each with time (epoch milliseconds), open, high, low, close, volume, closed. */
  list = [];
  hasOlder = true;
  /** Whether stored bars follow the last one that is loaded. */
  hasNewer = false;
  /** Decimals of the prices; null while the sender has not said them. */
  digits = null;
  #query;
  #at;
  #parts = new Map();
  /** Openings of older bars that move all the same. */
  #wanted = new Set();
  #abort = new AbortController();
  #older = null;
  #newer = null;
  #reading = Promise.resolve();
  #isReady = false;
  #live = new Map();
  /** What came while something was read. */
  #came = [];

  /** `at`: the moment to begin around, or null for the newest. */
  constructor(symbol, source, timeframe, at = null) {
    this.#query = { symbol, source, timeframe };
    this.#at = at;
  }

  get timeframe() {
    return this.#query.timeframe;
  }

  get last() {
    return this.list.at(-1);
  }

  /** The bar of a moment; of one in a gap the bar behind it, of one behind all bars the last. */
  at(time) {
    const next = this.list.findIndex((bar) => bar.time > time);
    if (next < 0) return this.last;
    const before = this.list[next - 1];
    return before && time - before.time < (widthOf(this.timeframe) ?? Infinity) ? before : this.list[next];
  }

  /** Whether what is around a moment, or without one the newest bar, is loaded. */
  holds(at) {
    if (!this.list.length) return false;
    if (at === null) return !this.hasNewer;
    return (at >= this.list[0].time || !this.hasOlder) && (at <= this.last.time || !this.hasNewer);
  }

  /** Stop whatever is being read; nothing of it arrives any more. */
  close() {
    this.#abort.abort();
  }

  /**
   * Read the first bars, or after the first time again those from the opening of one on; one reading at a time. Returns
   * the opening of the first bar that has to be read again, for it changed meanwhile, or null.
   */
  sync(from) {
    const reading = this.#reading.then(() => this.#sync(from));
    this.#reading = reading.catch(() => {});
    return reading;
  }

  async #sync(from) {
    this.#isReady = false;
    this.#came = [];
    try {
      await this.#read(from);
      this.#isReady = true;
    } finally {
      // What is drawn already goes on moving; the rest is read at the next try.
      this.#isReady ||= this.list.length > 0;
    }
    // The newest minutes are ahead of the table for a moment; what came while it was read may be news to it as well.
    for (const minute of this.#live.values()) this.#apply(minute);
    const stale = this.#came.filter((minute) => minute.bar !== null && this.#isStale(minute));
    this.#came = [];
    this.#forgetLive();
    return stale.length ? Math.min(...stale.map(({ bar }) => Date.parse(bar))) : null;
  }

  async #read(from) {
    const start = from ?? this.last?.time;
    const fresh = start === undefined ? null : await this.#readFrom(start);
    if (fresh !== null) this.list = [...this.list.filter((bar) => bar.time < start), ...fresh];
    else if (this.#at !== null && !this.list.length) await this.#readAround(this.#at);
    else await this.#readNewest();
    await this.#readParts();
  }

  /** The bars from one on, up to the last one that is loaded or to the present; null where they are too many. */
  async #readFrom(start) {
    if (!this.hasNewer) return candlesFrom(this.#provenQuery, start, GAP_PAGES, this.#signal);
    if (start > this.last.time) return [];
    const pages = GAP_PAGES + Math.ceil(this.list.length / FROM_PAGE);
    return candlesFrom({ ...this.#provenQuery, to: iso(this.last.time + 1) }, start, pages, this.#signal);
  }

  async #readNewest() {
    const page = await candlePage({ ...this.#provenQuery, limit: FIRST_PAGE }, this.#signal);
    this.list = page.candles;
    this.hasOlder = page.next !== null;
    this.hasNewer = false;
    this.digits = page.digits ?? this.digits;
  }

  async #readAround(at) {
    const query = this.#provenQuery;
    const [past, present] = await Promise.all([
      candlePage({ ...query, before: iso(at), limit: PAST_PAGE }, this.#signal),
      candlePage({ ...query, from: iso(at), limit: PAGE }, this.#signal),
    ]);
    this.list = [...past.candles, ...present.candles];
    this.hasOlder = past.next !== null;
    this.hasNewer = present.next !== null;
    this.digits = present.digits ?? past.digits ?? this.digits;
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
    const first = this.list[0].time;
    const page = await candlePage({ ...this.#provenQuery, before: iso(first), limit: PAGE }, this.#signal);
    // Meanwhile the chart may have started over with newer bars; the page does not join these.
    if (this.list[0].time !== first) return false;
    this.hasOlder = page.next !== null;
    this.list = [...page.candles, ...this.list];
    return page.candles.length > 0;
  }

  /**
   * Read one page towards the present, after whatever is being read. When it was the last, `sync` has to read what
   * moves.
   */
  loadNewer() {
    this.#newer ??= this.#reading.then(() => this.#loadNewer()).finally(() => {
      this.#newer = null;
    });
    this.#reading = this.#newer.catch(() => {});
    return this.#newer;
  }

  async #loadNewer() {
    if (!this.hasNewer) return;
    const page = await candlePage({ ...this.#provenQuery, from: iso(this.last.time + 1), limit: PAGE }, this.#signal);
    this.list = [...this.list, ...page.candles];
    this.hasNewer = page.next !== null;
  }

  /**
   * Take a live minute. Returns the bar that changed, "reordered" when the list must be redrawn, "stale" when what
   * is stored has to be read again from the minute's bar on, or null when nothing changed yet.
   */
  take(minute) {
    const live = winner(this.#live.get(minute.ts), minute);
    this.#live.delete(minute.ts);
    this.#live.set(minute.ts, live);
    if (!this.#isReady) {
      this.#came.push(minute);
      return null;
    }
    this.#forgetLive();
    return this.#isStale(minute) ? "stale" : this.#apply(minute);
  }

  /** Whether the minute changes a bar whose parts are not known. */
  #isStale(minute) {
    // Without the database the server cannot tell which bar; later it can.
    if (minute.bar === null) return true;
    const barTime = Date.parse(minute.bar);
    if (!this.list.length || barTime > this.last.time) return false;
    // Older than what is loaded: read with the rest when the reader comes there, if that is not under way.
    if (barTime < this.list[0].time) return this.#older !== null || (!this.hasOlder && this.timeframe !== "M1");
    if (this.timeframe === "M1") return false;
    const bar = this.#parts.get(barTime);
    if (bar && Date.parse(minute.ts) >= bar.fineFrom) return false;
    // Its row may be a moment away still: it moves, and is held in parts from now on.
    if (!minute.stored) this.#wanted.add(barTime);
    return true;
  }

  #forgetLive() {
    while (this.#live.size > LIVE_MINUTES) this.#live.delete(this.#live.keys().next().value);
  }

  get #signal() {
    return this.#abort.signal;
  }

  /** Only minutes have a proof. */
  get #provenQuery() {
    return this.timeframe === "M1" ? { ...this.#query, proof: true } : this.#query;
  }

  async #readParts() {
    this.#parts.clear();
    if (this.timeframe === "M1" || !this.list.length) return;
    const { symbol, source } = this.#query;
    const bars = this.#movingBars();
    if (!bars.length) return;
    const read = (timeframe, from, more = {}) => candlesFrom({ symbol, source, timeframe, ...more }, from, 20, this.#signal);
    let coarse = [];
    let fineFrom = bars[0].time;
    if (LONG.has(this.timeframe)) {
      coarse = (await read("H1", fineFrom)) ?? [];
      // The hour before the present one may still get its last minute.
      fineFrom = coarse.filter(({ time }) => time <= Date.now() + MINUTE_MS).at(-2)?.time ?? fineFrom;
      coarse = coarse.filter(({ time }) => time < fineFrom);
    }
    const fine = (await read("M1", fineFrom, { proof: true })) ?? [];
    for (const bar of bars) {
      const end = this.list.find(({ time }) => time > bar.time)?.time ?? Infinity;
      const inside = (part) => part.time >= bar.time && part.time < end;
      const parts = new Map([...coarse, ...fine].filter(inside).map((part) => [part.time, part]));
      this.#parts.set(bar.time, { fineFrom: Math.max(fineFrom, bar.time), parts });
    }
  }

  #movingBars() {
    // A tick that is stamped ahead makes a bar ahead of those that move.
    const present = this.hasNewer ? [] : this.list.filter(({ time }) => time <= Date.now() + MINUTE_MS).slice(-MOVING_BARS);
    const wanted = this.list.filter(({ time }) => this.#wanted.has(time)).slice(-MOVING_BARS);
    return [...new Set([...wanted, ...present])].sort((a, b) => a.time - b.time);
  }

  /** The bar that changed, "reordered", or null when nothing changed that can be told without reading. */
  #apply(minute) {
    if (minute.bar === null) return null;
    const time = Date.parse(minute.ts);
    const barTime = Date.parse(minute.bar);
    const candle = { ...minute, time, received: Date.parse(minute.received_at) };
    if (this.hasNewer && barTime > this.last.time) return null;
    if (this.timeframe === "M1") return this.#put(candle);
    let bar = this.#parts.get(barTime);
    if (!bar && (!this.list.length || barTime > this.last.time)) {
      bar = { fineFrom: barTime, parts: new Map() };
      this.#parts.set(barTime, bar);
      for (const old of [...this.#parts.keys()].slice(0, -2 * MOVING_BARS)) this.#parts.delete(old);
    }
    if (!bar || time < bar.fineFrom) return null;
    const known = bar.parts.get(time);
    const stays = winner(known, candle);
    if (stays === known) return null;
    bar.parts.set(time, { ...stays, time });
    return this.#put({ ...fold(barTime, bar.parts), closed: candle.closed && Date.parse(minute.bar_end) <= Date.now() });
  }

  #put(bar) {
    let index = this.list.length - 1;
    while (index >= 0 && this.list[index].time > bar.time) index -= 1;
    const found = this.list[index];
    if (found?.time === bar.time) {
      const stays = winner(found, bar);
      if (stays === found) return null;
      this.list[index] = stays;
      return stays;
    }
    if (index === this.list.length - 1) {
      this.list.push(bar);
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
    real_volume: ordered.reduce((sum, part) => sum + (part.real_volume ?? 0), 0),
    spread: ordered.reduce((least, { spread }) => (least === null || (spread ?? least) < least ? spread ?? null : least), null),
  };
}
