-- Minutes that are stored long after they were over, whoever stored them: there may be a hole beside them that the
-- ledger has not seen.

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- Of each symbol and source the oldest of them since the ledger last looked, which takes the row away.
CREATE TABLE late_minutes (
    symbol text NOT NULL,
    source text NOT NULL,
    oldest timestamptz NOT NULL,
    PRIMARY KEY (symbol, source)
);

-- The row is locked until the transaction ends, also where it stays as it is: the ledger skips rows that are locked, so
-- it never takes one away whose minutes it cannot see yet. The ledger does not look at the newest two minutes
-- (`sink/ledger.py`); half a minute is for clocks that differ.
CREATE FUNCTION note_late_minutes() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO late_minutes AS l (symbol, source, oldest)
    SELECT c.symbol, c.source, min(c.ts)
    FROM changed AS c
    WHERE c.timeframe = 'M1' AND c.ts < clock_timestamp() - interval '90 seconds'
    GROUP BY c.symbol, c.source
    ORDER BY 1, 2
    ON CONFLICT (symbol, source) DO UPDATE SET oldest = EXCLUDED.oldest WHERE EXCLUDED.oldest < l.oldest;
    RETURN NULL;
END
$$;

-- A minute that is stored already changes nothing beside it, so updates are not looked at.
CREATE TRIGGER note_late_minutes AFTER INSERT ON market_data
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_late_minutes();

-- For `pg_dump --data-only` into a migrated database, as with `stale_hours`.
CREATE TRIGGER skip_present_series BEFORE INSERT ON late_minutes
    FOR EACH ROW WHEN (pg_trigger_depth() = 0)
    EXECUTE FUNCTION skip_present_row('(t.symbol, t.source) = ($1.symbol, $1.source)');
