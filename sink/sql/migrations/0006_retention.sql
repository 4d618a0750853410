-- Retention. Minutes, hours and days each have a time before which they are deleted; a longer timeframe is never deleted
-- before a shorter one. What lies before `minutes_from` is frozen: no change of a minute marks its hour any more, so the
-- hours and days that are kept longer stay as they were folded from whole minutes, and a late minute is not stored.
-- docs/storage.md says more.

ALTER TABLE candle_settings
    ADD COLUMN minutes_from timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN hours_from timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN days_from timestamptz NOT NULL DEFAULT '-infinity';

COMMENT ON COLUMN candle_settings.minutes_from IS 'M1, and so M5 to M30, are deleted before it; a start of a day';
COMMENT ON COLUMN candle_settings.hours_from IS 'H1 and H4 are deleted before it; a start of a day';
COMMENT ON COLUMN candle_settings.days_from IS 'D1 to MN1 are deleted before it; a start of a month';

CREATE OR REPLACE FUNCTION mark_inserted_candles() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    frozen timestamptz := (SELECT s.minutes_from FROM candle_settings AS s);
BEGIN
    IF frozen > '-infinity' THEN
        -- Half a minute of late ticks is no candle. Nobody has seen it yet.
        DELETE FROM market_data AS m
        USING (SELECT c.symbol, c.timeframe, c.ts, c.source FROM changed AS c WHERE c.ts < frozen) AS c
        WHERE m.symbol = c.symbol AND m.timeframe = c.timeframe AND m.ts = c.ts AND m.source = c.source
            AND m.ts < frozen;
    END IF;
    INSERT INTO candle_marks AS k (symbol, source, ts)
    SELECT DISTINCT c.symbol, c.source, date_bin('1 hour', c.ts, s.hour_origin)
    FROM changed AS c
    JOIN candle_settings AS s ON s.only_row
    WHERE c.timeframe = 'M1' AND c.ts >= s.minutes_from
    ORDER BY 1, 2, 3
    ON CONFLICT (symbol, source, ts) DO UPDATE SET ts = EXCLUDED.ts WHERE false;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION mark_updated_candles() RETURNS trigger
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
    WHERE c.ts >= s.minutes_from
    GROUP BY 1, 2, 3
    ORDER BY 1, 2, 3
    ON CONFLICT (symbol, source, ts) DO UPDATE SET ts = EXCLUDED.ts WHERE false;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION mark_deleted_candle() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO candle_marks AS k (symbol, source, ts)
    SELECT OLD.symbol, OLD.source, date_bin('1 hour', OLD.ts, s.hour_origin)
    FROM candle_settings AS s
    WHERE OLD.ts >= s.minutes_from
    ON CONFLICT (symbol, source, ts) DO UPDATE SET ts = EXCLUDED.ts WHERE false;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION forget_candles() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    TRUNCATE candle_hours, candle_days, candle_marks;
    UPDATE candle_settings
    SET kept_from = '-infinity', minutes_from = '-infinity', hours_from = '-infinity', days_from = '-infinity';
    RETURN NULL;
END
$$;

-- The source of a symbol that has the most recent candle; of one without minutes, the most recent day.
CREATE OR REPLACE FUNCTION newest_source(symbol text) RETURNS text
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
    IF found IS NULL THEN
        SELECT d.source INTO found FROM candle_days AS d
        WHERE d.symbol = $1
        ORDER BY d.ts DESC, d.source
        LIMIT 1;
    END IF;
    RETURN found;
END
$$;

-- W1 and MN1, from days; not the one of whose days retention has deleted some.
CREATE OR REPLACE FUNCTION folded_days(
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
    WHERE s.days_from = '-infinity'
        OR period_start(d.ts, timeframe, s.day_zone, s.day_shift, s.week_shift) >= s.days_from
    GROUP BY d.symbol, d.source, 1
$$;

-- Moves the times before which candles are deleted, at most to those that are given (NULL: not at all) and never back,
-- to starts of days and of months, so that no candle of any timeframe is cut. Minutes wait until their hours are folded;
-- those of a hypertable go chunk by chunk. Nothing is deleted here.
CREATE FUNCTION advance_retention(minutes timestamptz, hours timestamptz, days timestamptz)
RETURNS TABLE (minutes_from timestamptz, hours_from timestamptz, days_from timestamptz)
LANGUAGE plpgsql
SET plan_cache_mode = force_custom_plan
-- Writers queue behind the lock that this waits for.
SET lock_timeout = '3s'
AS $$
#variable_conflict use_column
DECLARE
    s candle_settings;
    whole timestamptz;
BEGIN
    SELECT * INTO s FROM candle_settings FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF s.kept_from = '-infinity' THEN
        minutes := period_start(minutes, 'D1', s.day_zone, s.day_shift, s.week_shift);
        IF to_regclass('timescaledb_information.chunks') IS NOT NULL THEN
            -- Deleting from a chunk that has to stay, perhaps compressed, is dear; dropping one costs nothing.
            SELECT max(c.range_end) INTO whole FROM timescaledb_information.chunks AS c
            WHERE c.hypertable_name = 'market_data' AND c.range_end <= minutes;
            minutes := next_period(whole, 'D1');
        END IF;
        IF minutes > s.minutes_from AND NOT EXISTS (SELECT FROM candle_marks AS k WHERE k.ts < minutes) THEN
            -- Whoever writes is through with it, marks included, and whoever comes then knows the new time.
            LOCK TABLE market_data IN SHARE ROW EXCLUSIVE MODE;
            IF NOT EXISTS (SELECT FROM candle_marks AS k WHERE k.ts < minutes) THEN
                s.minutes_from := minutes;
            END IF;
        END IF;
        -- least() and greatest() pass over NULL.
        IF hours IS NOT NULL THEN
            s.hours_from := greatest(
                s.hours_from,
                least(period_start(hours, 'D1', s.day_zone, s.day_shift, s.week_shift), s.minutes_from)
            );
        END IF;
        IF days IS NOT NULL AND s.hours_from > '-infinity' THEN
            s.days_from := greatest(
                s.days_from,
                period_start(least(days, s.hours_from), 'MN1', s.day_zone, s.day_shift, s.week_shift)
            );
        END IF;
        UPDATE candle_settings AS c
        SET minutes_from = s.minutes_from, hours_from = s.hours_from, days_from = s.days_from
        WHERE (c.minutes_from, c.hours_from, c.days_from) <> (s.minutes_from, s.hours_from, s.days_from);
    END IF;
    RETURN QUERY SELECT s.minutes_from, s.hours_from, s.days_from;
END
$$;

-- Says when a day begins, as before; refused where it would need what retention has deleted.
CREATE OR REPLACE FUNCTION set_candle_day(day_zone text, day_start time DEFAULT '00:00', week_start text DEFAULT NULL)
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
    IF s.minutes_from > '-infinity' AND date_bin('1 hour', origin, s.hour_origin) <> origin
        OR s.hours_from > '-infinity' AND (s.day_zone, s.day_shift) IS DISTINCT FROM ($1, shift)
    THEN
        RAISE EXCEPTION 'what retention deleted cannot be folded anew for days that begin at another time'
            USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Take an empty database and replay the log: docs/storage.md.';
    END IF;
    IF date_bin('1 hour', origin, s.hour_origin) = origin THEN
        UPDATE candle_settings AS c
        SET day_zone = $1, day_shift = shift,
            week_shift = CASE $3 WHEN 'sunday' THEN interval '-1 day' WHEN 'monday' THEN '0' ELSE c.week_shift END;
        UPDATE candle_settings AS c SET kept_from = next_period(c.kept_from, 'D1');
        DELETE FROM candle_days AS d WHERE d.ts >= s.hours_from;
        PERFORM keep_days(greatest(c.kept_from, c.hours_from), 'infinity') FROM candle_settings AS c;
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
