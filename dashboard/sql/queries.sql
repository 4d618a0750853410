-- Every statement of the dashboard, by name. All of them read.

-- name: prepare_session
SELECT
    set_config('statement_timeout', '15s', false),
    set_config('lock_timeout', '5s', false),
    set_config('idle_in_transaction_session_timeout', '30s', false),
    set_config('timezone', 'UTC', false);

-- name: ping
SELECT 1 FROM market_data LIMIT 1;

-- name: candles
SELECT ts, symbol, source, open, high, low, close, volume, real_volume, spread, closed
FROM market_data
WHERE symbol = %(symbol)s AND timeframe = 'M1' AND ts >= %(from_)s AND ts < %(to)s
    AND (%(source)s::text IS NULL OR source = %(source)s)
ORDER BY ts
LIMIT %(limit)s;

-- name: last_candles
SELECT * FROM (
    SELECT ts, symbol, source, open, high, low, close, volume, real_volume, spread, closed
    FROM market_data
    WHERE symbol = %(symbol)s AND timeframe = 'M1' AND ts < %(before)s
        AND (%(source)s::text IS NULL OR source = %(source)s)
    ORDER BY ts DESC
    LIMIT %(limit)s
) AS newest
ORDER BY ts;

-- name: symbols
-- Reads the whole index, so its answer is kept for a while (dashboard/catalogue.py).
SELECT symbol, source, min(ts) AS first, max(ts) AS last, count(*) AS candles
FROM market_data
WHERE timeframe = 'M1'
GROUP BY symbol, source
ORDER BY symbol, max(ts) DESC, source;
