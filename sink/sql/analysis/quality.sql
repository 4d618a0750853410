-- Whether the last seven days of each symbol's candles can be trusted: how many minutes there are, how many only as a
-- bar of the broker, how many still open an hour later, without a tick, or with prices that cannot be; minutes that
-- wait to be folded again; and of those that can be compared with the broker's bars the share that is equal.
WITH minutes AS (
    SELECT
        s.symbol, s.source, count(*) AS minutes,
        count(*) FILTER (WHERE m.origin = 'broker') AS only_broker,
        count(*) FILTER (WHERE NOT m.closed AND m.ts < now() - interval '1 hour') AS left_open,
        count(*) FILTER (WHERE m.volume = 0) AS without_ticks,
        count(*) FILTER (
            WHERE m.low > least(m.open, m.close) OR m.high < greatest(m.open, m.close) OR m.low <= 0
        ) AS impossible
    FROM candle_series AS s
    CROSS JOIN LATERAL (
        -- OFFSET 0: along the index, one symbol after the other, however long the table is.
        SELECT * FROM market_data AS m
        WHERE m.symbol = s.symbol AND m.source = s.source AND m.timeframe = 'M1'
            AND m.ts >= s.newest_day - interval '6 days'
        OFFSET 0
    ) AS m
    GROUP BY s.symbol, s.source
),

fidelity AS (
    SELECT d.symbol, d.source, sum(d.equal) AS equal, sum(d.equal + d.differs) AS compared
    FROM candle_series AS s
    JOIN compared_days((SELECT min(newest_day) - interval '6 days' FROM candle_series), 'infinity') AS d
        ON d.symbol = s.symbol AND d.source = s.source AND d.day >= s.newest_day - interval '6 days'
    GROUP BY d.symbol, d.source
)

SELECT
    m.symbol, m.source, m.minutes, m.only_broker, m.left_open, m.without_ticks, m.impossible,
    (SELECT count(*) FROM pending_refolds AS p WHERE p.symbol = m.symbol AND p.source = m.source) AS pending_refolds,
    f.compared AS compared_with_broker,
    round(100 * f.equal / nullif(f.compared, 0), 2) AS equal_percent
FROM minutes AS m
LEFT JOIN fidelity AS f ON f.symbol = m.symbol AND f.source = m.source
ORDER BY m.symbol, m.source;
