-- Stretches of more than five minutes without a candle, in the seven days before each symbol's newest one. A weekend is
-- one of them; a market that is closed has no ticks.
WITH minutes AS (
    SELECT
        s.symbol, s.source, m.ts, lag(m.ts) OVER (PARTITION BY s.symbol, s.source ORDER BY m.ts) AS before
    FROM candle_series AS s
    CROSS JOIN LATERAL (
        -- OFFSET 0: along the index, one symbol after the other, however long the table is.
        SELECT * FROM market_data AS m
        WHERE m.symbol = s.symbol AND m.source = s.source AND m.timeframe = 'M1'
            AND m.ts >= s.newest_day - interval '6 days'
        OFFSET 0
    ) AS m
)

SELECT
    symbol, source, before + interval '1 minute' AS gap_from, ts AS gap_to,
    (extract(epoch FROM ts - before) / 60 - 1)::int AS minutes
FROM minutes
WHERE ts - before > interval '6 minutes'
ORDER BY symbol, source, gap_from;
