-- How long ticks took, over the newest 1,440 minutes of each symbol and source: from a minute's newest tick to its
-- receipt, from there through Kafka to the fold, from the fold to the table, and all together; median and 99th percentile
-- in seconds. Minutes whose tick was received more than an hour after its own time are history that somebody sent, those
-- more than a second before it come from a wrong clock or zone; both are counted apart. What Kafka took of it is in the
-- metrics (docs/latency.md).
WITH minutes AS (
    SELECT
        s.symbol, s.source,
        extract(epoch FROM m.received_at - m.last_tick) AS arrive,
        extract(epoch FROM m.folded_at - m.received_at) AS fold,
        extract(epoch FROM m.stored_at - m.folded_at) AS store,
        extract(epoch FROM m.stored_at - m.received_at) AS through
    FROM candle_series AS s
    CROSS JOIN LATERAL (
        SELECT n.received_at, n.last_tick, n.folded_at, n.stored_at FROM market_data AS n
        WHERE n.symbol = s.symbol AND n.source = s.source AND n.timeframe = 'M1' AND n.origin = 'ticks'
        ORDER BY n.ts DESC
        LIMIT 1440
    ) AS m
),

judged AS (
    SELECT m.*, m.arrive BETWEEN -1 AND 3600 AS live FROM minutes AS m
)

SELECT
    j.symbol, j.source, count(*) FILTER (WHERE j.live) AS minutes,
    count(*) FILTER (WHERE j.arrive > 3600) AS history, count(*) FILTER (WHERE j.arrive < -1) AS clock_ahead,
    round(percentile_disc(0.5) WITHIN GROUP (ORDER BY greatest(j.arrive, 0)) FILTER (WHERE j.live), 3)
        AS tick_to_received_p50,
    round(percentile_disc(0.99) WITHIN GROUP (ORDER BY greatest(j.arrive, 0)) FILTER (WHERE j.live), 3)
        AS tick_to_received_p99,
    round(percentile_disc(0.5) WITHIN GROUP (ORDER BY j.fold) FILTER (WHERE j.live), 3) AS received_to_folded_p50,
    round(percentile_disc(0.99) WITHIN GROUP (ORDER BY j.fold) FILTER (WHERE j.live), 3) AS received_to_folded_p99,
    round(percentile_disc(0.5) WITHIN GROUP (ORDER BY j.store) FILTER (WHERE j.live), 3) AS folded_to_stored_p50,
    round(percentile_disc(0.99) WITHIN GROUP (ORDER BY j.store) FILTER (WHERE j.live), 3) AS folded_to_stored_p99,
    round(percentile_disc(0.5) WITHIN GROUP (ORDER BY greatest(j.arrive, 0) + j.through) FILTER (WHERE j.live), 3)
        AS tick_to_stored_p50,
    round(percentile_disc(0.99) WITHIN GROUP (ORDER BY greatest(j.arrive, 0) + j.through) FILTER (WHERE j.live), 3)
        AS tick_to_stored_p99
FROM judged AS j
GROUP BY j.symbol, j.source
ORDER BY j.symbol, j.source;
