// What the ledger knows of the gaps of what is on the screen, as `/gaps` gives them; a server without a ledger has none.

import { gapsOf } from "./api.js";
import { isMarked } from "./gap-band.js";

/** The reader scrolls on for so long, and what is known of a gap changes as it is filled. */
const PAUSE_MS = 250;
const NEWS_MS = 30_000;
const MINUTE_MS = 60_000;
/** The server tells of no longer time at once; when more is on the screen, a gap is too narrow to be seen. */
const MOST_MS = 31 * 86_400_000;

export class Gaps {
  #feed = null;
  #list = [];
  #span = null;
  #isThere = true;
  #timer = 0;
  #asking = new AbortController();
  #onChange;

  /** `onChange(gaps)` is called when they are others. */
  constructor({ onChange }) {
    this.#onChange = onChange;
  }

  /** Tell of this feed, or of none. */
  begin(feed) {
    this.#asking.abort();
    clearTimeout(this.#timer);
    [this.#feed, this.#span, this.#timer] = [feed, null, 0];
    this.#take([]);
  }

  /** The reader looks at what is between these moments. */
  look(from, to) {
    if (!this.#isThere || !this.#feed?.source || this.#timer || from === null || to === null) return;
    if (to - from > MOST_MS - 3 * MINUTE_MS) return;
    const isKnown = this.#span && this.#span.from <= from && to <= this.#span.to;
    if (isKnown && Date.now() - this.#span.at < NEWS_MS) return;
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      const aside = Math.max(MINUTE_MS, Math.min(to - from, (MOST_MS - MINUTE_MS - (to - from)) / 2));
      this.#read(Math.max(0, from - aside), to + aside + 1);
    }, PAUSE_MS);
  }

  /** The gap at a moment, or undefined. */
  at(time) {
    return this.#list.find(({ from, to }) => from <= time && time < to);
  }

  async #read(from, to) {
    this.#asking.abort();
    this.#asking = new AbortController();
    const feed = this.#feed;
    try {
      const gaps = await gapsOf(feed, from, to, this.#asking.signal);
      if (feed !== this.#feed) return;
      this.#span = { from, to, at: Date.now() };
      this.#take(gaps);
    } catch (error) {
      if (error.status === 404) this.#isThere = false;
      // Else the next look asks again.
    }
  }

  #take(gaps) {
    this.#list = gaps.filter(({ state }) => isMarked(state) || state === "closed");
    this.#onChange(this.#list);
  }
}
