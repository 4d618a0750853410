// The legend over the chart: the numbers of one bar, for those who see the chart and for those who do not.

import { $, element } from "./dom.js";
import { count, dateTime, percent, price } from "./format.js";
import { t } from "./i18n.js";
import { zoneLabel } from "./zone.js";

/** Show a bar of what is chosen, or where a gap is; without one, nothing. */
export function drawLegend(chosen, bar, digits) {
  $("chart").setAttribute("aria-label", chosen.symbol ? `${t("chart")}: ${chosen.symbol} ${chosen.timeframe}` : t("chart"));
  if (bar?.gap) {
    const [from, until] = bar.gap;
    $("legend").replaceChildren(
      element("strong", "", `${chosen.symbol} · ${chosen.timeframe}`),
      element("span", "when", `${dateTime(from)} ${zoneLabel(from)}`),
      element("span", "", t("gapUntil", { time: dateTime(until), zone: zoneLabel(until) })),
    );
    return;
  }
  if (!bar) {
    $("legend").replaceChildren();
    $("summary").textContent = "";
    return;
  }
  const number = (name, value) => element("span", "", [element("i", "", t(name)), value]);
  const change = (bar.close - bar.open) / bar.open;
  const rows = ["open", "high", "low", "close"].map((name) => number(name === "close" ? "close_" : name, price(bar[name], digits)));
  $("legend").replaceChildren(
    element("strong", "", `${chosen.symbol} · ${chosen.timeframe}`),
    element("span", "when", `${dateTime(bar.time)} ${zoneLabel(bar.time)}`),
    element("span", `numbers ${change < 0 ? "down" : "up"}`, [
      ...rows, element("span", "change", percent(change)), number("volume", count(bar.volume)),
    ]),
  );
  const words = Object.fromEntries(["open", "high", "low", "close"].map((name) => [name, price(bar[name], digits)]));
  $("summary").textContent = t("summary", { ...words, ...chosen, time: dateTime(bar.time), zone: zoneLabel(bar.time), volume: count(bar.volume) });
}
