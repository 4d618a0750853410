// The broker's bars of what is on the screen, as `/compared` gives them.

import { comparedBars } from "./api.js";

/** The reader scrolls on for so long; the broker's bars of minutes that are just over come later than our candles. */
const PAUSE_MS = 250;
const NEWS_MS = 5_000;

export class Comparison {
  /** By opening; null while they are not asked for. */
  bars = null;
  /** What the server says when they cannot be read. */
  error = "";
  #feed = null;
  #span = null;
  #timer = 0;
  #asking = new AbortController();
  #onChange;

  /** `onChange` is called when the bars are others. */
  constructor({ onChange }) {
    this.#onChange = onChange;
  }

  /** Compare this feed, or none. */
  begin(feed) {
    this.#asking.abort();
    clearTimeout(this.#timer);
    [this.#feed, this.#span, this.#timer, this.error] = [feed, null, 0, ""];
    this.bars = feed && new Map();
    this.#onChange();
  }

  /** The reader looks at what is between these moments; `isNew`: there is a bar that was not there. */
  look(from, to, { isNew = false } = {}) {
    if (!this.#feed || this.#timer || from === null || to === null) return;
    const isKnown = this.#span && this.#span[0] <= from && to <= this.#span[1];
    if (isKnown && !isNew) return;
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      this.#read(from - (to - from), to + 1);
    }, isNew ? NEWS_MS : PAUSE_MS);
  }

  /** How many of the minutes are equal, and how many there are. */
  get sums() {
    let [equal, all] = [0, 0];
    for (const bar of this.bars?.values() ?? []) {
      equal += bar.equal;
      all += bar.equal + bar.differs + bar.no_bar + bar.no_candle;
    }
    return [equal, all];
  }

  async #read(from, to) {
    this.#asking.abort();
    this.#asking = new AbortController();
    const feed = this.#feed;
    try {
      const bars = await comparedBars(feed, Math.max(0, from), to, this.#asking.signal);
      if (feed !== this.#feed) return;
      [this.#span, this.error] = [[from, to], ""];
      for (const bar of bars) this.bars.set(bar.time, bar);
    } catch (error) {
      if (error.name === "AbortError" || feed !== this.#feed) return;
      this.error = error.message;
    }
    this.#onChange();
  }
}
