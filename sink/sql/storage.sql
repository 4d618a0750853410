-- How market_data is stored where TimescaleDB is; the statements about compression need its community edition.

-- name: relation_sizes
SELECT
    coalesce(sum(pg_total_relation_size(name)) FILTER (WHERE name NOT IN ('broker_bars', 'market_data')), 0)::bigint,
    coalesce(sum(pg_total_relation_size(name)) FILTER (WHERE name = 'broker_bars'), 0)::bigint,
    coalesce(sum(pg_total_relation_size(name)) FILTER (WHERE name = 'market_data'), 0)::bigint
FROM unnest(ARRAY['candle_hours', 'candle_days', 'stale_hours', 'broker_bars', 'market_data']) AS name
WHERE to_regclass(name) IS NOT NULL;

-- name: hypertable_size
SELECT hypertable_size('market_data');

-- name: chunks
SELECT count(*), count(*) FILTER (WHERE is_compressed)
FROM timescaledb_information.chunks
WHERE hypertable_schema = current_schema() AND hypertable_name = 'market_data';

-- name: policies
SELECT proc_name, schedule_interval::text, config::text
FROM timescaledb_information.jobs
WHERE hypertable_schema = current_schema() AND hypertable_name = 'market_data'
ORDER BY job_id;

-- name: compression_policy
-- Whole days.
SELECT (extract(epoch FROM (config ->> 'compress_after')::interval) / 86400)::int
FROM timescaledb_information.jobs
WHERE hypertable_schema = current_schema() AND hypertable_name = 'market_data' AND proc_name IN ('policy_compression', 'policy_columnstore');

-- name: is_compressible
SELECT compression_enabled FROM timescaledb_information.hypertables WHERE hypertable_schema = current_schema() AND hypertable_name = 'market_data';

-- name: make_compressible
-- A chunk's minutes of one symbol lie together, in order of time, so that a page opens few batches.
ALTER TABLE market_data SET (
    timescaledb.compress,
    timescaledb.compress_segmentby = 'symbol, source, timeframe',
    timescaledb.compress_orderby = 'ts'
);

-- name: remove_compression_policy
SELECT remove_compression_policy('market_data', if_exists => true);

-- name: add_compression_policy
SELECT add_compression_policy('market_data', compress_after => make_interval(days => %(days)s));

-- name: lock_policies
SELECT pg_advisory_xact_lock(%(key)s);
