-- What backup and restore ask of the schema.

-- name: table_columns
-- In order, with their types; empty when there is no such table.
SELECT attname::text, format_type(atttypid, atttypmod)
FROM pg_attribute
WHERE attrelid = to_regclass(%(table)s) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
ORDER BY attnum;

-- name: is_type
-- Whether the text is the name of a type and nothing else.
SELECT to_regtype(%(type)s) IS NOT NULL;

-- name: dump_estimate
-- Rows of a table and of its chunks, as the last ANALYZE knew.
WITH RECURSIVE parts AS (
    SELECT to_regclass(%(table)s)::oid AS oid
    UNION ALL
    SELECT i.inhrelid FROM pg_inherits AS i JOIN parts AS p ON i.inhparent = p.oid
)
SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint
FROM parts AS p
JOIN pg_class AS c ON c.oid = p.oid;

-- name: forget_stale
DELETE FROM stale_hours;

-- name: empty_tables
-- A trigger of market_data empties the tables of hours and days.
-- What was stored is stored no more, so the sinks begin with the first record that Kafka holds.
TRUNCATE
    market_data, broker_bars, pending_refolds, sender_counts, instruments, sink_progress, minute_ledger, quote_sessions,
    late_minutes;

-- name: empty_settings
DELETE FROM candle_settings;
