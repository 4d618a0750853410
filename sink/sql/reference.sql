-- Who sends, and how instruments are quoted.

-- name: apply_sender_count
INSERT INTO sender_counts AS c (
    source, server, account, build, ea, version, address, counter, first_seen, last_seen, ticks, bars, late_ticks
)
SELECT
    %(source)s, %(server)s, %(account)s, %(build)s, %(ea)s, %(version)s, %(address)s, %(counter)s, %(first_seen)s,
    %(last_seen)s, %(ticks)s, %(bars)s, %(late_ticks)s
-- A replayed topic brings none back that was forgotten.
WHERE %(last_seen)s >= now() - make_interval(days => %(retained_days)s)
ON CONFLICT (source, server, account, build, ea, version, address, counter) DO UPDATE
SET
    last_seen = excluded.last_seen, ticks = excluded.ticks, bars = excluded.bars, late_ticks = excluded.late_ticks
WHERE
    excluded.last_seen >= c.last_seen AND excluded.ticks >= c.ticks AND excluded.bars >= c.bars
    AND excluded.late_ticks >= c.late_ticks;

-- name: forget_sender_counts
DELETE FROM sender_counts
WHERE last_seen < now() - make_interval(days => %(retained_days)s);

-- name: apply_instrument
INSERT INTO instruments AS i (source, symbol, point, received_at)
VALUES (%(source)s, %(symbol)s, %(point)s, %(received)s)
ON CONFLICT (source, symbol) DO UPDATE
SET point = excluded.point, received_at = excluded.received_at
WHERE excluded.received_at >= i.received_at;

-- name: senders
SELECT
    source, server, account, build, ea, version, address, first_seen, last_seen, ticks, bars, late_ticks,
    shared
FROM senders
WHERE last_seen >= %(since)s
ORDER BY last_seen DESC, source, server, account, ea, version, address;
