// The stream of what is chosen: who says how it is connected, and what the pipeline's state tells of the chosen feed.

import { Stream } from "./api.js";

export class Following {
  #stream = null;
  #version = null;
  #chosen;
  #handlers;

  /**
   * `chosen` (symbol, source and timeframe) may change: its source is found with the first bars. Called are `onLink(link, refusal)`, as `Stream` tells it, `onPipeline(state)`, and `onFeed(feed)` with what that says
   * of the feed that is followed.
   */
  constructor(chosen, handlers) {
    [this.#chosen, this.#handlers] = [chosen, handlers];
    const hurry = () => this.#stream?.hurry();
    for (const event of ["online", "focus", "pageshow"]) addEventListener(event, hurry);
    for (const event of ["visibilitychange", "resume"]) document.addEventListener(event, hurry);
  }

  /** Settled when the stream has begun, or was waited for long enough. */
  get begun() {
    return this.#stream.begun;
  }

  /** Follow what is chosen, without a symbol every feed; `handlers` are of candles and what becomes of them. */
  connect(handlers) {
    const { symbol, source, timeframe } = this.#chosen;
    this.#stream?.close();
    const query = Object.entries({ timeframe, symbol, source }).filter(([, value]) => value);
    this.#stream = new Stream(query, { ...handlers, state: this.#handlers.onLink, pipeline: (state) => this.#tell(state) });
  }

  #tell(state) {
    // Scripts and API belong together: those of another version are fetched.
    if (state.version !== (this.#version ??= state.version)) location.reload();
    const { symbol, source } = this.#chosen;
    const feed = state.feeds.find((each) => each.symbol === symbol && each.source === source);
    if (feed) this.#handlers.onFeed(feed);
    this.#handlers.onPipeline(state);
  }
}
