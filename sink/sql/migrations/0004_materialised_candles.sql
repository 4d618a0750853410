-- Keeps candle_hours and candle_days up to date: what makes hours stale, what rolls them up again, and what is deleted.

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

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

-- What makes hours stale. What lies before `minutes_from` is frozen: no change of a minute makes its hour stale any
-- more, so the hours and days that are retained longer stay as they were rolled up from whole minutes. ---------------

-- The row of a stale hour is locked until the transaction ends, also where it was there already: refresh_candles()
-- skips rows that are locked, so it never takes one away whose change it cannot see yet.
CREATE FUNCTION note_stored_candles() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    frozen timestamptz := (SELECT s.minutes_from FROM candle_settings AS s);
BEGIN
    IF TG_OP = 'INSERT' AND frozen > '-infinity' THEN
        -- Half a minute of late ticks is no candle. Nobody has seen it yet.
        DELETE FROM market_data AS m
        USING (SELECT c.symbol, c.timeframe, c.ts, c.source FROM changed AS c WHERE c.ts < frozen) AS c
        WHERE m.symbol = c.symbol AND m.timeframe = c.timeframe AND m.ts = c.ts AND m.source = c.source
            AND m.ts < frozen;
    END IF;
    INSERT INTO stale_hours AS k (symbol, source, ts)
    SELECT DISTINCT c.symbol, c.source, bar_start(c.ts, '1 hour', s)
    FROM changed AS c
    CROSS JOIN candle_settings AS s
    WHERE c.timeframe = 'M1' AND c.ts >= s.minutes_from
    ORDER BY 1, 2, 3
    ON CONFLICT (symbol, source, ts) DO UPDATE SET ts = EXCLUDED.ts WHERE false;
    RETURN NULL;
END
$$;

CREATE FUNCTION note_removed_candle() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO stale_hours AS k (symbol, source, ts)
    SELECT OLD.symbol, OLD.source, bar_start(OLD.ts, '1 hour', s)
    FROM candle_settings AS s
    WHERE OLD.ts >= s.minutes_from
    ON CONFLICT (symbol, source, ts) DO UPDATE SET ts = EXCLUDED.ts WHERE false;
    RETURN NULL;
END
$$;

CREATE FUNCTION forget_candles() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    TRUNCATE candle_hours, candle_days, stale_hours;
    UPDATE candle_settings
    SET materialised_from = '-infinity', minutes_from = '-infinity', hours_from = '-infinity', days_from = '-infinity';
    RETURN NULL;
END
$$;

CREATE TRIGGER note_inserted_candles AFTER INSERT ON market_data
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_stored_candles();
CREATE TRIGGER note_updated_candles AFTER UPDATE ON market_data
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_stored_candles();
-- Row by row: with a statement's trigger that sees deleted rows TimescaleDB would not compress the table. A minute
-- whose key changes leaves an hour too; no statement of the sink's names these columns.
CREATE TRIGGER note_removed_candles AFTER DELETE OR UPDATE OF symbol, timeframe, ts, source ON market_data
    FOR EACH ROW WHEN (OLD.timeframe = 'M1') EXECUTE FUNCTION note_removed_candle();
CREATE TRIGGER forget_truncated_candles AFTER TRUNCATE ON market_data
    FOR EACH STATEMENT EXECUTE FUNCTION forget_candles();

-- What rolls them up again. ---------------------------------------------------------------------------------------

-- Rolls up the days from `lo` up to `hi`, both starts of days, from materialised hours, stale ones too: whoever reads a
-- day with a stale hour does not take it from here.
CREATE FUNCTION materialise_days(lo timestamptz, hi timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    s candle_settings;
BEGIN
    SELECT * INTO STRICT s FROM candle_settings;
    DELETE FROM candle_days AS d WHERE d.ts >= lo AND d.ts < hi;
    INSERT INTO candle_days
    SELECT d.*, bar_end(d.ts, '1 day', s) FROM rolled_up_materialised_hours('1 day', lo, hi, s) AS d;
END
$$;

-- Rolls up these hours from M1, and the days that they lie in where no hour is stale any more: the others are rolled up
-- from their hours by whoever reads them.
CREATE FUNCTION materialise_hours(hours stale_hours[], s candle_settings) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    -- So that a hypertable's other chunks are not even looked at.
    m1_lo timestamptz := (SELECT min(o.ts) FROM unnest(hours) AS o);
    m1_hi timestamptz := (SELECT max(o.ts) + interval '1 hour' FROM unnest(hours) AS o);
BEGIN
    DELETE FROM candle_hours AS h USING unnest(hours) AS o
    WHERE (h.symbol, h.source, h.ts) = (o.symbol, o.source, o.ts);
    INSERT INTO candle_hours
    SELECT h.*
    FROM unnest(hours) AS o
    CROSS JOIN LATERAL (
        SELECT m.* FROM rolled_up_minutes('1 hour', o.ts, o.ts + interval '1 hour', s, m1_lo, m1_hi) AS m
        WHERE m.symbol = o.symbol AND m.source = o.source
        OFFSET 0
    ) AS h;

    DELETE FROM candle_days AS d USING unnest(hours) AS o
    WHERE (d.symbol, d.source, d.ts) = (o.symbol, o.source, bar_start(o.ts, '1 day', s));
    INSERT INTO candle_days
    SELECT d.*, o.ends
    FROM (
        SELECT DISTINCT
            o.symbol, o.source, bar_start(o.ts, '1 day', s) AS ts, bar_end(o.ts, '1 day', s) AS ends
        FROM unnest(hours) AS o
    ) AS o
    CROSS JOIN LATERAL (
        SELECT h.* FROM rolled_up_materialised_hours('1 day', o.ts, o.ends, s) AS h
        WHERE h.symbol = o.symbol AND h.source = o.source
        OFFSET 0
    ) AS d
    WHERE NOT EXISTS (
        SELECT FROM stale_hours AS k
        WHERE k.symbol = o.symbol AND k.source = o.source AND k.ts >= o.ts AND k.ts < o.ends
    );
END
$$;

-- Rolls up stale hours, newest first; returns how many. Hours that are not over, or became stale less than `quiet` ago,
-- wait: they will change again. Only one of several callers works.
CREATE FUNCTION refresh_candles(quiet interval DEFAULT '0', max_hours integer DEFAULT 1000) RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    s candle_settings;
    hours stale_hours[];
BEGIN
    -- Each statement below must see what was committed before it began.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'refresh_candles() needs the isolation level READ COMMITTED';
    END IF;
    SELECT * INTO s FROM candle_settings FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    hours := ARRAY(
        SELECT k FROM stale_hours AS k
        WHERE k.ts >= s.materialised_from AND k.ts <= clock_timestamp() - quiet - interval '1 hour'
            AND k.changed_at <= clock_timestamp() - quiet
        ORDER BY k.ts DESC
        LIMIT max_hours
        FOR UPDATE SKIP LOCKED
    );
    DELETE FROM stale_hours AS k USING unnest(hours) AS o
    WHERE (k.symbol, k.source, k.ts) = (o.symbol, o.source, o.ts);
    PERFORM materialise_hours(hours, s);
    RETURN cardinality(hours);
END
$$;

-- Goes back through time where hours and days are not materialised yet, one step of so many days; returns from where on
-- they are now: -infinity when all of them are, NULL when another session is at work. What is written meanwhile becomes
-- stale, so nothing has to be locked.
CREATE FUNCTION materialise_candles(days integer DEFAULT 7) RETURNS timestamptz
LANGUAGE plpgsql SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    s candle_settings;
    newest timestamptz;
    lo timestamptz := '-infinity';
BEGIN
    SELECT * INTO s FROM candle_settings FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF s.materialised_from = '-infinity' THEN
        RETURN s.materialised_from;
    END IF;
    SELECT m.ts INTO newest FROM market_data AS m
    WHERE m.ts < s.materialised_from AND m.timeframe = 'M1'
    ORDER BY m.ts DESC
    LIMIT 1;
    IF newest IS NOT NULL THEN
        lo := bar_start(newest - make_interval(days => days - 1), '1 day', s);
    END IF;
    DELETE FROM candle_hours AS h WHERE h.ts >= lo AND h.ts < s.materialised_from;
    IF newest IS NOT NULL THEN
        INSERT INTO candle_hours SELECT m.* FROM rolled_up_minutes('1 hour', lo, s.materialised_from, s) AS m;
        PERFORM materialise_days(lo, s.materialised_from);
    END IF;
    UPDATE candle_settings SET materialised_from = lo;
    RETURN lo;
END
$$;

-- Says when a day begins: at `day_start` by the clock of `day_zone` (an IANA name), the evening before its date when
-- that is noon or later; 'America/New_York', '17:00' is the day of foreign exchange. Where hours begin at the same
-- minute as before, days are rebuilt at once; otherwise nothing is materialised until materialise_candles() has gone
-- through it all. Refused where it would need what retention has deleted.
CREATE FUNCTION set_candle_day(day_zone text, day_start time DEFAULT '00:00', week_start text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    s candle_settings;
    shift interval := CASE WHEN $2 >= '12:00' THEN $2::interval - interval '24 hours' ELSE $2::interval END;
    origin timestamptz;
    offsets bigint;
    hours_move boolean;
BEGIN
    IF $1 IS NULL OR NOT EXISTS (SELECT FROM pg_timezone_names AS z WHERE z.name = $1) THEN
        RAISE EXCEPTION '% is no time zone', coalesce(quote_literal($1), 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use an IANA name such as America/New_York.';
    END IF;
    IF $3 NOT IN ('sunday', 'monday') THEN
        RAISE EXCEPTION 'a week begins on sunday or on monday, not on %', $3
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT count(DISTINCT extract(epoch FROM (d + shift) AT TIME ZONE $1)::bigint % 3600) INTO offsets
    FROM generate_series(timestamp '1990-01-01', '2037-12-31', '1 day') AS d;
    IF offsets > 1 THEN
        RAISE EXCEPTION 'the clocks of % were changed by less than an hour, so its days are not made of hours', $1
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use a zone whose offset changes by whole hours.';
    END IF;

    SELECT * INTO STRICT s FROM candle_settings FOR UPDATE;
    origin := (timestamp '2000-01-03' + shift) AT TIME ZONE $1;
    hours_move := bar_start(origin, '1 hour', s) <> origin;
    IF s.minutes_from > '-infinity' AND hours_move
        OR s.hours_from > '-infinity' AND (s.day_zone, s.day_shift) IS DISTINCT FROM ($1, shift)
    THEN
        RAISE EXCEPTION 'what retention deleted cannot be rolled up for days that begin at another time'
            USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Take an empty database and replay the log: docs/storage.md.';
    END IF;
    UPDATE candle_settings AS c
    SET day_zone = $1, day_shift = shift,
        week_shift = CASE $3 WHEN 'sunday' THEN interval '-1 day' WHEN 'monday' THEN '0' ELSE c.week_shift END;
    IF NOT hours_move THEN
        UPDATE candle_settings AS c SET materialised_from = next_bar(c.materialised_from, '1 day', c);
        DELETE FROM candle_days AS d WHERE d.ts >= s.hours_from;
        PERFORM materialise_days(greatest(c.materialised_from, c.hours_from), 'infinity') FROM candle_settings AS c;
        RETURN;
    END IF;
    -- Rows of stale_hours name hours: no transaction may be half through with the hours of before. One hour of each
    -- stays stale, and candle_hours as it is until materialise_candles() comes by: neither is read before, but both
    -- tell which symbols and sources there are.
    LOCK TABLE market_data IN SHARE ROW EXCLUSIVE MODE;
    UPDATE candle_settings SET hour_origin = origin, materialised_from = 'infinity' RETURNING * INTO s;
    UPDATE stale_hours AS k SET ts = bar_start(k.ts, '1 hour', s);
    DELETE FROM candle_days;
    IF NOT EXISTS (SELECT FROM market_data) THEN
        PERFORM materialise_candles();
    END IF;
END
$$;

-- Moves the times before which candles are deleted, at most to those that are given (NULL: not at all) and never back,
-- to starts of days and of months, so that no candle of any timeframe is cut. Minutes wait until their hours are rolled
-- up; those of a hypertable go chunk by chunk. Nothing is deleted here. docs/storage.md says more.
CREATE FUNCTION advance_retention(minutes timestamptz, hours timestamptz, days timestamptz)
RETURNS TABLE (minutes_from timestamptz, hours_from timestamptz, days_from timestamptz)
LANGUAGE plpgsql
SET search_path FROM CURRENT
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
    IF s.materialised_from = '-infinity' THEN
        minutes := bar_start(minutes, '1 day', s);
        IF to_regclass('timescaledb_information.chunks') IS NOT NULL THEN
            -- Deleting from a chunk that has to stay, perhaps compressed, is dear; dropping one costs nothing.
            SELECT max(c.range_end) INTO whole FROM timescaledb_information.chunks AS c
            WHERE c.hypertable_schema = current_schema() AND c.hypertable_name = 'market_data'
                AND c.range_end <= minutes;
            minutes := next_bar(whole, '1 day', s);
        END IF;
        IF minutes > s.minutes_from AND NOT EXISTS (SELECT FROM stale_hours AS k WHERE k.ts < minutes) THEN
            -- Whoever writes is through with it, stale hours included, and whoever comes then knows the new time.
            LOCK TABLE market_data IN SHARE ROW EXCLUSIVE MODE;
            IF NOT EXISTS (SELECT FROM stale_hours AS k WHERE k.ts < minutes) THEN
                s.minutes_from := minutes;
            END IF;
        END IF;
        -- least() and greatest() ignore NULL.
        IF hours IS NOT NULL THEN
            s.hours_from := greatest(s.hours_from, least(bar_start(hours, '1 day', s), s.minutes_from));
        END IF;
        IF days IS NOT NULL AND s.hours_from > '-infinity' THEN
            s.days_from := greatest(s.days_from, bar_start(least(days, s.hours_from), '1 month', s));
        END IF;
        UPDATE candle_settings AS c
        SET minutes_from = s.minutes_from, hours_from = s.hours_from, days_from = s.days_from
        WHERE (c.minutes_from, c.hours_from, c.days_from) <> (s.minutes_from, s.hours_from, s.days_from);
    END IF;
    RETURN QUERY SELECT s.minutes_from, s.hours_from, s.days_from;
END
$$;

-- Drops the chunks of market_data that end before the time, for any role that may delete its rows; TimescaleDB would let
-- the owner alone.
CREATE FUNCTION drop_minutes(before timestamptz) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path FROM CURRENT
AS $$
BEGIN
    IF NOT has_table_privilege(session_user, 'market_data', 'DELETE') THEN
        RAISE insufficient_privilege USING MESSAGE = format('%s may not delete rows of market_data', session_user);
    END IF;
    IF to_regclass('timescaledb_information.chunks') IS NOT NULL THEN
        PERFORM drop_chunks('market_data', older_than => before);
    END IF;
END
$$;

-- What `pg_dump --data-only` brings into a migrated database: rows that the migrations wrote, and stale hours that the
-- restored minutes made already. The first are skipped, the second as well; its settings replace ours. -----------------

-- The argument is the condition under which the row `t` is the new row, `$1`.
CREATE FUNCTION skip_present_row() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    is_present boolean;
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT FROM %I.%I AS t WHERE %s)', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_ARGV[0])
    INTO is_present USING NEW;
    RETURN CASE WHEN is_present THEN NULL ELSE NEW END;
END
$$;

CREATE FUNCTION replace_candle_settings() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM candle_settings;
    RETURN NEW;
END
$$;

CREATE TRIGGER skip_present_migration BEFORE INSERT ON tickpipe_migrations
    FOR EACH ROW EXECUTE FUNCTION skip_present_row('t.name = $1.name');
CREATE TRIGGER skip_present_timeframe BEFORE INSERT ON timeframes
    FOR EACH ROW EXECUTE FUNCTION skip_present_row('t.name = $1.name');
-- Not for the triggers of market_data, which lock the row that is there.
CREATE TRIGGER skip_present_hour BEFORE INSERT ON stale_hours
    FOR EACH ROW WHEN (pg_trigger_depth() = 0)
    EXECUTE FUNCTION skip_present_row('(t.symbol, t.source, t.ts) = ($1.symbol, $1.source, $1.ts)');
CREATE TRIGGER replace_present_settings BEFORE INSERT ON candle_settings
    FOR EACH ROW EXECUTE FUNCTION replace_candle_settings();
