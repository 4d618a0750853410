"""What operators do to Kafka: topics, groups, and records written by hand."""

import asyncio
import random

from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from runtime.kafka import admin_client, log_ends
from sink.progress import with_sink_group
from tests.faults.acts import act
from tests.faults.operator_at_work import Operator
from tests.kafka_log import delete_topic, read_records
from tickpipe.replay.engine import wait_until_empty


@act("retention set by hand, then `topics fix`")
async def _(op: Operator) -> None:
    await op.configure("ticks", "--add-config", "retention.ms=604800000")
    name = op.named("stream")[0]
    await op.stop(name)
    await asyncio.to_thread(lambda: op.stack.run("topics", "fix", "--yes"))
    await op.start(name)


@act("compaction asked of candles.m1, then `topics fix`")
async def _(op: Operator) -> None:
    await op.configure("candles.m1", "--add-config", "cleanup.policy=compact")
    await asyncio.to_thread(lambda: op.stack.run("topics", "fix", "--yes"))


@act("candles.m1 compacted and deleted within a second for a while, then `topics fix`")
async def _(op: Operator) -> None:
    own = "cleanup.policy=[compact,delete],retention.ms=1000,segment.ms=1000,min.cleanable.dirty.ratio=0.01"
    await op.configure("candles.m1", "--add-config", own)
    await asyncio.sleep(8)
    await op.configure("candles.m1", "--delete-config", "segment.ms,min.cleanable.dirty.ratio")
    await asyncio.to_thread(lambda: op.stack.run("topics", "fix", "--yes"))


@act("max.message.bytes of candles.m1 lowered for a while")
async def _(op: Operator) -> None:
    await op.configure("candles.m1", "--add-config", "max.message.bytes=10")
    await asyncio.sleep(3)
    await op.configure("candles.m1", "--delete-config", "max.message.bytes")


@act("max.message.bytes of ticks lowered for a while")
async def _(op: Operator) -> None:
    await op.configure("ticks", "--add-config", "max.message.bytes=1000000")
    await asyncio.sleep(2)
    await op.configure("ticks", "--add-config", "max.message.bytes=8388608")


@act("group of the sink deleted while it runs")
async def _(op: Operator) -> None:
    group = (await with_sink_group(op.settings)).sink_group
    said = await op.group("--group", group, "--delete", expect=None)
    assert "GroupNotEmpty" in said, said


async def _offsets_to(op: Operator, kind: str, *where: str) -> None:
    group = op.settings.stream_group if kind == "stream" else (await with_sink_group(op.settings)).sink_group
    topic = "ticks" if kind == "stream" else "candles.m1"
    names = op.named(kind)
    await op.stop(*names)
    await wait_until_empty(op.settings, lambda members, waited: None, group=group)
    await op.group("--group", group, "--topic", topic, "--reset-offsets", *where, "--execute")
    await op.start(*names)


@act("the sink's offsets moved to the end")
async def _(op: Operator) -> None:
    await _offsets_to(op, "sink", "--to-latest")


@act("the sink's offsets moved to the beginning")
async def _(op: Operator) -> None:
    await _offsets_to(op, "sink", "--to-earliest")


@act("the workers' offsets moved to the beginning")
async def _(op: Operator) -> None:
    await _offsets_to(op, "stream", "--to-earliest")


@act("the workers' offsets moved to the end", repair=True)
async def _(op: Operator) -> None:
    await _offsets_to(op, "stream", "--to-latest")


@act("the sink's offsets deleted while it is away")
async def _(op: Operator) -> None:
    group = (await with_sink_group(op.settings)).sink_group
    names = op.named("sink")
    await op.stop(*names)
    await wait_until_empty(op.settings, lambda members, waited: None, group=group)
    await op.group("--group", group, "--delete")
    await op.start(*names)


@act("partitions added to ticks, twice")
async def _(op: Operator) -> None:
    await op.topic("ticks", "--alter", "--partitions", "5")
    await asyncio.sleep(1)
    await op.topic("ticks", "--alter", "--partitions", "7")
    await asyncio.sleep(12)


@act("partitions added to candles.m1")
async def _(op: Operator) -> None:
    await op.topic("candles.m1", "--alter", "--partitions", "6")


@act("a leader elected, a reassignment to where it is")
async def _(op: Operator) -> None:
    about = ("--election-type", "preferred", "--all-topic-partitions")
    await op.tool("org.apache.kafka.tools.LeaderElectionCommand", *about)


@act("lines of text written to ticks, with and without a key")
async def _(op: Operator) -> None:
    await op.write_by_hand("ticks", "hello\nworld\n\n")
    await op.write_by_hand("ticks", "EURUSD:hello\n", "parse.key=true", "key.separator=:")


@act("a frame written to ticks by hand, without a key")
async def _(op: Operator) -> None:
    tick = (
        '{"v":1,"source":"Hand","symbol":"XAUUSD","mode":"bid","point":0.01,"request":"hand","received":1709510400000,'
    )
    await op.write_by_hand("ticks", tick + '"ticks":[[1709510400000,2000.5,2000.6,0.0,0.0,6]]}\n')


@act("lines of text written to candles.m1")
async def _(op: Operator) -> None:
    await op.write_by_hand("candles.m1", "hello\n{}\n")


@act("candles.m1 deleted")
async def _(op: Operator) -> None:
    await delete_topic(op.settings, "candles.m1")


@act("candles.m1 deleted and made again with fewer partitions")
async def _(op: Operator) -> None:
    names = op.named("stream")
    # Or a worker is faster, and makes it as it was.
    await op.stop(*names)
    await delete_topic(op.settings, "candles.m1")
    await op.topic("candles.m1", "--create", "--partitions", "1", "--config", "retention.ms=2592000000")
    await op.start(*names)


@act("ticks.rejected and reference deleted")
async def _(op: Operator) -> None:
    await delete_topic(op.settings, "ticks.rejected")
    await delete_topic(op.settings, "reference")


@act("candles.m1 emptied while the sink is away", repair=True)
async def _(op: Operator) -> None:
    names = op.named("sink")
    await op.stop(*names)
    await asyncio.sleep(3)
    topic = op.settings.candles_topic
    ends = await log_ends(op.settings, topic)
    async with admin_client(op.settings) as client:
        await client.delete_records({TopicPartition(topic, n): RecordsToDelete(end) for n, (_, end) in ends.items()})
    await op.start(*names)


@act("ticks and candles written once more by a tool, in another order and to other partitions")
async def _(op: Operator) -> None:
    for topic in (op.settings.candles_topic, op.settings.ticks_topic):
        records = await read_records(op.settings, topic)
        random.Random(topic).shuffle(records)
        partitions = len(await log_ends(op.settings, topic))
        async with op.writer() as producer:
            for number, record in enumerate(records[:300]):
                await producer.send(
                    topic, record.value, key=record.key, headers=list(record.headers), partition=number % partitions
                )


@act("bytes, tombstones and large records written to candles.m1")
async def _(op: Operator) -> None:
    async with op.writer() as producer:
        for value in (b"\x00\x00\x00\x00\x07avro", b"\xff" * 500_000, None, b"", b"[]", b"null", b'{"v": 99}'):
            await producer.send(op.settings.candles_topic, value, key=b"EURUSD")


@act("a quota of 2 kB/s on all producers")
async def _(op: Operator) -> None:
    about = ("--entity-type", "clients", "--entity-default", "--alter")
    await op.tool("kafka.admin.ConfigCommand", *about, "--add-config", "producer_byte_rate=2000")
    await asyncio.sleep(15)
    await op.tool("kafka.admin.ConfigCommand", *about, "--delete-config", "producer_byte_rate")


@act("ticks stamped by the broker for a while")
async def _(op: Operator) -> None:
    await op.configure("ticks", "--add-config", "message.timestamp.type=LogAppendTime")
    await asyncio.sleep(3)
    await op.configure("ticks", "--delete-config", "message.timestamp.type")


@act("the topic of the committed offsets deleted")
async def _(op: Operator) -> None:
    await op.topic("__consumer_offsets", "--delete")
