-- Every statement of the dashboard, by name. All of them read.

-- name: ping
SELECT 1 FROM candle_settings;

-- name: trading_day
SELECT day_zone, (extract(epoch FROM -day_shift) * 1000)::bigint FROM candle_settings;

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
SELECT b.starts, bar_end(b.starts, b.width, b.s) AS ends
FROM (
    SELECT s, t.width, bar_start(%(moment)s, t.width, s) AS starts
    FROM timeframe_named(%(timeframe)s) AS t
    CROSS JOIN candle_settings AS s
) AS b;

-- name: symbols
-- Hours narrow the search for the first and the last minute; but older ones may not be materialised yet.
WITH hours AS (
    SELECT
        c.symbol, c.source,
        CASE WHEN s.materialised_from = '-infinity' THEN
            least(
                (SELECT min(h.ts) FROM candle_hours AS h WHERE h.symbol = c.symbol AND h.source = c.source),
                (SELECT min(k.ts) FROM stale_hours AS k WHERE k.symbol = c.symbol AND k.source = c.source)
            )
            ELSE '-infinity'
        END AS first,
        CASE WHEN s.materialised_from < 'infinity' THEN
            greatest(
                (SELECT max(h.ts) FROM candle_hours AS h WHERE h.symbol = c.symbol AND h.source = c.source),
                (SELECT max(k.ts) FROM stale_hours AS k WHERE k.symbol = c.symbol AND k.source = c.source)
            ) + interval '1 hour'
            ELSE 'infinity'
        END AS after_last
    FROM candle_series AS c
    CROSS JOIN candle_settings AS s
)

SELECT
    h.symbol, h.source, a.ts AS first, z.ts AS last, z.close, coalesce(z.last_tick, z.ts) AS last_tick,
    -- The last minute before the newest one's day; a market that is closed for longer is not traded any more.
    (
        SELECT m.close FROM market_data AS m
        WHERE m.symbol = h.symbol AND m.timeframe = 'M1' AND m.source = h.source
            AND m.ts < bar_start(z.ts, '1 day', s) AND m.ts >= bar_start(z.ts, '1 day', s) - interval '14 days'
        ORDER BY m.ts DESC
        LIMIT 1
    ) AS previous_close
FROM hours AS h
CROSS JOIN candle_settings AS s
CROSS JOIN LATERAL (
    SELECT m.ts FROM market_data AS m
    WHERE m.symbol = h.symbol AND m.timeframe = 'M1' AND m.source = h.source AND m.ts >= h.first
    ORDER BY m.ts
    LIMIT 1
) AS a
CROSS JOIN LATERAL (
    SELECT m.ts, m.close, m.last_tick FROM market_data AS m
    WHERE m.symbol = h.symbol AND m.timeframe = 'M1' AND m.source = h.source AND m.ts < h.after_last
    ORDER BY m.ts DESC
    LIMIT 1
) AS z
ORDER BY h.symbol, z.ts DESC, h.source;

-- name: stored_minutes
-- With the proof. The bounds of ts spare a hypertable the search of every chunk.
SELECT
    m.ts, m.source, m.symbol, m.open, m.high, m.low, m.close, m.volume, m.real_volume, m.spread, m.first_tick,
    m.last_tick, m.log, m.offsets, m.closed, m.received_at, coalesce(m.folded_at, m.stored_at)
FROM unnest(%(symbols)s::text[], %(sources)s::text[], %(minutes)s::timestamptz[]) AS w (symbol, source, ts)
JOIN market_data AS m
    ON m.symbol = w.symbol AND m.source = w.source AND m.timeframe = 'M1' AND m.ts = w.ts
WHERE m.origin = 'ticks'
    AND m.ts BETWEEN (SELECT min(t) FROM unnest(%(minutes)s::timestamptz[]) AS t)
    AND (SELECT max(t) FROM unnest(%(minutes)s::timestamptz[]) AS t);

-- name: proven_minutes
-- As `minutes`, each with its proof; a broker's bar has none.
SELECT
    m.ts, m.symbol, m.source, m.open, m.high, m.low, m.close, m.volume, m.real_volume, m.spread, m.closed, m.log,
    m.offsets, m.received_at
FROM market_data AS m
WHERE m.timeframe = 'M1' AND m.symbol = %(symbol)s AND m.source = %(source)s
    AND m.ts >= %(from_)s AND m.ts < %(to)s
ORDER BY m.ts
LIMIT %(limit)s;

-- name: last_proven_minutes
SELECT * FROM (
    SELECT
        m.ts, m.symbol, m.source, m.open, m.high, m.low, m.close, m.volume, m.real_volume, m.spread, m.closed, m.log,
        m.offsets, m.received_at
    FROM market_data AS m
    WHERE m.timeframe = 'M1' AND m.symbol = %(symbol)s AND m.source = %(source)s AND m.ts < %(to)s
    ORDER BY m.ts DESC
    LIMIT %(limit)s
) AS newest
ORDER BY ts;

-- name: storing
-- From the receipt of its newest tick until it was stored, of each of these minutes that is open (milliseconds).
SELECT (extract(epoch FROM m.stored_at - m.received_at) * 1000)::bigint
FROM unnest(%(symbols)s::text[], %(sources)s::text[], %(minutes)s::double precision[]) AS w (symbol, source, minute)
JOIN market_data AS m
    ON m.symbol = w.symbol AND m.source = w.source AND m.timeframe = 'M1' AND m.ts = to_timestamp(w.minute)
WHERE NOT m.closed AND m.origin = 'ticks' AND m.received_at > now() - interval '1 minute';

-- name: instruments
SELECT source, symbol, point FROM instruments;

-- name: instrument
SELECT point FROM instruments WHERE source = %(source)s AND symbol = %(symbol)s;

-- name: proof
-- What a bar is made of, in sum: of the minutes that are stored of it. A longer one is closed when its time is over as
-- well, as in bars_between().
SELECT
    count(*) AS minutes, count(*) FILTER (WHERE m.origin = 'broker') AS broker_minutes, count(p.ts) AS pending,
    sum(m.volume)::bigint AS ticks,
    bool_and(m.closed) AND (%(timeframe)s = 'M1' OR %(to)s <= now()) AS closed, min(m.first_tick) AS first_tick,
    max(m.last_tick) AS last_tick, max(m.received_at) AS received_at, max(m.folded_at) AS folded_at,
    max(m.stored_at) AS stored_at
FROM market_data AS m
LEFT JOIN pending_refolds AS p
    ON p.source = m.source AND p.symbol = m.symbol AND p.timeframe = m.timeframe AND p.ts = m.ts
WHERE m.timeframe = 'M1' AND m.symbol = %(symbol)s AND m.source = %(source)s
    AND m.ts >= %(from_)s AND m.ts < %(to)s;

-- name: proof_ranges
-- The records that these minutes are the fold of, by log.
SELECT m.log, range_agg(r) AS ranges
FROM market_data AS m
CROSS JOIN LATERAL unnest(m.offsets) AS r
WHERE m.timeframe = 'M1' AND m.symbol = %(symbol)s AND m.source = %(source)s
    AND m.ts >= %(from_)s AND m.ts < %(to)s
GROUP BY m.log
ORDER BY max(m.ts) DESC;

-- name: whole_bars
-- The starts of the first bars that begin at or after two moments: what begins between the moments ends with them.
SELECT next_bar(%(from_)s, t.width, s), least(next_bar(%(to)s, t.width, s), '9999-12-31 00:00+00')
FROM timeframe_named(%(timeframe)s) AS t
CROSS JOIN candle_settings AS s;

-- name: compared_bars
-- The broker's bars, rolled up from its minutes, and how many minutes of each bar agree with our folds. Both times are
-- starts of bars.
SELECT
    bar_start(c.ts, t.width, s) AS ts,
    (array_agg(c.broker_open ORDER BY c.ts) FILTER (WHERE c.broker_open IS NOT NULL))[1] AS open,
    max(c.broker_high) AS high, min(c.broker_low) AS low,
    (array_agg(c.broker_close ORDER BY c.ts DESC) FILTER (WHERE c.broker_close IS NOT NULL))[1] AS close,
    sum(c.broker_volume)::bigint AS volume, sum(c.broker_real_volume) AS real_volume, min(c.broker_spread) AS spread,
    count(*) FILTER (WHERE c.verdict = 'equal') AS equal, count(*) FILTER (WHERE c.verdict = 'differs') AS differs,
    count(*) FILTER (WHERE c.verdict = 'no_bar') AS no_bar,
    count(*) FILTER (WHERE c.verdict = 'no_candle') AS no_candle
FROM compared_minutes(%(from_)s, %(to)s) AS c
CROSS JOIN timeframe_named(%(timeframe)s) AS t
CROSS JOIN candle_settings AS s
WHERE c.symbol = %(symbol)s AND c.source = %(source)s
GROUP BY 1
ORDER BY 1
LIMIT %(limit)s;
