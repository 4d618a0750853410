"""Refolds candles of which two folds are known and neither contains the other.

That happens with late ticks, a day that was sent twice, and a symbol whose ticks lie in several partitions.
"""

import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import psycopg
import structlog

from marketdata.candle import Candle
from marketdata.errors import UnknownTimeframe
from marketdata.fold import CandleFold
from marketdata.offsets import Ranges, from_multirange, intersection, to_multirange
from marketdata.refold import Proof
from marketdata.rule import Reduced
from marketdata.timeframes import timeframe_named
from runtime import clock
from runtime.service import PeriodicTask
from runtime.settings import Settings
from runtime.ticklog import Refolded, TickLog
from sink.db.connection import REFUSALS, Connection, Database, StepSize
from sink.db.session import SQL, is_pooled
from sink.metrics import Metrics
from sink.times import time_msc
from sink.writer import LogEnds, Writer

log = structlog.get_logger(__name__)

#: Pending minutes are refolded once nothing was added for this long: shorter reads the log piecemeal while the second
#: copy of a day arrives, longer shows late ticks later (seconds).
QUIET_SECONDS = 1.0

#: A pending minute waits no longer than this, however busy the sink is (seconds).
PATIENCE_SECONDS = 10.0

#: Maximum number of minutes in one pass: their ticks are held in memory, some 100 MB for a busy symbol.
_PASS_MINUTES = 5_000

#: A pass over the log may take long; only statements that run into their time limit make it smaller (seconds).
_PASS_SECONDS = 600.0


@dataclass(frozen=True)
class Pending:
    """A minute to be folded again: the union of what is requested and what is stored."""

    source: str
    symbol: str
    timeframe: str
    ts: datetime
    closed: bool
    ranges: Ranges

    def proof(self, ranges: Ranges) -> Proof:
        """The proof to refold: the ticks in `ranges`.

        Raises:
            UnknownTimeframe: when ticks cannot be folded into it.
        """
        timeframe = timeframe_named(self.timeframe)
        _ = timeframe.base_width_ms
        return Proof(self.source, self.symbol, time_msc(self.ts), ranges, timeframe)


class Refolder(PeriodicTask[int]):
    """The task that works off `pending_refolds`, over a connection of its own, so that live candles are not held up."""

    name = "refold"
    interval_seconds = 0.5

    def __init__(
        self,
        settings: Settings,
        log_ends: LogEnds,
        database: Database,
        writer: Writer,
        metrics: Metrics,
        *,
        quiet_seconds: float = QUIET_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._settings = settings
        self._log_ends = log_ends
        self._database = database
        self._writer = writer
        self._metrics = metrics
        #: Minutes that wait, as of the newest look.
        self._pending = 0
        self._minutes = StepSize(_PASS_MINUTES, goal_seconds=_PASS_SECONDS)
        self._delays = {"quiet_seconds": quiet_seconds, "patience_seconds": patience_seconds}

    async def step(self) -> int:
        """Refold what is due, in one pass for each partition where proofs begin; returns the number of candles."""
        folded = 0
        for log_name, partition in await self._database.run(self._due):
            refold = partial(self._refold, log_name=log_name, partition=partition)
            folded += await self._database.run_sized(refold, self._minutes)
        return folded

    def pause_seconds(self, result: int) -> float:
        """The interval while something waits; else twice as long, which is still what a minute rests before."""
        return self.interval_seconds if self._pending else 2 * self.interval_seconds

    async def _due(self, connection: Connection) -> list[tuple[str, int]]:
        row = await (await connection.execute(SQL["count_refolds"])).fetchone()
        self._pending = row[0] if row else 0
        self._metrics.pending_refolds.set(self._pending)
        if not self._pending:
            return []
        return await (await connection.execute(SQL["due_refolds"], self._delays)).fetchall()

    async def _refold(self, connection: Connection, minutes: int, *, log_name: str, partition: int) -> int:
        at = {"log": log_name, "partition": partition}
        async with _alone(connection, at) as is_alone:
            if not is_alone:
                return 0
            rows = await (await connection.execute(SQL["take_refolds"], {**at, "limit": minutes})).fetchall()
            taken = [
                Pending(source, symbol, timeframe, ts, closed, from_multirange(offsets))
                for source, symbol, timeframe, ts, closed, offsets in rows
            ]
            proven, largest = await self._fold(log_name, taken)
            if largest:
                async with connection.transaction():
                    await self._writer.apply_candles(connection, largest, incomparable=True)
            await self._store(connection, at, proven, taken)
            return len(taken)

    async def _fold(self, log_name: str, taken: Sequence[Pending]) -> tuple[list[Reduced], list[Reduced]]:
        # The folds of whole proofs, and of what the log still holds of the others.
        proofs: dict[Proof, Pending] = {}
        for pending in taken:
            with contextlib.suppress(UnknownTimeframe):
                proofs[pending.proof(pending.ranges)] = pending
        if log_name != self._log_ends.own_log or not proofs:
            self._give_up(log_name, len(taken))
            return [], []
        async with TickLog(self._settings) as tick_log:
            outcome = await tick_log.refold(proofs, on_progress=self._metrics.refold_records.inc)
            rest = [proofs[proof] for proof in outcome.unprovable]
            remains = Refolded()
            clipped: dict[Proof, Pending] = {}
            if unproven := len(taken) - len(proofs) + len(rest):
                self._give_up(log_name, unproven)
            if rest:
                held = await tick_log.available(p.ranges for p in rest)
                clipped = {p.proof(ranges): p for p in rest if (ranges := intersection(p.ranges, held))}
                remains = await tick_log.refold(clipped, on_progress=self._metrics.refold_records.inc)
        return list(self._candles(log_name, outcome, proofs)), list(self._candles(log_name, remains, clipped))

    def _candles(self, log_name: str, outcome: Refolded, pending: dict[Proof, Pending]) -> Iterable[Reduced]:
        for proof, fold in outcome.folds.items():
            candle = proven_candle(fold, proof.ranges, log_name, closed=pending[proof].closed)
            if candle is not None:
                yield Reduced(candle, candle.offsets)

    def _give_up(self, log_name: str, candles: int) -> None:
        self._metrics.rows.labels("unprovable").inc(candles)
        log.warning(
            "The log no longer holds what candles were folded from; of each the one with more ticks stays.",
            action="refold_unprovable", log=log_name, candles=candles,
        )  # fmt: skip

    async def _store(
        self, connection: Connection, at: dict[str, Any], proven: Sequence[Reduced], taken: Sequence[Pending]
    ) -> None:
        try:
            await self._write(connection, at, proven, taken)
        except REFUSALS as exc:
            if len(taken) > 1:
                for pending in taken:
                    about = (pending.symbol, time_msc(pending.ts), pending.source)
                    own = [r for r in proven if (r.candle.symbol, r.candle.ts, r.candle.source) == about]
                    await self._store(connection, at, own, [pending])
                return
            # Retrying would never succeed; the stored candle stays as it is.
            log.error(
                "The database refuses a minute that was folded again; the stored candle stays.",
                action="refold_refused", symbol=taken[0].symbol, ts=taken[0].ts.isoformat(), error=str(exc),
            )  # fmt: skip
            self._metrics.rows.labels("rejected").inc()
            await self._write(connection, at, [], taken)

    async def _write(
        self, connection: Connection, at: dict[str, Any], proven: Sequence[Reduced], taken: Sequence[Pending]
    ) -> None:
        keys = [
            {
                **at, "source": p.source, "symbol": p.symbol, "timeframe": p.timeframe, "ts": p.ts,
                "offsets": to_multirange(p.ranges),
            }
            for p in taken
        ]  # fmt: skip
        async with connection.transaction(), connection.cursor() as cursor:
            await self._writer.apply_candles(connection, proven)
            await cursor.executemany(SQL["finish_refold"], keys)
            await cursor.executemany(SQL["postpone_refold"], keys)
        self._metrics.rows.labels("refolded").inc(len(proven))


def proven_candle(fold: CandleFold, ranges: Ranges, log_name: str, *, closed: bool) -> Candle | None:
    """The candle folded from all records in `ranges`; None when they hold no usable price of the period."""
    # The fold knows only the records that touched the period; all of the ranges were read, so all of them are proven.
    return fold.candle(log=log_name, offsets=ranges, closed=closed, emitted=clock.now_ms())


@contextlib.asynccontextmanager
async def _alone(connection: Connection, at: dict[str, Any]) -> AsyncIterator[bool]:
    """Whether no other sink is refolding; a lock ensures that until the end of the block.

    Behind a pooler no lock outlasts a transaction. Two sinks may then refold the same minutes, which only wastes work.
    """
    if is_pooled(connection):
        yield True
        return
    row = await (await connection.execute(SQL["try_lock_refolds"], at)).fetchone()
    if row is None or not row[0]:
        yield False
        return
    try:
        yield True
    finally:
        # A lost connection has released the lock already.
        with contextlib.suppress(psycopg.Error):
            await connection.execute(SQL["unlock_refolds"], at)
