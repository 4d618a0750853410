-- How much each symbol moved in its last thirty trading days: mean daily range and true range in percent of the close,
-- and the standard deviation of daily returns, a day and (over 252 days) a year.
WITH days AS (
    SELECT
        symbol, source, ts, high, low, close,
        lag(close) OVER (PARTITION BY symbol, source ORDER BY ts) AS close_before,
        row_number() OVER (PARTITION BY symbol, source ORDER BY ts DESC) AS place
    FROM candles_d1
),

moves AS (
    SELECT
        symbol, source,
        (high - low) / close AS day_range,
        (greatest(high, close_before) - least(low, close_before)) / close AS true_range,
        ln(close / close_before) AS day_return
    FROM days
    WHERE place <= 30 AND close > 0 AND close_before > 0
)

SELECT
    symbol, source, count(*) AS days,
    round((100 * avg(day_range))::numeric, 3) AS range_percent,
    round((100 * avg(true_range))::numeric, 3) AS true_range_percent,
    round((100 * stddev_samp(day_return))::numeric, 3) AS daily_volatility_percent,
    round((100 * sqrt(252) * stddev_samp(day_return))::numeric, 1) AS yearly_volatility_percent
FROM moves
GROUP BY symbol, source
ORDER BY symbol, source;
