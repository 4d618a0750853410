// The indicators' arithmetic, a bar at a time: `start` is the state before the first bar, and `step` takes a state and a
// bar and returns the state after it, whose `value` is what is drawn, or null. A state is never changed, so the bar that
// moves is stepped again from the state before it.

import { wall } from "./zone.js";

const DAY_MS = 86_400_000;
const LONGEST = 1000;
const MOST = 6;

/** The mean of the last `period` closes. */
export function sma(period) {
  return {
    start: { closes: [], value: null },
    step({ closes }, { close }) {
      const window = [...closes.slice(1 - period), close];
      return { closes: window, value: window.length < period ? null : window.reduce((sum, each) => sum + each, 0) / period };
    },
  };
}

/** The exponential mean, which begins with the first close as MetaTrader's does; shown from the `period`th bar on. */
export function ema(period) {
  const share = 2 / (period + 1);
  return {
    start: { mean: null, count: 0, value: null },
    step({ mean, count }, { close }) {
      const next = mean === null ? close : mean + share * (close - mean);
      return { mean: next, count: count + 1, value: count + 1 < period ? null : next };
    },
  };
}

/** Wilder's relative strength index: 50 where nothing moved. */
export function rsi(period) {
  return {
    start: { before: null, count: 0, up: 0, down: 0, value: null },
    step({ before, count, up, down }, { close }) {
      if (before === null) return { before: close, count, up, down, value: null };
      // The first means are those of the first changes, as many as there are until then.
      const share = 1 / Math.min(count + 1, period);
      const [rise, fall] = [Math.max(0, close - before), Math.max(0, before - close)];
      const after = { before: close, count: count + 1, up: up + share * (rise - up), down: down + share * (fall - down) };
      const sum = after.up + after.down;
      return { ...after, value: after.count < period ? null : sum ? (100 * after.up) / sum : 50 };
    },
  };
}

/**
 * The mean of typical prices since the day began on the chosen clock, by their volume: `isReal` by the real one, else by
 * the number of ticks. Of a day whose first bars are not loaded there is none; `isWhole`: nothing is before the first bar.
 */
export function vwap({ isReal, isWhole }) {
  return {
    start: { day: null, isWhole: false, sum: 0, weight: 0, value: null },
    step(state, { time, high, low, close, volume, real_volume: realVolume }) {
      const day = Math.floor(wall(time) / DAY_MS);
      const isSame = day === state.day;
      const is = isSame ? state.isWhole : isWhole || state.day !== null;
      const weight = (isReal ? realVolume ?? 0 : volume) || 0;
      const sum = (isSame ? state.sum : 0) + weight * ((high + low + close) / 3);
      const whole = (isSame ? state.weight : 0) + weight;
      return { day, isWhole: is, sum, weight: whole, value: is && whole ? sum / whole : null };
    },
  };
}

const KINDS = { sma, ema, rsi };

/** What text such as `sma20,ema50,vwap,rsi14` names: `{ name, kind, period }` each, without what is none of them. */
export function indicatorsOf(text) {
  const found = new Map();
  for (const name of (text ?? "").toLowerCase().split(/[\s,;]+/)) {
    const [, kind, digits] = /^(sma|ema|rsi|vwap)(\d*)$/.exec(name) ?? [];
    const period = Number(digits);
    if (kind === "vwap" ? digits === "" : kind && period >= 2 && period <= LONGEST) found.set(name, { name, kind, period });
  }
  return [...found.values()].slice(0, MOST);
}

/** The arithmetic of one of them over bars; `isWhole`: these begin with the first there is. */
export function arithmeticOf({ kind, period }, bars, isWhole) {
  if (kind !== "vwap") return KINDS[kind](period);
  return vwap({ isReal: bars.some(({ real_volume: realVolume }) => realVolume > 0), isWhole });
}
