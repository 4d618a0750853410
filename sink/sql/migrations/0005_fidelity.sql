-- How true the folds are to the broker's own bars, minute by minute and day by day.

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- Every closed minute from `lo` up to `hi` of which the broker's bar or our fold is known, within the span in which
-- both are: from the later of the two first ones to the earlier of the two last ones. verdict: equal, differs, no_bar
-- (only our fold is there) or no_candle (only the bar is). One SELECT, so that conditions reach the tables.
CREATE FUNCTION compared_minutes(lo timestamptz, hi timestamptz) RETURNS TABLE (
    symbol text,
    ts timestamptz,
    source text,
    open double precision, broker_open double precision, open_difference double precision,
    high double precision, broker_high double precision, high_difference double precision,
    low double precision, broker_low double precision, low_difference double precision,
    close double precision, broker_close double precision, close_difference double precision,
    volume bigint, broker_volume bigint, volume_difference bigint,
    real_volume double precision, broker_real_volume double precision, real_volume_difference double precision,
    spread integer, broker_spread integer, spread_difference integer,
    verdict text,
    differing text[],
    equal boolean
)
LANGUAGE sql STABLE PARALLEL SAFE BEGIN ATOMIC
    SELECT
        s.symbol, c.ts, s.source,
        c.open, c.broker_open, c.open - c.broker_open,
        c.high, c.broker_high, c.high - c.broker_high,
        c.low, c.broker_low, c.low - c.broker_low,
        c.close, c.broker_close, c.close - c.broker_close,
        c.volume, c.broker_volume, c.volume - c.broker_volume,
        c.real_volume, c.broker_real_volume, c.real_volume - c.broker_real_volume,
        c.spread, c.broker_spread, c.spread - c.broker_spread,
        CASE
            WHEN c.broker_open IS NULL THEN 'no_bar'
            WHEN c.open IS NULL THEN 'no_candle'
            WHEN c.differing = '{}' THEN 'equal'
            ELSE 'differs'
        END,
        c.differing,
        c.differing = '{}'
    FROM candle_series AS s
    CROSS JOIN LATERAL (
        -- The first and the last of both. One before `lo` makes the span begin there.
        SELECT
            greatest(
                coalesce(
                    (SELECT lo FROM market_data AS m
                     WHERE m.symbol = s.symbol AND m.timeframe = 'M1' AND m.source = s.source AND m.ts < lo
                         AND m.origin = 'ticks'
                     ORDER BY m.ts DESC LIMIT 1),
                    (SELECT m.ts FROM market_data AS m
                     WHERE m.symbol = s.symbol AND m.timeframe = 'M1' AND m.source = s.source AND m.ts >= lo
                         AND m.origin = 'ticks'
                     ORDER BY m.ts LIMIT 1),
                    'infinity'
                ),
                coalesce(
                    (SELECT lo FROM broker_bars AS b
                     WHERE b.symbol = s.symbol AND b.timeframe = 'M1' AND b.source = s.source AND b.ts < lo
                         AND b.closed
                     ORDER BY b.ts DESC LIMIT 1),
                    (SELECT b.ts FROM broker_bars AS b
                     WHERE b.symbol = s.symbol AND b.timeframe = 'M1' AND b.source = s.source AND b.ts >= lo
                         AND b.closed
                     ORDER BY b.ts LIMIT 1),
                    'infinity'
                )
            ) AS first_ts,
            least(
                (SELECT m.ts FROM market_data AS m
                 WHERE m.symbol = s.symbol AND m.timeframe = 'M1' AND m.source = s.source
                     AND m.origin = 'ticks' AND m.closed
                 ORDER BY m.ts DESC LIMIT 1),
                (SELECT b.ts FROM broker_bars AS b
                 WHERE b.symbol = s.symbol AND b.timeframe = 'M1' AND b.source = s.source AND b.closed
                 ORDER BY b.ts DESC LIMIT 1)
            ) AS last_ts
    ) AS span
    CROSS JOIN LATERAL (
        SELECT
            coalesce(m.ts, b.ts) AS ts,
            m.open, b.open AS broker_open, m.high, b.high AS broker_high, m.low, b.low AS broker_low,
            m.close, b.close AS broker_close, m.volume, b.volume AS broker_volume,
            m.real_volume, b.real_volume AS broker_real_volume, m.spread, b.spread AS broker_spread,
            CASE WHEN m.open IS NOT NULL AND b.open IS NOT NULL THEN
                array_remove(ARRAY[
                    CASE WHEN m.open <> b.open THEN 'open' END, CASE WHEN m.high <> b.high THEN 'high' END,
                    CASE WHEN m.low <> b.low THEN 'low' END, CASE WHEN m.close <> b.close THEN 'close' END,
                    CASE WHEN m.volume <> b.volume THEN 'volume' END,
                    -- What one side does not say is not compared.
                    CASE WHEN m.real_volume <> b.real_volume THEN 'real_volume' END,
                    CASE WHEN m.spread <> b.spread THEN 'spread' END
                ], NULL)
            END AS differing
        FROM (
            SELECT m.* FROM market_data AS m
            WHERE m.symbol = s.symbol AND m.timeframe = 'M1' AND m.source = s.source AND m.origin = 'ticks'
                AND m.ts >= span.first_ts AND m.ts <= span.last_ts AND m.ts < hi
        ) AS m
        FULL JOIN (
            SELECT b.* FROM broker_bars AS b
            WHERE b.symbol = s.symbol AND b.timeframe = 'M1' AND b.source = s.source
                AND b.ts >= span.first_ts AND b.ts <= span.last_ts AND b.ts < hi
        ) AS b ON b.ts = m.ts
        -- What still moves, on either side, is not compared.
        WHERE m.closed IS DISTINCT FROM false AND b.closed IS DISTINCT FROM false
    ) AS c;
END;

-- The same by trading day (see set_candle_day): `day` is its start.
CREATE FUNCTION compared_days(lo timestamptz, hi timestamptz) RETURNS TABLE (
    day timestamptz,
    symbol text,
    source text,
    minutes bigint, equal bigint, differs bigint, no_bar bigint, no_candle bigint,
    open_differs bigint, high_differs bigint, low_differs bigint, close_differs bigint, volume_differs bigint,
    real_volume_differs bigint, spread_differs bigint,
    largest_price_difference double precision
)
LANGUAGE sql STABLE PARALLEL SAFE BEGIN ATOMIC
    SELECT
        bar_start(c.ts, '1 day', s) AS day, c.symbol, c.source,
        count(*),
        count(*) FILTER (WHERE c.verdict = 'equal'),
        count(*) FILTER (WHERE c.verdict = 'differs'),
        count(*) FILTER (WHERE c.verdict = 'no_bar'),
        count(*) FILTER (WHERE c.verdict = 'no_candle'),
        count(*) FILTER (WHERE c.open_difference <> 0),
        count(*) FILTER (WHERE c.high_difference <> 0),
        count(*) FILTER (WHERE c.low_difference <> 0),
        count(*) FILTER (WHERE c.close_difference <> 0),
        count(*) FILTER (WHERE c.volume_difference <> 0),
        count(*) FILTER (WHERE c.real_volume_difference <> 0),
        count(*) FILTER (WHERE c.spread_difference <> 0),
        max(greatest(abs(c.open_difference), abs(c.high_difference), abs(c.low_difference), abs(c.close_difference)))
    FROM compared_minutes(lo, hi) AS c
    CROSS JOIN candle_settings AS s
    GROUP BY 1, c.symbol, c.source;
END;

CREATE VIEW bar_fidelity AS SELECT * FROM compared_minutes('-infinity', 'infinity');

CREATE VIEW bar_fidelity_daily AS SELECT * FROM compared_days('-infinity', 'infinity');
