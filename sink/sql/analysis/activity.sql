-- When each symbol is busy: hour by hour (UTC), over the thirty days before its newest candle, mean ticks and mean
-- range of an hour with candles.
SELECT
    s.symbol, s.source, extract(hour FROM h.ts AT TIME ZONE 'UTC')::int AS hour,
    count(*) AS hours, round(avg(h.volume))::bigint AS ticks_per_hour,
    round((100 * avg((h.high - h.low) / nullif(h.close, 0)))::numeric, 4) AS range_percent
FROM candle_series AS s
JOIN candles_h1 AS h
    ON h.symbol = s.symbol AND h.source = s.source AND h.ts >= s.newest_day - interval '29 days'
GROUP BY s.symbol, s.source, 3
ORDER BY s.symbol, s.source, 3;
