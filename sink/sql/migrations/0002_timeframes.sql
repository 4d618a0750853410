-- Higher timeframes, from M1 alone. Hours and days are kept folded in candle_hours and candle_days; whoever changes an
-- M1 row marks its hour in the same transaction, and whoever reads folds marked hours from M1. So answers are exact at
-- any moment, on every edition alike; refresh_candles() only makes them quick again. docs/timeframes.md says more.

CREATE TYPE candle AS (
    ts timestamptz,
    symbol text,
    source text,
    open double precision,
    high double precision,
    low double precision,
    close double precision,
    volume bigint,
    real_volume double precision,
    spread integer,
    closed boolean
);

-- Where days begin. Change it with set_candle_day(), which rebuilds what depends on it.
CREATE TABLE candle_settings (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    day_zone text NOT NULL DEFAULT 'UTC',
    -- From local midnight of a day's date to its start: -07:00 for days that begin at 17:00 the evening before.
    day_shift interval NOT NULL DEFAULT '0',
    -- From Monday to the first day of a week: MetaTrader's begin on Sunday.
    week_shift interval NOT NULL DEFAULT '-1 day',
    -- Any start of an hour. Hours begin with the day, so in India at half past (UTC).
    hour_origin timestamptz NOT NULL DEFAULT '2000-01-01 00:00:00+00',
    -- Hours and days before it are not kept yet: they are folded from M1 whenever somebody reads them.
    kept_from timestamptz NOT NULL
);

-- No index by ts alone: the planner would take it for the hours of one symbol and read those of all.
CREATE TABLE candle_hours (
    symbol text NOT NULL,
    source text NOT NULL,
    ts timestamptz NOT NULL,
    open double precision NOT NULL,
    high double precision NOT NULL,
    low double precision NOT NULL,
    close double precision NOT NULL,
    volume bigint NOT NULL,
    real_volume double precision,
    spread integer,
    closed boolean NOT NULL,
    PRIMARY KEY (symbol, source, ts)
);

CREATE TABLE candle_days (
    symbol text NOT NULL,
    source text NOT NULL,
    ts timestamptz NOT NULL,
    ends timestamptz NOT NULL,
    open double precision NOT NULL,
    high double precision NOT NULL,
    low double precision NOT NULL,
    close double precision NOT NULL,
    volume bigint NOT NULL,
    real_volume double precision,
    spread integer,
    closed boolean NOT NULL,
    PRIMARY KEY (symbol, source, ts)
);

-- Hours of which an M1 row changed since they were folded.
CREATE TABLE candle_marks (
    symbol text NOT NULL,
    source text NOT NULL,
    ts timestamptz NOT NULL,
    marked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (symbol, source, ts)
);
CREATE INDEX candle_marks_ts_idx ON candle_marks (ts);

COMMENT ON COLUMN candle_hours.closed IS 'every M1 in it is closed; whether the hour is over is the reader''s to know';
COMMENT ON COLUMN candle_days.closed IS 'every M1 in it is closed; whether the day is over is the reader''s to know';

-- The clock of trading days: on it a day begins at 0:00, its weeks and months are the calendar's. -------------------

CREATE FUNCTION trading_period(moment timestamp, timeframe text, week_shift interval) RETURNS timestamp
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE timeframe
        WHEN 'H4' THEN date_bin('4 hours', moment, '2000-01-01')
        WHEN 'D1' THEN date_trunc('day', moment)
        WHEN 'W1' THEN date_trunc('week', moment - week_shift) + week_shift
        WHEN 'MN1' THEN date_trunc('month', moment)
    END
$$;

-- The start of the H4, D1, W1 or MN1 in which a moment lies. Starts are wall-clock times, so a period in which clocks
-- change is longer or shorter. Where clocks go back over a start, the later of the two moments is meant (as
-- AT TIME ZONE has it), and what lies before it belongs to the period before.
CREATE FUNCTION period_start(
    moment timestamptz, timeframe text, day_zone text, day_shift interval, week_shift interval
) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN (trading_period((moment AT TIME ZONE day_zone) - day_shift, timeframe, week_shift) + day_shift)
            AT TIME ZONE day_zone <= moment
        THEN (trading_period((moment AT TIME ZONE day_zone) - day_shift, timeframe, week_shift) + day_shift)
            AT TIME ZONE day_zone
        ELSE (
            trading_period(
                trading_period((moment AT TIME ZONE day_zone) - day_shift, timeframe, week_shift)
                    - interval '1 microsecond',
                timeframe, week_shift
            ) + day_shift
        ) AT TIME ZONE day_zone
    END
$$;

-- The end of the period that starts at `starts`.
CREATE FUNCTION period_end(
    starts timestamptz, timeframe text, day_zone text, day_shift interval, week_shift interval
) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (
        trading_period((starts AT TIME ZONE day_zone) - day_shift, timeframe, week_shift)
        + CASE timeframe
            WHEN 'H4' THEN interval '4 hours' WHEN 'D1' THEN interval '1 day'
            WHEN 'W1' THEN interval '7 days' WHEN 'MN1' THEN interval '1 month'
        END
        + day_shift
    ) AT TIME ZONE day_zone
$$;

-- Folds. Each is one SELECT, so that the planner takes it apart: conditions on symbol, source and (of hours and days)
-- ts reach the tables. `closed` says that every minute is closed. Sums of real_volume add up in order of time, hour by
-- hour and day by day, so that they are the same to the last bit however much was kept. The limits of both volumes are
-- there because no absurd bar may make its whole hour unreadable.

CREATE FUNCTION folded_minutes(width interval, lo timestamptz, hi timestamptz) RETURNS SETOF candle
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT
        date_bin(width, m.ts, (SELECT s.hour_origin FROM candle_settings AS s)) AS ts, m.symbol, m.source,
        (array_agg(m.open ORDER BY m.ts))[1], max(m.high), min(m.low), (array_agg(m.close ORDER BY m.ts))[count(*)],
        least(sum(m.volume), 9223372036854775807)::bigint,
        sum(least(m.real_volume, 1e290) ORDER BY m.ts) FILTER (WHERE m.real_volume IS NOT NULL), min(m.spread),
        bool_and(m.closed)
    FROM market_data AS m
    WHERE m.timeframe = 'M1' AND m.ts >= lo AND m.ts < hi
    GROUP BY m.symbol, m.source, 1
$$;

-- Of M1 only what lies from `m1_lo` up to `m1_hi` is looked at: all hours that are marked or not kept. A hypertable's
-- chunks outside of it cost not even planning.
CREATE FUNCTION exact_hours(
    lo timestamptz, hi timestamptz, m1_lo timestamptz DEFAULT '-infinity', m1_hi timestamptz DEFAULT 'infinity'
) RETURNS SETOF candle
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT
        h.ts, h.symbol, h.source, h.open, h.high, h.low, h.close, h.volume, h.real_volume, h.spread, h.closed
    FROM candle_hours AS h
    WHERE h.ts >= lo AND h.ts < hi AND h.ts >= (SELECT s.kept_from FROM candle_settings AS s)
        AND NOT EXISTS (
            SELECT FROM candle_marks AS k WHERE k.symbol = h.symbol AND k.source = h.source AND k.ts = h.ts
        )
    UNION ALL
    SELECT
        k.ts, k.symbol, k.source, m.open, m.high, m.low, m.close, m.volume, m.real_volume, m.spread, m.closed
    FROM candle_marks AS k
    CROSS JOIN LATERAL (
        SELECT
            (array_agg(m.open ORDER BY m.ts))[1] AS open, max(m.high) AS high, min(m.low) AS low,
            (array_agg(m.close ORDER BY m.ts))[count(*)] AS close,
            least(sum(m.volume), 9223372036854775807)::bigint AS volume,
            sum(least(m.real_volume, 1e290) ORDER BY m.ts) FILTER (WHERE m.real_volume IS NOT NULL) AS real_volume,
            min(m.spread) AS spread, bool_and(m.closed) AS closed
        FROM market_data AS m
        WHERE m.symbol = k.symbol AND m.timeframe = 'M1' AND m.source = k.source
            AND m.ts >= k.ts AND m.ts < k.ts + interval '1 hour' AND m.ts >= m1_lo AND m.ts < m1_hi
        HAVING count(*) > 0
    ) AS m
    WHERE k.ts >= lo AND k.ts < hi AND k.ts >= (SELECT s.kept_from FROM candle_settings AS s)
    UNION ALL
    SELECT
        date_bin('1 hour', m.ts, (SELECT s.hour_origin FROM candle_settings AS s)) AS ts, m.symbol, m.source,
        (array_agg(m.open ORDER BY m.ts))[1], max(m.high), min(m.low), (array_agg(m.close ORDER BY m.ts))[count(*)],
        least(sum(m.volume), 9223372036854775807)::bigint,
        sum(least(m.real_volume, 1e290) ORDER BY m.ts) FILTER (WHERE m.real_volume IS NOT NULL), min(m.spread),
        bool_and(m.closed)
    FROM market_data AS m
    WHERE m.timeframe = 'M1' AND m.ts >= lo AND m.ts < hi AND m.ts >= m1_lo AND m.ts < m1_hi
        -- The first condition is looked at once, and the table not at all when everything is kept.
        AND (SELECT s.kept_from > '-infinity' FROM candle_settings AS s)
        AND m.ts < (SELECT s.kept_from FROM candle_settings AS s)
    GROUP BY m.symbol, m.source, 1
$$;

-- `lo` and `hi` are starts of days.
CREATE FUNCTION exact_days(
    lo timestamptz, hi timestamptz, m1_lo timestamptz DEFAULT '-infinity', m1_hi timestamptz DEFAULT 'infinity'
) RETURNS SETOF candle
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT
        d.ts, d.symbol, d.source, d.open, d.high, d.low, d.close, d.volume, d.real_volume, d.spread, d.closed
    FROM candle_days AS d
    WHERE d.ts >= lo AND d.ts < hi AND d.ts >= (SELECT s.kept_from FROM candle_settings AS s)
        AND NOT EXISTS (
            SELECT FROM candle_marks AS k
            WHERE k.symbol = d.symbol AND k.source = d.source AND k.ts >= d.ts AND k.ts < d.ends
        )
    UNION ALL
    SELECT
        d.ts, d.symbol, d.source, h.open, h.high, h.low, h.close, h.volume, h.real_volume, h.spread, h.closed
    FROM (
        SELECT DISTINCT
            k.symbol, k.source, s.day_zone, s.day_shift, s.week_shift,
            period_start(k.ts, 'D1', s.day_zone, s.day_shift, s.week_shift) AS ts
        FROM candle_marks AS k
        JOIN candle_settings AS s ON s.only_row
        WHERE k.ts >= lo AND k.ts < hi AND k.ts >= s.kept_from
    ) AS d
    CROSS JOIN LATERAL (
        SELECT
            (array_agg(h.open ORDER BY h.ts))[1] AS open, max(h.high) AS high, min(h.low) AS low,
            (array_agg(h.close ORDER BY h.ts))[count(*)] AS close,
            least(sum(h.volume), 9223372036854775807)::bigint AS volume,
            sum(h.real_volume ORDER BY h.ts) AS real_volume, min(h.spread) AS spread, bool_and(h.closed) AS closed
        FROM exact_hours(
            d.ts, period_end(d.ts, 'D1', d.day_zone, d.day_shift, d.week_shift), m1_lo, m1_hi
        ) AS h
        WHERE h.symbol = d.symbol AND h.source = d.source
        HAVING count(*) > 0
    ) AS h
    UNION ALL
    SELECT
        period_start(h.ts, 'D1', s.day_zone, s.day_shift, s.week_shift) AS ts, h.symbol, h.source,
        (array_agg(h.open ORDER BY h.ts))[1], max(h.high), min(h.low), (array_agg(h.close ORDER BY h.ts))[count(*)],
        least(sum(h.volume), 9223372036854775807)::bigint, sum(h.real_volume ORDER BY h.ts), min(h.spread),
        bool_and(h.closed)
    FROM exact_hours(lo, hi, m1_lo, m1_hi) AS h
    JOIN candle_settings AS s ON s.only_row
    WHERE (SELECT s.kept_from > '-infinity' FROM candle_settings AS s)
        AND h.ts < (SELECT s.kept_from FROM candle_settings AS s)
    GROUP BY h.symbol, h.source, 1
$$;

-- H4, from hours.
CREATE FUNCTION folded_hours(
    timeframe text, lo timestamptz, hi timestamptz,
    m1_lo timestamptz DEFAULT '-infinity', m1_hi timestamptz DEFAULT 'infinity'
) RETURNS SETOF candle
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT
        period_start(h.ts, timeframe, s.day_zone, s.day_shift, s.week_shift) AS ts, h.symbol, h.source,
        (array_agg(h.open ORDER BY h.ts))[1], max(h.high), min(h.low), (array_agg(h.close ORDER BY h.ts))[count(*)],
        least(sum(h.volume), 9223372036854775807)::bigint, sum(h.real_volume ORDER BY h.ts), min(h.spread),
        bool_and(h.closed)
    FROM exact_hours(lo, hi, m1_lo, m1_hi) AS h
    JOIN candle_settings AS s ON s.only_row
    GROUP BY h.symbol, h.source, 1
$$;

-- W1 and MN1, from days.
CREATE FUNCTION folded_days(
    timeframe text, lo timestamptz, hi timestamptz,
    m1_lo timestamptz DEFAULT '-infinity', m1_hi timestamptz DEFAULT 'infinity'
) RETURNS SETOF candle
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT
        period_start(d.ts, timeframe, s.day_zone, s.day_shift, s.week_shift) AS ts, d.symbol, d.source,
        (array_agg(d.open ORDER BY d.ts))[1], max(d.high), min(d.low), (array_agg(d.close ORDER BY d.ts))[count(*)],
        least(sum(d.volume), 9223372036854775807)::bigint, sum(d.real_volume ORDER BY d.ts), min(d.spread),
        bool_and(d.closed)
    FROM exact_days(lo, hi, m1_lo, m1_hi) AS d
    JOIN candle_settings AS s ON s.only_row
    GROUP BY d.symbol, d.source, 1
$$;

-- What people use: views, for conditions of any kind, and functions, which are quick on any length of history. --------

CREATE VIEW candles_m1 AS
SELECT m.ts, m.symbol, m.source, m.open, m.high, m.low, m.close, m.volume, m.real_volume, m.spread, m.closed
FROM market_data AS m
WHERE m.timeframe = 'M1';

CREATE VIEW candles_m5 AS
SELECT
    f.ts, f.symbol, f.source, f.open, f.high, f.low, f.close, f.volume, f.real_volume, f.spread,
    f.closed AND f.ts + interval '5 minutes' <= now() AS closed
FROM folded_minutes('5 minutes', '-infinity', 'infinity') AS f;

CREATE VIEW candles_m15 AS
SELECT
    f.ts, f.symbol, f.source, f.open, f.high, f.low, f.close, f.volume, f.real_volume, f.spread,
    f.closed AND f.ts + interval '15 minutes' <= now() AS closed
FROM folded_minutes('15 minutes', '-infinity', 'infinity') AS f;

CREATE VIEW candles_m30 AS
SELECT
    f.ts, f.symbol, f.source, f.open, f.high, f.low, f.close, f.volume, f.real_volume, f.spread,
    f.closed AND f.ts + interval '30 minutes' <= now() AS closed
FROM folded_minutes('30 minutes', '-infinity', 'infinity') AS f;

CREATE VIEW candles_h1 AS
SELECT
    f.ts, f.symbol, f.source, f.open, f.high, f.low, f.close, f.volume, f.real_volume, f.spread,
    f.closed AND f.ts + interval '1 hour' <= now() AS closed
FROM exact_hours('-infinity', 'infinity') AS f;

CREATE VIEW candles_h4 AS
SELECT
    f.ts, f.symbol, f.source, f.open, f.high, f.low, f.close, f.volume, f.real_volume, f.spread,
    f.closed AND period_end(f.ts, 'H4', s.day_zone, s.day_shift, s.week_shift) <= now() AS closed
FROM folded_hours('H4', '-infinity', 'infinity') AS f
JOIN candle_settings AS s ON s.only_row;

CREATE VIEW candles_d1 AS
SELECT
    f.ts, f.symbol, f.source, f.open, f.high, f.low, f.close, f.volume, f.real_volume, f.spread,
    f.closed AND period_end(f.ts, 'D1', s.day_zone, s.day_shift, s.week_shift) <= now() AS closed
FROM exact_days('-infinity', 'infinity') AS f
JOIN candle_settings AS s ON s.only_row;

CREATE VIEW candles_w1 AS
SELECT
    f.ts, f.symbol, f.source, f.open, f.high, f.low, f.close, f.volume, f.real_volume, f.spread,
    f.closed AND period_end(f.ts, 'W1', s.day_zone, s.day_shift, s.week_shift) <= now() AS closed
FROM folded_days('W1', '-infinity', 'infinity') AS f
JOIN candle_settings AS s ON s.only_row;

CREATE VIEW candles_mn1 AS
SELECT
    f.ts, f.symbol, f.source, f.open, f.high, f.low, f.close, f.volume, f.real_volume, f.spread,
    f.closed AND period_end(f.ts, 'MN1', s.day_zone, s.day_shift, s.week_shift) <= now() AS closed
FROM folded_days('MN1', '-infinity', 'infinity') AS f
JOIN candle_settings AS s ON s.only_row;

-- Length of M1 to H1; NULL for the timeframes whose length the calendar decides.
CREATE FUNCTION candle_width(timeframe text) RETURNS interval
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    CASE timeframe
        WHEN 'M1' THEN RETURN interval '1 minute';
        WHEN 'M5' THEN RETURN interval '5 minutes';
        WHEN 'M15' THEN RETURN interval '15 minutes';
        WHEN 'M30' THEN RETURN interval '30 minutes';
        WHEN 'H1' THEN RETURN interval '1 hour';
        WHEN 'H4', 'D1', 'W1', 'MN1' THEN RETURN NULL;
        ELSE
            RAISE EXCEPTION '% is no timeframe', coalesce(quote_literal(timeframe), 'NULL')
                USING ERRCODE = 'invalid_parameter_value', HINT = 'M1 M5 M15 M30 H1 H4 D1 W1 MN1';
    END CASE;
END
$$;

-- The first start of a period at or after a moment.
CREATE FUNCTION next_period(moment timestamptz, timeframe text) RETURNS timestamptz
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    width interval := candle_width(timeframe);
    s candle_settings;
    starts timestamptz;
BEGIN
    IF NOT isfinite(moment) THEN
        RETURN moment;
    END IF;
    SELECT * INTO STRICT s FROM candle_settings;
    IF width IS NOT NULL THEN
        RETURN date_bin(width, moment + width - interval '1 microsecond', s.hour_origin);
    END IF;
    starts := period_start(moment, timeframe, s.day_zone, s.day_shift, s.week_shift);
    IF starts < moment THEN
        RETURN period_end(starts, timeframe, s.day_zone, s.day_shift, s.week_shift);
    END IF;
    RETURN starts;
END
$$;

-- The source of a symbol that has the most recent candle.
CREATE FUNCTION newest_source(symbol text) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    -- As a rule it is not older than the newest day that is kept; then a hypertable's older chunks are left alone.
    lo timestamptz := (SELECT max(d.ts) FROM candle_days AS d WHERE d.symbol = $1);
    found text;
BEGIN
    SELECT m.source INTO found FROM market_data AS m
    WHERE m.symbol = $1 AND m.timeframe = 'M1' AND m.ts >= lo
    ORDER BY m.ts DESC, m.source
    LIMIT 1;
    IF found IS NULL THEN
        SELECT m.source INTO found FROM market_data AS m
        WHERE m.symbol = $1 AND m.timeframe = 'M1'
        ORDER BY m.ts DESC, m.source
        LIMIT 1;
    END IF;
    RETURN found;
END
$$;

-- Candles that begin at or after "from" and before "to", each of them whole, in order of time.
CREATE FUNCTION candles(
    symbol text, timeframe text, "from" timestamptz, "to" timestamptz, source text DEFAULT NULL
) RETURNS SETOF candle
LANGUAGE plpgsql STABLE PARALLEL SAFE
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
    width interval := candle_width($2);
    lo timestamptz := next_period($3, $2);
    hi timestamptz := next_period($4, $2);
    own text := coalesce($5, newest_source($1));
    s candle_settings;
    m1_lo timestamptz;
    m1_hi timestamptz;
BEGIN
    SELECT * INTO STRICT s FROM candle_settings;
    -- greatest() and least() pass over NULL, which is no mark.
    SELECT
        least(min(k.ts), CASE WHEN lo < s.kept_from THEN lo ELSE 'infinity' END),
        greatest(max(k.ts) + interval '1 hour', CASE WHEN lo < s.kept_from THEN s.kept_from ELSE '-infinity' END)
    INTO m1_lo, m1_hi
    FROM candle_marks AS k
    WHERE k.symbol = $1 AND k.source = own AND k.ts >= lo AND k.ts < hi;
    CASE
        WHEN $2 = 'M1' THEN
            RETURN QUERY
            SELECT f.* FROM candles_m1 AS f
            WHERE f.symbol = $1 AND f.source = own AND f.ts >= lo AND f.ts < hi
            ORDER BY f.ts;
        WHEN $2 = 'H1' THEN
            RETURN QUERY
            SELECT
                f.ts, f.symbol, f.source, f.open, f.high, f.low, f.close, f.volume, f.real_volume, f.spread,
                f.closed AND f.ts + width <= now()
            FROM exact_hours(lo, hi, m1_lo, m1_hi) AS f
            WHERE f.symbol = $1 AND f.source = own
            ORDER BY f.ts;
        WHEN width IS NOT NULL THEN
            RETURN QUERY
            SELECT
                f.ts, f.symbol, f.source, f.open, f.high, f.low, f.close, f.volume, f.real_volume, f.spread,
                f.closed AND f.ts + width <= now()
            FROM folded_minutes(width, lo, hi) AS f
            WHERE f.symbol = $1 AND f.source = own
            ORDER BY f.ts;
        WHEN $2 = 'H4' THEN
            RETURN QUERY
            SELECT
                f.ts, f.symbol, f.source, f.open, f.high, f.low, f.close, f.volume, f.real_volume, f.spread,
                f.closed AND period_end(f.ts, $2, s.day_zone, s.day_shift, s.week_shift) <= now()
            FROM folded_hours($2, lo, hi, m1_lo, m1_hi) AS f
            WHERE f.symbol = $1 AND f.source = own
            ORDER BY f.ts;
        WHEN $2 = 'D1' THEN
            RETURN QUERY
            SELECT
                f.ts, f.symbol, f.source, f.open, f.high, f.low, f.close, f.volume, f.real_volume, f.spread,
                f.closed AND period_end(f.ts, $2, s.day_zone, s.day_shift, s.week_shift) <= now()
            FROM exact_days(lo, hi, m1_lo, m1_hi) AS f
            WHERE f.symbol = $1 AND f.source = own
            ORDER BY f.ts;
        ELSE
            RETURN QUERY
            SELECT
                f.ts, f.symbol, f.source, f.open, f.high, f.low, f.close, f.volume, f.real_volume, f.spread,
                f.closed AND period_end(f.ts, $2, s.day_zone, s.day_shift, s.week_shift) <= now()
            FROM folded_days($2, lo, hi, m1_lo, m1_hi) AS f
            WHERE f.symbol = $1 AND f.source = own
            ORDER BY f.ts;
    END CASE;
END
$$;

-- The newest `bars` candles that begin before `before`, in order of time.
CREATE FUNCTION last_candles(
    symbol text, timeframe text, before timestamptz DEFAULT 'infinity', bars integer DEFAULT 500,
    source text DEFAULT NULL
) RETURNS SETOF candle
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET plan_cache_mode = force_custom_plan
SET jit = off
SET max_parallel_workers_per_gather = 0
SET seq_page_cost = 0.1
SET random_page_cost = 0.1
AS $$
DECLARE
    width interval := candle_width($2);
    hi timestamptz := next_period($3, $2);
    own text := coalesce($5, newest_source($1));
    s candle_settings;
    lo timestamptz;
    -- The most minutes that one candle can have. A day may have 25 hours, a four-hour bar five.
    minutes bigint := CASE $2 WHEN 'H4' THEN 300 WHEN 'D1' THEN 1500 WHEN 'W1' THEN 10140 WHEN 'MN1' THEN 44700
        ELSE extract(epoch FROM width) / 60 END;
BEGIN
    IF $4 < 1 THEN
        RETURN;
    END IF;
    SELECT * INTO STRICT s FROM candle_settings;
    -- Where to begin so that `bars` candles are certain: as many kept candles as can be needed, counted backwards.
    IF $2 IN ('H1', 'H4') THEN
        SELECT h.ts INTO lo FROM candle_hours AS h
        WHERE h.symbol = $1 AND h.source = own AND h.ts < hi AND h.ts >= s.kept_from
            AND NOT EXISTS (
                SELECT FROM candle_marks AS k WHERE k.symbol = h.symbol AND k.source = h.source AND k.ts = h.ts
            )
        ORDER BY h.ts DESC
        OFFSET minutes / 60 * $4 - 1 LIMIT 1;
    ELSIF $2 IN ('D1', 'W1', 'MN1') THEN
        SELECT d.ts INTO lo FROM candle_days AS d
        WHERE d.symbol = $1 AND d.source = own AND d.ts < hi AND d.ts >= s.kept_from
            AND NOT EXISTS (
                SELECT FROM candle_marks AS k
                WHERE k.symbol = d.symbol AND k.source = d.source AND k.ts >= d.ts AND k.ts < d.ends
            )
        ORDER BY d.ts DESC
        OFFSET CASE $2 WHEN 'D1' THEN 1 WHEN 'W1' THEN 7 ELSE 31 END * $4::bigint - 1 LIMIT 1;
    END IF;
    IF lo IS NULL AND (minutes < 60 OR s.kept_from > '-infinity') THEN
        SELECT m.ts INTO lo FROM market_data AS m
        WHERE m.symbol = $1 AND m.timeframe = 'M1' AND m.source = own AND m.ts < hi
        ORDER BY m.ts DESC
        OFFSET minutes * $4 - 1 LIMIT 1;
    END IF;
    -- The candle of that minute may be cut, but then there are more than enough after it.
    lo := coalesce(lo, '-infinity');
    IF width IS NOT NULL AND isfinite(lo) THEN
        lo := date_bin(width, lo, s.hour_origin);
    ELSIF isfinite(lo) THEN
        lo := period_start(lo, $2, s.day_zone, s.day_shift, s.week_shift);
    END IF;
    RETURN QUERY
    SELECT newest.* FROM (
        SELECT c.* FROM candles($1, $2, lo, hi, own) AS c ORDER BY c.ts DESC LIMIT $4
    ) AS newest
    ORDER BY newest.ts;
END
$$;

-- Marks. -----------------------------------------------------------------------------------------------------------

-- The mark's row is locked until the transaction ends, also where it was there already: refresh_candles() passes over
-- marks that are locked, so it never takes one away whose change it cannot see yet.
CREATE FUNCTION mark_inserted_candles() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO candle_marks AS k (symbol, source, ts)
    SELECT DISTINCT c.symbol, c.source, date_bin('1 hour', c.ts, s.hour_origin)
    FROM changed AS c
    JOIN candle_settings AS s ON s.only_row
    WHERE c.timeframe = 'M1'
    ORDER BY 1, 2, 3
    ON CONFLICT (symbol, source, ts) DO UPDATE SET ts = EXCLUDED.ts WHERE false;
    RETURN NULL;
END
$$;

CREATE FUNCTION mark_updated_candles() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO candle_marks AS k (symbol, source, ts)
    SELECT c.symbol, c.source, date_bin('1 hour', c.ts, s.hour_origin)
    FROM (
        SELECT b.symbol, b.source, b.ts FROM before_change AS b WHERE b.timeframe = 'M1'
        UNION ALL
        SELECT a.symbol, a.source, a.ts FROM changed AS a WHERE a.timeframe = 'M1'
    ) AS c
    JOIN candle_settings AS s ON s.only_row
    GROUP BY 1, 2, 3
    ORDER BY 1, 2, 3
    ON CONFLICT (symbol, source, ts) DO UPDATE SET ts = EXCLUDED.ts WHERE false;
    RETURN NULL;
END
$$;

CREATE FUNCTION mark_deleted_candle() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO candle_marks AS k (symbol, source, ts)
    SELECT OLD.symbol, OLD.source, date_bin('1 hour', OLD.ts, s.hour_origin)
    FROM candle_settings AS s
    ON CONFLICT (symbol, source, ts) DO UPDATE SET ts = EXCLUDED.ts WHERE false;
    RETURN NULL;
END
$$;

CREATE FUNCTION forget_candles() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    TRUNCATE candle_hours, candle_days, candle_marks;
    UPDATE candle_settings SET kept_from = '-infinity';
    RETURN NULL;
END
$$;

-- Keeping. ---------------------------------------------------------------------------------------------------------

-- Folds the days from `lo` up to `hi`, both starts of days, from the hours that are kept.
CREATE FUNCTION keep_days(lo timestamptz, hi timestamptz) RETURNS void
LANGUAGE plpgsql
SET plan_cache_mode = force_custom_plan
AS $$
BEGIN
    DELETE FROM candle_days AS d WHERE d.ts >= lo AND d.ts < hi;
    INSERT INTO candle_days (symbol, source, ts, ends, open, high, low, close, volume, real_volume, spread, closed)
    SELECT
        f.symbol, f.source, f.ts, period_end(f.ts, 'D1', s.day_zone, s.day_shift, s.week_shift),
        f.open, f.high, f.low, f.close, f.volume, f.real_volume, f.spread, f.closed
    FROM (
        SELECT
            h.symbol, h.source, period_start(h.ts, 'D1', s.day_zone, s.day_shift, s.week_shift) AS ts,
            (array_agg(h.open ORDER BY h.ts))[1] AS open, max(h.high) AS high, min(h.low) AS low,
            (array_agg(h.close ORDER BY h.ts))[count(*)] AS close,
            least(sum(h.volume), 9223372036854775807)::bigint AS volume,
            sum(h.real_volume ORDER BY h.ts) AS real_volume, min(h.spread) AS spread, bool_and(h.closed) AS closed
        FROM candle_hours AS h
        JOIN candle_settings AS s ON s.only_row
        WHERE h.ts >= lo AND h.ts < hi
        GROUP BY 1, 2, 3
    ) AS f
    JOIN candle_settings AS s ON s.only_row;
END
$$;

-- Folds marked hours, newest first, and the days that thereby have no mark left; returns how many hours. Hours that are
-- not over, or were marked less than `quiet` ago, wait: they will change again. Only one of several callers works.
CREATE FUNCTION refresh_candles(quiet interval DEFAULT '0', max_hours integer DEFAULT 1000) RETURNS integer
LANGUAGE plpgsql
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    s candle_settings;
    symbols text[];
    sources text[];
    starts timestamptz[];
    first_hour timestamptz;
    last_hour timestamptz;
BEGIN
    -- Each statement below must see what was committed before it began.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'refresh_candles() needs the isolation level READ COMMITTED';
    END IF;
    SELECT * INTO s FROM candle_settings FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    SELECT array_agg(d.symbol), array_agg(d.source), array_agg(d.ts), min(d.ts), max(d.ts)
    INTO symbols, sources, starts, first_hour, last_hour
    FROM (
        SELECT k.symbol, k.source, k.ts FROM candle_marks AS k
        WHERE k.ts >= s.kept_from AND k.ts <= clock_timestamp() - quiet - interval '1 hour'
            AND k.marked_at <= clock_timestamp() - quiet
        ORDER BY k.ts DESC
        LIMIT max_hours
        FOR UPDATE SKIP LOCKED
    ) AS d;
    IF starts IS NULL THEN
        RETURN 0;
    END IF;

    DELETE FROM candle_marks AS k
    USING unnest(symbols, sources, starts) AS d (symbol, source, ts)
    WHERE k.symbol = d.symbol AND k.source = d.source AND k.ts = d.ts;
    DELETE FROM candle_hours AS h
    USING unnest(symbols, sources, starts) AS d (symbol, source, ts)
    WHERE h.symbol = d.symbol AND h.source = d.source AND h.ts = d.ts;
    INSERT INTO candle_hours (symbol, source, ts, open, high, low, close, volume, real_volume, spread, closed)
    SELECT d.symbol, d.source, d.ts, m.open, m.high, m.low, m.close, m.volume, m.real_volume, m.spread, m.closed
    FROM unnest(symbols, sources, starts) AS d (symbol, source, ts)
    CROSS JOIN LATERAL (
        SELECT
            (array_agg(m.open ORDER BY m.ts))[1] AS open, max(m.high) AS high, min(m.low) AS low,
            (array_agg(m.close ORDER BY m.ts))[count(*)] AS close,
            least(sum(m.volume), 9223372036854775807)::bigint AS volume,
            sum(least(m.real_volume, 1e290) ORDER BY m.ts) FILTER (WHERE m.real_volume IS NOT NULL) AS real_volume,
            min(m.spread) AS spread, bool_and(m.closed) AS closed
        FROM market_data AS m
        WHERE m.symbol = d.symbol AND m.timeframe = 'M1' AND m.source = d.source
            AND m.ts >= d.ts AND m.ts < d.ts + interval '1 hour'
            -- So that a hypertable's other chunks are not even looked at.
            AND m.ts >= first_hour AND m.ts < last_hour + interval '1 hour'
        HAVING count(*) > 0
    ) AS m;

    -- A day that still has a marked hour is folded from its hours by whoever reads it.
    DELETE FROM candle_days AS o
    USING (
        SELECT DISTINCT d.symbol, d.source, period_start(d.ts, 'D1', s.day_zone, s.day_shift, s.week_shift) AS ts
        FROM unnest(symbols, sources, starts) AS d (symbol, source, ts)
    ) AS d
    WHERE o.symbol = d.symbol AND o.source = d.source AND o.ts = d.ts;
    INSERT INTO candle_days (symbol, source, ts, ends, open, high, low, close, volume, real_volume, spread, closed)
    SELECT
        d.symbol, d.source, d.ts, d.ends, h.open, h.high, h.low, h.close, h.volume, h.real_volume, h.spread, h.closed
    FROM (
        SELECT
            b.symbol, b.source, b.ts, period_end(b.ts, 'D1', s.day_zone, s.day_shift, s.week_shift) AS ends
        FROM (
            SELECT DISTINCT d.symbol, d.source, period_start(d.ts, 'D1', s.day_zone, s.day_shift, s.week_shift) AS ts
            FROM unnest(symbols, sources, starts) AS d (symbol, source, ts)
        ) AS b
    ) AS d
    CROSS JOIN LATERAL (
        SELECT
            (array_agg(h.open ORDER BY h.ts))[1] AS open, max(h.high) AS high, min(h.low) AS low,
            (array_agg(h.close ORDER BY h.ts))[count(*)] AS close,
            least(sum(h.volume), 9223372036854775807)::bigint AS volume,
            sum(h.real_volume ORDER BY h.ts) AS real_volume, min(h.spread) AS spread, bool_and(h.closed) AS closed
        FROM candle_hours AS h
        WHERE h.symbol = d.symbol AND h.source = d.source AND h.ts >= d.ts AND h.ts < d.ends
        HAVING count(*) > 0
    ) AS h
    WHERE NOT EXISTS (
        SELECT FROM candle_marks AS k
        WHERE k.symbol = d.symbol AND k.source = d.source AND k.ts >= d.ts AND k.ts < d.ends
    );
    RETURN cardinality(starts);
END
$$;

-- Goes back through time where hours and days are not kept yet, one step of so many days; returns from where on they
-- are kept now: -infinity when all of them are, NULL when another session is at work. What is written meanwhile is
-- marked, so nothing has to be locked.
CREATE FUNCTION keep_candles(days integer DEFAULT 7) RETURNS timestamptz
LANGUAGE plpgsql
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    s candle_settings;
    newest timestamptz;
    lo timestamptz := '-infinity';
BEGIN
    SELECT * INTO s FROM candle_settings FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF s.kept_from = '-infinity' THEN
        RETURN s.kept_from;
    END IF;
    SELECT m.ts INTO newest FROM market_data AS m
    WHERE m.ts < s.kept_from AND m.timeframe = 'M1'
    ORDER BY m.ts DESC
    LIMIT 1;
    IF newest IS NOT NULL THEN
        lo := period_start(
            newest - make_interval(days => days - 1), 'D1', s.day_zone, s.day_shift, s.week_shift
        );
        DELETE FROM candle_hours AS h WHERE h.ts >= lo AND h.ts < s.kept_from;
        INSERT INTO candle_hours (symbol, source, ts, open, high, low, close, volume, real_volume, spread, closed)
        SELECT f.symbol, f.source, f.ts, f.open, f.high, f.low, f.close, f.volume, f.real_volume, f.spread, f.closed
        FROM folded_minutes('1 hour', lo, s.kept_from) AS f;
        PERFORM keep_days(lo, s.kept_from);
    END IF;
    UPDATE candle_settings SET kept_from = lo;
    RETURN lo;
END
$$;

-- Says when a day begins: at `day_start` by the clock of `day_zone` (an IANA name), the evening before its date when
-- that is noon or later; 'America/New_York', '17:00' is the day of foreign exchange. Where hours begin at the same
-- minute as before, days are rebuilt at once; otherwise nothing is kept until keep_candles() has gone through it all.
CREATE FUNCTION set_candle_day(day_zone text, day_start time DEFAULT '00:00', week_start text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    s candle_settings;
    shift interval := CASE WHEN $2 >= '12:00' THEN $2::interval - interval '24 hours' ELSE $2::interval END;
    origin timestamptz;
    minutes bigint;
BEGIN
    IF $1 IS NULL OR NOT EXISTS (SELECT FROM pg_timezone_names AS z WHERE z.name = $1) THEN
        RAISE EXCEPTION '% is no time zone', coalesce(quote_literal($1), 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use an IANA name such as America/New_York.';
    END IF;
    IF $3 NOT IN ('sunday', 'monday') THEN
        RAISE EXCEPTION 'a week begins on sunday or on monday, not on %', $3
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT count(DISTINCT extract(epoch FROM (d + shift) AT TIME ZONE $1)::bigint % 3600) INTO minutes
    FROM generate_series(timestamp '1990-01-01', '2037-12-31', '1 day') AS d;
    IF minutes > 1 THEN
        RAISE EXCEPTION 'the clocks of % were changed by less than an hour, so its days are not made of hours', $1
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use a zone whose offset changes by whole hours.';
    END IF;

    SELECT * INTO STRICT s FROM candle_settings FOR UPDATE;
    origin := (timestamp '2000-01-03' + shift) AT TIME ZONE $1;
    IF date_bin('1 hour', origin, s.hour_origin) = origin THEN
        UPDATE candle_settings AS c
        SET day_zone = $1, day_shift = shift,
            week_shift = CASE $3 WHEN 'sunday' THEN interval '-1 day' WHEN 'monday' THEN '0' ELSE c.week_shift END;
        UPDATE candle_settings AS c SET kept_from = next_period(c.kept_from, 'D1');
        DELETE FROM candle_days;
        PERFORM keep_days(c.kept_from, 'infinity') FROM candle_settings AS c;
        RETURN;
    END IF;
    -- Marks name hours: no transaction may be half through with the hours of before.
    LOCK TABLE market_data IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM candle_marks;
    DELETE FROM candle_hours;
    DELETE FROM candle_days;
    UPDATE candle_settings AS c
    SET day_zone = $1, day_shift = shift, hour_origin = origin,
        kept_from = CASE WHEN EXISTS (SELECT FROM market_data) THEN 'infinity'::timestamptz ELSE '-infinity' END,
        week_shift = CASE $3 WHEN 'sunday' THEN interval '-1 day' WHEN 'monday' THEN '0' ELSE c.week_shift END;
END
$$;

-- The views of a hypertable with a hundred chunks are plans of a thousand nodes, most of which are never executed;
-- compiling them takes seconds (measured: 5 s for a view that answers in 10 ms). For connections from now on.
DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET jit = off', current_database());
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'jit stays as it is: %', SQLERRM;
END
$$;

DO $$
DECLARE
    version text := (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb');
BEGIN
    IF string_to_array(split_part(version, '-', 1), '.')::int[] < ARRAY[2, 18] THEN
        RAISE EXCEPTION 'Tickpipe needs TimescaleDB 2.18 or later; this is %', version
            USING HINT = 'Earlier ones do not let a statement''s trigger see the rows of a hypertable.';
    END IF;
END
$$;

CREATE TRIGGER mark_inserted_candles AFTER INSERT ON market_data
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION mark_inserted_candles();
CREATE TRIGGER mark_updated_candles AFTER UPDATE ON market_data
    REFERENCING OLD TABLE AS before_change NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_updated_candles();
-- Row by row: with a statement's trigger that sees deleted rows TimescaleDB would not compress the table.
CREATE TRIGGER mark_deleted_candles AFTER DELETE ON market_data
    FOR EACH ROW WHEN (OLD.timeframe = 'M1') EXECUTE FUNCTION mark_deleted_candle();
CREATE TRIGGER forget_truncated_candles AFTER TRUNCATE ON market_data
    FOR EACH STATEMENT EXECUTE FUNCTION forget_candles();

-- With rows in the table already nothing is kept at first: keep_candles() goes back through time, a week at a time.
INSERT INTO candle_settings (kept_from)
SELECT CASE WHEN EXISTS (SELECT FROM market_data) THEN 'infinity'::timestamptz ELSE '-infinity' END;
