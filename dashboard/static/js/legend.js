// The legend over the chart: the numbers of one bar, for those who see the chart and for those who do not.

import { $, element } from "./dom.js";
import { count, dateTime, percent, price } from "./format.js";
import { t } from "./i18n.js";
import { zoneLabel } from "./zone.js";

const PRICES = ["open", "high", "low", "close"];

/**
 * Show a bar of what is chosen, or where a gap is; without one, nothing. `isOpen`: it still moves; `isLate`: ticks of it
 * came late; `comparison`: the broker's bars, or null; `quote`: bid and ask of now, or null;
 * `studies`: indicators at the bar, as `Studies.at` gives them; `known`: what the ledger says of the gap.
 */
export function drawLegend(chosen, bar, digits, { isOpen = false, isLate = false, comparison = null, quote = null, studies = [], known = null } = {}) {
  $("chart").setAttribute("aria-label", chosen.symbol ? `${t("chart")}: ${chosen.symbol} ${chosen.timeframe}` : t("chart"));
  if (bar?.gap) {
    const [from, until] = bar.gap;
    $("legend").replaceChildren(
      element("strong", "", `${chosen.symbol} · ${chosen.timeframe}`),
      element("span", "when", `${dateTime(from)} ${zoneLabel(from)}`),
      element("span", "", t("gapUntil", { time: dateTime(until), zone: zoneLabel(until) })),
      ...(known ? [element("span", "tag", t(`gap-${known}`))] : []),
    );
    return;
  }
  if (!bar) {
    $("legend").replaceChildren();
    $("summary").textContent = "";
    return;
  }
  const number = (name, value) => element("span", "", [element("i", "", t(name)), value]);
  // Prices may be negative, as those of oil once were.
  const change = (bar.close - bar.open) / Math.abs(bar.open);
  const rows = PRICES.map((name) => number(name === "close" ? "close_" : name, price(bar[name], digits)));
  const tags = [isOpen && "openTag", isLate && "lateTag"].filter(Boolean).map((name) => element("span", "tag", t(name)));
  $("legend").replaceChildren(
    element("strong", "", `${chosen.symbol} · ${chosen.timeframe}`),
    element("span", "when", `${dateTime(bar.time)} ${zoneLabel(bar.time)}`),
    element("span", `numbers ${change < 0 ? "down" : "up"}`, [
      ...rows, element("span", "change", percent(change)), number("volume", count(bar.volume)),
      ...(Number.isFinite(bar.spread) ? [number("spread", count(bar.spread))] : []),
    ]),
    ...(quote ? [element("span", "numbers quote", ["bid", "ask"].filter((side) => quote[side] !== null)
      .map((side) => number(`${side}Word`, price(quote[side], digits))))] : []),
    ...(studies.length ? [element("span", "numbers", studies.map(({ name, colour, value }) =>
      element("span", colour, [element("i", "", name), value ?? "–"])))] : []),
    ...tags,
    ...(comparison ? [brokerRow(bar, digits, comparison)] : []),
  );
  const words = Object.fromEntries(PRICES.map((name) => [name, price(bar[name], digits)]));
  $("summary").textContent = t("summary", { ...words, ...chosen, time: dateTime(bar.time), zone: zoneLabel(bar.time), volume: count(bar.volume) });
}

/** The broker's bar beside ours, with what differs marked; or how many of all minutes are equal. */
function brokerRow(bar, digits, comparison) {
  const broker = comparison.bars.get(bar.time);
  const [equal, all] = comparison.sums;
  let cells = [all ? t("equalMinutes", { equal: count(equal), all: count(all) }) : t("noBrokerBars")];
  if (comparison.error) cells = [comparison.error];
  else if (broker?.no_bar && broker.open === null) cells = [t("noBrokerBar"), ...cells];
  else if (broker) {
    const cell = (name, shown) => element("span", broker[name] === bar[name] ? "" : "differs", [element("i", "", t(name === "close" ? "close_" : name)), shown]);
    cells = [
      ...PRICES.map((name) => cell(name, price(broker[name], digits))), cell("volume", count(broker.volume)),
      ...(broker.spread === null ? [] : [cell("spread", count(broker.spread))]), ...cells,
    ];
  }
  return element("span", "numbers broker", [
    element("span", "", t("broker")), ...cells.map((each) => (typeof each === "string" ? element("span", "", each) : each)),
  ]);
}
