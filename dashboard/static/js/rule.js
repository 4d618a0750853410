// Which of two candles of one minute stays: marketdata/rule.py, as far as a client can decide it.

/**
 * Whether every record in `inner` is in `outer`. A range ends with the first and the last of its records; what stands
 * before these names the part of the log that they are in.
 */
export function contains(outer, inner) {
  return inner.every((range) => outer.some((wider) =>
    place(wider) === place(range) && wider.at(-2) <= range.at(-2) && range.at(-1) <= wider.at(-1)));
}

const place = (range) => range.slice(0, -2).join();

/**
 * What stays of the minute `known`, which may be undefined, when `candle` comes: one of the two, or `known` closed. A
 * broker's bar has no proof, and gives way to every fold.
 */
export function winner(known, candle) {
  if (!known?.offsets) return candle;
  if (!candle.offsets) return known;
  // The server tells nothing that loses against what it knows.
  if (known.log !== candle.log) return candle.volume >= known.volume ? candle : known;
  if (contains(candle.offsets, known.offsets)) return candle.closed || !known.closed ? candle : { ...candle, closed: true };
  if (contains(known.offsets, candle.offsets)) return candle.closed && !known.closed ? { ...known, closed: true } : known;
  // Neither holds the other: the fold of both comes, until then the table's row counts.
  return candle.stored ? candle : known;
}
