// The pane with the state of the pipeline, drawn from what the stream tells every two seconds.

import { $, element } from "./dom.js";
import { count, decimals, duration, price, since } from "./format.js";
import { t } from "./i18n.js";

const HISTORY = 60;
/** Records that wait before the pane says that the pipeline is behind; open minutes hold a few hundred. */
const MANY = 5_000;

export class PipelinePane {
  #state = null;
  #rates = [];
  #onChoose;
  #onClose;

  constructor({ onChoose, onClose }) {
    this.#onChoose = onChoose;
    this.#onClose = onClose;
  }

  show(state) {
    this.#state = state;
    this.#rates.push(state.ticks_per_second);
    if (this.#rates.length > HISTORY) this.#rates.shift();
    this.render();
  }

  render() {
    const state = this.#state;
    if ($("pane").hidden) return;
    if (!state) {
      $("pane").replaceChildren(this.#head(), element("p", "hint", t("connecting")));
      return;
    }
    $("pane").replaceChildren(
      this.#head(),
      this.#verdict(state),
      this.#rate(state),
      this.#latency(state),
      this.#numbers("rejected", [["rejectedTicks", state.rejected?.ticks], ["rejectedCandles", state.rejected?.candles]]),
      this.#numbers("lag", [["streamLag", state.lag?.stream], ["sinkLag", state.lag?.sink]], t("lagHint")),
      this.#feeds(state),
    );
  }

  #head() {
    const close = element("button", "close", "×", { "aria-label": t("close"), title: t("close") });
    close.addEventListener("click", () => this.#onClose());
    return element("header", "", [element("h2", "", t("pipeline")), close]);
  }

  #verdict(state) {
    const isBroken = !state.kafka || !state.database;
    const isBehind = !isBroken && state.lag.stream + state.lag.sink > MANY;
    const name = isBroken ? "broken" : isBehind ? "behind" : "flows";
    const parts = [["kafka", state.kafka], ["database", state.database]].map(([what, answers]) =>
      element("li", answers ? "good" : "bad", [element("i"), `${t(what)} ${t(answers ? "answers" : "silent")}`]));
    return element("div", `verdict ${name}`, [element("strong", "", t(name)), element("ul", "", parts)]);
  }

  #rate(state) {
    const tile = element("div", "tile wide", [
      element("div", "", [element("h3", "", t("ticksPerSecond")), element("b", "", count(state.ticks_per_second))]),
    ]);
    if (this.#rates.length > 1) tile.append(sparkline(this.#rates));
    return tile;
  }

  #latency({ latency_ms: latency }) {
    const rows = ["received", "folded", "stored", "shown"].map((stage) => {
      const timed = latency?.[stage];
      return element("div", timed ? "some" : "", [
        element("dt", "", t(`${stage}Stage`)),
        element("dd", "", timed ? `${duration(timed.p50)} · ${duration(timed.p99)}` : "–"),
      ]);
    });
    return element("div", "tile wide stages", [
      element("h3", "", t("latency")), element("dl", "", rows),
    ], { title: t("latencyHint") });
  }

  #numbers(title, pairs, hint = "") {
    const rows = pairs.map(([name, value]) => element("div", value ? "some" : "", [
      element("dt", "", t(name)), element("dd", "", value === undefined || value === null ? "–" : count(value)),
    ]));
    const tile = element("div", `tile ${title}`, [element("h3", "", t(title)), element("dl", "", rows)]);
    if (hint) tile.title = hint;
    return tile;
  }

  #feeds({ feeds, at }) {
    const now = Date.parse(at);
    const rows = feeds.map((feed) => {
      const name = element("button", "", [element("strong", "", feed.symbol), element("small", "", feed.source)]);
      name.addEventListener("click", () => this.#onChoose(feed));
      return element("tr", "", [
        element("td", "", name),
        element("td", "number", price(feed.close, decimals(feed.close))),
        element("td", "number", since(Date.parse(feed.last_tick), now)),
      ]);
    });
    const head = element("tr", "", ["feed", "lastPrice", "when"].map((name) => element("th", "", t(name), { scope: "col" })));
    const table = element("table", "", [element("thead", "", head), element("tbody", "", rows)]);
    return element("div", "feeds", [element("h3", "", t("feeds")), rows.length ? table : element("p", "hint", t("none"))]);
  }
}

function sparkline(values) {
  const width = 240;
  const height = 36;
  const top = Math.max(...values, 1);
  const x = (index) => ((index + HISTORY - values.length) / (HISTORY - 1)) * width;
  const y = (value) => height - 2 - (value / top) * (height - 4);
  const line = values.map((value, index) => `${x(index).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  for (const [tag, points] of [["polygon", `${x(0)},${height} ${line} ${width},${height}`], ["polyline", line]]) {
    const shape = document.createElementNS("http://www.w3.org/2000/svg", tag);
    shape.setAttribute("points", points);
    svg.append(shape);
  }
  return svg;
}
