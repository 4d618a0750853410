-- Marks of changed hours, set by triggers on market_data, and what folds marked hours and days again.

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
