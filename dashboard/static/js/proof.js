// The pane with the proof of a bar: the records of the log that it is the fold of, whether it is, and the ticks behind it.

import { proofOf, ticksOf, ticksUrl } from "./api.js";
import { $, element } from "./dom.js";
import { count, dateTime, moment, price, toMilliseconds } from "./format.js";
import { t } from "./i18n.js";
import { zoneLabel } from "./zone.js";

/** Ranges and ticks that are listed; the API has all of them. */
const RANGES = 8;
const TICKS = 500;
/** Longer bars are verified by the command line. */
const TOO_LONG = new Set(["W1", "MN1"]);
const FIELDS = { open: "openWord", high: "highWord", low: "lowWord", close: "closeWord", volume: "volumeWord" };

export class ProofPane {
  #feed = null;
  #bar = null;
  #digits = 5;
  #proof = null;
  #ticks = null;
  #error = "";
  #asking = new AbortController();
  #onToggle;

  /** `onToggle` is called with whether the pane is open. */
  constructor({ onToggle }) {
    this.#onToggle = onToggle;
  }

  get isOpen() {
    return !$("proof").hidden;
  }

  /** Show the proof of a bar of `feed`: symbol, source and timeframe. */
  async open(feed, bar, digits) {
    this.#asking.abort();
    const asking = new AbortController();
    [this.#asking, this.#feed, this.#bar, this.#digits] = [asking, { ...feed }, bar, digits];
    [this.#proof, this.#ticks, this.#error] = [null, null, ""];
    $("proof").hidden = false;
    this.#onToggle(true);
    this.render();
    try {
      this.#proof = await proofOf(feed, bar.time, asking.signal);
      this.render();
      if (TOO_LONG.has(feed.timeframe)) return;
      this.#proof = await proofOf(feed, bar.time, asking.signal, { verify: true });
    } catch (error) {
      if (error.name === "AbortError") return;
      this.#error = error.message || t("offline");
    }
    this.render();
  }

  close() {
    if (!this.isOpen) return;
    this.#asking.abort();
    $("proof").hidden = true;
    this.#onToggle(false);
  }

  /** Draw it, in the page's language and on its clock. */
  render() {
    if (!this.isOpen) return;
    const { symbol, timeframe } = this.#feed;
    const close = element("button", "close", "×", { "aria-label": t("close"), title: t("close") });
    close.addEventListener("click", () => this.close());
    $("proof").replaceChildren(
      element("header", "", [element("h2", "", t("proof")), close]),
      element("p", "hint", `${symbol} · ${timeframe} · ${dateTime(this.#bar.time)} ${zoneLabel(this.#bar.time)}`),
      this.#verdict(),
      ...(this.#proof ? [this.#facts(), this.#records(), this.#differences(), this.#behind()].filter(Boolean) : []),
    );
  }

  #verdict() {
    const verified = this.#proof?.verified;
    let [kind, words] = ["behind", t("proving")];
    if (this.#error) [kind, words] = ["broken", this.#error];
    else if (verified) {
      kind = { equal: "good", different: "broken" }[verified.verdict] ?? "behind";
      words = t(`verdict_${verified.verdict}`, { count: count(verified.checked), field: String(verified.differences.length) });
    } else if (this.#proof && TOO_LONG.has(this.#feed.timeframe)) words = t("tooLongToVerify");
    return element("div", `verdict ${kind}`, element("strong", "", words), { role: "status" });
  }

  #facts() {
    const proof = this.#proof;
    const when = (text) => (text ? moment(Date.parse(text)) : "–");
    const rows = [
      ["minutesWord", count(proof.minutes)], ["volumeWord", count(proof.ticks)],
      ["firstTick", when(proof.first_tick)], ["newestTick", when(proof.last_tick)], ["receivedAt", when(proof.received_at)],
      ["foldedAt", when(proof.folded_at)], ["storedAt", when(proof.stored_at)],
    ];
    const notes = [];
    if (proof.broker_minutes) notes.push(element("p", "note", t("brokerMinutes", { count: count(proof.broker_minutes) })));
    if (proof.closed === false) notes.push(element("p", "note", t("stillOpen")));
    return tile([
      element("dl", "", rows.map(([name, text]) => element("div", "", [element("dt", "", t(name)), element("dd", "", text)]))), ...notes,
    ]);
  }

  #records() {
    const lists = this.#proof.logs.flatMap(({ log, is_current: isCurrent, ranges }) => {
      const shown = ranges.slice(0, RANGES).map(([partition, first, last]) =>
        element("li", "", t("records", { partition: String(partition), first: String(first), last: String(last) })));
      if (ranges.length > RANGES) shown.push(element("li", "", t("moreRecords", { count: count(ranges.length - RANGES) })));
      return [element("p", "log", log), ...(isCurrent ? [] : [element("p", "note", t("otherLog"))]), element("ul", "", shown)];
    });
    return lists.length ? tile([element("h3", "", t("log")), ...lists]) : null;
  }

  #differences() {
    const differences = this.#proof.verified?.differences ?? [];
    if (!differences.length) return null;
    const shown = (field, value) => (value === null ? "–" : ["open", "high", "low", "close"].includes(field) ? price(value, this.#digits) : String(value));
    const rows = differences.slice(0, RANGES).map(({ ts, field, stored, folded }) => element("tr", "", [
      element("td", "", `${dateTime(Date.parse(ts))} · ${FIELDS[field] ? t(FIELDS[field]) : field}`),
      element("td", "number", shown(field, stored)), element("td", "number", shown(field, folded)),
    ]));
    return tile([table(["field", "storedWord", "foldedWord"], rows)]);
  }

  #behind() {
    const all = element("a", "", t("allTicks"), { href: ticksUrl(this.#feed, this.#bar.time, { format: "csv", limit: 200_000 }), download: "" });
    if (!this.#ticks) {
      const button = element("button", "secondary", t("showTicks"));
      button.addEventListener("click", () => this.#readTicks(button));
      return tile([element("h3", "", t("ticksBehind")), element("p", "row", [button, all])]);
    }
    const rows = this.#ticks.ticks.map((tick) => element("tr", "", [
      element("td", "", toMilliseconds(tick.time_msc)), element("td", "number", tick.bid ? price(tick.bid, this.#digits) : "–"),
      element("td", "number", tick.ask ? price(tick.ask, this.#digits) : "–"), element("td", "number", tick.last ? price(tick.last, this.#digits) : "–"),
    ]));
    const note = this.#ticks.gone.length ? t("ticksGone") : this.#ticks.next ? t("firstTicks", { count: count(rows.length) }) : "";
    return tile([
      element("h3", "", t("ticksBehind")), element("p", "row", [element("span", "", note), all]),
      table(["when", "bidWord", "askWord", "lastWord"], rows),
    ]);
  }

  async #readTicks(button) {
    button.disabled = true;
    try {
      this.#ticks = await ticksOf(this.#feed, this.#bar.time, TICKS, this.#asking.signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.#error = error.message || t("offline");
    }
    this.render();
  }
}

const tile = (children) => element("div", "tile proofs", children);

function table(names, rows) {
  const head = element("tr", "", names.map((name) => element("th", "", t(name), { scope: "col" })));
  return element("table", "", [element("thead", "", head), element("tbody", "", rows)]);
}
