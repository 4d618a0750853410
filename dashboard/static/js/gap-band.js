// The band under the candles that tells of gaps what is known: asked for, not to be had, or that the broker had none.

/** Colours of the theme by state; what is not here, as a closed market or an ordinary silence, is no gap. */
const COLOURS = { wanted: "warn", failed: "down", none: "separator" };
const HEIGHT = 4;
/** A gap within a bar is seen as well (pixels). */
const NARROWEST = 3;

/** Whether the band shows a gap of that state. */
export const isMarked = (state) => state in COLOURS;

/** A primitive of the chart library. */
export class GapBand {
  #chart;
  #timeline;
  #gaps = [];
  #paint = {};
  #redraw = () => {};

  /** `timeline()` gives the places on the time axis. */
  constructor(chart, candles, timeline) {
    [this.#chart, this.#timeline] = [chart, timeline];
    candles.attachPrimitive(this);
  }

  /** Take gaps, each with `from` and `to` (epoch milliseconds, `to` excluded) and its `state`. */
  show(gaps) {
    this.#gaps = gaps.filter(({ state }) => isMarked(state));
    this.#redraw();
  }

  recolour(paint) {
    this.#paint = paint;
    this.#redraw();
  }

  attached({ requestUpdate }) {
    this.#redraw = requestUpdate;
  }

  paneViews() {
    return [{ zOrder: () => "top", renderer: () => ({ draw: (target) => this.#draw(target) }) }];
  }

  #draw(target) {
    const scale = this.#chart.timeScale();
    const timeline = this.#timeline();
    const half = scale.options().barSpacing / 2;
    target.useMediaCoordinateSpace(({ context, mediaSize }) => {
      for (const { from, to, state } of this.#gaps) {
        const [first, end] = [timeline.indexOf(from), timeline.indexOf(to)];
        // Before the first bar that is loaded, and behind the last, there is no place for it.
        if (end === 0 || first >= timeline.length) continue;
        const left = scale.logicalToCoordinate(first) - half;
        const right = scale.logicalToCoordinate(end) - half;
        if (right < 0 || left > mediaSize.width) continue;
        context.fillStyle = this.#paint[COLOURS[state]];
        context.fillRect(left, mediaSize.height - HEIGHT, Math.max(NARROWEST, right - left), HEIGHT);
      }
    });
  }
}
