-- What people use: views, for conditions of any kind, and functions, which are quick on any length of history.

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
