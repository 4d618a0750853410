-- The newest candle of every symbol and source, and how old it is.
SELECT
    s.symbol, s.source, m.ts, date_trunc('second', now() - m.ts)::text AS age, m.close, m.volume, m.spread, m.origin,
    m.closed
FROM candle_series AS s
CROSS JOIN LATERAL (
    SELECT * FROM market_data AS m
    WHERE m.symbol = s.symbol AND m.timeframe = 'M1' AND m.source = s.source
    ORDER BY m.ts DESC
    LIMIT 1
) AS m
ORDER BY s.symbol, s.source;
