-- The newest candle of every symbol and source, and how old it is.
WITH series AS (
    SELECT symbol, source, max(ts) AS newest_day FROM candles_d1 GROUP BY symbol, source
)

SELECT
    s.symbol, s.source, m.ts, date_trunc('second', now() - m.ts)::text AS age, m.close, m.volume, m.spread, m.origin,
    m.closed
FROM series AS s
CROSS JOIN LATERAL (
    SELECT * FROM market_data AS m
    WHERE m.symbol = s.symbol AND m.timeframe = 'M1' AND m.source = s.source AND m.ts >= s.newest_day
    ORDER BY m.ts DESC
    LIMIT 1
) AS m
ORDER BY s.symbol, s.source;
