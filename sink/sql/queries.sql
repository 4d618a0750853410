-- Every statement of the sink, by name. Which candle replaces which is `candle_verdict` of the first migration, which
-- the statements call; marketdata/rule.py says it in Python and the tests hold the two together.

-- name: session
-- The process of the session that answers, and whether its server is a standby.
SELECT pg_catalog.pg_backend_pid(), pg_catalog.pg_is_in_recovery();

-- name: state_session
-- For the session or, where `is_local`, for the transaction. First of all the role's own time limit, which may be too
-- short for what follows. Names are qualified because the search_path is not stated yet. What this server does not know
-- is left out; a role that turned off synchronous_commit would lose rows whose offsets are committed, and one that is a
-- replica the triggers.
SELECT pg_catalog.set_config('statement_timeout', '0', {is_local});
SELECT pg_catalog.set_config(s.name, s.setting, {is_local})
FROM (
    SELECT
        key AS name,
        CASE key
            -- TimescaleDB's functions are where it was created, which may be another schema than ours.
            WHEN 'search_path' THEN pg_catalog.concat_ws(', ', value, (
                SELECT pg_catalog.quote_ident(n.nspname)
                FROM pg_catalog.pg_extension AS e
                JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace
                WHERE e.extname OPERATOR(pg_catalog.=) 'timescaledb' AND n.nspname OPERATOR(pg_catalog.<>) value
            ))
            ELSE value
        END AS setting
    FROM pg_catalog.jsonb_each_text({settings})
    UNION ALL
    SELECT 'synchronous_commit', 'on' WHERE pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off'
    UNION ALL
    SELECT 'session_replication_role', 'origin'
    WHERE pg_catalog.current_setting('session_replication_role') OPERATOR(pg_catalog.<>) 'origin'
) AS s
WHERE pg_catalog.current_setting(s.name, true) IS NOT NULL;

-- name: is_standby
SELECT pg_catalog.pg_is_in_recovery();

-- name: ping
SELECT 1;

-- name: ping_write
-- A write, though of nothing: a server that is a standby by now would still answer what only reads.
DELETE FROM sink_progress WHERE false;

-- name: database_id
-- The same for a standby and after a failover; another for a copy, a restored dump, another database of the server or
-- another schema.
SELECT substr(md5(concat_ws('/', system_identifier, oid, nullif(current_schema(), 'public'))), 1, 12)
FROM pg_control_system(), pg_database
WHERE datname = current_database();

-- name: stored_progress
SELECT next_offset FROM sink_progress WHERE log = %(log)s AND partition = %(partition)s FOR UPDATE;

-- name: set_progress
INSERT INTO sink_progress (log, partition, next_offset) VALUES (%(log)s, %(partition)s, %(next)s)
ON CONFLICT (log, partition) DO UPDATE SET next_offset = excluded.next_offset;

-- name: forget_progress
DELETE FROM sink_progress WHERE log = %(log)s;

-- name: spans
-- Parts of the log that were read: a part of the statements that move the progress over them.
SELECT *
FROM unnest(%(logs)s::text[], %(partitions)s::integer[], %(firsts)s::bigint[], %(nexts)s::bigint[])
    AS s (log, partition, first, next);

-- name: advance_progress
-- Returns those that begin after the progress, which did not move.
WITH span AS ({spans}),

moved AS (
    UPDATE sink_progress AS p
    SET next_offset = greatest(p.next_offset, s.next)
    FROM span AS s
    WHERE p.log = s.log AND p.partition = s.partition AND p.next_offset >= s.first
    RETURNING p.log, p.partition
)
SELECT s.log, s.partition
FROM span AS s
WHERE NOT EXISTS (SELECT FROM moved AS m WHERE m.log = s.log AND m.partition = s.partition);

-- name: incoming_candles
-- The rows of a batch: a part of the statements below, which name it in braces (`sink/db/session.py`). `wanted` are the
-- offsets that the stored candle should come to hold: more than `offsets` when a batch had several folds.
SELECT *
FROM unnest(
    %(ts)s::timestamptz[], %(symbol)s::text[], %(timeframe)s::text[], %(open)s::float8[], %(high)s::float8[],
    %(low)s::float8[], %(close)s::float8[], %(volume)s::int8[], %(real_volume)s::float8[], %(spread)s::int4[],
    %(source)s::text[], %(closed)s::bool[], %(first_tick)s::timestamptz[], %(last_tick)s::timestamptz[],
    %(log)s::text[], %(offsets)s::int8multirange[], %(received_at)s::timestamptz[], %(folded_at)s::timestamptz[],
    %(wanted)s::int8multirange[]
) AS c (
    ts, symbol, timeframe, open, high, low, close, volume, real_volume, spread, source, closed, first_tick, last_tick,
    log, offsets, received_at, folded_at, wanted
);

-- name: incoming_bars
SELECT *
FROM unnest(
    %(source)s::text[], %(symbol)s::text[], %(timeframe)s::text[], %(ts)s::timestamptz[], %(open)s::float8[],
    %(high)s::float8[], %(low)s::float8[], %(close)s::float8[], %(volume)s::int8[], %(real_volume)s::float8[],
    %(spread)s::int4[], %(closed)s::bool[], %(received_at)s::timestamptz[]
) AS b (
    source, symbol, timeframe, ts, open, high, low, close, volume, real_volume, spread, closed, received_at
);

-- name: append_candles
-- Straight into the table: of candles of which nothing is stored there is nothing to judge.
COPY market_data (
    ts, symbol, timeframe, open, high, low, close, volume, real_volume, spread, source, closed, first_tick, last_tick,
    log, offsets, received_at, folded_at, origin
) FROM STDIN (FORMAT binary);

-- name: newest_stored
-- The newest row of each symbol, timeframe and source between two times of its own. The bounds of all of them spare a hypertable the
-- search of every chunk.
SELECT k.symbol, k.timeframe, k.source, newest.ts
FROM unnest(
    %(symbols)s::text[], %(timeframes)s::text[], %(sources)s::text[], %(firsts)s::timestamptz[],
    %(lasts)s::timestamptz[]
) AS k (symbol, timeframe, source, first_ts, last_ts)
CROSS JOIN LATERAL (
    SELECT m.ts
    FROM market_data AS m
    WHERE m.symbol = k.symbol AND m.timeframe = k.timeframe AND m.source = k.source
        AND m.ts BETWEEN k.first_ts AND k.last_ts AND m.ts BETWEEN %(first_ts)s AND %(last_ts)s
    ORDER BY m.ts DESC
    LIMIT 1
) AS newest;

-- name: reach_beyond
-- Whether a stored candle of this batch names offsets that the log was not known to reach.
WITH incoming_candles AS MATERIALIZED ({incoming_candles})

SELECT EXISTS (
    SELECT FROM incoming_candles AS i
    JOIN market_data AS m
        ON m.symbol = i.symbol AND m.timeframe = i.timeframe AND m.ts = i.ts AND m.source = i.source
    WHERE m.log = %(own_log)s AND m.offsets && %(beyond)s::text::int8multirange
        AND m.ts BETWEEN %(first_ts)s AND %(last_ts)s
);

-- name: disown_candles
-- The log ends before the stored offsets: it was re-created, and what is stored belongs to a log that is gone.
WITH incoming_candles AS MATERIALIZED ({incoming_candles})

UPDATE market_data AS m
SET log = m.log || ' (gone)'
FROM incoming_candles AS i
WHERE m.symbol = i.symbol AND m.timeframe = i.timeframe AND m.ts = i.ts AND m.source = i.source
    AND m.log = %(own_log)s AND m.offsets && %(beyond)s::text::int8multirange
    AND m.ts BETWEEN %(first_ts)s AND %(last_ts)s;

-- name: rows_beyond
-- How many rows name records that the log does not reach, and the first and last time of them, which spare a hypertable
-- the decompression of all other chunks.
SELECT count(*), min(ts), max(ts)
FROM market_data
WHERE log = %(log)s AND offsets && %(beyond)s::text::int8multirange;

-- name: disown_beyond
UPDATE market_data
SET log = log || ' (gone)'
WHERE log = %(log)s AND offsets && %(beyond)s::text::int8multirange AND ts BETWEEN %(first_ts)s AND %(last_ts)s;

-- name: drop_refolds_beyond
DELETE FROM pending_refolds WHERE log = %(log)s AND offsets && %(beyond)s::text::int8multirange;

-- name: store_candles
-- Judges the candles of a batch by what is stored, and writes those that win. What is judged `ignored` is never touched,
-- so a replay writes nothing. Both sinks of a rebalance may be at it: the row is locked, then judged again as it is.
-- Sorted, so that two transactions lock in one order. `incomparable`: the log cannot prove these offsets, so they decide
-- nothing. Nothing is written when `is_held`:
--   where it may ask, because stored candles of the log that is read here name offsets that the incoming ones do not, and
--   that the log reaches as far has to be asked; ordinary flow, whose last candle of a minute repeats the offsets of the
--   one before, asks nothing;
--   where it is alone, a transaction of its own, because minutes may have to be folded again, logs meet, or the progress
--   is behind.
-- The progress, of such a transaction alone, moves last, and only when all was written that should be.
-- Each row is found by its key. Of the newest minute the planner expects next to no rows, so it would take the index of
-- times and search all symbols' rows for each candle; of a span whose ends it does not know it expects many. OFFSET
-- keeps the search in a place of its own, the sum gives a hash join the whole key, and the bounds of ts spare a hypertable
-- the search of every chunk.
WITH incoming_candles AS MATERIALIZED ({incoming_candles}),

span AS MATERIALIZED ({spans}),

judged AS MATERIALIZED (
    SELECT
        i.*, m.ts IS NOT NULL AND i.offsets IS DISTINCT FROM m.offsets AND i.log = %(own_log)s AS is_other,
        CASE WHEN m.ts IS NULL THEN 'inserted' ELSE candle_verdict(
            m.origin, m.log, m.offsets, m.closed, i.log, i.offsets, i.wanted, i.closed,
            (
                i.open, i.high, i.low, i.close, i.volume, i.real_volume, i.spread, i.first_tick, i.last_tick,
                i.received_at
            ) IS DISTINCT FROM (
                m.open, m.high, m.low, m.close, m.volume, m.real_volume, m.spread, m.first_tick, m.last_tick,
                m.received_at
            )
        ) END AS verdict
    FROM incoming_candles AS i
    LEFT JOIN LATERAL (
        SELECT * FROM market_data AS s
        WHERE s.symbol = i.symbol AND s.timeframe = i.timeframe AND s.source = i.source AND s.ts BETWEEN i.ts AND i.ts
        OFFSET 0
    ) AS m ON true
),

held AS MATERIALIZED (
    SELECT
        (%(may_ask)s AND bool_or(is_other AND verdict IN ('ignored', 'closed', 'refold')))
        OR (%(is_alone)s AND (
            bool_or(verdict IN ('refold', 'cross_log'))
            OR EXISTS (
                SELECT FROM span AS s
                WHERE NOT EXISTS (
                    SELECT FROM sink_progress AS p
                    WHERE p.log = s.log AND p.partition = s.partition AND p.next_offset >= s.first
                )
            )
        )) AS is_held
    FROM judged
),

applied AS (
    INSERT INTO market_data AS m (
        ts, symbol, timeframe, open, high, low, close, volume, real_volume, spread, source, origin, closed,
        first_tick, last_tick, log, offsets, received_at, folded_at, stored_at
    )
    SELECT
        ts, symbol, timeframe, open, high, low, close, volume, real_volume, spread, source, 'ticks', closed,
        first_tick, last_tick, log, offsets, received_at, folded_at, clock_timestamp()
    FROM judged
    WHERE verdict NOT IN ('ignored', 'closed') AND NOT (SELECT is_held FROM held)
    ORDER BY symbol, timeframe, ts, source
    ON CONFLICT (symbol, timeframe, ts, source) DO UPDATE
    SET
        open = EXCLUDED.open, high = EXCLUDED.high, low = EXCLUDED.low, close = EXCLUDED.close,
        volume = EXCLUDED.volume, real_volume = EXCLUDED.real_volume, spread = EXCLUDED.spread,
        origin = EXCLUDED.origin, closed = EXCLUDED.closed OR (m.closed AND m.origin = 'ticks'),
        first_tick = EXCLUDED.first_tick, last_tick = EXCLUDED.last_tick,
        log = EXCLUDED.log, offsets = EXCLUDED.offsets,
        received_at = EXCLUDED.received_at, folded_at = EXCLUDED.folded_at, stored_at = EXCLUDED.stored_at
    WHERE
        CASE candle_verdict(
            m.origin, CASE WHEN NOT %(incomparable)s THEN m.log END, m.offsets, m.closed,
            EXCLUDED.log, EXCLUDED.offsets, EXCLUDED.offsets, EXCLUDED.closed,
            (
                EXCLUDED.open, EXCLUDED.high, EXCLUDED.low, EXCLUDED.close, EXCLUDED.volume, EXCLUDED.real_volume,
                EXCLUDED.spread, EXCLUDED.first_tick, EXCLUDED.last_tick, EXCLUDED.received_at
            ) IS DISTINCT FROM (
                m.open, m.high, m.low, m.close, m.volume, m.real_volume, m.spread, m.first_tick, m.last_tick,
                m.received_at
            )
        )
            WHEN 'replaced' THEN true
            WHEN 'closed' THEN EXCLUDED.offsets = m.offsets
            WHEN 'cross_log' THEN candle_outweighs(EXCLUDED.volume, EXCLUDED.log, m.volume, m.log, %(own_log)s)
            ELSE false
        END
    RETURNING true
),

closed AS (
    UPDATE market_data AS m
    SET closed = true
    FROM judged AS i
    WHERE
        -- Of such an expression half is expected to be true, of a plain comparison next to none.
        CASE i.verdict WHEN 'closed' THEN true ELSE false END AND NOT (SELECT is_held FROM held)
        AND m.symbol = i.symbol AND m.timeframe = i.timeframe AND m.source = i.source
        AND m.ts BETWEEN i.ts AND i.ts AND m.ts + interval '0' = i.ts
        AND m.ts BETWEEN (SELECT %(first_ts)s::timestamptz) AND (SELECT %(last_ts)s::timestamptz)
        AND candle_verdict(
            m.origin, m.log, m.offsets, m.closed, i.log, i.offsets, i.wanted, i.closed, false
        ) = 'closed'
    RETURNING true
),

moved AS (
    UPDATE sink_progress AS p
    SET next_offset = greatest(p.next_offset, s.next)
    FROM span AS s
    WHERE p.log = s.log AND p.partition = s.partition AND p.next_offset >= s.first
        AND NOT (SELECT is_held FROM held)
        -- Both are done first, so that sinks that briefly share a partition wait for each other as little as possible.
        AND (SELECT count(*) FROM applied) = (SELECT count(*) FROM judged WHERE verdict NOT IN ('ignored', 'closed'))
        AND (SELECT count(*) FROM closed) >= 0
    RETURNING true
)

SELECT
    verdict, count(*)::int, (SELECT is_held FROM held), (SELECT count(*) FROM applied)::int,
    (SELECT count(*) FROM moved)::int
FROM judged
GROUP BY verdict;

-- name: close_overdue
-- Rows whose period was over at `over`, up to which the log is folded and stored; who waits for a refold is left to it.
-- At most so many, whose locks live candles of the same rows wait for. By their places, because a join by the key would
-- search all rows of a minute for each of them.
UPDATE market_data AS m
SET closed = true
FROM (
    SELECT o.tableoid AS place_table, o.ctid AS place
    FROM unnest(%(timeframes)s::text[], %(widths)s::interval[]) AS t (name, width)
    JOIN market_data AS o ON o.timeframe = t.name
    WHERE NOT o.closed AND o.origin = 'ticks'
        AND o.ts >= %(since)s AND o.ts < %(over)s AND o.ts + t.width <= %(over)s AND o.stored_at <= %(untouched)s
        AND NOT EXISTS (
            SELECT FROM pending_refolds AS p
            WHERE p.source = o.source AND p.symbol = o.symbol AND p.timeframe = o.timeframe AND p.ts = o.ts
        )
    LIMIT %(most)s
) AS o
WHERE m.tableoid = o.place_table AND m.ctid = o.place AND NOT m.closed AND m.ts >= %(since)s AND m.ts < %(over)s;

-- name: request_refolds
-- Whatever is not contained in the stored candle by now was neither wider nor narrower.
WITH incoming_candles AS MATERIALIZED ({incoming_candles})

INSERT INTO pending_refolds AS p (source, symbol, timeframe, ts, log, offsets, closed, requested_at, updated_at)
SELECT
    i.source, i.symbol, i.timeframe, i.ts, i.log, m.offsets + i.wanted, m.closed OR i.closed,
    clock_timestamp(), clock_timestamp()
FROM incoming_candles AS i
JOIN market_data AS m
    ON m.symbol = i.symbol AND m.timeframe = i.timeframe AND m.ts = i.ts AND m.source = i.source
WHERE candle_verdict(m.origin, m.log, m.offsets, m.closed, i.log, i.offsets, i.wanted, i.closed, false) = 'refold'
    AND m.ts BETWEEN %(first_ts)s AND %(last_ts)s
ORDER BY i.source, i.symbol, i.timeframe, i.ts
ON CONFLICT (source, symbol, timeframe, ts) DO UPDATE
SET
    offsets = CASE WHEN p.log = EXCLUDED.log THEN p.offsets + EXCLUDED.offsets ELSE EXCLUDED.offsets END,
    log = EXCLUDED.log, closed = p.closed OR EXCLUDED.closed, updated_at = EXCLUDED.updated_at;

-- name: apply_bars
-- A bar that was still forming never replaces one that was over; of two alike the one that came later stays.
WITH incoming_bars AS MATERIALIZED ({incoming_bars})

INSERT INTO broker_bars AS b (
    source, symbol, timeframe, ts, open, high, low, close, volume, real_volume, spread, closed, received_at, stored_at
)
SELECT
    source, symbol, timeframe, ts, open, high, low, close, volume, real_volume, spread, closed, received_at,
    clock_timestamp()
FROM incoming_bars
ORDER BY source, symbol, timeframe, ts
ON CONFLICT (source, symbol, timeframe, ts) DO UPDATE
SET
    open = EXCLUDED.open, high = EXCLUDED.high, low = EXCLUDED.low, close = EXCLUDED.close, volume = EXCLUDED.volume,
    real_volume = EXCLUDED.real_volume, spread = EXCLUDED.spread, closed = EXCLUDED.closed,
    received_at = EXCLUDED.received_at, stored_at = EXCLUDED.stored_at
WHERE (EXCLUDED.closed, EXCLUDED.received_at) >= (b.closed, b.received_at) AND (
    EXCLUDED.open, EXCLUDED.high, EXCLUDED.low, EXCLUDED.close, EXCLUDED.volume, EXCLUDED.real_volume, EXCLUDED.spread,
    EXCLUDED.closed, EXCLUDED.received_at
) IS DISTINCT FROM (
    b.open, b.high, b.low, b.close, b.volume, b.real_volume, b.spread, b.closed, b.received_at
);

-- name: fill_from_bars
-- From what broker_bars holds by now, so that an older bar cannot come back; never over a folded candle.
INSERT INTO market_data AS m (
    ts, symbol, timeframe, open, high, low, close, volume, real_volume, spread, source, origin, closed, received_at,
    stored_at
)
SELECT
    b.ts, b.symbol, b.timeframe, b.open, b.high, b.low, b.close, b.volume, b.real_volume, b.spread, b.source, 'broker',
    b.closed, b.received_at, clock_timestamp()
FROM unnest(%(source)s::text[], %(symbol)s::text[], %(timeframe)s::text[], %(ts)s::timestamptz[])
    AS i (source, symbol, timeframe, ts)
JOIN broker_bars AS b USING (source, symbol, timeframe, ts)
ORDER BY b.symbol, b.timeframe, b.ts, b.source
ON CONFLICT (symbol, timeframe, ts, source) DO UPDATE
SET
    open = EXCLUDED.open, high = EXCLUDED.high, low = EXCLUDED.low, close = EXCLUDED.close, volume = EXCLUDED.volume,
    real_volume = EXCLUDED.real_volume, spread = EXCLUDED.spread, closed = EXCLUDED.closed,
    received_at = EXCLUDED.received_at, stored_at = EXCLUDED.stored_at
WHERE m.origin = 'broker' AND (
    EXCLUDED.open, EXCLUDED.high, EXCLUDED.low, EXCLUDED.close, EXCLUDED.volume, EXCLUDED.real_volume, EXCLUDED.spread,
    EXCLUDED.closed
) IS DISTINCT FROM (m.open, m.high, m.low, m.close, m.volume, m.real_volume, m.spread, m.closed);

-- name: due_refolds
-- Logs, and in each the partitions where proofs begin, that have been quiet, or have waited, for long enough (seconds):
-- while the second copy of a day arrives all of them wait, so that one pass over the log answers all of it.
SELECT log, position_partition(lower(offsets)) AS partition
FROM pending_refolds
GROUP BY 1, 2
HAVING clock_timestamp() - max(updated_at) >= make_interval(secs => %(quiet_seconds)s)
    OR clock_timestamp() - min(requested_at) >= make_interval(secs => %(patience_seconds)s)
ORDER BY 1, 2;

-- name: count_refolds
SELECT count(*) FROM pending_refolds;

-- name: try_lock_refolds
SELECT pg_try_advisory_lock(hashtext(%(log)s), %(partition)s);

-- name: unlock_refolds
SELECT pg_advisory_unlock(hashtext(%(log)s), %(partition)s);

-- name: take_refolds
-- In the order of the log, so that rounds of a long backlog read different parts of it.
SELECT
    p.source, p.symbol, p.timeframe, p.ts, p.closed OR coalesce(m.closed AND m.origin = 'ticks', false),
    CASE WHEN m.log = p.log THEN p.offsets + m.offsets ELSE p.offsets END
FROM pending_refolds AS p
LEFT JOIN market_data AS m
    ON m.symbol = p.symbol AND m.timeframe = p.timeframe AND m.ts = p.ts AND m.source = p.source
WHERE p.log = %(log)s AND position_partition(lower(p.offsets)) = %(partition)s
ORDER BY lower(p.offsets)
LIMIT %(limit)s;

-- name: finish_refold
DELETE FROM pending_refolds
WHERE source = %(source)s AND symbol = %(symbol)s AND timeframe = %(timeframe)s AND ts = %(ts)s
    AND log = %(log)s AND offsets <@ %(offsets)s::text::int8multirange;

-- name: postpone_refold
-- More came while the minute was folded: it waits again.
UPDATE pending_refolds SET requested_at = clock_timestamp()
WHERE source = %(source)s AND symbol = %(symbol)s AND timeframe = %(timeframe)s AND ts = %(ts)s;

-- name: count_stored
SELECT count(*)
FROM market_data
WHERE origin = 'ticks'
    AND (%(symbol)s::text IS NULL OR symbol = %(symbol)s) AND (%(source)s::text IS NULL OR source = %(source)s)
    AND (%(from_)s::timestamptz IS NULL OR ts >= %(from_)s) AND (%(to)s::timestamptz IS NULL OR ts < %(to)s);

-- name: copied_candles
COPY (SELECT source, symbol, ts, open, high, low, close, volume, real_volume, spread, closed FROM market_data)
TO STDOUT (FORMAT csv, HEADER);

-- name: stored_candles
SELECT
    m.ts, m.symbol, m.timeframe, m.open, m.high, m.low, m.close, m.volume, m.real_volume, m.spread, m.source, m.closed,
    m.first_tick, m.last_tick, m.log, m.offsets, m.received_at, p.ts IS NOT NULL
FROM market_data AS m
LEFT JOIN pending_refolds AS p USING (source, symbol, timeframe, ts)
WHERE m.origin = 'ticks'
    AND (%(symbol)s::text IS NULL OR m.symbol = %(symbol)s) AND (%(source)s::text IS NULL OR m.source = %(source)s)
    AND (%(from_)s::timestamptz IS NULL OR m.ts >= %(from_)s) AND (%(to)s::timestamptz IS NULL OR m.ts < %(to)s)
ORDER BY m.log, lower(m.offsets);

-- name: delete_candles
-- The rows of these keys, which are stored again in the same transaction.
DELETE FROM market_data AS m
USING unnest(%(sources)s::text[], %(symbols)s::text[], %(timeframes)s::text[], %(times)s::timestamptz[])
    AS k (source, symbol, timeframe, ts)
WHERE m.symbol = k.symbol AND m.timeframe = k.timeframe AND m.ts = k.ts AND m.source = k.source
    AND m.ts BETWEEN %(first_ts)s AND %(last_ts)s;

-- name: stored_proofs
-- What the rows of these keys hold of a log, or are going to hold, and whether they are of another log; in the order of
-- the keys.
SELECT
    coalesce(CASE WHEN m.log = %(log)s THEN m.offsets END, '{}')
        + coalesce(CASE WHEN p.log = %(log)s THEN p.offsets END, '{}'),
    coalesce(m.closed AND m.origin = 'ticks', false), coalesce(m.log <> %(log)s, false)
FROM unnest(%(sources)s::text[], %(symbols)s::text[], %(times)s::timestamptz[])
    WITH ORDINALITY AS k (source, symbol, ts, n)
LEFT JOIN market_data AS m
    ON m.symbol = k.symbol AND m.timeframe = %(timeframe)s AND m.ts = k.ts AND m.source = k.source
        AND m.ts BETWEEN %(first_ts)s AND %(last_ts)s
LEFT JOIN pending_refolds AS p
    ON p.source = k.source AND p.symbol = k.symbol AND p.timeframe = %(timeframe)s AND p.ts = k.ts
ORDER BY k.n;

-- name: minutes_from
SELECT nullif(minutes_from, '-infinity') FROM candle_settings;

-- name: edition
SELECT
    current_setting('server_version_num')::int / 10000,
    (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'),
    current_setting('timescaledb.license', true);

-- name: lock_migrations
SELECT pg_advisory_xact_lock(%(key)s);

-- name: schema_and_database
SELECT current_schema()::text, current_database()::text;

-- name: missing_privileges
-- What the role of this session may not do of what the sink does with our tables and views; those that are missing are
-- left out. Without USAGE nothing in the schema can be found by its name.
SELECT 'USAGE on the schema ' || %(schema)s
WHERE NOT has_schema_privilege(to_regnamespace(%(schema)s), 'USAGE')
UNION ALL
SELECT p.privilege || ' on ' || c.relname
FROM pg_class AS c
CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS p (privilege, number)
WHERE
    c.relnamespace = to_regnamespace(%(schema)s) AND NOT has_table_privilege(c.oid, p.privilege)
    AND (c.relname = ANY(%(tables)s) OR (c.relname = ANY(%(read)s) AND p.privilege = 'SELECT'))
ORDER BY 1;

-- name: server_clock
SELECT clock_timestamp();

-- name: sender_clocks
-- Of each source that was heard within a quarter of an hour: its last request, and the time of its newest tick.
SELECT s.source, max(s.last_seen), (
    SELECT max(m.last_tick) FROM market_data AS m
    WHERE m.source = s.source AND m.timeframe = 'M1' AND m.ts > now() - interval '3 days'
)
FROM sender_counts AS s
WHERE s.last_seen > now() - interval '15 minutes'
GROUP BY s.source;

-- name: has_schema
-- Not current_schema(), which is that of TimescaleDB where ours is missing.
SELECT to_regnamespace(%(schema)s) IS NOT NULL;

-- name: require_usage
-- Fails without USAGE on the schema, of which PostgreSQL otherwise says that nothing is there.
SELECT to_regclass(quote_ident(%(schema)s) || '.tickpipe_migrations');

-- name: has_migrations
-- Only those of our schema: behind it in the search_path may be that of TimescaleDB, with others' migrations in it.
-- to_regclass() would go on saying no to a session that has asked before, and waited for the lock since.
SELECT EXISTS (
    SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relname = 'tickpipe_migrations' AND nspname = current_schema()
);

-- name: create_migrations_table
CREATE TABLE IF NOT EXISTS tickpipe_migrations (
    name text PRIMARY KEY,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- name: applied_migrations
-- As JSON, because tables made before the first release have no such column.
SELECT name, to_jsonb(each) ->> 'sha256' FROM tickpipe_migrations AS each;

-- name: record_migration
INSERT INTO tickpipe_migrations (name, sha256) VALUES (%(name)s, %(sha256)s);

-- name: candles
SELECT ts, symbol, timeframe, open, high, low, close, volume, source
FROM market_data
WHERE symbol = %(symbol)s AND timeframe = %(timeframe)s AND ts >= %(from_)s AND ts < %(to)s
    AND (%(source)s::text IS NULL OR source = %(source)s)
ORDER BY ts, source;

-- name: known_symbols
SELECT DISTINCT symbol FROM candle_series ORDER BY symbol;

-- name: has_broker_bars
SELECT EXISTS (
    SELECT FROM broker_bars AS b
    WHERE b.timeframe = 'M1' AND (%(symbol)s::text IS NULL OR b.symbol = %(symbol)s)
);

-- name: newest_candles
SELECT m.symbol, m.source, m.ts, m.close, m.volume, m.closed, m.last_tick, m.stored_at
FROM (
    SELECT DISTINCT symbol FROM candle_series WHERE %(symbol)s::text IS NULL OR symbol = %(symbol)s
) AS s
CROSS JOIN LATERAL (
    SELECT * FROM market_data AS m
    WHERE m.symbol = s.symbol AND m.timeframe = 'M1'
    ORDER BY m.ts DESC, m.source
    LIMIT 1
) AS m
ORDER BY m.symbol;

-- name: query_1
-- The last 20 rows.
SELECT ts, symbol, timeframe, open, high, low, close, volume, source, origin, closed
FROM market_data
ORDER BY ts DESC, symbol, timeframe, source
LIMIT 20;

-- name: query_2
-- Rows and newest time per symbol over 24 hours.
SELECT symbol, count(*) AS rows, max(ts) AS newest
FROM market_data
WHERE ts >= now() - interval '24 hours'
GROUP BY symbol
ORDER BY symbol;

-- name: query_3
-- The newest row of every symbol and how many minutes ago it began, those included of which there are broker's bars alone.
-- The keys of broker_bars stand in order in its index, so each is found with one step from the one before it.
WITH RECURSIVE bars AS (
    SELECT ''::text AS source, ''::text AS symbol, ''::text AS timeframe
    UNION ALL
    SELECT n.source, n.symbol, n.timeframe
    FROM bars AS b
    CROSS JOIN LATERAL (
        SELECT k.source, k.symbol, k.timeframe FROM broker_bars AS k
        WHERE (k.source, k.symbol, k.timeframe) > (b.source, b.symbol, b.timeframe)
        ORDER BY k.source, k.symbol, k.timeframe
        LIMIT 1
    ) AS n
),

series AS (
    SELECT symbol, source, 'M1' AS timeframe FROM candle_series
    UNION
    SELECT symbol, source, timeframe FROM bars WHERE symbol <> ''
)

SELECT DISTINCT ON (m.symbol)
    m.symbol, m.ts AS newest, round(extract(epoch FROM now() - m.ts) / 60, 1) AS minutes_ago, m.timeframe, m.close,
    m.source, m.origin, m.closed
FROM series AS s
CROSS JOIN LATERAL (
    SELECT n.symbol, n.ts, n.timeframe, n.close, n.source, n.origin, n.closed FROM market_data AS n
    WHERE n.symbol = s.symbol AND n.timeframe = s.timeframe AND n.source = s.source
    ORDER BY n.ts DESC
    LIMIT 1
) AS m
ORDER BY m.symbol, m.ts DESC, m.timeframe = 'M1' DESC, m.source;

-- name: query_4
-- The table's structure.
SELECT
    column_name AS column,
    CASE WHEN data_type = 'USER-DEFINED' THEN udt_name ELSE data_type END AS type,
    is_nullable AS nullable,
    column_default AS default
FROM information_schema.columns
WHERE table_schema = current_schema() AND table_name = 'market_data'
ORDER BY ordinal_position;

-- name: query_5
-- Timeline per symbol.
SELECT symbol, min(ts) AS first, max(ts) AS last, count(*) AS rows
FROM market_data
GROUP BY symbol
ORDER BY symbol;
