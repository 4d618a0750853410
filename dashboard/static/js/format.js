// Numbers and times in the reader's language, times on the clock that the reader has chosen.

import { wall } from "./zone.js";

let locale = "en-GB";

/** Formatters by their options: to make one takes far longer than to use it, and a chart writes prices in every frame. */
const formatters = new Map();

export function setLocale(name) {
  if (name !== locale) formatters.clear();
  locale = name;
}

function formatter(Kind, options) {
  const key = Kind.name + JSON.stringify(options);
  if (!formatters.has(key)) formatters.set(key, new Kind(locale, options));
  return formatters.get(key);
}

const number = (value, options) => formatter(Intl.NumberFormat, options).format(value);

export function price(value, digits) {
  return number(value, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** The number that a reader has typed, with the point or the comma of their language; NaN for what is none. */
export function typed(text) {
  return text.trim() === "" ? NaN : Number(text.trim().replace(",", "."));
}

/** A price for a reader to change. */
export function typable(value, digits) {
  return number(value, { useGrouping: false, minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export function count(value) {
  return number(value, { maximumFractionDigits: value < 10 ? 1 : 0 });
}

/** A change with its sign; always as many decimals, for what stands behind it not to move with each tick. */
export function percent(value, digits = 3) {
  return number(value, { style: "percent", signDisplay: "exceptZero", minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** More decimals than a guess should claim, and fewer than that noise of doubles shows. */
const MOST_DECIMALS = 10;
const SIGNIFICANT = 12;

/** Decimal places of a price whose sender does not say them: a guess, between 2 and 10. */
export function decimals(value) {
  const text = String(Number(value.toPrecision(SIGNIFICANT)));
  const [, fraction = "", exponent = "0"] = /^-?\d+(?:\.(\d+))?(?:e([+-]\d+))?$/.exec(text);
  return Math.max(2, Math.min(MOST_DECIMALS, fraction.length - Number(exponent)));
}

/** The same of bars. */
export function digitsOf(bars) {
  return Math.max(2, ...bars.slice(-300).map(({ open, close }) => Math.max(decimals(open), decimals(close))));
}

/** How long ago, in the largest fitting unit. */
function ago(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  const units = [["day", 86_400], ["hour", 3_600], ["minute", 60], ["second", 1]];
  const [unit, length] = units.find(([, each]) => seconds >= each) ?? units.at(-1);
  const words = formatter(Intl.RelativeTimeFormat, { numeric: "always", style: "narrow" });
  return words.format(-Math.floor(seconds / length), unit);
}

/** How long ago, or the date when that is longer than a week. */
export function since(time, now) {
  return now - time > 7 * 86_400_000 ? date(time) : ago(now - time);
}

/** Hours, minutes and seconds that are left, as a stopwatch has them. */
export function remaining(milliseconds) {
  const seconds = Math.max(0, Math.ceil(milliseconds / 1000));
  const [days, hours, minutes] = [Math.floor(seconds / 86_400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  const two = (number) => String(number).padStart(2, "0");
  const clockwise = hours || days ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
  return days ? `${days} d ${clockwise}` : clockwise;
}

/** Days, hours and minutes of a time between two bars. */
export function span(milliseconds) {
  const minutes = Math.round(milliseconds / 60_000);
  const units = [[Math.floor(minutes / 1440), "d"], [Math.floor(minutes / 60) % 24, "h"], [minutes % 60, "min"]];
  return units.filter(([many]) => many).map(([many, unit]) => `${count(many)} ${unit}`).join(" ") || "0 min";
}

export function duration(milliseconds) {
  if (milliseconds < 1000) return `${milliseconds} ms`;
  if (milliseconds < 120_000) return `${count(milliseconds / 1000)} s`;
  return `${count(milliseconds / 60_000)} min`;
}

const parts = (options) => (time) => formatter(Intl.DateTimeFormat, { timeZone: "UTC", hour12: false, ...options }).format(wall(time));

export const clock = parts({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
export const dateTime = parts({ weekday: "short", day: "2-digit", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });
export const date = parts({ day: "2-digit", month: "short", year: "numeric" });

const MILLISECONDS = { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 };

/** A moment to the millisecond, with its day or without. */
export const moment = parts({ day: "2-digit", month: "short", ...MILLISECONDS });
export const toMilliseconds = parts(MILLISECONDS);

/** Labels of the time axis, by the chart's own kinds: year, month, day, time, time with seconds. */
export function tickMark(time, kind) {
  const options = [{ year: "numeric" }, { month: "short" }, { day: "numeric", month: "short" }, { hour: "2-digit", minute: "2-digit" }];
  return parts(options[Math.min(kind, 3)])(time * 1000);
}
