// The read API, and the live stream with a watchdog of its own.

/** An answer that says what is wrong. */
export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function getJson(path, signal) {
  let response;
  try {
    response = await fetch(path, { signal, headers: { Accept: "application/json" } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "OFFLINE", "");
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new ApiError(response.status, body.code ?? "HTTP_ERROR", body.error ?? response.statusText);
  return body;
}

/** Symbols and sources of a list to choose from: of more, some are found by typing. */
const LISTED = 300;

/** The first symbols and sources that contain a text, and whether these are all. */
export async function listSymbols(search = "") {
  const { symbols, next } = await getJson(`symbols?${new URLSearchParams({ limit: LISTED, ...(search ? { search } : {}) })}`);
  return { symbols, isWhole: next === null };
}

/** Who sends, the latest first. */
export async function listSenders() {
  return (await getJson("senders")).senders;
}

/** One page of candles; times of bars become `time`, epoch milliseconds. */
export async function candlePage(query, signal) {
  const wanted = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
  return withTimes(await getJson(`candles?${new URLSearchParams(wanted)}`, signal));
}

/** When the first bar of a feed opens (epoch milliseconds), or null where it has none. */
export async function firstOf({ symbol, source }) {
  const { candles } = await candlePage({ symbol, source, timeframe: "D1", from: iso(0), limit: 1 });
  return candles[0]?.time ?? null;
}

/** Candles of a page that `candlesFrom` reads. */
export const FROM_PAGE = 5000;

/** Every candle from a moment on, page by page; null when that would be more than `pages`. */
export async function candlesFrom(query, from, pages, signal) {
  let page = await candlePage({ ...query, from: iso(from), limit: FROM_PAGE }, signal);
  const candles = page.candles;
  for (let read = 1; page.next; read += 1) {
    if (read === pages) return null;
    page = withTimes(await getJson(page.next, signal));
    candles.push(...page.candles);
  }
  return candles;
}

/** Candles of one page at most. */
const MOST_CANDLES = 20_000;

/** Where the newest of these bars are, as many as one page holds; null where there is none. */
export function candlesUrl(query, bars) {
  const told = bars.slice(-MOST_CANDLES);
  if (!told.length) return null;
  return `candles?${new URLSearchParams({ ...query, limit: MOST_CANDLES, from: iso(told[0].time), to: iso(told.at(-1).time + 1) })}`;
}

/** What the bar of `feed` (symbol, source and timeframe) that opens at `time` is the fold of; `verify`: and whether it is. */
export async function proofOf({ symbol, source, timeframe }, time, signal, { verify = false } = {}) {
  const query = new URLSearchParams({ symbol, source, timeframe, ...(verify ? { verify } : {}) });
  return getJson(`candles/${iso(time)}/proof?${query}`, signal);
}

/** Where the ticks behind a bar are. */
export function ticksUrl({ symbol, source, timeframe }, time, options) {
  return `candles/${iso(time)}/ticks?${new URLSearchParams({ symbol, source, timeframe, ...options })}`;
}

/** The first of them. */
export async function ticksOf(feed, time, limit, signal) {
  return getJson(ticksUrl(feed, time, { limit }), signal);
}

/** The broker's bars between two moments, and how far ours agree. */
export async function comparedBars({ symbol, source, timeframe }, from, to, signal) {
  const query = new URLSearchParams({ symbol, source, timeframe, from: iso(from), to: iso(to), limit: 20_000 });
  const { bars } = await getJson(`compared?${query}`, signal);
  for (const bar of bars) bar.time = Date.parse(bar.ts);
  return bars;
}

/** What is known of every minute of a feed between two moments, at most 31 days; times become epoch milliseconds. */
export async function gapsOf({ symbol, source }, from, to, signal) {
  const { ranges } = await getJson(`gaps?${new URLSearchParams({ symbol, source, from: iso(from), to: iso(to) })}`, signal);
  return ranges.map((range) => ({ ...range, from: Date.parse(range.from), to: Date.parse(range.to) }));
}

/** A moment as parameters have it. */
export const iso = (time) => new Date(time).toISOString();

function withTimes(page) {
  for (const candle of page.candles) {
    candle.time = Date.parse(candle.ts);
    if (candle.received_at) candle.received = Date.parse(candle.received_at);
  }
  return page;
}

/** Silence after which a stream is taken for dead: it says something every five seconds. */
const SILENCE_MS = 16_000;
const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 8_000;
/** What is read waits so long for the stream, so that no change falls between the two. */
const BEGIN_MS = 1_000;

/**
 * Server-sent events that come back after whatever happened, and go on where they were lost. `handlers` holds a function
 * for each kind of event, and `state(name, error)`, which is told "open", "connecting", "lost", and of one that does
 * not open "refused" with what the server says, or "gone" when it says nothing.
 */
export class Stream {
  /** Settled when the server has begun to tell, or was waited for long enough to go on without it. */
  begun;
  #query;
  #handlers;
  #source = null;
  #lastId = null;
  #retryMs = FIRST_RETRY_MS;
  #retryTimer = 0;
  #watchdog = 0;
  #heardAt = 0;
  #begin;
  #asking = null;

  /** `query`: an object, or pairs where a parameter comes more than once. */
  constructor(query, handlers) {
    this.#query = query;
    this.#handlers = handlers;
    this.begun = new Promise((resolve) => { this.#begin = resolve; });
    setTimeout(this.#begin, BEGIN_MS);
    this.#connect();
  }

  close() {
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#watchdog);
    this.#asking?.abort();
    this.#source?.close();
    this.#source = null;
  }

  /** Try at once, because the machine woke up or found its network; timers have slept as it did. */
  hurry() {
    if (this.#source?.readyState === EventSource.OPEN && Date.now() - this.#heardAt < SILENCE_MS) return;
    this.#retryMs = FIRST_RETRY_MS;
    this.#connect();
  }

  get #url() {
    const query = new URLSearchParams(this.#query);
    if (this.#lastId) query.set("since", this.#lastId);
    return `stream?${query}`;
  }

  #connect() {
    this.close();
    this.#handlers.state("connecting");
    const source = new EventSource(this.#url);
    this.#source = source;
    let isOpen = false;
    source.onopen = () => {
      isOpen = true;
      this.#retryMs = FIRST_RETRY_MS;
      this.#handlers.state("open");
      this.#alive();
    };
    // The browser would try again by itself, but not after an answer such as 503.
    source.onerror = () => this.#lost(isOpen);
    for (const kind of ["candle", "stale", "resync", "pipeline", "ping"]) {
      source.addEventListener(kind, (event) => {
        this.#alive();
        this.#begin();
        if (event.lastEventId) this.#lastId = event.lastEventId;
        this.#handlers[kind]?.(JSON.parse(event.data));
      });
    }
    this.#alive();
  }

  #alive() {
    this.#heardAt = Date.now();
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => this.#lost(true), SILENCE_MS);
  }

  #lost(wasOpen) {
    this.close();
    this.#begin();
    this.#handlers.state("lost");
    if (!wasOpen) this.#askWhy();
    this.#retryTimer = setTimeout(() => this.#connect(), this.#retryMs);
    this.#retryMs = Math.min(LAST_RETRY_MS, this.#retryMs * 2);
  }

  /** An EventSource does not tell what the server answered. */
  async #askWhy() {
    const asking = new AbortController();
    this.#asking = asking;
    try {
      const response = await fetch(this.#url, { signal: asking.signal });
      if (!response.ok) {
        const { code, error } = await response.json();
        this.#handlers.state("refused", new ApiError(response.status, code, error));
      }
    } catch (error) {
      if (error.name !== "AbortError") this.#handlers.state("gone");
    } finally {
      asking.abort();
    }
  }
}
