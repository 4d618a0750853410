"""The ticks topic as the tests use it: frames go in, and every candle that comes out is held against the oracle."""

import asyncio
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from marketdata.candle import Candle
from marketdata.offsets import Ranges, contains, position, spans, union
from marketdata.refold import Proof, Refold
from marketdata.tick import Frame, Tick
from marketdata.wire import decode_candle, encode, frame_key
from runtime import clock
from runtime.kafka import admin_client, log_ends, new_consumer
from runtime.kafka_groups import committed_offsets, lag_of
from runtime.settings import Settings
from tests import oracle

Key = tuple[str, str, int]


async def group_lag(settings: Settings, group: str, topic: str) -> int:
    """Records of the topic that the group has not committed."""
    async with admin_client(settings) as client:
        committed = await committed_offsets(client, group)
    return lag_of({topic: await log_ends(settings, topic)}, committed)


async def delete_ticks_topic(settings: Settings) -> None:
    """Delete the ticks topic; returns when it is gone."""
    await delete_topic(settings, settings.ticks_topic)


async def delete_topic(settings: Settings, topic: str) -> None:
    """Delete a topic; returns when it is gone."""
    async with admin_client(settings) as client:
        await client.delete_topics([topic])
        while topic in await client.list_topics():  # noqa: ASYNC110 - the broker has no event
            await asyncio.sleep(0.05)


async def read_records(settings: Settings, topic: str) -> list[ConsumerRecord]:
    """Every record that a topic holds now, by partition and offset."""
    consumer: AIOKafkaConsumer = new_consumer(settings)
    await consumer.start()
    try:
        records: list[ConsumerRecord] = []
        for partition, (first, end) in (await log_ends(settings, topic)).items():
            tp = TopicPartition(topic, partition)
            consumer.assign([tp])
            consumer.seek(tp, first)
            # The position, not the count: retention and transactions leave holes.
            while await consumer.position(tp) < end:
                for found in (await consumer.getmany(tp, timeout_ms=1000)).values():
                    records += found
        return records
    finally:
        await consumer.stop()


async def send_empty(producer: AIOKafkaProducer, topic: str, partition: int = 0) -> int:
    """Write a record with neither key nor value, as other clients of Kafka can; its offset."""
    batch = producer.create_batch()
    batch.append(timestamp=None, key=None, value=None)
    sent = await (await producer.send_batch(batch, topic, partition=partition))
    return int(sent.offset)


@dataclass
class KafkaLog:
    """What the tests do on the topics themselves."""

    settings: Settings
    producer: AIOKafkaProducer
    #: Positions and frames by partition.
    log: dict[int, list[tuple[int, Frame]]] = field(default_factory=dict)

    async def send(self, *frames: Frame) -> None:
        futures = [
            await self.producer.send(
                self.settings.ticks_topic, encode(frame), key=frame_key(frame.source, frame.symbol)
            )
            for frame in frames
        ]
        for frame, sent in zip(frames, await asyncio.gather(*futures), strict=True):
            self.log.setdefault(sent.partition, []).append((position(sent.partition, sent.offset), frame))

    async def committed(self) -> dict[int, int]:
        async with admin_client(self.settings) as client:
            offsets = await committed_offsets(client, self.settings.stream_group)
        return {tp.partition: offset for tp, offset in offsets.items()}

    async def lag(self) -> int:
        return await group_lag(self.settings, self.settings.stream_group, self.settings.ticks_topic)

    async def read(self, topic: str) -> list[tuple[dict[str, bytes], bytes | None]]:
        """Headers and values of everything in a topic."""
        return [(dict(record.headers), record.value) for record in await read_records(self.settings, topic)]

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
        for partition in sorted(self.log):
            refold.feed(self.log[partition])
        folded = refold.results()[proof].candle(
            log=candle.log, offsets=ranges, closed=candle.closed, emitted=candle.emitted
        )
        assert folded is not None
        return folded

    def _compare_with_oracle(self, candle: Candle) -> None:
        [partition] = {partition for partition, _, _ in candle.offsets}
        [(first, _), *_, (_, last)] = [*spans(candle.offsets), *spans(candle.offsets)]
        frames = [(at, frame) for at, frame in self.log[partition] if first <= at <= last]
        expected = oracle.fold(frames, candle.source, candle.symbol, candle.ts, candle.offsets)
        assert expected is not None
        assert {f: getattr(candle, f) for f in expected.__dataclass_fields__} == expected.__dict__


def frames_of(ticks: list[Tick], size: int, symbol: str = "EURUSD") -> list[Frame]:
    return [
        Frame(
            v=1, source="s", symbol=symbol, mode="bid", point=0.00001, request=f"{symbol}-{i}",
            received=clock.now_ms(), ticks=ticks[i : i + size],
        )
        for i in range(0, len(ticks), size)
    ]  # fmt: skip
