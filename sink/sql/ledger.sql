-- The ledger of minutes: `sink/ledger.py`.

-- name: lock_ledger
SELECT pg_advisory_xact_lock(%(key)s);

-- name: cut_ledger
-- Take the range out of ranges of these states; what is left of them beside it stays.
WITH cut AS (
    DELETE FROM minute_ledger
    WHERE
        source = %(source)s AND symbol = %(symbol)s AND state = ANY(%(states)s::text[])
        AND begins < %(ends)s AND ends > %(begins)s
    RETURNING *
)

INSERT INTO minute_ledger (source, symbol, state, begins, ends, expected, tried_at, error)
SELECT source, symbol, state, begins, %(begins)s::timestamptz, expected, tried_at, error FROM cut WHERE begins < %(begins)s
UNION ALL
SELECT source, symbol, state, %(ends)s::timestamptz, ends, expected, tried_at, error FROM cut WHERE ends > %(ends)s
ON CONFLICT (source, symbol, state, begins) DO UPDATE SET ends = greatest(minute_ledger.ends, excluded.ends);

-- name: mark_ledger
-- Put a range in, as one with those of its state that it touches.
WITH touching AS (
    DELETE FROM minute_ledger
    WHERE
        source = %(source)s AND symbol = %(symbol)s AND state = %(state)s
        AND begins <= %(ends)s AND ends >= %(begins)s
    RETURNING begins, ends
)

INSERT INTO minute_ledger (source, symbol, state, begins, ends)
SELECT
    %(source)s, %(symbol)s, %(state)s, least(min(begins), %(begins)s::timestamptz),
    greatest(max(ends), %(ends)s::timestamptz)
FROM touching
ON CONFLICT (source, symbol, state, begins) DO UPDATE SET ends = greatest(minute_ledger.ends, excluded.ends);

-- name: insert_holes
INSERT INTO minute_ledger (source, symbol, state, begins, ends, expected, tried_at, error)
VALUES (%(source)s, %(symbol)s, %(state)s, %(begins)s, %(ends)s, %(expected)s, %(tried_at)s, %(error)s)
ON CONFLICT (source, symbol, state, begins) DO UPDATE
SET ends = excluded.ends, expected = excluded.expected, tried_at = excluded.tried_at, error = excluded.error;

-- name: apply_sessions
INSERT INTO quote_sessions AS q (source, symbol, utc_offset_s, sessions, received_at)
VALUES (%(source)s, %(symbol)s, %(utc_offset_s)s, %(sessions)s, %(received)s)
ON CONFLICT (source, symbol) DO UPDATE
SET utc_offset_s = excluded.utc_offset_s, sessions = excluded.sessions, received_at = excluded.received_at
WHERE excluded.received_at >= q.received_at;

-- name: ledger_ranges
SELECT source, symbol, state, begins, ends, expected, tried_at, error
FROM minute_ledger
WHERE
    begins < %(to)s AND ends > %(from_)s AND state = ANY(%(states)s::text[])
    AND (%(symbol)s::text IS NULL OR symbol = %(symbol)s) AND (%(source)s::text IS NULL OR source = %(source)s)
ORDER BY source, symbol, begins;

-- name: done_beside_holes
-- What a sender has sent whole, beside what is asked for with a minute before and after it.
SELECT n.source, n.symbol, n.begins, n.ends
FROM minute_ledger AS l
JOIN minute_ledger AS n
    ON n.source = l.source AND n.symbol = l.symbol AND n.state = 'none'
    AND n.begins <= l.ends + interval '1 minute' AND n.ends >= l.begins - interval '1 minute'
WHERE l.state = ANY(%(states)s::text[]) AND l.begins < %(to)s AND l.ends > %(from_)s;

-- name: quote_sessions
SELECT source, symbol, utc_offset_s, sessions
FROM quote_sessions
WHERE (%(symbol)s::text IS NULL OR symbol = %(symbol)s) AND (%(source)s::text IS NULL OR source = %(source)s);

-- name: filled_ranges
-- Those that are wanted, or could not be filled, and have candles by now.
SELECT l.source, l.symbol, l.begins, l.ends
FROM minute_ledger AS l
WHERE
    l.state IN ('wanted', 'failed')
    AND EXISTS (
        SELECT FROM market_data AS m
        WHERE m.symbol = l.symbol AND m.timeframe = 'M1' AND m.source = l.source AND m.ts >= l.begins AND m.ts < l.ends
            AND m.origin = 'ticks'
    )
ORDER BY l.source, l.symbol, l.begins
LIMIT %(most)s;

-- name: take_late
-- Those of transactions that are not over stay for the next time.
DELETE FROM late_minutes AS l
USING (SELECT symbol, source FROM late_minutes ORDER BY symbol, source LIMIT %(most)s FOR UPDATE SKIP LOCKED) AS taken
WHERE l.symbol = taken.symbol AND l.source = taken.source
RETURNING l.symbol, l.source, l.oldest;

-- name: note_late
-- Have the time looked at again.
INSERT INTO late_minutes AS l (symbol, source, oldest) VALUES (%(symbol)s, %(source)s, %(begins)s)
ON CONFLICT (symbol, source) DO UPDATE SET oldest = EXCLUDED.oldest WHERE EXCLUDED.oldest < l.oldest;

-- name: forget_wanted
DELETE FROM minute_ledger WHERE state IN ('wanted', 'failed') AND ends <= %(before)s;

-- name: sources_of_symbol
SELECT source FROM candle_series WHERE symbol = %(symbol)s
UNION
SELECT source FROM quote_sessions WHERE symbol = %(symbol)s
ORDER BY source;

-- name: candle_runs
-- Minutes with ticks, those in a row as one range.
WITH runs AS (
    SELECT ts, ts - row_number() OVER (ORDER BY ts) * interval '1 minute' AS run
    FROM market_data
    WHERE
        symbol = %(symbol)s AND timeframe = 'M1' AND source = %(source)s AND origin = 'ticks'
        AND ts >= %(from_)s AND ts < %(to)s
)

SELECT min(ts), max(ts) + interval '1 minute'
FROM runs
GROUP BY run
ORDER BY 1;
