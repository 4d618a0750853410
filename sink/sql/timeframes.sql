-- What keeps hours and days folded; the functions are in migrations/0002_timeframes.sql.

-- name: count_marks
SELECT count(*) FROM candle_marks;

-- name: refresh_candles
SELECT refresh_candles(%(quiet)s, %(max_hours)s);

-- name: lift_local_timeout
SELECT set_config('statement_timeout', '0', true);

-- name: keep_candles
-- As text, for psycopg has no date for -infinity.
SELECT keep_candles(%(days)s)::text;

-- name: candle_day
SELECT
    day_zone,
    -- The clock's time, whichever evening it belongs to.
    (time '00:00' + day_shift)::text,
    CASE WHEN week_shift = interval '0' THEN 'monday' ELSE 'sunday' END,
    kept_from::text
FROM candle_settings;

-- name: set_candle_day
SELECT set_candle_day(%(zone)s, %(start)s, %(week_start)s);
