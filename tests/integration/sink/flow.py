"""The producer and the stream app as far as the sink's tests need them: frames and candles on their topics."""

import asyncio
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaProducer

from marketdata.candle import BrokerBar, Candle
from marketdata.fold import CandleFold, split_by_period
from marketdata.offsets import from_spans
from marketdata.resends import Passes
from marketdata.tick import Frame, Tick
from marketdata.wire import bar_key, candle_key, encode, frame_key
from runtime import clock
from runtime.kafka import new_consumer, new_producer
from runtime.settings import Settings
from runtime.telemetry import RECEIVED_HEADER
from sink.db.connection import Connection
from sink.service import Sink
from tests.days import eurusd_ticks
from tests.waiting import PATIENCE_SECONDS, eventually

#: One record of the ticks log.
Logged = tuple[int, Frame]


def day_frames() -> list[Frame]:
    """EURUSD of 2019-02-04 in frames of 100 ticks, as an EA would send them."""
    return [
        Frame(
            v=1, source="S", symbol="EURUSD", mode="bid", point=0.00001, request=str(number),
            received=part[-1].time_msc + 50, ticks=list(part),
        )
        for number, part in enumerate(_parts(eurusd_ticks(), 100))
    ]  # fmt: skip


def _parts(ticks: Sequence[Tick], size: int) -> Iterable[Sequence[Tick]]:
    return (ticks[start : start + size] for start in range(0, len(ticks), size))


class Flow:
    """Publishes; use it as `async with Flow(settings, log_name) as flow`."""

    def __init__(self, settings: Settings, log_name: str) -> None:
        self.settings = settings
        self.own_log = log_name
        self._producer: AIOKafkaProducer | None = None

    async def __aenter__(self) -> Self:
        self._producer = new_producer(self.settings, linger_ms=5)
        await self._producer.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.producer.stop()

    @property
    def producer(self) -> AIOKafkaProducer:
        assert self._producer is not None
        return self._producer

    async def send(self, topic: str, records: Iterable[tuple[bytes | None, bytes | None]]) -> list[int]:
        """Publish keys and values; their offsets."""
        sent = [await self.producer.send(topic, value, key=key, partition=0) for key, value in records]
        return [(await each).offset for each in sent]

    async def log_frames(self, frames: Sequence[Frame]) -> list[Logged]:
        """Append to the log of ticks."""
        records = [(frame_key(frame.source, frame.symbol), encode(frame)) for frame in frames]
        offsets = await self.send(self.settings.ticks_topic, records)
        return list(zip(offsets, frames, strict=True))

    async def send_live(self, candle: Candle) -> None:
        """Publish an open candle as a worker does that has just read its newest tick."""
        await self.producer.send_and_wait(
            self.settings.candles_topic, encode(candle), key=candle_key(candle), partition=0,
            headers=[(RECEIVED_HEADER, str(candle.received).encode())],
        )  # fmt: skip

    async def send_candles(self, candles: Iterable[Candle]) -> None:
        await self.send(self.settings.candles_topic, [(candle_key(candle), encode(candle)) for candle in candles])

    async def send_bars(self, bars: Iterable[BrokerBar]) -> None:
        await self.send(self.settings.broker_candles_topic, [(bar_key(bar), encode(bar)) for bar in bars])

    def candles(self, logged: Sequence[Logged], *, every: int = 0) -> list[Candle]:
        """Candles of each minute in `logged`, as a worker emits them that begins there.

        The open minute is emitted after `every` records (never when that is 0), and each minute closed at the end.
        """
        folds: dict[tuple[str, str, int], CandleFold] = {}
        passes: dict[tuple[str, str], Passes] = {}
        emitted: list[Candle] = []
        for number, (offset, frame) in enumerate(logged, 1):
            key = (frame.source, frame.symbol)
            earliest, latest, minutes = split_by_period(frame)
            own = passes.setdefault(key, Passes())
            own.enter(frame, earliest, latest)
            for ts, ticks in minutes:
                fold = folds.setdefault((*key, ts), CandleFold(*key, ts))
                fold.add(offset, 0, own, frame, ticks)
                if every and number % every == 0:
                    emitted.append(self._candle(fold, closed=False))
        return [*emitted, *(self._candle(fold, closed=True) for fold in folds.values())]

    def _candle(self, fold: CandleFold, *, closed: bool) -> Candle:
        offsets = from_spans(fold.spans)
        candle = fold.candle(log=self.own_log, offsets=offsets, closed=closed, emitted=clock.now_ms())
        assert candle is not None
        return candle


class RunningSink:
    """A sink in a task: `async with RunningSink(settings) as sink`; leaving stops it and raises what it raised."""

    def __init__(self, settings: Settings, **options: Any) -> None:
        self.sink = Sink(settings, **options)

    async def __aenter__(self) -> Sink:
        self._task = asyncio.create_task(self.sink.run())
        return self.sink

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.sink.stop()
        await asyncio.wait_for(self._task, PATIENCE_SECONDS)


async def value(connection: Connection, query: str, *parameters: object) -> Any:
    """The first column of the first row."""
    row = await (await connection.execute(query.encode(), parameters or None)).fetchone()
    assert row is not None
    return row[0]


async def rejected_records(settings: Settings, expected: int) -> list[Any]:
    """Records of `candles.rejected`."""
    consumer = new_consumer(settings, settings.candles_rejected_topic, auto_offset_reset="earliest")
    await consumer.start()
    try:
        found: list[Any] = []

        async def are_there() -> bool:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found.extend(records)
            return len(found) >= expected

        await eventually(are_there, what=f"{expected} rejected records")
        return found
    finally:
        await consumer.stop()
