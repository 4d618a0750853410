"""Feeds the hub with candles from `candles.m1`, and with the rows that the database holds of their minutes.

The topic is read without a group, every partition of it, and nothing is committed.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer

from dashboard.answers import Refusal
from dashboard.candles import epoch_ms
from dashboard.database import SQL, Database
from dashboard.hub import Hub, Key
from dashboard.metrics import Gauges, Metrics
from marketdata.candle import Candle, check_candle
from marketdata.errors import InvalidCandle, TickpipeError
from marketdata.offsets import from_multirange
from marketdata.wire import decode_candle, decode_candles
from runtime import clock
from runtime.kafka import new_consumer
from runtime.kafka_errors import kafka_errors
from runtime.logreader import wait_for_log
from runtime.rights import Service
from runtime.settings import Settings
from runtime.telemetry import arrival_seconds, received_header, seconds_between

log = structlog.get_logger(__name__)

#: How far back reading starts (milliseconds): far enough for the candles that were still moving.
_WARM_UP_MS: Final = 180_000

_POLL_MS: Final = 1_000
#: A replay brings thousands of candles at once; between polls the streams get their turn.
_POLL_RECORDS: Final = 2_000
_PAUSE_AFTER_FAILURE_SECONDS: Final = 2.0

#: A database that takes longer counts as away (seconds).
_PATIENCE_SECONDS: Final = 2.0
#: Pause between two looks at what waits (seconds); it delays the first candle of a minute by as much at most.
_LOOK_SECONDS: Final = 0.02


class LiveReader:
    """Reads `candles.m1` for ever; `is_reading` is False while Kafka does not answer."""

    def __init__(self, settings: Settings, hub: Hub, gauges: Gauges, metrics: Metrics) -> None:
        self._settings = settings
        self._hub = hub
        self._gauges = gauges
        self._metrics = metrics
        self.is_reading = False

    async def run(self) -> None:
        """Read until cancelled, and start over after every failure of Kafka."""
        while True:
            try:
                self._hub.own_log = await wait_for_log(self._settings, service=Service.DASHBOARD)
                with kafka_errors(self._settings, topic=self._settings.candles_topic, right="READ"):
                    await self._read()
            except TickpipeError as exc:
                log.warning(
                    "The candles cannot be read now; the dashboard tries again.", action="live_wait", error=str(exc)
                )  # fmt: skip
            finally:
                self.is_reading = False
            await asyncio.sleep(_PAUSE_AFTER_FAILURE_SECONDS)

    async def _read(self) -> None:
        consumer = new_consumer(self._settings, self._settings.candles_topic, auto_offset_reset="latest")
        try:
            await consumer.start()
            started_ms = clock.now_ms()
            await _seek_back(consumer, started_ms - _WARM_UP_MS)
            self._hub.restart()
            self.is_reading = True
            log.info("Reading live candles.", action="live_started", topic=self._settings.candles_topic)
            while True:
                polled = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_POLL_RECORDS)
                for records in polled.values():
                    self._publish(records, started_ms)
                # getmany() does not yield to the event loop while records wait.
                await asyncio.sleep(0)
        finally:
            await consumer.stop()

    def _publish(self, records: Sequence[Any], started_ms: int) -> None:
        now_ms = clock.now_ms()
        for candle, record in zip(self._decoded(records), records, strict=True):
            if candle is None:
                continue
            ticks = self._hub.publish(candle)
            # Candles from before the start say nothing about the present.
            if ticks <= 0 or record.timestamp < started_ms:
                continue
            self._gauges.count(ticks)
            if (received_ms := received_header(record.headers)) is not None:
                self._metrics.stages.labels("shown").observe(seconds_between(received_ms, now_ms))
                self._gauges.time({"folded": candle.emitted - received_ms, "shown": now_ms - received_ms})
                if (arrival := arrival_seconds(candle.last_tick, candle.received)) is not None:
                    self._gauges.time({"received": round(arrival * 1000)})
        self._metrics.candles.inc(len(records))

    def _decoded(self, records: Sequence[Any]) -> Sequence[Candle | None]:
        candles = decode_candles([record.value for record in records])
        return [
            self._valid(record, None if candles is None else candles[index]) for index, record in enumerate(records)
        ]

    def _valid(self, record: Any, decoded: Candle | None) -> Candle | None:
        try:
            candle = decoded or decode_candle(record.value)
            check_candle(candle)
            return candle
        except InvalidCandle:
            # The sink puts it into `candles.rejected`, which the page counts.
            self._metrics.undecodable.inc()
            return None


async def _seek_back(consumer: AIOKafkaConsumer, since_ms: int) -> None:
    """Begin with the records from `since_ms` on; a partition without any begins at its end."""
    partitions = consumer.assignment()
    found = await consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
    ends = await consumer.end_offsets(list(partitions))
    for tp in partitions:
        consumer.seek(tp, found[tp].offset if found.get(tp) else ends[tp])


class Settler:
    """Asks the database about the minutes that the hub waits for."""

    def __init__(self, database: Database, hub: Hub) -> None:
        self._database = database
        self._hub = hub

    async def run(self) -> None:
        """Ask about the minutes that are due until cancelled."""
        while True:
            if keys := self._hub.due():
                try:
                    rows = await self._database.within(_PATIENCE_SECONDS, read_stored(self._database, keys))
                except Refusal as exc:
                    log.debug("Stored candles cannot be read now.", action="settle_wait", error=exc.message)
                    self._hub.database_is_away(keys)
                else:
                    self._hub.settle(keys, rows)
            await asyncio.sleep(_LOOK_SECONDS)


async def read_stored(database: Database, keys: Sequence[Key]) -> dict[Key, Candle]:
    """The folded minutes among `keys` that the table holds.

    Raises:
        Refusal: when the database does not answer.
    """
    about = {
        "symbols": [symbol for (_, symbol), _ in keys],
        "sources": [source for (source, _), _ in keys],
        "minutes": [datetime.fromtimestamp(ts / 1000, UTC) for _, ts in keys],
    }
    async with database.reading() as connection:
        cursor = await connection.execute(SQL["stored_minutes"], about)
        candles = [_candle(row) for row in await cursor.fetchall()]
    return {((candle.source, candle.symbol), candle.ts): candle for candle in candles}


def _candle(row: Sequence[Any]) -> Candle:
    (
        ts, source, symbol, open_, high, low, close, volume, real_volume, spread, first_tick, last_tick, log_name,
        offsets, closed, received_at, folded_at,
    ) = row  # fmt: skip
    return Candle(
        source=source, symbol=symbol, ts=epoch_ms(ts), open=open_, high=high, low=low, close=close, volume=volume,
        real_volume=real_volume, spread=spread, first_tick=epoch_ms(first_tick), last_tick=epoch_ms(last_tick),
        log=log_name, offsets=from_multirange(offsets), closed=closed, received=epoch_ms(received_at),
        emitted=epoch_ms(folded_at),
    )  # fmt: skip
