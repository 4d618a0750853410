"""The producer against gateways that put the same bodies into the same Kafka: `python -m benchmarks.gateways`.

Each is one process on the same cores, writes with `acks=all` and answers when Kafka has confirmed. Bodies of one tick
and of 200 ticks of 8 symbols come over 64 keep-alive connections. After every round each tick that was answered has to
be in the gateway's topic once, or it has no figures.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
from aiokafka import TopicPartition

from benchmarks.ingest import TICKS, body_of, posting, variables
from benchmarks.peers.topics import create_topic
from benchmarks.rounds import Contender, Measured, NotMeasured, run_rounds
from benchmarks.services import serving
from marketdata.wire import decode_frame
from runtime.kafka import log_ends, new_consumer
from runtime.settings import Settings, load_settings
from tests.servers import EmbeddedServers

#: Of the gateway in `benchmarks/bare_gateway.py`.
BARE_TOPIC = "bare"

OURS = "Tickpipe"
BARE = "aiohttp and aiokafka, 40 lines"

#: What could not be had: contender and reason.
NOT_HAD = {
    "Karapace REST": "not on PyPI",
    "Strimzi bridge": "not on Maven Central",
    "Redpanda Connect": "no package but an image; as a Go module it is to be built with all its connectors",
}


async def ticks_in(settings: Settings, topic: str, count: Callable[[bytes], int]) -> int:
    """Ticks of all records of a topic."""
    ends = {TopicPartition(topic, number): end for number, (_, end) in (await log_ends(settings, topic)).items()}
    consumer = new_consumer(settings)
    await consumer.start()
    try:
        consumer.assign(list(ends))
        await consumer.seek_to_beginning(*ends)
        found = 0
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=1_000)).values():
                found += sum(count(record.value) for record in records)
        return found
    finally:
        await consumer.stop()


def checked(settings: Settings, run: Contender, topic: str, count: Callable[[bytes], int]) -> Contender:
    """The same, after which the topic must hold so many ticks more."""

    def run_and_count() -> Measured:
        before = asyncio.run(ticks_in(settings, topic, count))
        one = run()
        held = asyncio.run(ticks_in(settings, topic, count))
        if held - before != one.work:
            raise NotMeasured(f"{one.work} ticks were answered and {held - before} are in its topic")
        return one

    return run_and_count


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000, help="of one tick in a round (default: 20000)")
    parser.add_argument("--bodies", type=int, default=2_000, help="of 200 ticks in a round (default: 2000)")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (default: 5)")
    parser.add_argument("--port", type=int, default=18_982, help="of the producer; the next is the other's")
    options = parser.parse_args()
    ports = {"producer": options.port, "benchmarks.bare_gateway": options.port + 1}
    with tempfile.TemporaryDirectory() as directory, EmbeddedServers(Path(directory), short_lived=False) as servers:
        settings = load_settings(kafka_bootstrap=servers.kafka_bootstrap)
        asyncio.run(create_topic(settings, BARE_TOPIC))
        known = [variables(servers.kafka_bootstrap, port) for port in ports.values()]
        with (
            serving({"producer": options.port}, known[0]) as ours,
            serving({"benchmarks.bare_gateway": options.port + 1}, known[1]) as bare,
        ):
            for name, ticks, requests in (("one", 1, options.requests), ("bodies", TICKS, options.bodies)):
                bodies = [body_of(number, ticks) for number in range(requests)]
                run = {
                    module: posting(process, port, "/ingest/tick", bodies, ticks)
                    for (module, process), port in zip({**bare, **ours}.items(), reversed(ports.values()), strict=True)
                }
                contenders = {
                    BARE: checked(settings, run["benchmarks.bare_gateway"], BARE_TOPIC, _in_bare),
                    OURS: checked(settings, run["producer"], settings.ticks_topic, _in_frame),
                }
                notes = [f"Not measured: {peer} ({reason})." for peer, reason in NOT_HAD.items()]
                run_rounds(f"gateways-{name}", contenders, rounds=options.rounds, unit="ticks", notes=notes)


def _in_bare(value: bytes) -> int:
    return len(msgspec.json.decode(value))


def _in_frame(value: bytes) -> int:
    return len(decode_frame(value).ticks)


if __name__ == "__main__":
    main()
