-- What `tickpipe export` reads, one series (symbol and source) and time range after the other.

-- name: exported_series
SELECT symbol, source
FROM candle_series
WHERE %(symbols)s::text[] IS NULL OR symbol = ANY(%(symbols)s)
ORDER BY symbol, source;

-- name: exported_span
-- First and last minute, or hour of which no minute is left.
SELECT
    least(
        (SELECT m.ts FROM market_data AS m
         WHERE m.symbol = %(symbol)s AND m.timeframe = 'M1' AND m.source = %(source)s
         ORDER BY m.ts LIMIT 1),
        (SELECT min(h.ts) FROM candle_hours AS h WHERE h.symbol = %(symbol)s AND h.source = %(source)s)
    ),
    greatest(
        (SELECT m.ts FROM market_data AS m
         WHERE m.symbol = %(symbol)s AND m.timeframe = 'M1' AND m.source = %(source)s
         ORDER BY m.ts DESC LIMIT 1),
        (SELECT max(h.ts) FROM candle_hours AS h WHERE h.symbol = %(symbol)s AND h.source = %(source)s)
    );

-- name: exported_minutes
SELECT
    source, timeframe, ts, open, high, low, close, volume, real_volume, spread, closed,
    origin, first_tick, last_tick, log, offsets::text, received_at, folded_at, stored_at
FROM market_data
WHERE symbol = %(symbol)s AND timeframe = 'M1' AND source = %(source)s AND ts >= %(from_)s AND ts < %(to)s
ORDER BY ts;

-- name: exported_candles
SELECT source, %(timeframe)s::text, ts, open, high, low, close, volume, real_volume, spread, closed
FROM candles(%(symbol)s, %(timeframe)s, %(from_)s, %(to)s, %(source)s);
