-- Candles without a tick, in the thirty days before each symbol's newest one. A fold always has one; a broker's own
-- bar may have none.
SELECT s.symbol, s.source, m.ts, m.open, m.high, m.low, m.close, m.origin
FROM candle_series AS s
CROSS JOIN LATERAL (
    -- OFFSET 0: along the index, one symbol after the other, however long the table is.
    SELECT * FROM market_data AS m
    WHERE m.symbol = s.symbol AND m.source = s.source AND m.timeframe = 'M1'
        AND m.ts >= s.newest_day - interval '29 days'
    OFFSET 0
) AS m
WHERE m.volume = 0
ORDER BY s.symbol, s.source, m.ts;
