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

/** Every symbol and source. */
export async function listSymbols() {
  return (await getJson("symbols")).symbols;
}

/** One page of candles; times of bars become `time`, epoch milliseconds. */
export async function candlePage(query, signal) {
  const wanted = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
  return withTimes(await getJson(`candles?${new URLSearchParams(wanted)}`, signal));
}

/** Every candle from a moment on, page by page; null when that would be more than `pages`. */
export async function candlesFrom(query, from, pages, signal) {
  let page = await candlePage({ ...query, from, limit: 5000 }, signal);
  const candles = page.candles;
  for (let read = 1; page.next; read += 1) {
    if (read === pages) return null;
    page = withTimes(await getJson(page.next, signal));
    candles.push(...page.candles);
  }
  return candles;
}

function withTimes(page) {
  for (const candle of page.candles) candle.time = Date.parse(candle.ts);
  return page;
}

/** Silence after which a stream is taken for dead: it says something every five seconds. */
const SILENCE_MS = 16_000;
const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 8_000;

/**
 * Server-sent events that come back after whatever happened. `handlers` holds a function for each kind of event, and
 * `state(name)`, which is told "open", "connecting" or "lost".
 */
export class Stream {
  #url;
  #handlers;
  #source = null;
  #retryMs = FIRST_RETRY_MS;
  #retryTimer = 0;
  #watchdog = 0;

  constructor(query, handlers) {
    this.#url = `stream?${new URLSearchParams(query)}`;
    this.#handlers = handlers;
    this.#connect();
  }

  close() {
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#watchdog);
    this.#source?.close();
    this.#source = null;
  }

  /** Try at once, because the machine woke up or found its network. */
  hurry() {
    if (this.#source?.readyState === EventSource.OPEN) return;
    this.#retryMs = FIRST_RETRY_MS;
    this.#connect();
  }

  #connect() {
    this.close();
    this.#handlers.state("connecting");
    const source = new EventSource(this.#url);
    this.#source = source;
    source.onopen = () => {
      this.#retryMs = FIRST_RETRY_MS;
      this.#handlers.state("open");
      this.#alive();
    };
    // The browser would try again by itself, but not after an answer such as 503.
    source.onerror = () => this.#lost();
    for (const kind of ["candle", "stale", "resync", "pipeline", "ping"]) {
      source.addEventListener(kind, (event) => {
        this.#alive();
        this.#handlers[kind]?.(JSON.parse(event.data));
      });
    }
    this.#alive();
  }

  #alive() {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => this.#lost(), SILENCE_MS);
  }

  #lost() {
    this.close();
    this.#handlers.state("lost");
    this.#retryTimer = setTimeout(() => this.#connect(), this.#retryMs);
    this.#retryMs = Math.min(LAST_RETRY_MS, this.#retryMs * 2);
  }
}
