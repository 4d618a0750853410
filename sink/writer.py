"""One batch of candles and bars in one transaction: stage, judge by the offsets, write what must be written."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import structlog

from marketdata.candle import BrokerBar, Candle
from sink.database import Connection
from sink.logends import LogEnds
from sink.metrics import Metrics
from sink.rule import Reduced, Verdict, reduce_candles
from sink.staging import Staging, utc
from sink.statements import SQL

log = structlog.get_logger(__name__)

_UNTOUCHED = (Verdict.IGNORED, Verdict.CLOSED)

#: Rows by what became of them; the names are those of the metric `tickpipe_sink_rows_total`.
Actions = Counter[str]


class Writer:
    """Writes to `market_data`, `broker_bars` and `pending_refolds`; anything may be written again without harm."""

    def __init__(self, log_ends: LogEnds, metrics: Metrics, staging: Staging | None = None) -> None:
        self._log_ends = log_ends
        self._metrics = metrics
        self._staging = staging or Staging()

    async def write(
        self, connection: Connection, candles: Sequence[Candle] = (), bars: Sequence[BrokerBar] = ()
    ) -> Actions:
        """Store a batch in one transaction; several candles or bars of one key may be in it, in any order.

        Raises:
            psycopg.DataError, psycopg.IntegrityError: when the database refuses a value of at least one row.
            psycopg.OperationalError: when the database is away or a lock was not to be had; nothing was written.
            KafkaUnavailable: when the end of the log had to be asked for and no broker answered; nothing was written.
        """
        keys: dict[tuple[str, int, str], list[Candle]] = {}
        for candle in candles:
            keys.setdefault((candle.symbol, candle.ts, candle.source), []).append(candle)
        for log_name in {candle.log for candle in candles}:
            await self._log_ends.meet(log_name)
        reduced = [reduce_candles(group, self._log_ends.own_log) for group in keys.values()]
        async with connection.transaction():
            actions = await self.apply_candles(connection, reduced)
            actions["bar"] += await self._apply_bars(connection, bars)
        actions[Verdict.IGNORED] += len(candles) - len(reduced)
        actions[Verdict.CROSS_LOG] += sum(r.cross_log for r in reduced)
        self.count(actions)
        return actions

    async def apply_candles(
        self, connection: Connection, reduced: Sequence[Reduced], *, incomparable: bool = False
    ) -> Actions:
        """Bring one candle per key to the table, inside the caller's transaction and once in it.

        With `incomparable` the sets of offsets decide nothing any more (the log cannot prove them): more ticks win.
        """
        if not reduced:
            return Counter()
        minutes = [r.candle.ts for r in reduced]
        bounds = {"first_ts": utc(min(minutes)), "last_ts": utc(max(minutes))}
        await self._staging.stage_candles(connection, reduced)
        actions = await self._judge(connection, bounds)
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

    async def _judge(self, connection: Connection, bounds: dict[str, datetime]) -> Actions:
        await connection.execute(SQL["judge_candles"], bounds)
        verdicts = await (await connection.execute(SQL["count_verdicts"])).fetchall()
        if await self._disown(connection, verdicts, bounds):
            await connection.execute(SQL["judge_candles"], bounds)
            verdicts = await (await connection.execute(SQL["count_verdicts"])).fetchall()
        actions: Actions = Counter()
        for verdict, _, _, rows, _ in verdicts:
            actions[verdict] += rows
        return actions

    async def _disown(
        self, connection: Connection, verdicts: Sequence[tuple[Any, ...]], bounds: dict[str, datetime]
    ) -> bool:
        disowned = 0
        own_log = self._log_ends.own_log
        furthest: Counter[int] = Counter()
        for _, log_name, partition, _, stored_end in verdicts:
            if log_name == own_log and stored_end:
                furthest[partition] = max(furthest[partition], stored_end)
        for partition, stored_end in furthest.items():
            end = await self._log_ends.end_before(partition, stored_end)
            if end is None:
                continue
            about = {"log": own_log, "partition": partition, "end": end}
            disowned += (await connection.execute(SQL["disown_candles"], {**about, **bounds})).rowcount
        if disowned:
            log.warning(
                "The ticks topic ends before stored offsets: records are gone from its end.",
                action="log_shortened", log=own_log, candles=disowned,
            )  # fmt: skip
        return disowned > 0

    async def _apply_bars(self, connection: Connection, bars: Sequence[BrokerBar]) -> int:
        if not bars:
            return 0
        newest: dict[tuple[str, str, str, int], BrokerBar] = {}
        for bar in bars:
            key = (bar.source, bar.symbol, bar.timeframe, bar.ts)
            known = newest.get(key)
            if known is None or bar.received >= known.received:
                newest[key] = bar
        await self._staging.stage_bars(connection, list(newest.values()))
        stored = (await connection.execute(SQL["apply_bars"])).rowcount
        await connection.execute(SQL["fill_from_bars"])
        return stored
