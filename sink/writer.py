"""Writes one batch in one transaction: candles are judged by their offsets, and written where they must be.

The broker's bars, reference data and the progress go with them.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import structlog
from msgspec.structs import asdict

from marketdata.candle import BrokerBar, Candle
from marketdata.offsets import Ranges, beyond
from marketdata.rule import Reduced, Verdict, reduce_batch
from marketdata.wire import Reference, Report, SenderCount, reference_key
from runtime.kafka import Ends, log_ends
from runtime.logreader import own_log
from runtime.settings import Settings
from sink.columns import Columns, bar_columns, candle_columns
from sink.db.connection import REFUSALS, Connection
from sink.db.session import SQL
from sink.history import History, append_history
from sink.ledger import apply_reports
from sink.metrics import Metrics
from sink.progress import Span, advance, span_columns
from sink.times import utc

log = structlog.get_logger(__name__)

#: How long a count is retained after the last request in it (days). Every start of a producer begins another, and
#: anyone with a key may invent names: without a limit the table would only grow.
_RETAINED_DAYS: Final = 90

_UNTOUCHED = (Verdict.IGNORED, Verdict.CLOSED)

#: Candles that are packed, and that are sorted by series, in one go: a fifth of a millisecond, for which every answer
#: of the database has to wait.
_PIECE_CANDLES: Final = 125
_PIECE_SORTED: Final = 500

#: Rows by what became of them; the names are those of the metric `tickpipe_sink_rows_total`.
Actions = Counter[str]


@dataclass(frozen=True)
class Prepared:
    """A batch prepared as far as possible without the database."""

    candles: Sequence[Candle]
    bars: Sequence[BrokerBar]
    #: One candle per key, in one of both: what may be appended, and what has to be judged.
    history: History
    reduced: Sequence[Reduced]
    #: What has to be judged as columns of a statement.
    columns: Columns | None
    #: The log that was ours when it was prepared.
    own_log: str
    reference: Sequence[Reference] = ()
    reports: Sequence[Report] = ()

    @property
    def others(self) -> bool:
        """Whether there is anything besides candles."""
        return bool(self.bars or self.reference or self.reports)


@dataclass(frozen=True)
class _Applied:
    """What `store_candles` has done."""

    #: Candles by verdict.
    actions: Actions
    is_held: bool
    #: Candles that were written, not counting those that were closed alone, and parts of the log.
    applied: int
    moved: int

    @property
    def is_whole(self) -> bool:
        """Whether all was written that should be; another sink may have been faster, or a refold is needed."""
        return self.applied == self.actions.total() - sum(self.actions[verdict] for verdict in _UNTOUCHED)


#: Ends are asked for when a candle names records so far beyond those that are known, and none may name any that are so
#: far beyond the end (records).
_FAR_RECORDS: Final = 100_000


class LogEnds:
    """Our log and the ends of its partitions, asked for only when a candle makes it necessary.

    Stored offsets beyond the ends belong to records that no longer exist.
    """

    def __init__(self, settings: Settings, log_name: str) -> None:
        self._settings = settings
        #: As the stream app writes it into candles (`own_log`).
        self.own_log = log_name
        self._others: set[str] = set()
        self._ends: Ends = {}

    async def meet(self, log_name: str) -> None:
        """Check whether a candle's log is ours: if not, the ticks topic may have been re-created.

        Raises:
            KafkaUnavailable: when no broker answers; the call can be repeated.
        """
        if log_name == self.own_log or log_name in self._others:
            return
        now = await own_log(self._settings)
        if now != self.own_log:
            log.warning("The ticks topic was re-created.", action="log_recreated", log=now, before=self.own_log)
            self.own_log, self._others, self._ends = now, set(), {}
        if log_name != self.own_log:
            self._others.add(log_name)

    def may_hold(self, candle: Candle) -> bool:
        """Whether the log, as far as is known of it, can hold what a candle names, or it is a candle of another log.

        A little beyond the end may be records that a broker has lost since.
        """
        return candle.log != self.own_log or self.holds(candle.offsets, _FAR_RECORDS)

    def may_hold_all(self, proofs: Iterable[Ranges]) -> bool:
        """Whether the log, as far as is known of it, can hold all of these; if not, one may be of another log."""
        farthest: dict[int, int] = {}
        for ranges in proofs:
            for partition, _, last in ranges:
                if last > farthest.get(partition, -1):
                    farthest[partition] = last
        return self.holds(tuple((partition, 0, last) for partition, last in farthest.items()), _FAR_RECORDS)

    def holds(self, ranges: Ranges, more: int = 0) -> bool:
        """Whether the ranges are of partitions that there are, and end before these do, and `more` records later."""
        # No generator: every candle is asked about, and nearly all have one range.
        for partition, _, last in ranges:
            ends = self._ends.get(partition)
            if ends is None or last >= ends[1] + more:
                return False
        return True

    @property
    def beyond(self) -> str:
        """Every position that the log was not yet known to reach, as an int8multirange."""
        return beyond(self._ends)

    async def refresh(self) -> None:
        """Ask Kafka how far the log reaches now.

        Raises:
            KafkaUnavailable: when no broker answers; the call can be repeated.
        """
        self._ends = await log_ends(self._settings, self._settings.ticks_topic)


class Writer:
    """Writes candles, bars, minutes to fold again and reference data; anything may be written again without harm."""

    def __init__(self, log_ends: LogEnds, metrics: Metrics) -> None:
        self._log_ends = log_ends
        self._metrics = metrics

    @property
    def log_ends(self) -> LogEnds:
        """The log whose candles are written."""
        return self._log_ends

    async def prepare(
        self,
        candles: Sequence[Candle] = (),
        bars: Sequence[BrokerBar] = (),
        reference: Sequence[Reference] = (),
        reports: Sequence[Report] = (),
    ) -> Prepared:
        """Prepare a batch as far as possible while the database is busy with the previous one.

        Several candles or bars of one key may be in it, in any order.
        """
        own = self._log_ends.own_log
        history, reduced = await self._reduced(candles, own)
        columns = None
        try:
            for _ in history.pack(_PIECE_CANDLES):
                await asyncio.sleep(0)
            if not history.series:
                columns = await _in_turns(reduced)
        except REFUSALS:
            # Storing them says which cannot be packed.
            history, reduced = History(), [*reduced, *map(Reduced.only, history.candles)]
        return Prepared(candles, bars, history, reduced, columns, own, reference, reports)

    async def _reduced(self, candles: Sequence[Candle], own_log: str) -> tuple[History, Sequence[Reduced]]:
        """One candle per key, as history and as what has to be judged: one of them is nearly always empty."""
        history, others = await _by_series(candles), []
        if not history.is_single:
            reduced = reduce_batch(candles, own_log)
            others = [one for one in reduced if one.cross_log or not one.is_whole]
            history = await _by_series([one.candle for one in reduced if not one.cross_log and one.is_whole])
        if not self.is_history(history):
            return History(), [*others, *map(Reduced.only, history.candles)]
        return history, others

    def is_history(self, candles: History) -> bool:
        """Whether a batch may go into the table by COPY, without being judged."""
        return candles.is_long

    async def write(
        self, connection: Connection, candles: Sequence[Candle] = (), bars: Sequence[BrokerBar] = ()
    ) -> Actions:
        """Prepare and store a batch."""
        return await self.store(connection, await self.prepare(candles, bars))

    async def store(self, connection: Connection, batch: Prepared, spans: Collection[Span] = ()) -> Actions:
        """Store a batch and move the progress over `spans`, in one transaction.

        Raises:
            psycopg.DataError, psycopg.IntegrityError: when the database refuses a value of at least one row.
            psycopg.OperationalError: when the database is away, a lock could not be had, or two sinks deadlocked;
                nothing was written, and `Database.run` repeats the call.
            KafkaUnavailable: when the ends of the log had to be asked for and no broker answered; nothing was written.
            ProgressLost: when the database ends before a span begins; nothing was written.
        """
        for log_name in {candle.log for candle in batch.candles}:
            await self._log_ends.meet(log_name)
        if self._log_ends.own_log != batch.own_log:
            batch = await self.prepare(batch.candles, batch.bars, batch.reference, batch.reports)
        try:
            actions = await self._store(connection, batch, spans, append=True)
        except psycopg.errors.UniqueViolation:
            # The previous owner of the partition has stored some of the history meanwhile.
            actions = await self._store(connection, batch, spans, append=False)
        actions[Verdict.IGNORED] += len(batch.candles) - len(batch.reduced) - len(batch.history.candles)
        actions[Verdict.CROSS_LOG] += sum(r.cross_log for r in batch.reduced)
        self.count(actions)
        return actions

    async def _store(
        self, connection: Connection, batch: Prepared, spans: Collection[Span], *, append: bool
    ) -> Actions:
        if (actions := await self._apply_alone(connection, batch, spans)) is not None:
            return actions
        columns, actions = batch.columns, Counter()
        async with connection.transaction():
            rest = await append_history(connection, batch.history) if append else batch.history.candles
            actions[Verdict.INSERTED] = len(batch.history.candles) - len(rest)
            reduced = [*batch.reduced, *map(Reduced.only, rest)]
            actions += await self.apply_candles(connection, reduced, columns)
            actions["bar"] += await _apply_bars(connection, batch.bars)
            actions["reference"] += await apply_reference(connection, batch.reference)
            if batch.reports:
                actions["report"] += await apply_reports(connection, batch.reports)
            # Last, so that sinks that briefly share a partition wait for each other as little as possible.
            await advance(connection, spans)
        return actions

    async def apply_candles(
        self,
        connection: Connection,
        reduced: Sequence[Reduced],
        columns: Columns | None = None,
        *,
        incomparable: bool = False,
    ) -> Actions:
        """Apply one candle per key to the table, inside the caller's transaction.

        `columns` are the same candles by `candle_columns`, if that was done already. With `incomparable` the sets of
        offsets decide nothing any more (the log cannot prove them): more ticks win.
        """
        if not reduced:
            return Counter()
        about = self._about(reduced, columns or dict(candle_columns(reduced))) | {"incomparable": incomparable}
        applied = await self._apply(connection, about)
        if applied.is_held:
            await self._disown(connection, about)
            applied = await self._apply(connection, about | {"may_ask": False})
        if not (applied.is_whole and all(one.is_whole for one in reduced)) and not incomparable:
            await connection.execute(SQL["request_refolds"], about)
        return applied.actions

    async def _apply_alone(self, connection: Connection, batch: Prepared, spans: Collection[Span]) -> Actions | None:
        """Store a batch of candles and move the progress by one statement, a transaction of its own.

        Returns None when that is not enough. Then the progress has not moved, and what was written may be again.
        """
        if batch.columns is None or batch.others or not batch.reduced or not all(one.is_whole for one in batch.reduced):
            return None
        about = self._about(batch.reduced, batch.columns) | {"is_alone": True} | span_columns(spans)
        applied = await self._apply(connection, about)
        is_enough = not applied.is_held and applied.is_whole and applied.moved == len(spans)
        return applied.actions if is_enough else None

    def _about(self, reduced: Sequence[Reduced], columns: Columns) -> dict[str, Any]:
        minutes = [r.candle.ts for r in reduced]
        bounds = {"first_ts": utc(min(minutes)), "last_ts": utc(max(minutes))}
        modes = {"may_ask": True, "is_alone": False, "incomparable": False}
        return {**columns, **bounds, **modes, **span_columns(()), "own_log": self._log_ends.own_log}

    async def _apply(self, connection: Connection, about: dict[str, Any]) -> "_Applied":
        rows = await (await connection.execute(SQL["store_candles"], about)).fetchall()
        actions: Actions = Counter({verdict: count for verdict, count, *_ in rows})
        _, _, is_held, applied, moved = rows[0]
        return _Applied(actions, bool(is_held), applied, moved)

    def count(self, actions: Actions) -> None:
        """Add to the metrics what a committed transaction did."""
        for action, rows in actions.items():
            self._metrics.rows.labels(action).inc(rows)
        if actions[Verdict.CROSS_LOG]:
            log.warning(
                "Candles of different logs met; of each minute the one with more ticks stays.",
                action="cross_log", candles=actions[Verdict.CROSS_LOG], own_log=self._log_ends.own_log,
            )  # fmt: skip

    async def _disown(self, connection: Connection, about: dict[str, Any]) -> None:
        # Stored candles name offsets that the incoming ones do not: the log may end before them.
        about = about | {"beyond": self._log_ends.beyond}
        found = await connection.execute(SQL["reach_beyond"], about)
        if (row := await found.fetchone()) is None or not row[0]:
            return
        await self._log_ends.refresh()
        about["beyond"] = self._log_ends.beyond
        disowned = (await connection.execute(SQL["disown_candles"], about)).rowcount
        if disowned:
            log.warning(
                "The ticks topic ends before stored offsets: records are gone from its end.",
                action="log_shortened", log=self._log_ends.own_log, candles=disowned,
            )  # fmt: skip


async def _by_series(candles: Sequence[Candle]) -> History:
    """The candles by series, between which others have their turn if there are many."""
    found = History()
    for start in range(0, len(candles), _PIECE_SORTED):
        if start:
            await asyncio.sleep(0)
        found.add(candles[start : start + _PIECE_SORTED])
    return found


async def _in_turns(reduced: Sequence[Reduced]) -> Columns:
    """The columns, between which others have their turn if there are many candles."""
    columns: Columns = {}
    for name, column in candle_columns(reduced):
        columns[name] = column
        if len(reduced) > _PIECE_CANDLES:
            await asyncio.sleep(0)
    return columns


async def _apply_bars(connection: Connection, bars: Sequence[BrokerBar]) -> int:
    if not bars:
        return 0
    newest: dict[tuple[str, str, str, int], BrokerBar] = {}
    for bar in bars:
        key = (bar.source, bar.symbol, bar.timeframe, bar.ts)
        known = newest.get(key)
        if known is None or (bar.closed, bar.received) >= (known.closed, known.received):
            newest[key] = bar
    about = bar_columns(list(newest.values()))
    stored = (await connection.execute(SQL["apply_bars"], about)).rowcount
    await connection.execute(SQL["fill_from_bars"], about)
    return stored


async def apply_reference(connection: Connection, records: Sequence[Reference]) -> int:
    """Store what is newer than the rows, inside the caller's transaction; returns how many rows changed.

    Records may be repeated and in any order.
    """
    # Sorted, or two sinks would deadlock on each other's rows. All of a kind at once: every sender names all of its
    # symbols when it begins, and live candles wait meanwhile.
    counts: list[dict[str, Any]] = []
    instruments: list[dict[str, Any]] = []
    for record in sorted(records, key=reference_key):
        if isinstance(record, SenderCount):
            times = {"first_seen": utc(record.first_seen), "last_seen": utc(record.last_seen)}
            counts.append(asdict(record) | times | {"retained_days": _RETAINED_DAYS})
        else:
            instruments.append(asdict(record) | {"received": utc(record.received)})
    changed = 0
    async with connection.cursor() as cursor:
        for name, rows in (("apply_instrument", instruments), ("apply_sender_count", counts)):
            if rows:
                await cursor.executemany(SQL[name], rows)
                changed += cursor.rowcount
    if counts:
        await connection.execute(SQL["forget_sender_counts"], {"retained_days": _RETAINED_DAYS})
    return changed
