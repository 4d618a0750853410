// The pane with the state of the pipeline, drawn from what the stream tells every two seconds.

import { $, element, patch } from "./dom.js";
import { count, decimals, duration, percent, price, since } from "./format.js";
import { t } from "./i18n.js";
import { remember } from "./preferences.js";
import { SenderList } from "./senders.js";

const HISTORY = 60;
/** Records that wait before the pane says that the pipeline is behind; open minutes hold a few hundred. */
const MANY = 5_000;

export class PipelinePane {
  #state = null;
  #rates = [];
  #senders = new SenderList();

  constructor({ onChoose, onClose }) {
    // The pane is drawn again and again: who listens stays.
    $("pane").addEventListener("click", ({ target }) => {
      const feed = target.closest("[data-key]");
      if (target.closest(".close")) onClose();
      else if (feed) onChoose(this.#state.feeds.find((each) => keyOf(each) === feed.dataset.key));
    });
  }

  /** Show the pane, or not. */
  toggle(isOpen) {
    $("pane").hidden = !isOpen;
    $("pane-toggle").setAttribute("aria-pressed", String(isOpen));
    remember({ pane: isOpen });
    this.render();
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
      patch($("pane"), [this.#head(), element("p", "hint", t("connecting"))]);
      return;
    }
    if (state.database) this.#senders.refresh(() => this.render());
    patch($("pane"), [
      this.#head(),
      this.#verdict(state),
      this.#rate(state),
      this.#latency(state),
      this.#rejected(state),
      this.#lag(state),
      this.#feeds(state),
      this.#senders.render(Date.parse(state.at)),
    ]);
  }

  #head() {
    const close = element("button", "close", "×", { "aria-label": t("close"), title: t("close") });
    return element("header", "", [element("h2", "", t("pipeline")), close]);
  }

  #verdict(state) {
    const isBroken = !state.kafka || !state.database || state.folding === false || state.storing === false;
    const isBehind = !isBroken && state.lag.stream + state.lag.sink > MANY;
    const name = isBroken ? "broken" : isBehind ? "behind" : "flows";
    const part = (what, isGood, [good, bad]) =>
      element("li", isGood ? "good" : "bad", [element("i"), `${t(what)} ${t(isGood ? good : bad)}`]);
    const parts = [
      part("kafka", state.kafka, ["answers", "silent"]), part("database", state.database, ["answers", "silent"]),
      // Of these nothing is known without Kafka.
      ...(state.kafka ? [
        part("worker", state.folding, ["works", "stopped"]), part("sink", state.storing, ["works", "stopped"]),
      ] : []),
    ];
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

  #rejected({ rejected, rejected_lately: lately }) {
    const news = (lately?.ticks ?? 0) + (lately?.candles ?? 0);
    const rows = [["rejectedTicks", rejected?.ticks, lately?.ticks], ["rejectedCandles", rejected?.candles, lately?.candles]];
    return this.#numbers("rejected", rows, news ? t("lately", { count: count(news) }) : "");
  }

  #lag({ lag, folding }) {
    // A worker that gets on holds the records of open minutes; more than these wait, or all when it has stopped.
    const isHeld = folding && lag.stream <= MANY;
    return this.#numbers("lag", [[isHeld ? "heldLag" : "streamLag", lag?.stream], ["sinkLag", lag?.sink]], t("lagHint"));
  }

  /** `pairs`: name, value, and what of it is news. */
  #numbers(title, pairs, hint = "") {
    const rows = pairs.map(([name, value, news]) => element("div", news ? "news" : "", [
      element("dt", "", t(name)), element("dd", "", value === undefined || value === null ? "–" : count(value)),
    ]));
    const tile = element("div", `tile ${title}`, [element("h3", "", t(title)), element("dl", "", rows)]);
    if (hint) tile.title = hint;
    return tile;
  }

  #feeds({ feeds, at }) {
    const now = Date.parse(at);
    const rows = feeds.map((feed) => {
      const name = element("button", "", [element("strong", "", feed.symbol), element("small", "", feed.source)], {
        title: `${feed.symbol} · ${feed.source}`,
      });
      return element("tr", "", [
        element("td", "", name),
        element("td", "number", price(feed.close, feed.digits ?? decimals(feed.close))),
        dayChange(feed),
        element("td", "number", since(Date.parse(feed.last_tick), now)),
      ], { "data-key": keyOf(feed) });
    });
    const head = element("tr", "", ["feed", "lastPrice", "dayChange", "when"].map((name) => element("th", "", t(name), { scope: "col" })));
    const table = element("table", "", [element("thead", "", head), element("tbody", "", rows)]);
    return element("div", "feeds", [element("h3", "", t("feeds")), rows.length ? table : element("p", "hint", t("none"))]);
  }
}

/** Names may hold any character that can be seen; a tab cannot. */
const keyOf = ({ symbol, source }) => `${symbol}\t${source}`;

/** The cell with the change since the close of the day before. */
function dayChange({ close, previous_close: before }) {
  if (!before) return element("td", "number", "–");
  const change = percent((close - before) / Math.abs(before), 2);
  return element("td", `number ${{ "+": "up", "-": "down" }[change[0]] ?? ""}`.trim(), change);
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
