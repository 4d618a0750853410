-- Deleting what is older than wanted, in pieces that hold no writer up. advance_retention() says what the times mean.

-- name: retention
SELECT
    nullif(minutes_from, '-infinity') AS minutes_from,
    nullif(hours_from, '-infinity') AS hours_from,
    nullif(days_from, '-infinity') AS days_from
FROM candle_settings;

-- name: advance_retention
SELECT
    nullif(minutes_from, '-infinity'), nullif(hours_from, '-infinity'), nullif(days_from, '-infinity')
FROM advance_retention(%(minutes)s, %(hours)s, %(days)s);

-- name: drop_minutes
SELECT drop_minutes(%(before)s);

-- name: oldest_minute
SELECT ts FROM market_data WHERE ts < %(before)s ORDER BY ts LIMIT 1;

-- name: delete_minutes
DELETE FROM market_data WHERE ts >= %(oldest)s AND ts < %(end)s;

-- name: delete_hours
DELETE FROM candle_hours
WHERE ctid = ANY(ARRAY(SELECT h.ctid FROM candle_hours AS h WHERE h.ts < %(before)s LIMIT %(rows)s));

-- name: delete_days
DELETE FROM candle_days
WHERE ctid = ANY(ARRAY(SELECT d.ctid FROM candle_days AS d WHERE d.ts < %(before)s LIMIT %(rows)s));

-- name: delete_bars
DELETE FROM broker_bars
WHERE ctid = ANY(
    ARRAY(
        SELECT b.ctid FROM broker_bars AS b
        WHERE b.timeframe IN (SELECT t.name FROM timeframes AS t WHERE t.stored_as = %(stored_as)s)
            AND b.ts < %(before)s
        LIMIT %(rows)s
    )
);
