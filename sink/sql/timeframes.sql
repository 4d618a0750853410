-- Higher timeframes and the comparison with the broker's bars; their functions and views are in migrations.

-- name: count_stale
SELECT count(*) FROM stale_hours;

-- name: refresh_candles
SELECT refresh_candles(%(quiet)s, %(max_hours)s);

-- name: lift_local_timeout
SELECT set_config('statement_timeout', '0', true);

-- name: materialise_candles
-- As text, for psycopg has no date for -infinity.
SELECT materialise_candles(%(days)s)::text;

-- name: candle_day
SELECT
    day_zone AS zone,
    time '00:00' + day_shift AS start,
    CASE WHEN week_shift = interval '0' THEN 'monday' ELSE 'sunday' END AS week_start,
    nullif(materialised_from, '-infinity')::text AS materialised_from
FROM candle_settings;

-- name: set_candle_day
SELECT set_candle_day(%(zone)s, %(start)s, %(week_start)s);

-- name: folded_candles
SELECT ts, symbol, %(timeframe)s::text AS timeframe, open, high, low, close, volume, source
FROM candles(%(symbol)s, %(timeframe)s, %(from_)s, %(to)s, %(source)s);

-- name: compared_minutes
SELECT
    ts, symbol, source, verdict, array_to_string(differing, ' ') AS differing,
    open_difference, high_difference, low_difference, close_difference, volume_difference,
    real_volume_difference, spread_difference
FROM compared_minutes(coalesce(%(from_)s::timestamptz, '-infinity'), coalesce(%(to)s::timestamptz, 'infinity'))
WHERE (%(symbol)s::text IS NULL OR symbol = %(symbol)s) AND (verdict <> 'equal' OR %(all)s::boolean)
ORDER BY symbol, source, ts;

-- name: different_minutes
SELECT
    ts, symbol, source, verdict, differing,
    open, high, low, close, volume, real_volume,
    broker_open, broker_high, broker_low, broker_close, broker_volume, broker_real_volume
FROM compared_minutes(coalesce(%(from_)s::timestamptz, '-infinity'), coalesce(%(to)s::timestamptz, 'infinity'))
WHERE (%(symbol)s::text IS NULL OR symbol = %(symbol)s) AND verdict <> 'equal'
ORDER BY symbol, source, ts;

-- name: compared_days
SELECT *
FROM compared_days(coalesce(%(from_)s::timestamptz, '-infinity'), coalesce(%(to)s::timestamptz, 'infinity'))
WHERE %(symbol)s::text IS NULL OR symbol = %(symbol)s
ORDER BY symbol, source, day;

-- name: count_compared
-- Of the last 24 hours, by symbol.
SELECT symbol, verdict, count(*)
FROM compared_minutes(now() - interval '24 hours', 'infinity')
GROUP BY symbol, verdict
ORDER BY symbol, verdict;
