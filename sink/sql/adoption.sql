-- Taking over a table of candles that was there before: tickpipe/database.py. What stands in braces is put in there.

-- name: has_adoption
SELECT to_regclass('tickpipe_adoption') IS NOT NULL;

-- name: older_columns
-- Name and type of each column of a table.
SELECT a.attname::text, format_type(a.atttypid, NULL)
FROM pg_attribute AS a
WHERE a.attrelid = to_regclass(%(table)s) AND a.attnum > 0 AND NOT a.attisdropped;

-- name: create_adoption
CREATE TABLE tickpipe_adoption (
    source text NOT NULL,
    timeframes text[],
    -- What was in the schema before, and what the migrations added: as types and names for DROP.
    objects_before text[] NOT NULL,
    own_objects text[],
    -- The next part of the older table, and the next block of it.
    part integer NOT NULL DEFAULT 0,
    block bigint NOT NULL DEFAULT 0,
    rows bigint NOT NULL DEFAULT 0,
    stored bigint NOT NULL DEFAULT 0,
    duplicates bigint NOT NULL DEFAULT 0,
    zeros bigint NOT NULL DEFAULT 0,
    unfit bigint NOT NULL DEFAULT 0,
    other_timeframes bigint NOT NULL DEFAULT 0,
    is_done boolean NOT NULL DEFAULT false
);

-- name: begin_adoption
INSERT INTO tickpipe_adoption (source, timeframes, objects_before)
VALUES (%(source)s, %(timeframes)s, %(objects)s);

-- name: adoption
SELECT source, timeframes, part, block, rows, stored, duplicates, zeros, unfit, other_timeframes, is_done
FROM tickpipe_adoption;

-- name: lock_adoption
SELECT part, block, is_done FROM tickpipe_adoption FOR UPDATE;

-- name: note_adopted
UPDATE tickpipe_adoption
SET
    part = %(part)s, block = %(block)s, rows = rows + %(rows)s, stored = stored + %(stored)s,
    duplicates = duplicates + %(duplicates)s, zeros = zeros + %(zeros)s, unfit = unfit + %(unfit)s,
    other_timeframes = other_timeframes + %(other_timeframes)s;

-- name: finish_adoption
UPDATE tickpipe_adoption SET is_done = true;

-- name: schema_objects
-- Tables, views, types and functions of the schema, without those of extensions.
SELECT CASE o.type WHEN 'composite type' THEN 'type' ELSE o.type END || ' ' || o.identity
FROM (
    SELECT 'pg_class'::regclass AS classid, c.oid FROM pg_class AS c
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v', 'c')
    UNION ALL
    SELECT 'pg_proc'::regclass, p.oid FROM pg_proc AS p WHERE p.pronamespace = current_schema()::regnamespace
) AS f
CROSS JOIN LATERAL pg_identify_object(f.classid, f.oid, 0) AS o
WHERE NOT EXISTS (
    SELECT FROM pg_depend AS d WHERE d.classid = f.classid AND d.objid = f.oid AND d.deptype = 'e'
)
ORDER BY 1;

-- name: note_own_objects
UPDATE tickpipe_adoption
SET own_objects = ARRAY(SELECT o FROM unnest(%(objects)s::text[]) AS o WHERE o <> ALL (objects_before))
WHERE own_objects IS NULL;

-- name: own_objects
SELECT coalesce(own_objects, '{}') FROM tickpipe_adoption;

-- name: older_indexes
-- Their names are those that a migration gives; constraints are renamed with them.
SELECT c.relname::text
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE i.indrelid = to_regclass(%(table)s);

-- name: older_parts
-- The tables that its rows lie in, in order; of a table without partitions and chunks also its blocks.
WITH RECURSIVE parts AS (
    SELECT to_regclass(%(table)s)::oid AS oid
    UNION ALL
    SELECT i.inhrelid FROM pg_inherits AS i JOIN parts AS p ON i.inhparent = p.oid
)
SELECT
    n.nspname::text, c.relname::text, c.oid = to_regclass(%(table)s),
    CASE WHEN count(*) OVER () = 1 THEN pg_relation_size(c.oid) / current_setting('block_size')::bigint END
FROM parts AS p
JOIN pg_class AS c ON c.oid = p.oid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind <> 'p'
ORDER BY c.oid;

-- name: adoptable_rows
-- Rows as market_data has them. fits: what its CHECKs ask of a bar.
SELECT
    g.*,
    coalesce(
        g.symbol <> '' AND g.timeframe <> '' AND g.low > '-Infinity' AND g.high < 'Infinity'
        AND g.open BETWEEN g.low AND g.high AND g.close BETWEEN g.low AND g.high
        AND g.volume >= 0 AND coalesce(g.real_volume >= 0 AND g.real_volume < 'Infinity', true)
        AND g.ts >= '1970-01-01 00:00:00+00' AND g.ts < '2100-01-01 00:00:00+00'
        AND (g.timeframe <> 'M1' OR date_bin('1 minute', g.ts, '2000-01-01 00:00:00+00') = g.ts),
        false
    ) AS fits,
    %(timeframes)s::text[] IS NULL OR coalesce(g.timeframe = ANY (%(timeframes)s::text[]), false) AS is_wanted,
    coalesce(g.open = 0 AND g.high = 0 AND g.low = 0 AND g.close = 0, false) AS is_zero
FROM (
    SELECT
        o.ts::timestamptz AS ts, o.symbol::text AS symbol, o.timeframe::text AS timeframe,
        o.open::double precision AS open, o.high::double precision AS high, o.low::double precision AS low,
        o.close::double precision AS close, ({volume})::bigint AS volume,
        ({real_volume})::double precision AS real_volume, ({spread})::integer AS spread
    FROM {table} AS o
    WHERE {range}
) AS g

-- name: adopt_rows
-- Of several rows with one key the one with the most ticks.
WITH given AS MATERIALIZED ({rows}),

fitting AS (
    SELECT DISTINCT ON (symbol, timeframe, ts) *
    FROM given
    WHERE fits AND is_wanted
    ORDER BY symbol, timeframe, ts, volume DESC
),

written AS (
    INSERT INTO market_data AS m (
        ts, symbol, timeframe, open, high, low, close, volume, real_volume, spread, source, origin, closed
    )
    SELECT ts, symbol, timeframe, open, high, low, close, volume, real_volume, spread, %(source)s, 'broker', true
    FROM fitting
    ON CONFLICT (symbol, timeframe, ts, source) DO UPDATE
    SET
        open = EXCLUDED.open, high = EXCLUDED.high, low = EXCLUDED.low, close = EXCLUDED.close,
        volume = EXCLUDED.volume, real_volume = EXCLUDED.real_volume, spread = EXCLUDED.spread
    -- What was folded from ticks stays.
    WHERE m.origin = 'broker' AND EXCLUDED.volume > m.volume
    RETURNING xmax = 0 AS is_new
)

SELECT
    count(*) AS rows,
    (SELECT count(*) FROM written WHERE is_new) AS stored,
    count(*) FILTER (WHERE fits AND is_wanted) - (SELECT count(*) FROM written WHERE is_new) AS duplicates,
    count(*) FILTER (WHERE is_zero AND fits AND is_wanted) AS zeros,
    count(*) FILTER (WHERE NOT fits AND is_wanted) AS unfit,
    count(*) FILTER (WHERE NOT is_wanted) AS other_timeframes
FROM given

-- name: count_adoptable
-- The same numbers before anything is changed.
WITH given AS MATERIALIZED ({rows}),

keys AS (SELECT DISTINCT symbol, timeframe, ts FROM given WHERE fits AND is_wanted)

SELECT
    count(*) AS rows,
    (SELECT count(*) FROM keys) AS stored,
    count(*) FILTER (WHERE fits AND is_wanted) - (SELECT count(*) FROM keys) AS duplicates,
    count(*) FILTER (WHERE is_zero AND fits AND is_wanted) AS zeros,
    count(*) FILTER (WHERE NOT fits AND is_wanted) AS unfit,
    count(*) FILTER (WHERE NOT is_wanted) AS other_timeframes
FROM given

-- name: count_not_adopted
-- Candles that came after the adoption.
SELECT count(*) FROM market_data AS m, tickpipe_adoption AS a WHERE m.origin <> 'broker' OR m.source <> a.source;
