-- What there is of every symbol and source: first and last day, days with candles, ticks, and the range of prices.
SELECT
    symbol, source,
    min(ts) AS first_day, max(ts) AS last_day, count(*) AS days,
    sum(volume)::bigint AS ticks, round(avg(volume))::bigint AS ticks_per_day,
    min(low) AS lowest, max(high) AS highest
FROM candles_d1
GROUP BY symbol, source
ORDER BY symbol, source;
