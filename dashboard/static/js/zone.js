// The clock on which the page shows times: UTC, that of a zone, or the one on which the database's days begin.

const QUARTER_MS = 900_000;

let shiftMs = 0;
let formatter = null;
/** Offsets by quarter of an hour: at nothing less does any zone change its clock. */
let offsets = new Map();

/** Show times on the clock of an IANA zone, `shift` milliseconds later. Throws a RangeError for a zone that is none. */
export function setZone(name, shift = 0) {
  formatter = name === "UTC" ? null : new Intl.DateTimeFormat("en-US", {
    timeZone: name, hourCycle: "h23", year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric",
  });
  [shiftMs, offsets] = [shift, new Map()];
}

/** What the clock is ahead of UTC at a moment (milliseconds). */
function offsetAt(time) {
  if (!formatter) return shiftMs;
  const quarter = Math.floor(time / QUARTER_MS);
  let offset = offsets.get(quarter);
  if (offset === undefined) {
    const shown = Object.fromEntries(formatter.formatToParts(quarter * QUARTER_MS).map(({ type, value }) => [type, Number(value)]));
    offset = Date.UTC(shown.year, shown.month - 1, shown.day, shown.hour, shown.minute) - quarter * QUARTER_MS;
    offsets.set(quarter, offset);
  }
  return offset + shiftMs;
}

/** What the clock shows at a moment, as if it were UTC (epoch milliseconds). */
export function wall(time) {
  return time + offsetAt(time);
}

/** A moment at which the clock shows this. */
export function momentOf(shown) {
  const guess = shown - offsetAt(shown);
  return shown - offsetAt(guess);
}

/** The clock at a moment, as people write it: UTC, UTC+2 or UTC−3:30. */
export function zoneLabel(time) {
  const minutes = Math.round(offsetAt(time) / 60_000);
  if (!minutes) return "UTC";
  const [hours, rest] = [Math.trunc(Math.abs(minutes) / 60), Math.abs(minutes) % 60];
  return `UTC${minutes < 0 ? "−" : "+"}${hours}${rest ? `:${String(rest).padStart(2, "0")}` : ""}`;
}
