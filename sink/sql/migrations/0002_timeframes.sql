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
