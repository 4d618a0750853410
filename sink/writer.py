"""Writes one batch in one transaction: candles are staged, judged by their offsets, and written where they must be.

The broker's bars, reference data and the progress go with them.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

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
from sink.db.connection import REFUSALS, Connection
from sink.db.session import SQL
from sink.ledger import apply_reports
from sink.metrics import Metrics
from sink.progress import Span, advance
from sink.staging import Staging, append_history, utc

log = structlog.get_logger(__name__)

#: How long a count is retained after the last request in it (days). Every start of a producer begins another, and
#: anyone with a key may invent names: without a limit the table would only grow.
_RETAINED_DAYS: Final = 90

_UNTOUCHED = (Verdict.IGNORED, Verdict.CLOSED)

#: Candles that are packed in one go: half a millisecond, for which every answer of the database has to wait.
_PIECE_CANDLES: Final = 125

#: Rows by what became of them; the names are those of the metric `tickpipe_sink_rows_total`.
Actions = Counter[str]


@dataclass(frozen=True)
class Prepared:
    """A batch prepared as far as possible without the database."""

    candles: Sequence[Candle]
    bars: Sequence[BrokerBar]
    #: One candle per key.
    reduced: Sequence[Reduced]
    #: The same, packed; None when one of them cannot be packed, so that the database refuses it by name.
    packed: Sequence[bytes] | None
    #: The log that was ours when it was prepared.
    own_log: str
    reference: Sequence[Reference] = ()
    reports: Sequence[Report] = ()


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

    def __init__(self, log_ends: LogEnds, metrics: Metrics, staging: Staging | None = None) -> None:
        self._log_ends = log_ends
        self._metrics = metrics
        self._staging = staging or Staging()

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
        reduced = reduce_batch(candles, own)
        await asyncio.sleep(0)
        return Prepared(candles, bars, reduced, await self._packed(reduced), own, reference, reports)

    async def _packed(self, reduced: Sequence[Reduced]) -> list[bytes] | None:
        packed: list[bytes] = []
        try:
            for start in range(0, len(reduced), _PIECE_CANDLES):
                packed += self._staging.pack(reduced[start : start + _PIECE_CANDLES])
                await asyncio.sleep(0)
        except REFUSALS:
            return None
        return packed

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
        actions[Verdict.IGNORED] += len(batch.candles) - len(batch.reduced)
        actions[Verdict.CROSS_LOG] += sum(r.cross_log for r in batch.reduced)
        self.count(actions)
        return actions

    async def _store(
        self, connection: Connection, batch: Prepared, spans: Collection[Span], *, append: bool
    ) -> Actions:
        reduced = batch.reduced
        packed = self._staging.pack(reduced) if batch.packed is None else batch.packed
        actions: Actions = Counter()
        async with connection.transaction():
            if append:
                places = await append_history(connection, self._staging, reduced, packed)
                actions[Verdict.INSERTED] = len(reduced) - len(places)
                if actions[Verdict.INSERTED]:
                    reduced, packed = [reduced[place] for place in places], [packed[place] for place in places]
            actions += await self.apply_candles(connection, reduced, packed)
            actions["bar"] += await self._apply_bars(connection, batch.bars)
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
        packed: Sequence[bytes] | None = None,
        *,
        incomparable: bool = False,
    ) -> Actions:
        """Apply one candle per key to the table, inside the caller's transaction and once in it.

        `packed` are the same candles by `Staging.pack`, if that was done already. With `incomparable` the sets of
        offsets decide nothing any more (the log cannot prove them): more ticks win.
        """
        if not reduced:
            return Counter()
        packed = self._staging.pack(reduced) if packed is None else packed
        minutes = [r.candle.ts for r in reduced]
        bounds = {"first_ts": utc(min(minutes)), "last_ts": utc(max(minutes))}
        await self._staging.stage_candles(connection, reduced, packed)
        actions = await self._judge(connection, bounds, len(reduced))
        to_apply = sum(actions.values()) - sum(actions[verdict] for verdict in _UNTOUCHED)
        if to_apply:
            applied = await connection.execute(
                SQL["apply_candles"], {"own_log": self._log_ends.own_log, "incomparable": incomparable}
            )
            several = any(r.wanted != r.candle.offsets for r in reduced)
            if (applied.rowcount < to_apply or several) and not incomparable:
                await connection.execute(SQL["request_refolds"], bounds)
        if actions[Verdict.CLOSED]:
            await connection.execute(SQL["close_candles"], bounds)
        return actions

    def count(self, actions: Actions) -> None:
        """Add to the metrics what a committed transaction did."""
        for action, rows in actions.items():
            self._metrics.rows.labels(action).inc(rows)
        if actions[Verdict.CROSS_LOG]:
            log.warning(
                "Candles of different logs met; of each minute the one with more ticks stays.",
                action="cross_log", candles=actions[Verdict.CROSS_LOG], own_log=self._log_ends.own_log,
            )  # fmt: skip

    async def _judge(self, connection: Connection, bounds: dict[str, datetime], staged: int) -> Actions:
        actions, to_ask = await self._verdicts(connection, bounds, staged)
        if to_ask and await self._disown(connection, bounds):
            actions, _ = await self._verdicts(connection, bounds, staged)
        return actions

    async def _verdicts(self, connection: Connection, bounds: dict[str, datetime], staged: int) -> tuple[Actions, bool]:
        # Also tells whether stored offsets have to be compared with the ends of the log.
        about = {"own_log": self._log_ends.own_log, **bounds}
        verdicts = await (await connection.execute(SQL["judge_candles"], about)).fetchall()
        actions = Counter({verdict: rows for verdict, rows, _ in verdicts})
        # Of the rest nothing is stored.
        actions[Verdict.INSERTED] += staged - actions.total()
        return actions, any(to_ask for *_, to_ask in verdicts)

    async def _disown(self, connection: Connection, bounds: dict[str, datetime]) -> bool:
        about: dict[str, object] = {"log": self._log_ends.own_log, **bounds}
        found = await connection.execute(SQL["reach_beyond"], {**about, "beyond": self._log_ends.beyond})
        if (row := await found.fetchone()) is None or not row[0]:
            return False
        await self._log_ends.refresh()
        about["beyond"] = self._log_ends.beyond
        disowned = (await connection.execute(SQL["disown_candles"], about)).rowcount
        if disowned:
            log.warning(
                "The ticks topic ends before stored offsets: records are gone from its end.",
                action="log_shortened", log=self._log_ends.own_log, candles=disowned,
            )  # fmt: skip
        return disowned > 0

    async def _apply_bars(self, connection: Connection, bars: Sequence[BrokerBar]) -> int:
        if not bars:
            return 0
        newest: dict[tuple[str, str, str, int], BrokerBar] = {}
        for bar in bars:
            key = (bar.source, bar.symbol, bar.timeframe, bar.ts)
            known = newest.get(key)
            if known is None or (bar.closed, bar.received) >= (known.closed, known.received):
                newest[key] = bar
        await self._staging.stage_bars(connection, list(newest.values()))
        stored = (await connection.execute(SQL["apply_bars"])).rowcount
        await connection.execute(SQL["fill_from_bars"])
        return stored


async def apply_reference(connection: Connection, records: Sequence[Reference]) -> int:
    """Store what is newer than the rows, inside the caller's transaction; returns how many rows changed.

    Records may be repeated and in any order.
    """
    # Sorted, or two sinks would deadlock on each other's rows.
    ordered = sorted(records, key=reference_key)
    changed = 0
    for record in ordered:
        if isinstance(record, SenderCount):
            times = {"first_seen": utc(record.first_seen), "last_seen": utc(record.last_seen)}
            about = asdict(record) | times | {"retained_days": _RETAINED_DAYS}
            cursor = await connection.execute(SQL["apply_sender_count"], about)
        else:
            about = asdict(record) | {"received": utc(record.received)}
            cursor = await connection.execute(SQL["apply_instrument"], about)
        changed += cursor.rowcount
    if any(isinstance(record, SenderCount) for record in ordered):
        await connection.execute(SQL["forget_sender_counts"], {"retained_days": _RETAINED_DAYS})
    return changed
