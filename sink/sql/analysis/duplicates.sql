-- Minutes that a symbol has more than once, in the thirty days before its newest one. The table's key allows one candle
-- for each source, so these are minutes of several sources; where they disagree, `closes` shows it.
SELECT
    s.symbol, m.ts, count(*) AS candles, string_agg(m.source, ', ' ORDER BY m.source) AS sources,
    string_agg(m.close::text, ', ' ORDER BY m.source) AS closes
FROM (SELECT symbol, max(newest_day) AS newest_day FROM candle_series GROUP BY symbol) AS s
CROSS JOIN LATERAL (
    -- OFFSET 0: along the index, one symbol after the other, however long the table is.
    SELECT * FROM market_data AS m
    WHERE m.symbol = s.symbol AND m.timeframe = 'M1'
        AND m.ts >= s.newest_day - interval '29 days'
    OFFSET 0
) AS m
GROUP BY s.symbol, m.ts
HAVING count(*) > 1
ORDER BY s.symbol, m.ts;
