"""Records on the ticks topic that the producer would never write, and what foreign senders may do to a log."""

import asyncio
import random
import uuid

import pytest
from aiokafka import AIOKafkaProducer

from marketdata.tick import Frame, Tick
from marketdata.wire import encode, frame_key
from runtime.kafka import new_producer
from runtime.settings import Settings
from tests.days import eurusd_ticks
from tests.faults.stage import Stage
from tests.kafka_log import KafkaLog, frames_of
from tests.servers import EmbeddedServers

pytestmark = [pytest.mark.fault, pytest.mark.full, pytest.mark.timeout(600)]

CODECS = (None, "gzip", "snappy", "lz4", "zstd")

KEY = frame_key("s", "EURUSD")

TICK = Tick(1549231200123, 1.14541, 1.14555, 0.0, 0.0, 6)

GOOD = encode(frames_of([TICK, TICK], 2)[0])

#: What is no frame, and why.
POISON: dict[str, bytes | None] = {
    "tombstone": None,
    "nothing": b"",
    "no UTF-8": b"\xff\xfe",
    "half a frame": GOOD[:40],
    "two frames": GOOD + b"," + GOOD,
    "another version": GOOD.replace(b'"v":1', b'"v":3'),
    "no version": GOOD.replace(b'"v":1,', b""),
    "no ticks": GOOD[: GOOD.index(b'"ticks"')] + b'"ticks":[]}',
    "a tick of five fields": GOOD[: GOOD.index(b'"ticks"')] + b'"ticks":[[1,1.0,1.0,1.0,1.0]]}',
    "NaN": GOOD.replace(b"1.1", b"NaN", 1),
    "a foreign record": b'{"user": 7, "action": "login"}',
    "deep": b"[" * 100_000,
}


async def test_poison_between_frames_of_every_codec_stops_nothing(
    settings: Settings, servers: EmbeddedServers, kafka: KafkaLog, seed: int
) -> None:
    async with Stage(settings, servers, case="poison, every codec", seed=seed, modules=("stream_app", "sink")) as stage:
        frames = frames_of(eurusd_ticks()[:6_000], 10)
        poison = list(POISON.values())
        part = len(frames) // len(CODECS)
        for i, codec in enumerate(CODECS):
            own = [encode(frame) for frame in frames[i * part : (i + 1) * part]]
            values = [*own[: part // 2], *stage.rng.sample(poison, len(poison)), *own[part // 2 :]]
            await _send(settings, values, compression_type=codec)
        stage.rounds = len(POISON) * len(CODECS)
        log = await stage.settle_and_compare()

    assert log.records == len(frames)
    rejected = await kafka.read(settings.ticks_rejected_topic)
    assert sorted(value or b"" for _, value in rejected) == sorted((value or b"") for value in poison * len(CODECS))
    assert stage.ended == []


async def test_unknown_fields_and_foreign_keys_are_ignored(
    settings: Settings, servers: EmbeddedServers, kafka: KafkaLog, seed: int
) -> None:
    frames = frames_of(eurusd_ticks()[:500], 10)
    async with Stage(settings, servers, case="unknown fields", seed=seed, modules=("stream_app", "sink")) as stage:
        newer = [encode(frame)[:-1] + b',"venue":{"name":"LD4"},"seq":[1]}' for frame in frames]
        await _send(settings, newer[:25], key=b"some other key")
        await _send(settings, newer[25:], key=b"some other key", headers=[("x", b"\xff")])
        await stage.settle_and_compare()
    assert await kafka.read(settings.ticks_rejected_topic) == []
    assert stage.ended == []


@pytest.mark.parametrize("ends_with", ["an abort", "a frame"])
async def test_transactions_of_a_foreign_sender_leave_holes_and_no_lag(
    settings: Settings, servers: EmbeddedServers, kafka: KafkaLog, seed: int, ends_with: str
) -> None:
    """Markers are offsets without a record. Every frame counts, one of an aborted transaction too: see the docs."""
    patient = settings.model_copy(update={"watchdog_seconds": 12.0})
    frames = frames_of(eurusd_ticks()[:2_000], 10)
    async with Stage(patient, servers, case="foreign transactions", seed=seed, modules=("stream_app", "sink")) as stage:
        foreign = new_producer(settings, transactional_id=f"foreign-{uuid.uuid4().hex}")
        await foreign.start()
        try:
            while frames:
                ours, theirs, frames = frames[:5], frames[5:10], frames[10:]
                await kafka.send(*ours)
                await _transaction(foreign, settings.ticks_topic, theirs, abort=stage.rng.random() < 0.5)
                stage.rounds += 1
            await _transaction(foreign, settings.ticks_topic, [], abort=True)
        finally:
            await foreign.stop()
        if ends_with == "a frame":
            await kafka.send(*frames_of(eurusd_ticks()[2_000:2_010], 10))
        else:
            await asyncio.sleep(25)  # longer than the watchdog's patience: it must not mistake a marker for lag
        await stage.settle_and_compare()
    assert stage.ended == []


async def _transaction(producer: AIOKafkaProducer, topic: str, frames: list[Frame], *, abort: bool) -> None:
    await producer.begin_transaction()
    for frame in frames:
        await producer.send_and_wait(topic, encode(frame), key=KEY)
    if not frames:
        await producer.send_and_wait(topic, b"not a frame", key=KEY)
    await (producer.abort_transaction() if abort else producer.commit_transaction())


async def _send(
    settings: Settings,
    values: list[bytes | None] | list[bytes],
    *,
    key: bytes = KEY,
    headers: list[tuple[str, bytes]] | None = None,
    compression_type: str | None = None,
) -> None:
    producer = new_producer(settings, compression_type=compression_type, linger_ms=random.randint(0, 20))
    await producer.start()
    try:
        sent = [await producer.send(settings.ticks_topic, value, key=key, headers=headers) for value in values]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()
