-- Timeframes, and where their bars begin and end.

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- The list of timeframes; marketdata/timeframes.py holds the same for Python. What is added to both needs nothing else:
-- views and functions are made from it.
CREATE TABLE timeframes (
    name text PRIMARY KEY,
    -- Ordinary width of a bar.
    width interval NOT NULL UNIQUE,
    -- What its bars are rolled up from: M1, or H1 and D1, which are materialised.
    parent text REFERENCES timeframes CHECK (parent IN ('M1', 'H1', 'D1')),
    -- Bars begin by the wall clock of trading days, so a change of clocks makes one longer or shorter.
    calendar boolean GENERATED ALWAYS AS (width > '1 hour') STORED,
    -- Whose stored rows give its bars; with those they are deleted.
    stored_as text GENERATED ALWAYS AS (CASE WHEN name IN ('H1', 'D1') THEN name ELSE coalesce(parent, name) END) STORED
);
INSERT INTO timeframes (name, width, parent) VALUES
    ('M1', '1 minute', NULL),
    ('M5', '5 minutes', 'M1'),
    ('M15', '15 minutes', 'M1'),
    ('M30', '30 minutes', 'M1'),
    ('H1', '1 hour', 'M1'),
    ('H4', '4 hours', 'H1'),
    ('D1', '1 day', 'H1'),
    ('W1', '7 days', 'D1'),
    ('MN1', '1 month', 'D1');
-- candles() reads it as whoever calls.
GRANT SELECT ON timeframes TO PUBLIC;

CREATE FUNCTION timeframe_named(name text) RETURNS timeframes
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path FROM CURRENT AS $$
DECLARE
    t timeframes;
BEGIN
    SELECT * INTO t FROM timeframes AS known WHERE known.name = $1;
    IF NOT FOUND THEN
        RAISE EXCEPTION '% is no timeframe', coalesce(quote_literal($1), 'NULL')
            USING ERRCODE = 'invalid_parameter_value',
            HINT = (SELECT string_agg(known.name, ' ' ORDER BY known.width) FROM timeframes AS known);
    END IF;
    RETURN t;
END
$$;

CREATE TABLE candle_settings (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- Where days begin. Change it with set_candle_day(), which rebuilds what depends on it.
    day_zone text NOT NULL DEFAULT 'UTC',
    -- From local midnight of a day's date to its start: -07:00 for days that begin at 17:00 the evening before.
    day_shift interval NOT NULL DEFAULT '0',
    -- From Monday to the first day of a week: MetaTrader's begin on Sunday.
    week_shift interval NOT NULL DEFAULT '-1 day',
    -- Any start of an hour. Hours begin with the day, so in India at half past (UTC).
    hour_origin timestamptz NOT NULL DEFAULT '2000-01-01 00:00:00+00',
    -- Hours and days before it are not materialised yet: they are rolled up from M1 whenever somebody reads them.
    materialised_from timestamptz NOT NULL DEFAULT '-infinity',
    -- Retention: what lies before is deleted. A longer timeframe is never deleted before a shorter one.
    minutes_from timestamptz NOT NULL DEFAULT '-infinity',
    hours_from timestamptz NOT NULL DEFAULT '-infinity',
    days_from timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO candle_settings DEFAULT VALUES;

COMMENT ON COLUMN candle_settings.minutes_from IS 'M1, and so M5 to M30, are deleted before it; a start of a day';
COMMENT ON COLUMN candle_settings.hours_from IS 'H1 and H4 are deleted before it; a start of a day';
COMMENT ON COLUMN candle_settings.days_from IS 'D1 to MN1 are deleted before it; a start of a month';

-- Where bars begin. Functions of SQL bind their names when they are created, so no search_path misleads them, and the
-- planner inlines them; those of PL/pgSQL pin the search_path. -------------------------------------------------------

-- The clock of trading days: on it a day begins at 0:00, and weeks and months are the calendar's.
CREATE FUNCTION trading_clock(moment timestamptz, s candle_settings) RETURNS timestamp
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN (moment AT TIME ZONE s.day_zone) - s.day_shift;

CREATE FUNCTION trading_moment(clock timestamp, s candle_settings) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN (clock + s.day_shift) AT TIME ZONE s.day_zone;

-- The first of January 1900 was a Monday.
CREATE FUNCTION trading_period(clock timestamp, width interval, s candle_settings) RETURNS timestamp
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE
    WHEN width >= '1 month' THEN date_trunc('month', clock)
    ELSE date_bin(width, clock, timestamp '1900-01-01' + s.week_shift)
END;

-- The start of the bar in which a moment lies. Bars longer than an hour start by the clock on the wall, so one in which
-- clocks change is longer or shorter. Where clocks go back over a start, the later of the two moments is meant (as
-- AT TIME ZONE has it), and what lies before it belongs to the bar before.
CREATE FUNCTION bar_start(moment timestamptz, width interval, s candle_settings) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE
    WHEN width <= '1 hour' THEN date_bin(width, moment, s.hour_origin)
    WHEN trading_moment(trading_period(trading_clock(moment, s), width, s), s) <= moment
        THEN trading_moment(trading_period(trading_clock(moment, s), width, s), s)
    ELSE trading_moment(
        trading_period(
            trading_period(trading_clock(moment, s), width, s) - interval '1 microsecond', width, s
        ),
        s
    )
END;

-- The end of the bar that starts at `starts`.
CREATE FUNCTION bar_end(starts timestamptz, width interval, s candle_settings) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE RETURN CASE
    WHEN width <= '1 hour' THEN starts + width
    ELSE trading_moment(trading_period(trading_clock(starts, s), width, s) + width, s)
END;

-- The first start of a bar at or after a moment.
CREATE FUNCTION next_bar(moment timestamptz, width interval, s candle_settings) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE RETURN CASE
    WHEN bar_start(moment, width, s) = moment THEN moment
    ELSE bar_end(bar_start(moment, width, s), width, s)
END;
