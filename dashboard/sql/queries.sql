-- Every statement of the dashboard, by name. All of them read.

-- name: prepare_session
SELECT
    set_config('statement_timeout', '15s', false),
    set_config('lock_timeout', '5s', false),
    set_config('idle_in_transaction_session_timeout', '30s', false),
    set_config('timezone', 'UTC', false);

-- name: ping
SELECT 1 FROM candle_settings;

-- name: newest_source
SELECT newest_source(%(symbol)s);

-- name: minutes
-- As candles() would answer, but it stops at the limit.
SELECT * FROM candles_m1
WHERE symbol = %(symbol)s AND source = %(source)s AND ts >= %(from_)s AND ts < %(to)s
ORDER BY ts
LIMIT %(limit)s;

-- name: candles
SELECT * FROM candles(%(symbol)s, %(timeframe)s, %(from_)s, %(to)s, %(source)s) ORDER BY ts LIMIT %(limit)s;

-- name: last_candles
SELECT * FROM last_candles(%(symbol)s, %(timeframe)s, %(to)s, %(limit)s, %(source)s) ORDER BY ts;

-- name: next_minute
SELECT ts FROM candles_m1
WHERE symbol = %(symbol)s AND source = %(source)s AND ts >= %(from_)s AND ts < %(to)s
ORDER BY ts
LIMIT 1;

-- name: bar_bounds
-- Start and end of the bar that holds a moment.
WITH bar AS (
    SELECT
        s.*, candle_width(%(timeframe)s) AS width,
        CASE WHEN candle_width(%(timeframe)s) IS NULL
            THEN period_start(%(moment)s, %(timeframe)s, s.day_zone, s.day_shift, s.week_shift)
            ELSE date_bin(candle_width(%(timeframe)s), %(moment)s, s.hour_origin)
        END AS starts
    FROM candle_settings AS s
)

SELECT
    starts,
    CASE WHEN width IS NULL THEN period_end(starts, %(timeframe)s, day_zone, day_shift, week_shift)
        ELSE starts + width
    END AS ends
FROM bar;

-- name: symbols
-- Counting reads the whole index, so the answer is kept for a while (dashboard/catalogue.py).
WITH feeds AS (
    SELECT symbol, source, min(ts) AS first, max(ts) AS last, count(*) AS candles
    FROM market_data
    WHERE timeframe = 'M1'
    GROUP BY symbol, source
)

SELECT f.symbol, f.source, f.first, f.last, f.candles, m.close, coalesce(m.last_tick, m.ts) AS last_tick
FROM feeds AS f
JOIN market_data AS m ON m.symbol = f.symbol AND m.timeframe = 'M1' AND m.ts = f.last AND m.source = f.source
ORDER BY f.symbol, f.last DESC, f.source;
