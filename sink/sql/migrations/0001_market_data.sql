-- Candles, the broker's own bars, and what waits to be folded again. A plain table on PostgreSQL 14 and later, a
-- hypertable where TimescaleDB is there (either edition).

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
    source text NOT NULL,
    origin text NOT NULL CHECK (origin IN ('ticks', 'broker')),
    closed boolean NOT NULL,
    first_tick timestamptz,
    last_tick timestamptz,
    log text,
    partition integer,
    offsets int8multirange,
    received_at timestamptz,
    stored_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (symbol, timeframe, ts, source),
    CONSTRAINT market_data_proof CHECK (
        origin = 'broker'
        OR (log IS NOT NULL AND partition IS NOT NULL AND offsets IS NOT NULL AND NOT isempty(offsets))
    )
);
CREATE INDEX market_data_ts_idx ON market_data (ts DESC);

COMMENT ON COLUMN market_data.volume IS 'number of ticks';
COMMENT ON COLUMN market_data.spread IS 'lowest ask - bid, in points';
COMMENT ON COLUMN market_data.origin IS 'ticks: folded from the log; broker: the broker''s own bar, where there is no fold';
COMMENT ON COLUMN market_data.offsets IS 'the proof: offsets of the partition of the log that this candle is the fold of';

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
    received_at timestamptz NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, symbol, timeframe, ts)
);

CREATE VIEW bar_fidelity AS
SELECT
    m.symbol,
    m.ts,
    m.source,
    m.open, b.open AS broker_open, m.open - b.open AS open_difference,
    m.high, b.high AS broker_high, m.high - b.high AS high_difference,
    m.low, b.low AS broker_low, m.low - b.low AS low_difference,
    m.close, b.close AS broker_close, m.close - b.close AS close_difference,
    m.volume, b.volume AS broker_volume, m.volume - b.volume AS volume_difference,
    (m.open, m.high, m.low, m.close, m.volume) = (b.open, b.high, b.low, b.close, b.volume) AS equal
FROM market_data AS m
JOIN broker_bars AS b USING (source, symbol, timeframe, ts)
WHERE m.timeframe = 'M1' AND m.origin = 'ticks';

-- Minutes of which two folds are known and neither holds the other: they are folded again from the union.
CREATE TABLE pending_refolds (
    source text NOT NULL,
    symbol text NOT NULL,
    timeframe text NOT NULL,
    ts timestamptz NOT NULL,
    log text NOT NULL,
    partition integer NOT NULL,
    offsets int8multirange NOT NULL,
    closed boolean NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, symbol, timeframe, ts)
);
CREATE INDEX pending_refolds_log_idx ON pending_refolds (log, partition);
