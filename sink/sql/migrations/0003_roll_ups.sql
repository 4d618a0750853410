-- Roll-ups, from M1 alone. Hours and days are materialised in candle_hours and candle_days; whoever changes an M1 row
-- makes its hour stale in the same transaction, and whoever reads rolls stale hours up from M1. So answers are exact at
-- any moment, on every edition alike; refresh_candles() only makes them quick again. docs/timeframes.md says more.

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

CREATE TYPE candle AS (
    ts timestamptz, symbol text, source text,
    open double precision, high double precision, low double precision, close double precision,
    volume bigint, real_volume double precision, spread integer,
    closed boolean
);

-- No index by ts alone: the planner would take it for the hours of one symbol and read those of all.
CREATE TABLE candle_hours (
    LIKE candle,
    PRIMARY KEY (symbol, source, ts),
    CHECK (num_nulls(open, high, low, close, volume, closed) = 0)
);
COMMENT ON COLUMN candle_hours.closed IS 'every M1 in it is closed; the reader knows whether the period is over';

CREATE TABLE candle_days (LIKE candle_hours INCLUDING ALL, ends timestamptz NOT NULL);

-- Hours of which an M1 row changed since they were rolled up.
CREATE TABLE stale_hours (
    symbol text NOT NULL,
    source text NOT NULL,
    ts timestamptz NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (symbol, source, ts)
);
CREATE INDEX stale_hours_ts_idx ON stale_hours (ts);

-- The roll-up. Each function is one SELECT that the planner inlines, so that conditions on symbol, source and (of hours
-- and days) ts reach the tables. `closed` says that every minute is closed. ------------------------------------------

-- Creates `name`, which rolls the rows of `children` up into bars of a width. Sums of real_volume add up in order of
-- time, hour by hour and day by day, so that they are the same to the last bit however much is materialised. The sum of
-- volumes has a limit because no absurd bar may make its whole hour unreadable. (One aggregate of our own
-- would call a function a row: 41 ms in PL/pgSQL and 105 in SQL, not 19, for 21,600 minutes.)
CREATE PROCEDURE pg_temp.create_roll_up(name text, children text)
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format($sql$
        CREATE FUNCTION %I(
            width interval, lo timestamptz, hi timestamptz, s candle_settings,
            m1_lo timestamptz DEFAULT '-infinity', m1_hi timestamptz DEFAULT 'infinity'
        ) RETURNS SETOF candle
        LANGUAGE sql STABLE PARALLEL SAFE BEGIN ATOMIC
            SELECT
                bar_start(c.ts, width, s) AS ts, c.symbol, c.source,
                (array_agg(c.open ORDER BY c.ts))[1] AS open, max(c.high) AS high, min(c.low) AS low,
                (array_agg(c.close ORDER BY c.ts))[count(*)] AS close,
                least(sum(c.volume), 9223372036854775807)::bigint AS volume,
                sum(c.real_volume ORDER BY c.ts) AS real_volume, min(c.spread) AS spread, bool_and(c.closed) AS closed
            FROM %s AS c
            GROUP BY c.symbol, c.source, 1;
        END
    $sql$, name, children);
END
$$;

-- Of M1 only what lies from `m1_lo` up to `m1_hi` is looked at: all hours that are stale or not materialised. A
-- hypertable's chunks outside of it cost not even planning.
CALL pg_temp.create_roll_up('rolled_up_minutes', $$(
    SELECT
        m.ts, m.symbol, m.source, m.open, m.high, m.low, m.close, m.volume, m.spread, m.closed,
        CASE WHEN m.real_volume > 1e290 THEN 1e290 ELSE m.real_volume END AS real_volume
    FROM market_data AS m
    WHERE m.timeframe = 'M1' AND m.ts >= lo AND m.ts < hi AND m.ts >= m1_lo AND m.ts < m1_hi
)$$);
CALL pg_temp.create_roll_up('rolled_up_materialised_hours', $$(
    SELECT h.* FROM candle_hours AS h WHERE h.ts >= lo AND h.ts < hi
)$$);

CREATE FUNCTION exact_hours(
    lo timestamptz, hi timestamptz, s candle_settings,
    m1_lo timestamptz DEFAULT '-infinity', m1_hi timestamptz DEFAULT 'infinity'
) RETURNS SETOF candle
LANGUAGE sql STABLE PARALLEL SAFE BEGIN ATOMIC
    SELECT h.*
    FROM candle_hours AS h
    WHERE h.ts >= lo AND h.ts < hi AND h.ts >= s.materialised_from
        AND NOT EXISTS (
            SELECT FROM stale_hours AS k WHERE k.symbol = h.symbol AND k.source = h.source AND k.ts = h.ts
        )
    UNION ALL
    -- The key from `k`, so that conditions on it reach the table.
    SELECT k.ts, k.symbol, k.source, m.open, m.high, m.low, m.close, m.volume, m.real_volume, m.spread, m.closed
    FROM stale_hours AS k
    CROSS JOIN LATERAL (
        SELECT m.*
        FROM rolled_up_minutes('1 hour', k.ts, k.ts + interval '1 hour', s, m1_lo, m1_hi) AS m
        WHERE m.symbol = k.symbol AND m.source = k.source
        -- So that these reach the other.
        OFFSET 0
    ) AS m
    WHERE k.ts >= lo AND k.ts < hi AND k.ts >= s.materialised_from
    UNION ALL
    SELECT m.*
    FROM rolled_up_minutes('1 hour', lo, least(hi, s.materialised_from), s, m1_lo, m1_hi) AS m
    -- Looked at once, and the table not at all when everything is materialised.
    WHERE s.materialised_from > '-infinity';
END;

CALL pg_temp.create_roll_up('rolled_up_hours', 'exact_hours(lo, hi, s, m1_lo, m1_hi)');

-- `lo` and `hi` are starts of days.
CREATE FUNCTION exact_days(
    lo timestamptz, hi timestamptz, s candle_settings,
    m1_lo timestamptz DEFAULT '-infinity', m1_hi timestamptz DEFAULT 'infinity'
) RETURNS SETOF candle
LANGUAGE sql STABLE PARALLEL SAFE BEGIN ATOMIC
    SELECT
        d.ts, d.symbol, d.source, d.open, d.high, d.low, d.close, d.volume, d.real_volume, d.spread, d.closed
    FROM candle_days AS d
    WHERE d.ts >= lo AND d.ts < hi AND d.ts >= s.materialised_from
        AND NOT EXISTS (
            SELECT FROM stale_hours AS k
            WHERE k.symbol = d.symbol AND k.source = d.source AND k.ts >= d.ts AND k.ts < d.ends
        )
    UNION ALL
    SELECT d.ts, d.symbol, d.source, h.open, h.high, h.low, h.close, h.volume, h.real_volume, h.spread, h.closed
    FROM (
        SELECT DISTINCT k.symbol, k.source, bar_start(k.ts, '1 day', s) AS ts
        FROM stale_hours AS k
        WHERE k.ts >= lo AND k.ts < hi AND k.ts >= s.materialised_from
    ) AS d
    CROSS JOIN LATERAL (
        SELECT h.*
        FROM rolled_up_hours('1 day', d.ts, bar_end(d.ts, '1 day', s), s, m1_lo, m1_hi) AS h
        WHERE h.symbol = d.symbol AND h.source = d.source
        OFFSET 0
    ) AS h
    UNION ALL
    SELECT h.*
    FROM rolled_up_hours('1 day', lo, least(hi, s.materialised_from), s, m1_lo, m1_hi) AS h
    WHERE s.materialised_from > '-infinity';
END;

CALL pg_temp.create_roll_up('rolled_up_days', 'exact_days(lo, hi, s, m1_lo, m1_hi)');

DROP PROCEDURE pg_temp.create_roll_up;

-- The bars of a timeframe, except M1, that begin at or after `lo` and before `hi`, both of them starts of bars; not one
-- of whose days retention has deleted some. `t` and `s` are the rows of timeframes and candle_settings: where they are
-- constants only one branch is planned.
CREATE FUNCTION bars_between(
    t timeframes, lo timestamptz, hi timestamptz, s candle_settings,
    m1_lo timestamptz DEFAULT '-infinity', m1_hi timestamptz DEFAULT 'infinity'
) RETURNS SETOF candle
LANGUAGE sql STABLE PARALLEL SAFE BEGIN ATOMIC
    SELECT
        b.ts, b.symbol, b.source, b.open, b.high, b.low, b.close, b.volume, b.real_volume, b.spread,
        b.closed AND bar_end(b.ts, t.width, s) <= now() AS closed
    FROM (
        SELECT m.* FROM rolled_up_minutes(t.width, lo, hi, s) AS m WHERE t.stored_as = 'M1'
        UNION ALL
        SELECT h.* FROM exact_hours(lo, hi, s, m1_lo, m1_hi) AS h WHERE t.name = 'H1'
        UNION ALL
        SELECT h.* FROM rolled_up_hours(t.width, lo, hi, s, m1_lo, m1_hi) AS h
        WHERE t.stored_as = 'H1' AND t.name <> 'H1'
        UNION ALL
        SELECT d.* FROM exact_days(lo, hi, s, m1_lo, m1_hi) AS d WHERE t.name = 'D1'
        UNION ALL
        SELECT d.* FROM rolled_up_days(t.width, lo, hi, s, m1_lo, m1_hi) AS d
        WHERE t.stored_as = 'D1' AND t.name <> 'D1' AND (s.days_from = '-infinity' OR d.ts >= s.days_from)
    ) AS b;
END;

-- What people use: views, for conditions of any kind, and functions, which are quick on any length of history. --------

-- Every symbol and source, and its newest trading day. They stand in order in the indexes of hours, so each is found
-- with one step from the one before it (PostgreSQL has no skip scan).
CREATE VIEW candle_series AS
WITH RECURSIVE series AS (
    SELECT ''::text AS symbol, ''::text AS source
    UNION ALL
    SELECT n.symbol, n.source
    FROM series AS s
    CROSS JOIN LATERAL (
        (SELECT h.symbol, h.source FROM candle_hours AS h
         WHERE (h.symbol, h.source) > (s.symbol, s.source) ORDER BY h.symbol, h.source LIMIT 1)
        UNION ALL
        (SELECT k.symbol, k.source FROM stale_hours AS k
         WHERE (k.symbol, k.source) > (s.symbol, s.source) ORDER BY k.symbol, k.source LIMIT 1)
        ORDER BY symbol, source
        LIMIT 1
    ) AS n
)

SELECT
    s.symbol, s.source,
    bar_start(
        greatest(
            (SELECT max(h.ts) FROM candle_hours AS h WHERE h.symbol = s.symbol AND h.source = s.source),
            (SELECT max(k.ts) FROM stale_hours AS k WHERE k.symbol = s.symbol AND k.source = s.source)
        ),
        '1 day', c
    ) AS newest_day
FROM series AS s
CROSS JOIN candle_settings AS c
WHERE s.symbol <> '';

CREATE VIEW candles_m1 AS
SELECT m.ts, m.symbol, m.source, m.open, m.high, m.low, m.close, m.volume, m.real_volume, m.spread, m.closed
FROM market_data AS m
WHERE m.timeframe = 'M1';

-- The others: candles_m5 to candles_mn1.
DO $$
DECLARE
    t timeframes;
BEGIN
    FOR t IN SELECT * FROM timeframes AS known WHERE known.parent IS NOT NULL ORDER BY known.width LOOP
        EXECUTE format(
            'CREATE VIEW %I AS SELECT b.* FROM candle_settings AS s'
            ' CROSS JOIN LATERAL bars_between(%L::timeframes, ''-infinity'', ''infinity'', s) AS b',
            'candles_' || lower(t.name), t
        );
    END LOOP;
END
$$;

-- The source of a symbol that has the most recent candle; of one without minutes, the most recent day.
CREATE FUNCTION newest_source(symbol text) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    -- As a rule it is not older than the newest materialised day; then a hypertable's older chunks are left alone.
    newest_day timestamptz := (SELECT max(d.ts) FROM candle_days AS d WHERE d.symbol = $1);
    lo timestamptz;
    found text;
BEGIN
    FOREACH lo IN ARRAY ARRAY[newest_day, '-infinity'] LOOP
        SELECT m.source INTO found FROM market_data AS m
        WHERE m.symbol = $1 AND m.timeframe = 'M1' AND m.ts >= lo
        ORDER BY m.ts DESC, m.source
        LIMIT 1;
        IF found IS NOT NULL THEN
            RETURN found;
        END IF;
    END LOOP;
    RETURN (SELECT d.source FROM candle_days AS d WHERE d.symbol = $1 ORDER BY d.ts DESC, d.source LIMIT 1);
END
$$;

-- Candles that begin at or after "from" and before "to", each of them whole, in order of time.
CREATE FUNCTION candles(
    symbol text, timeframe text, "from" timestamptz, "to" timestamptz, source text DEFAULT NULL
) RETURNS SETOF candle
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path FROM CURRENT
-- A plan for the very range that is asked for: of a hypertable only its chunks are looked at. Compiling it, or starting
-- workers for it, would take longer than a page does. With pages priced as on a disk the planner takes the index by
-- time, and reads the minutes of all symbols to find those of one; what a chart asks for is in memory.
SET plan_cache_mode = force_custom_plan
SET jit = off
SET max_parallel_workers_per_gather = 0
SET seq_page_cost = 0.1
SET random_page_cost = 0.1
AS $$
DECLARE
    t timeframes := timeframe_named($2);
    own text := coalesce($5, newest_source($1));
    s candle_settings;
    lo timestamptz;
    hi timestamptz;
    m1_lo timestamptz;
    m1_hi timestamptz;
BEGIN
    SELECT * INTO STRICT s FROM candle_settings;
    lo := next_bar($3, t.width, s);
    hi := next_bar($4, t.width, s);
    IF t.parent IS NULL THEN
        RETURN QUERY
        SELECT m.* FROM candles_m1 AS m
        WHERE m.symbol = $1 AND m.source = own AND m.ts >= lo AND m.ts < hi
        ORDER BY m.ts;
        RETURN;
    END IF;
    -- greatest() and least() ignore NULL, which is no stale hour.
    SELECT
        least(min(k.ts), CASE WHEN lo < s.materialised_from THEN lo ELSE 'infinity' END),
        greatest(
            max(k.ts) + interval '1 hour',
            CASE WHEN lo < s.materialised_from THEN s.materialised_from ELSE '-infinity' END
        )
    INTO m1_lo, m1_hi
    FROM stale_hours AS k
    WHERE k.symbol = $1 AND k.source = own AND k.ts >= lo AND k.ts < hi;
    RETURN QUERY
    SELECT b.* FROM bars_between(t, lo, hi, s, m1_lo, m1_hi) AS b
    WHERE b.symbol = $1 AND b.source = own
    ORDER BY b.ts;
END
$$;

-- The newest `bars` candles that begin before `before`, in order of time.
CREATE FUNCTION last_candles(
    symbol text, timeframe text, before timestamptz DEFAULT 'infinity', bars integer DEFAULT 500,
    source text DEFAULT NULL
) RETURNS SETOF candle
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path FROM CURRENT
SET plan_cache_mode = force_custom_plan
SET jit = off
SET max_parallel_workers_per_gather = 0
SET seq_page_cost = 0.1
SET random_page_cost = 0.1
AS $$
DECLARE
    t timeframes := timeframe_named($2);
    own text := coalesce($5, newest_source($1));
    s candle_settings;
    hi timestamptz;
    lo timestamptz;
    -- The most minutes that one bar can have: clocks that go back add an hour, and a month has 31 days at most.
    minutes bigint := extract(epoch FROM CASE WHEN t.width = '1 month' THEN '31 days' ELSE t.width END) / 60
        + CASE WHEN t.calendar THEN 60 ELSE 0 END;
BEGIN
    IF $4 < 1 THEN
        RETURN;
    END IF;
    SELECT * INTO STRICT s FROM candle_settings;
    hi := next_bar($3, t.width, s);
    -- Where to begin so that `bars` candles are certain: as many rows as can be needed, counted backwards.
    IF t.stored_as = 'H1' THEN
        SELECT h.ts INTO lo FROM candle_hours AS h
        WHERE h.symbol = $1 AND h.source = own AND h.ts < hi AND h.ts >= s.materialised_from
            AND NOT EXISTS (
                SELECT FROM stale_hours AS k WHERE k.symbol = h.symbol AND k.source = h.source AND k.ts = h.ts
            )
        ORDER BY h.ts DESC
        OFFSET minutes / 60 * $4 - 1 LIMIT 1;
    ELSIF t.stored_as = 'D1' THEN
        SELECT d.ts INTO lo FROM candle_days AS d
        WHERE d.symbol = $1 AND d.source = own AND d.ts < hi AND d.ts >= s.materialised_from
            AND NOT EXISTS (
                SELECT FROM stale_hours AS k
                WHERE k.symbol = d.symbol AND k.source = d.source AND k.ts >= d.ts AND k.ts < d.ends
            )
        ORDER BY d.ts DESC
        OFFSET minutes / 1440 * $4 - 1 LIMIT 1;
    END IF;
    IF lo IS NULL AND (t.stored_as = 'M1' OR s.materialised_from > '-infinity') THEN
        SELECT m.ts INTO lo FROM market_data AS m
        WHERE m.symbol = $1 AND m.timeframe = 'M1' AND m.source = own AND m.ts < hi
        ORDER BY m.ts DESC
        OFFSET minutes * $4 - 1 LIMIT 1;
    END IF;
    -- The candle of that minute may be cut, but then there are more than enough after it.
    lo := bar_start(coalesce(lo, '-infinity'), t.width, s);
    RETURN QUERY
    SELECT newest.* FROM (
        SELECT c.* FROM candles($1, $2, lo, hi, own) AS c ORDER BY c.ts DESC LIMIT $4
    ) AS newest
    ORDER BY newest.ts;
END
$$;
