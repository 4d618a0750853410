-- Every statement of the dashboard, by name. All of them read.

-- name: prepare_session
SELECT
    set_config('statement_timeout', '15s', false),
    set_config('lock_timeout', '5s', false),
    set_config('idle_in_transaction_session_timeout', '30s', false),
    set_config('timezone', 'UTC', false),
    -- Compiling a plan takes longer than a page does.
    set_config('jit', 'off', false);

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
-- Symbols and sources stand in order in the indexes of hours and marks, so each is found with one step from the one
-- before it (PostgreSQL has no skip scan). What is older than anything kept has to be read through.
WITH RECURSIVE kept AS (
    (SELECT h.symbol, h.source FROM candle_hours AS h ORDER BY h.symbol, h.source LIMIT 1)
    UNION ALL
    SELECT n.symbol, n.source
    FROM kept
    CROSS JOIN LATERAL (
        SELECT h.symbol, h.source FROM candle_hours AS h
        WHERE (h.symbol, h.source) > (kept.symbol, kept.source)
        ORDER BY h.symbol, h.source
        LIMIT 1
    ) AS n
),

marked AS (
    (SELECT k.symbol, k.source FROM candle_marks AS k ORDER BY k.symbol, k.source LIMIT 1)
    UNION ALL
    SELECT n.symbol, n.source
    FROM marked
    CROSS JOIN LATERAL (
        SELECT k.symbol, k.source FROM candle_marks AS k
        WHERE (k.symbol, k.source) > (marked.symbol, marked.source)
        ORDER BY k.symbol, k.source
        LIMIT 1
    ) AS n
),

feeds AS (
    SELECT symbol, source FROM kept
    UNION
    SELECT symbol, source FROM marked
    UNION
    SELECT m.symbol, m.source FROM market_data AS m
    WHERE m.timeframe = 'M1' AND m.ts < (SELECT s.kept_from FROM candle_settings AS s)
),

hours AS (
    SELECT
        f.symbol, f.source,
        CASE WHEN s.kept_from = '-infinity' THEN
            least(
                (SELECT min(h.ts) FROM candle_hours AS h WHERE h.symbol = f.symbol AND h.source = f.source),
                (SELECT min(k.ts) FROM candle_marks AS k WHERE k.symbol = f.symbol AND k.source = f.source)
            )
            ELSE '-infinity'
        END AS first,
        coalesce(
            greatest(
                (SELECT max(h.ts) FROM candle_hours AS h WHERE h.symbol = f.symbol AND h.source = f.source),
                (SELECT max(k.ts) FROM candle_marks AS k WHERE k.symbol = f.symbol AND k.source = f.source)
            ) + interval '1 hour',
            'infinity'
        ) AS after_last
    FROM feeds AS f
    CROSS JOIN candle_settings AS s
)

SELECT h.symbol, h.source, a.ts AS first, z.ts AS last, z.close, coalesce(z.last_tick, z.ts) AS last_tick
FROM hours AS h
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
    m.last_tick, m.log, m.partition, m.offsets, m.closed, m.received_at, coalesce(m.folded_at, m.stored_at)
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
    m.offsets
FROM market_data AS m
WHERE m.timeframe = 'M1' AND m.symbol = %(symbol)s AND m.source = %(source)s
    AND m.ts >= %(from_)s AND m.ts < %(to)s
ORDER BY m.ts
LIMIT %(limit)s;

-- name: last_proven_minutes
SELECT * FROM (
    SELECT
        m.ts, m.symbol, m.source, m.open, m.high, m.low, m.close, m.volume, m.real_volume, m.spread, m.closed, m.log,
        m.offsets
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
