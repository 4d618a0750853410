"""The stream app as a process, on a real Kafka: commits, crashes, rebalances, poison."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from marketdata.candle import Candle
from marketdata.kafka import admin_client, log_ends, new_consumer, new_producer, wait_for_kafka
from marketdata.offsets import Ranges, contains, union
from marketdata.refold import Proof, Refold
from marketdata.settings import Settings
from marketdata.tick import Frame, Tick
from marketdata.wire import decode_candle, encode, frame_key
from tests import oracle
from tests.integration.conftest import free_port
from tests.realday import EURUSD_COUNT, eurusd_bars, eurusd_ticks
from tests.services import Service, eventually, running

Key = tuple[str, str, int]


@dataclass
class Kafka:
    """What the tests do on the topics themselves."""

    settings: Settings
    producer: AIOKafkaProducer
    log: dict[int, list[tuple[int, Frame]]] = field(default_factory=dict)

    async def send(self, *frames: Frame) -> None:
        futures = [
            await self.producer.send(
                self.settings.ticks_topic, encode(frame), key=frame_key(frame.source, frame.symbol)
            )
            for frame in frames
        ]
        for frame, sent in zip(frames, await asyncio.gather(*futures), strict=True):
            self.log.setdefault(sent.partition, []).append((sent.offset, frame))

    async def committed(self) -> dict[int, int]:
        async with admin_client(self.settings) as client:
            offsets = await client.list_consumer_group_offsets(self.settings.stream_group)
        return {tp.partition: offset.offset for tp, offset in offsets.items()}

    async def lag(self) -> int:
        ends = await log_ends(self.settings, self.settings.ticks_topic)
        committed = await self.committed()
        return sum(end - committed.get(partition, first) for partition, (first, end) in ends.items())

    async def read(self, topic: str) -> list[tuple[dict[str, bytes], bytes | None]]:
        """Headers and values of everything in a topic."""
        consumer: AIOKafkaConsumer = new_consumer(self.settings)
        await consumer.start()
        try:
            ends = await log_ends(self.settings, topic)
            consumer.assign([TopicPartition(topic, p) for p in ends])
            await consumer.seek_to_beginning()
            wanted = sum(end - first for first, end in ends.values())
            records: list[tuple[dict[str, bytes], bytes | None]] = []
            while len(records) < wanted:
                for batch in (await consumer.getmany(timeout_ms=1000)).values():
                    records += [(dict(record.headers), record.value) for record in batch]
            return records
        finally:
            await consumer.stop()

    async def candles(self) -> dict[Key, Candle]:
        """Every minute as the sink would store it: the widest fold, or the fold of all offsets when none is widest.

        Each published candle is compared with the oracle's fold of its own offsets on the way.
        """
        stored: dict[Key, Candle] = {}
        for _, value in await self.read(self.settings.candles_topic):
            candle = decode_candle(value)
            self._compare_with_oracle(candle)
            key = (candle.source, candle.symbol, candle.ts)
            before = stored.get(key)
            if before is None or contains(candle.offsets, before.offsets):
                stored[key] = candle
            elif not contains(before.offsets, candle.offsets):
                stored[key] = self._refold(candle, union(before.offsets, candle.offsets))
        return stored

    def _refold(self, candle: Candle, ranges: Ranges) -> Candle:
        proof = Proof(candle.source, candle.symbol, candle.ts, ranges)
        refold = Refold([proof])
        for offset, frame in self.log[candle.partition]:
            refold.feed(offset, frame)
        folded = refold.results()[proof].candle(
            log=candle.log, partition=candle.partition, closed=candle.closed, emitted=candle.emitted
        )
        assert folded is not None
        return folded

    def _compare_with_oracle(self, candle: Candle) -> None:
        first, last = candle.offsets[0][0], candle.offsets[-1][1]
        stretch = [(offset, frame) for offset, frame in self.log[candle.partition] if first <= offset <= last]
        expected = oracle.fold(stretch, candle.source, candle.symbol, candle.ts, candle.offsets)
        assert expected is not None
        assert {f: getattr(candle, f) for f in expected.__dataclass_fields__} == expected.__dict__


@pytest.fixture
async def kafka(settings: Settings) -> AsyncIterator[Kafka]:
    await wait_for_kafka(settings)
    producer = new_producer(settings, linger_ms=5)
    await producer.start()
    yield Kafka(settings, producer)
    await producer.stop()


def frames_of(ticks: list[Tick], size: int, symbol: str = "EURUSD") -> list[Frame]:
    return [
        Frame(
            v=1, source="s", symbol=symbol, mode="bid", point=0.00001, request=f"{symbol}-{i}",
            received=time.time_ns() // 1_000_000, ticks=ticks[i : i + size],
        )
        for i in range(0, len(ticks), size)
    ]  # fmt: skip


async def test_the_real_day_survives_three_kills(settings: Settings, kafka: Kafka) -> None:
    await kafka.send(*frames_of(eurusd_ticks(), 5))

    for ticks_before_the_kill in (5_000, 40_000, 90_000):
        with running(settings, "stream_app") as [worker]:

            async def reached(service: Service = worker, wanted: int = ticks_before_the_kill) -> bool:
                return service.metric("tickpipe_stream_ticks_total") > wanted

            await eventually(reached, within_seconds=30, what=f"{ticks_before_the_kill} ticks folded")
            worker.kill()
    with running(settings, "stream_app") as [worker]:

        async def caught_up() -> bool:
            return await kafka.lag() == 0

        await eventually(caught_up, within_seconds=60, what="no lag")
        assert worker.stop() == 0

    candles = await kafka.candles()
    assert {ts: (c.open, c.high, c.low, c.close) for (_, _, ts), c in candles.items()} == eurusd_bars()
    assert sum(candle.volume for candle in candles.values()) == EURUSD_COUNT


async def test_the_commit_waits_for_the_open_minute_and_sigterm_publishes_it(settings: Settings, kafka: Kafka) -> None:
    now_ms = time.time_ns() // 1_000_000 // 60_000 * 60_000
    minute_before = [Tick(now_ms - 120_000 + i, 1.1, 1.2, 0.0, 0.0, 6) for i in range(3)]
    open_minute = [Tick(now_ms + i, 1.3, 1.4, 0.0, 0.0, 6) for i in range(3)]
    with running(settings, "stream_app") as [worker]:
        await kafka.send(*frames_of(minute_before, 1))

        async def folded() -> bool:
            return worker.metric("tickpipe_stream_ticks_total") == 3

        await eventually(folded, within_seconds=20, what="the minute before")
        await kafka.send(*frames_of(open_minute, 1))

        async def committed() -> bool:
            return 3 in (await kafka.committed()).values()

        await eventually(committed, within_seconds=20, what="a commit up to the open minute")
        assert worker.stop() == 0

    assert 3 in (await kafka.committed()).values(), "the open minute is folded again"
    candles = await kafka.candles()
    assert [(c.volume, c.closed) for _, c in sorted(candles.items())] == [(3, True), (3, False)]


async def test_what_is_no_frame_is_kept_apart_and_stops_nothing(settings: Settings, kafka: Kafka) -> None:
    topic, key = settings.ticks_topic, frame_key("s", "EURUSD")
    good = frames_of(eurusd_ticks()[:400], 100)
    with running(settings, "stream_app"):
        await kafka.send(*good[:2])
        for poison in (b"", b"\xff", b"{}", b'{"v":2}', None):
            await kafka.producer.send_and_wait(topic, poison, key=key)
        await kafka.send(*good[2:])

        async def caught_up() -> bool:
            return await kafka.lag() == 0

        await eventually(caught_up, within_seconds=30, what="no lag")

    rejected = await kafka.read(settings.ticks_rejected_topic)
    assert sorted(int(headers["offset"]) for headers, _ in rejected) == [2, 3, 4, 5, 6]
    assert {headers["topic"] for headers, _ in rejected} == {topic.encode()}
    assert all(headers["reason"] for headers, _ in rejected)
    assert [value for headers, value in rejected if int(headers["offset"]) == 5] == [b'{"v":2}']
    assert sum(candle.volume for candle in (await kafka.candles()).values()) == 400


@pytest.mark.fault
async def test_workers_come_and_go_under_load(settings: Settings, kafka: Kafka) -> None:
    """One worker, a second joins, the first is killed, a third joins: every minute of every symbol is whole."""
    symbols = [f"SYM{i}" for i in range(8)]
    frames = {symbol: frames_of(eurusd_ticks()[:20_000], 20, symbol) for symbol in symbols}
    others = [
        settings.model_copy(update={"stream_port": free_port(), "stream_instance": f"other-{i}"}) for i in range(2)
    ]
    workers = [Service("stream_app", one) for one in (settings, *others)]

    async def flow() -> None:
        for i in range(1000):
            await kafka.send(*(frames[symbol][i] for symbol in symbols))
            await asyncio.sleep(0.01)

    try:
        workers[0].start().wait_ready()
        flowing = asyncio.create_task(flow())
        await asyncio.to_thread(lambda: workers[1].start().wait_ready())
        await asyncio.sleep(2)
        await asyncio.to_thread(workers[0].kill)
        await asyncio.to_thread(lambda: workers[2].start().wait_ready())
        await flowing

        async def caught_up() -> bool:
            return await kafka.lag() == 0

        await eventually(caught_up, within_seconds=60, what="no lag")
    finally:
        for worker in workers:
            if worker.returncode is None:
                worker.kill()

    candles = await kafka.candles()
    for symbol in symbols:
        assert sum(candle.volume for (_, s, _), candle in candles.items() if s == symbol) == 20_000
