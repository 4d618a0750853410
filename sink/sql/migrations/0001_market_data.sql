-- Candles, the broker's own bars, what waits to be folded again, and who sends. A plain table on PostgreSQL 14 and
-- later, a hypertable where TimescaleDB is there (either edition).

DO $$
BEGIN
    -- Without the preload CREATE EXTENSION does not fail, it ends the connection. Only superusers may look.
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb' AND installed_version IS NULL)
        AND current_setting('shared_preload_libraries') LIKE '%timescaledb%'
    THEN
        CREATE EXTENSION IF NOT EXISTS timescaledb;
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'TimescaleDB is not enabled: %', SQLERRM;
END
$$;

-- The log of a candle is all partitions of a topic, so its offsets are positions: partition * 2^48 + offset.

CREATE FUNCTION log_position(partition integer, "offset" bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (partition::bigint << 48) + "offset";

CREATE FUNCTION position_partition("position" bigint) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN ("position" >> 48)::integer;

CREATE FUNCTION position_offset("position" bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN "position" & ((1::bigint << 48) - 1);

-- The ranges of a proof for people to read; both ends belong to them.
CREATE FUNCTION proof_ranges(offsets int8multirange) RETURNS TABLE (partition integer, first bigint, last bigint)
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
    SELECT position_partition(lower(r)), position_offset(lower(r)), position_offset(upper(r) - 1)
    FROM unnest(offsets) AS r;
END;

-- Which candle wins. What becomes of a candle that meets the stored one of its key:
--   replaced   it holds all that the stored one was folded from, or there is only the broker's bar
--   ignored    the stored one holds all of it
--   closed     the same, and it knows that the period is over
--   refold     neither holds the other: the union of both has to be folded
--   cross_log  offsets of different logs say nothing about each other; see candle_outweighs
-- `wanted` is what the row should come to hold, more than `offsets` when a batch brought several folds; `differs` says
-- that any value differs. Every statement calls this one, and PostgreSQL inlines it: `differs` is written here once, so
-- that it is worked out only where it matters.
CREATE FUNCTION candle_verdict(
    stored_origin text, stored_log text, stored_offsets int8multirange, stored_closed boolean,
    log text, offsets int8multirange, wanted int8multirange, closed boolean, differs boolean
) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN stored_origin = 'broker' THEN 'replaced'
    WHEN stored_log IS DISTINCT FROM log THEN 'cross_log'
    WHEN stored_offsets @> wanted THEN
        CASE
            -- Equal offsets with unequal values: a replay repairs the row.
            WHEN stored_offsets = offsets AND differs THEN 'replaced'
            WHEN closed AND NOT stored_closed THEN 'closed'
            ELSE 'ignored'
        END
    WHEN wanted = offsets AND offsets @> stored_offsets THEN 'replaced'
    ELSE 'refold'
END;

-- Between logs the candle with more ticks wins; at a tie the one whose log can still be read.
CREATE FUNCTION candle_outweighs(volume bigint, log text, stored_volume bigint, stored_log text, own_log text)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN volume > stored_volume
    OR (volume = stored_volume AND log = own_log AND stored_log IS DISTINCT FROM own_log);

CREATE TABLE market_data (
    ts timestamptz NOT NULL,
    symbol text NOT NULL,
    timeframe text NOT NULL,
    open double precision NOT NULL,
    high double precision NOT NULL,
    low double precision NOT NULL,
    close double precision NOT NULL,
    volume bigint NOT NULL,
    real_volume double precision,
    spread integer,
    -- The defaults are for rows that people insert by hand, of which no tick is known.
    source text NOT NULL DEFAULT 'manual',
    origin text NOT NULL DEFAULT 'broker' CHECK (origin IN ('ticks', 'broker')),
    closed boolean NOT NULL DEFAULT true,
    first_tick timestamptz,
    last_tick timestamptz,
    log text,
    offsets int8multirange,
    received_at timestamptz,
    folded_at timestamptz,
    stored_at timestamptz NOT NULL DEFAULT now(),
    tick_volume bigint GENERATED ALWAYS AS (volume) STORED,
    PRIMARY KEY (symbol, timeframe, ts, source),
    -- What marketdata/candle.py says of a candle. A NaN is greater than all other numbers.
    CONSTRAINT market_data_prices CHECK (
        low >= -1e15 AND high <= 1e15
        AND open BETWEEN low AND high AND close BETWEEN low AND high
    ),
    CONSTRAINT market_data_volumes CHECK (
        volume >= CASE origin WHEN 'ticks' THEN 1 ELSE 0 END AND real_volume >= 0 AND real_volume < 'Infinity'
    ),
    CONSTRAINT market_data_times CHECK (
        ts >= '1970-01-01 00:00:00+00' AND ts < '2100-01-01 00:00:00+00'
        AND (timeframe <> 'M1' OR date_bin('1 minute', ts, '2000-01-01 00:00:00+00') = ts)
        AND (
            origin = 'broker'
            OR (
                ts <= first_tick AND first_tick <= last_tick
                AND (timeframe <> 'M1' OR last_tick < ts + interval '1 minute')
            )
        )
    ),
    CONSTRAINT market_data_proof CHECK (
        origin = 'broker'
        OR (
            log IS NOT NULL AND log <> '' AND offsets IS NOT NULL AND NOT isempty(offsets)
            AND NOT lower_inf(offsets) AND lower(offsets) >= 0 AND NOT upper_inf(offsets)
        )
    )
);
CREATE INDEX market_data_ts_idx ON market_data (ts DESC);

COMMENT ON COLUMN market_data.volume IS 'number of ticks; of a symbol charted by last, of deals';
COMMENT ON COLUMN market_data.tick_volume IS 'volume, by the name that MetaTrader gives it';
COMMENT ON COLUMN market_data.spread IS 'lowest ask - bid, in points';
COMMENT ON COLUMN market_data.origin IS 'ticks: folded from the log; broker: the broker''s own bar, where there is no fold';
COMMENT ON COLUMN market_data.folded_at IS 'when the worker published the fold';
COMMENT ON COLUMN market_data.offsets IS 'the proof: the positions in the log that this candle is the fold of; proof_ranges() shows them';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        -- One month of M1 of a hundred symbols is 4 million rows: its index stays in memory.
        PERFORM create_hypertable(
            'market_data', 'ts', chunk_time_interval => interval '1 month',
            create_default_indexes => false, if_not_exists => true, migrate_data => true
        );
    END IF;
END
$$;

CREATE TABLE broker_bars (
    source text NOT NULL,
    symbol text NOT NULL,
    timeframe text NOT NULL,
    ts timestamptz NOT NULL,
    open double precision NOT NULL,
    high double precision NOT NULL,
    low double precision NOT NULL,
    close double precision NOT NULL,
    volume bigint NOT NULL,
    real_volume double precision,
    spread integer,
    closed boolean NOT NULL DEFAULT true,
    received_at timestamptz NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, symbol, timeframe, ts),
    CONSTRAINT broker_bars_prices CHECK (
        low >= -1e15 AND high <= 1e15
        AND open BETWEEN low AND high AND close BETWEEN low AND high
    ),
    CONSTRAINT broker_bars_volumes CHECK (volume >= 0 AND real_volume >= 0 AND real_volume < 'Infinity'),
    CONSTRAINT broker_bars_times CHECK (
        ts >= '1970-01-01 00:00:00+00' AND ts < '2100-01-01 00:00:00+00'
        -- Longer bars open by the clock of the source, whose offset is a multiple of a quarter of an hour.
        AND date_bin(
            CASE timeframe WHEN 'M1' THEN interval '1 minute' WHEN 'M5' THEN '5 minutes' ELSE '15 minutes' END,
            ts, '2000-01-01 00:00:00+00'
        ) = ts
    )
);

COMMENT ON COLUMN broker_bars.closed IS 'false: the bar was still forming when it was sent, and a later one replaces it';

-- Minutes of which two folds are known and neither holds the other: they are folded again from the union.
CREATE TABLE pending_refolds (
    source text NOT NULL,
    symbol text NOT NULL,
    timeframe text NOT NULL,
    ts timestamptz NOT NULL,
    log text NOT NULL,
    offsets int8multirange NOT NULL,
    closed boolean NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, symbol, timeframe, ts)
);
CREATE INDEX pending_refolds_log_idx ON pending_refolds (log, position_partition(lower(offsets)));

-- What each producer has counted of each sender. `counter` names one such count: a producer that starts begins another.
-- What is older than 90 days is deleted (sink/writer.py).
-- Texts are empty where the sender says nothing.
CREATE TABLE sender_counts (
    source text NOT NULL,
    server text NOT NULL,
    account text NOT NULL,
    build text NOT NULL,
    ea text NOT NULL,
    version text NOT NULL,
    address text NOT NULL,
    counter text NOT NULL,
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    ticks bigint NOT NULL CHECK (ticks >= 0),
    bars bigint NOT NULL CHECK (bars >= 0),
    -- Those of the ticks that came into the terminal's list behind later ones.
    late_ticks bigint NOT NULL DEFAULT 0 CHECK (late_ticks >= 0),
    PRIMARY KEY (source, server, account, build, ea, version, address, counter),
    CHECK (first_seen <= last_seen)
);

-- Who sends. `shared` says what several senders of a source differ in, of those seen within the hour.
CREATE VIEW senders AS
WITH counted AS (
    SELECT
        source, nullif(server, '') AS server, nullif(account, '') AS account, nullif(build, '') AS build,
        nullif(ea, '') AS ea, nullif(version, '') AS version, nullif(address, '') AS address,
        min(first_seen) AS first_seen, max(last_seen) AS last_seen,
        sum(ticks)::bigint AS ticks, sum(bars)::bigint AS bars, sum(late_ticks)::bigint AS late_ticks
    FROM sender_counts AS c
    GROUP BY c.source, c.server, c.account, c.build, c.ea, c.version, c.address
),

recent AS (
    SELECT
        source,
        nullif(concat_ws(
            ', ', CASE WHEN count(DISTINCT server) > 1 THEN 'servers' END,
            CASE WHEN count(DISTINCT account) > 1 THEN 'accounts' END
        ), '') AS shared
    FROM counted
    WHERE last_seen > now() - interval '1 hour'
    GROUP BY source
)

SELECT c.*, r.shared
FROM counted AS c
LEFT JOIN recent AS r ON r.source = c.source AND c.last_seen > now() - interval '1 hour';

COMMENT ON COLUMN senders.account IS 'as the sender gives it';
COMMENT ON COLUMN senders.last_seen IS 'by the receipt of its requests';

-- How a source quotes a symbol, as its sender said last.
CREATE TABLE instruments (
    source text NOT NULL,
    symbol text NOT NULL,
    -- Size of a point in price units.
    point double precision NOT NULL CHECK (point > 0 AND point < 'Infinity'),
    received_at timestamptz NOT NULL,
    PRIMARY KEY (source, symbol)
);

-- How far the sinks have stored what they read, see sink/progress.py: every record of the partition below `next_offset`
-- is in this database, or was rejected. Of the log of ticks it is where the log ended, see sink/shortened.py.
CREATE TABLE sink_progress (
    log text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (log, partition)
);
