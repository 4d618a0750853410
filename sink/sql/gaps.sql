-- Where ticks are missing; `sink/gaps.py` judges what `silences` finds.

-- name: gaps
-- From each symbol's first tick on: minutes of which only the broker's bar is stored, those in a row as one, and
-- silences between two minutes, or after the newest, that end after `from_` and may have begun since `since`. `bars` is 0
-- for a silence. Where bars are known on both sides of a
-- silence, the broker had no tick in it either.
WITH minutes AS (
    SELECT
        s.symbol, s.source, m.ts, m.origin = 'ticks' AS is_own, m.volume,
        lead(m.ts, 1, %(to)s::timestamptz) OVER series AS next_ts,
        lead(m.origin = 'ticks', 1, true) OVER series AS next_is_own,
        count(*) FILTER (WHERE m.origin = 'ticks') OVER series AS island
    FROM candle_series AS s
    LEFT JOIN LATERAL (
        -- A silence may have begun before.
        SELECT b.ts, b.origin = 'ticks' AS is_own FROM market_data AS b
        WHERE b.symbol = s.symbol AND b.source = s.source AND b.timeframe = 'M1' AND b.ts < %(from_)s::timestamptz
        ORDER BY b.ts DESC LIMIT 1
    ) AS before ON true
    CROSS JOIN LATERAL (
        -- The oldest minute may be in a compressed chunk; a minute with ticks before `from_` tells as much.
        SELECT
            CASE WHEN before.is_own THEN before.ts ELSE (
                SELECT t.ts FROM market_data AS t
                WHERE t.symbol = s.symbol AND t.source = s.source AND t.timeframe = 'M1' AND t.origin = 'ticks'
                    AND t.ts < %(to)s
                ORDER BY t.ts LIMIT 1
            ) END AS ts
        OFFSET 0
    ) AS first_tick
    CROSS JOIN LATERAL (
        -- OFFSET 0: along the index, one symbol after the other, however long the table is.
        SELECT * FROM market_data AS m
        WHERE m.symbol = s.symbol AND m.source = s.source AND m.timeframe = 'M1'
            AND m.ts >= greatest(coalesce(before.ts, %(from_)s), first_tick.ts) AND m.ts < %(to)s
            AND first_tick.ts IS NOT NULL
        OFFSET 0
    ) AS m
    WHERE (%(symbol)s::text IS NULL OR s.symbol = %(symbol)s)
        AND (%(source)s::text IS NULL OR s.source = %(source)s)
    WINDOW series AS (PARTITION BY s.symbol, s.source ORDER BY m.ts)
)

SELECT
    symbol, source, min(ts) AS begins, max(ts) + interval '1 minute' AS ends, count(*) AS bars,
    sum(volume)::bigint AS ticks
FROM minutes
WHERE NOT is_own AND volume > 0 AND ts >= %(from_)s
GROUP BY symbol, source, island
UNION ALL
SELECT symbol, source, greatest(ts + interval '1 minute', %(since)s), next_ts, 0, 0
FROM minutes
WHERE next_ts - greatest(ts + interval '1 minute', %(since)s) >= interval '1 minute' * %(least)s::integer
    AND (is_own OR next_is_own)
ORDER BY symbol, source, begins;

-- name: minutes_by_hour
-- How many minutes of each hour have a candle, ours or the broker's, in the time before each symbol's newest.
SELECT s.symbol, s.source, date_bin('1 hour', m.ts, '2000-01-01 00:00:00+00') AS hour, count(*) AS minutes
FROM candle_series AS s
CROSS JOIN LATERAL (
    SELECT n.ts FROM market_data AS n
    WHERE n.symbol = s.symbol AND n.source = s.source AND n.timeframe = 'M1' AND n.ts < %(to)s::timestamptz
    ORDER BY n.ts DESC LIMIT 1
) AS newest
CROSS JOIN LATERAL (
    SELECT * FROM market_data AS m
    WHERE m.symbol = s.symbol AND m.source = s.source AND m.timeframe = 'M1'
        AND m.ts > newest.ts - %(habit)s::interval AND m.ts <= newest.ts
    OFFSET 0
) AS m
WHERE (%(symbol)s::text IS NULL OR s.symbol = %(symbol)s) AND (%(source)s::text IS NULL OR s.source = %(source)s)
GROUP BY s.symbol, s.source, hour
ORDER BY s.symbol, s.source, hour;
