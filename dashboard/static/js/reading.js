// Reads the bars of what is chosen, and reads again what changed in the table.

import { Bars } from "./bars.js";

/** What changed in the table is read again so soon: changes come in flocks. */
const STALE_MS = 150;
const RETRY_MS = 3_000;

export class Reading {
  /** What is shown: null while nothing is chosen. */
  bars = null;
  #handlers;
  #timer = 0;
  #staleFrom = null;

  /**
   * `begun()` is awaited before anything is read; `onBusy(isBusy)` tells whether it is, `onRead(isFirst)` that bars were
   * read, `onPage(isPresent)` that one page more was, up to the newest bar or not, and `onFail(error)` that the first ones
   * cannot be.
   */
  constructor(handlers) {
    this.#handlers = handlers;
  }

  /** Read the bars around the moment `at`, or the newest. */
  begin({ symbol, source, timeframe, at }) {
    this.end();
    this.bars = new Bars(symbol, source, timeframe, at);
    this.#sync(this.bars);
  }

  /** Stop whatever is being read. */
  end() {
    clearTimeout(this.#timer);
    this.bars?.close();
    this.bars = null;
    [this.#timer, this.#staleFrom] = [0, null];
  }

  /** Read the bars again from the opening of one on, soon; without one, from the newest that is known. */
  again(from, delayMs = STALE_MS) {
    const bars = this.bars;
    if (from !== undefined) this.#staleFrom = Math.min(from, this.#staleFrom ?? from);
    // What comes meanwhile is read with it, and does not put it off.
    if (this.#timer) return;
    this.#timer = setTimeout(() => {
      const at = this.#staleFrom ?? undefined;
      [this.#timer, this.#staleFrom] = [0, null];
      this.#sync(bars, at);
    }, delayMs);
  }

  /** Read one page more of the past. */
  older() {
    return this.#page("hasOlder", "loadOlder");
  }

  /** Read one page more towards the present. */
  newer() {
    return this.#page("hasNewer", "loadNewer");
  }

  async #sync(bars, from) {
    const isFirst = !bars.list.length;
    this.#handlers.onBusy(true);
    let changed;
    try {
      await this.#handlers.begun();
      changed = await bars.sync(from);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (isFirst) this.#handlers.onFail(error);
      if (bars === this.bars) this.again(from, RETRY_MS);
      return;
    } finally {
      if (bars === this.bars) this.#handlers.onBusy(false);
    }
    if (bars !== this.bars) return;
    this.#handlers.onRead(isFirst);
    if (changed !== null) this.again(changed);
  }

  async #page(hasMore, loadPage) {
    const bars = this.bars;
    if (!bars?.[hasMore] || !bars.list.length) return;
    const known = bars.list.length;
    try {
      await bars[loadPage]();
    } catch {
      // The next scroll asks again.
      return;
    }
    if (bars !== this.bars) return;
    if (bars.list.length !== known || !bars.hasNewer) this.#handlers.onPage(hasMore === "hasNewer" && !bars.hasNewer);
  }
}
