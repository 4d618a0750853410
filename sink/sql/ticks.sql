-- What the reading of ticks asks of the table, one feed (source and symbol) at a time.

-- name: tick_proofs
-- The minutes of a feed that were folded from ticks: the records that they hold of a log, or are going to hold, whether
-- they are of another log, and how many ticks they have. As epoch milliseconds and as text: a day has 1,440.
SELECT
    (date_part('epoch', m.ts) * 1000)::bigint,
    (
        coalesce(CASE WHEN m.log = %(log)s THEN m.offsets END, '{}')
        + coalesce(CASE WHEN p.log = %(log)s THEN p.offsets END, '{}')
    )::text,
    coalesce(m.log <> %(log)s, false), m.volume, p.log IS NOT NULL
FROM market_data AS m
LEFT JOIN pending_refolds AS p
    ON p.source = m.source AND p.symbol = m.symbol AND p.timeframe = m.timeframe AND p.ts = m.ts
WHERE m.symbol = %(symbol)s AND m.timeframe = 'M1' AND m.source = %(source)s AND m.origin = 'ticks'
    AND m.ts >= %(from_)s AND m.ts < %(to)s
ORDER BY m.ts
LIMIT %(limit)s;

-- name: count_tick_minutes
SELECT count(*)
FROM market_data
WHERE symbol = %(symbol)s AND timeframe = 'M1' AND source = %(source)s AND origin = 'ticks'
    AND ts >= %(from_)s AND ts < %(to)s;

-- name: sink_reached
SELECT partition, next_offset FROM sink_progress WHERE log = %(log)s;

-- name: sources_of
SELECT source FROM candle_series WHERE symbol = %(symbol)s ORDER BY source;

-- name: point_of
SELECT point FROM instruments WHERE source = %(source)s AND symbol = %(symbol)s;
