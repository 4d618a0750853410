-- What stands beside the folds: minutes filled from the broker's bars, and hours and days rolled up from minutes. Only
-- hands that go past the triggers, or delete rows, make them other than what they are derived from.

-- name: unfilled_bars
-- Bars of the broker of which market_data has no row, or one of the broker's that is another bar.
SELECT b.source, b.symbol, b.ts, b.timeframe
FROM broker_bars AS b
CROSS JOIN candle_settings AS s
LEFT JOIN market_data AS m
    ON m.symbol = b.symbol AND m.timeframe = b.timeframe AND m.ts = b.ts AND m.source = b.source
WHERE (%(symbol)s::text IS NULL OR b.symbol = %(symbol)s) AND (%(source)s::text IS NULL OR b.source = %(source)s)
    AND (%(from_)s::timestamptz IS NULL OR b.ts >= %(from_)s) AND (%(to)s::timestamptz IS NULL OR b.ts < %(to)s)
    -- What is older was deleted by retention.
    AND b.ts >= s.minutes_from
    AND (
        m.ts IS NULL
        OR (m.origin = 'broker' AND (m.open, m.high, m.low, m.close, m.volume, m.real_volume, m.spread, m.closed)
            IS DISTINCT FROM (b.open, b.high, b.low, b.close, b.volume, b.real_volume, b.spread, b.closed))
    )
ORDER BY b.ts, b.symbol, b.source, b.timeframe;

-- name: span_of_hours
-- From the first to the last time of which there are minutes or hours.
SELECT least(m.first, h.first), greatest(m.last, h.last)
FROM (SELECT min(ts) AS first, max(ts) AS last FROM market_data) AS m
CROSS JOIN (SELECT min(ts) AS first, max(ts) AS last FROM candle_hours) AS h;

-- name: wrong_roll_ups
-- Hours of the days from the one of `lo` up to the one of `hi` that are not the roll-up of their minutes, and days that
-- are not that of their hours; those that are known to be stale are rolled up by whoever reads them.
WITH span AS (
    SELECT
        greatest(bar_start(%(lo)s, '1 day', s), s.materialised_from, s.minutes_from) AS lo,
        bar_start(%(hi)s, '1 day', s) AS hi
    FROM candle_settings AS s
),

hours AS (
    SELECT h.*
    FROM candle_hours AS h
    CROSS JOIN span
    WHERE h.ts >= span.lo AND h.ts < span.hi
),

minutes AS (
    SELECT m.*
    FROM span
    CROSS JOIN candle_settings AS s
    CROSS JOIN LATERAL rolled_up_minutes('1 hour', span.lo, span.hi, s) AS m
),

days AS (
    SELECT d.*
    FROM candle_days AS d
    CROSS JOIN span
    WHERE d.ts >= span.lo AND d.ts < span.hi
),

rolled_up_days AS (
    SELECT d.*
    FROM span
    CROSS JOIN candle_settings AS s
    CROSS JOIN LATERAL rolled_up_materialised_hours('1 day', span.lo, span.hi, s) AS d
),

found AS (
    SELECT source, symbol, ts, 'H1' AS timeframe, ts + interval '1 hour' AS ends
    FROM minutes AS r
    LEFT JOIN hours AS o USING (source, symbol, ts)
    WHERE (o.open, o.high, o.low, o.close, o.volume, o.real_volume, o.spread, o.closed)
        IS DISTINCT FROM (r.open, r.high, r.low, r.close, r.volume, r.real_volume, r.spread, r.closed)
    UNION ALL
    SELECT source, symbol, ts, 'D1', bar_end(ts, '1 day', s)
    FROM rolled_up_days AS r
    LEFT JOIN days AS o USING (source, symbol, ts)
    CROSS JOIN candle_settings AS s
    WHERE (o.open, o.high, o.low, o.close, o.volume, o.real_volume, o.spread, o.closed)
        IS DISTINCT FROM (r.open, r.high, r.low, r.close, r.volume, r.real_volume, r.spread, r.closed)
        AND EXISTS (
            SELECT FROM market_data AS m
            WHERE m.symbol = r.symbol AND m.source = r.source AND m.timeframe = 'M1'
                AND m.ts >= r.ts AND m.ts < bar_end(r.ts, '1 day', s)
        )
)

SELECT f.source, f.symbol, f.ts, f.timeframe
FROM found AS f
WHERE (%(symbol)s::text IS NULL OR f.symbol = %(symbol)s) AND (%(source)s::text IS NULL OR f.source = %(source)s)
    AND NOT EXISTS (
        SELECT FROM stale_hours AS k
        WHERE k.symbol = f.symbol AND k.source = f.source AND k.ts >= f.ts AND k.ts < f.ends
    )
ORDER BY f.ts, f.symbol, f.source, f.timeframe;

-- name: make_stale
-- Hours, and of days an hour that has minutes, so that both are rolled up again.
INSERT INTO stale_hours (symbol, source, ts)
SELECT DISTINCT m.symbol, m.source, bar_start(m.ts, '1 hour', s)
FROM unnest(%(source)s::text[], %(symbol)s::text[], %(timeframe)s::text[], %(ts)s::timestamptz[])
    AS k (source, symbol, timeframe, ts)
CROSS JOIN candle_settings AS s
CROSS JOIN LATERAL (
    SELECT o.symbol, o.source, o.ts
    FROM market_data AS o
    WHERE o.symbol = k.symbol AND o.source = k.source AND o.timeframe = 'M1'
        AND o.ts >= k.ts
        AND o.ts < CASE k.timeframe WHEN 'H1' THEN k.ts + interval '1 hour' ELSE bar_end(k.ts, '1 day', s) END
    LIMIT 1
) AS m
ORDER BY 1, 2, 3
ON CONFLICT DO NOTHING;
