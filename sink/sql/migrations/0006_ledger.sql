-- What is known of minutes without ticks. Minutes with ticks are those of market_data.

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- Ranges of whole minutes, `ends` not included; ranges of one state do not overlap. What a range says holds for its
-- minutes without a candle. closed: the user says that the market was. none: a sender has sent all that its terminal
-- has of the range. wanted: found by the sink, not yet filled. failed: a sender could not fill it, and says why.
CREATE TABLE minute_ledger (
    source text NOT NULL,
    symbol text NOT NULL,
    state text NOT NULL CHECK (state IN ('closed', 'none', 'wanted', 'failed')),
    begins timestamptz NOT NULL,
    ends timestamptz NOT NULL,
    -- Of what is wanted or failed: minutes that should have a candle, and the last try.
    expected integer NOT NULL DEFAULT 0,
    tried_at timestamptz,
    error text,
    PRIMARY KEY (source, symbol, state, begins),
    CHECK (begins < ends)
);

-- When a broker quotes a symbol, as its terminal says: [[day, from, to], …], day 0 is Sunday, minutes of the broker's
-- day, `to` not included. Without an offset the clock is that of the source's zone.
CREATE TABLE quote_sessions (
    source text NOT NULL,
    symbol text NOT NULL,
    utc_offset_s integer,
    sessions jsonb NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (source, symbol)
);
