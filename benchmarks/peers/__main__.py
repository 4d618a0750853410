"""One-minute candles from the same records by Tickpipe and by other stream processors, in turn.

Each contender reads one topic of one partition from its beginning: 8 symbols with the ticks of the generated day, one
tick a record. What it publishes must equal a plain fold of the ticks, or it has no figures. The time is from the first
tick that reaches it to the moment at which the broker stored its last candle.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

from benchmarks.peers import contenders as start
from benchmarks.peers.installed import BYTEWAX, FLINK_VERSION, JACKSON_VERSION, KAFKA_STREAMS_VERSION, QUIX
from benchmarks.peers.running import Peer, Setup, contender
from benchmarks.peers.ticks import SYMBOLS, expected_bars, ticks_of_a_symbol, write_ticks
from benchmarks.rounds import run_rounds
from runtime.settings import load_settings
from runtime.topics import wait_for_kafka
from tests.days import EURUSD_COUNT
from tests.servers import EmbeddedServers

NAME = "peers"
OURS = ("Tickpipe", "Tickpipe, frames of 200")

#: Faust folds this part of what the other slow ones fold: at some hundred ticks a second all of it takes half an hour.
FAUST_SHARE = 10


async def peers(setup: Setup, ticks: int, slow_ticks: int) -> list[Peer]:
    """Write the topics; returns the contenders in the order in which they run."""
    await wait_for_kafka(setup.settings)
    history = ticks_of_a_symbol(ticks)
    part, least = history[:slow_ticks], history[: slow_ticks // FAUST_SHARE]
    bars = expected_bars(history)
    single = "ticks-single", await write_ticks(setup.settings, "ticks-single", history, 1), bars
    frames = "ticks-frames", await write_ticks(setup.settings, "ticks-frames", history, 200), bars
    fewer = "ticks-fewer", await write_ticks(setup.settings, "ticks-fewer", part, 1), expected_bars(part)
    fewest = "ticks-fewest", await write_ticks(setup.settings, "ticks-fewest", least, 1), expected_bars(least)
    interval_ms = round(setup.settings.emit_interval_seconds * 1000)
    return [
        start.kafka_streams(f"Kafka Streams, tuned, updates every {interval_ms} ms", single, interval_ms, "tuned"),
        start.kafka_streams(
            f"Kafka Streams, tuned, in memory, updates every {interval_ms} ms", single, interval_ms, "in_memory"
        ),
        start.kafka_streams(
            f"Kafka Streams, tuned, exactly once, updates every {interval_ms} ms", single, interval_ms, "exactly_once"
        ),
        start.kafka_streams(
            f"Kafka Streams as documented, updates every {interval_ms} ms", single, interval_ms, "documented"
        ),
        start.kafka_streams("Kafka Streams as documented, default (30 s)", single, None, "documented"),
        start.flink("Flink SQL, tuned", single, "tuned"),
        start.flink("Flink SQL as documented", single, "documented"),
        start.quix("Quix Streams", fewer),
        start.bytewax("Bytewax", fewer),
        start.faust("Faust, windowed table", fewest),
        start.tickpipe(OURS[0], single),
        start.tickpipe(OURS[1], frames),
    ]


def _servers(directory: Path) -> EmbeddedServers:
    return EmbeddedServers(directory / "servers", short_lived=False)


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds after the warm-up (default: 5)")
    parser.add_argument(
        "--ticks", type=int, default=EURUSD_COUNT, help=f"ticks of each of the 8 symbols (default: {EURUSD_COUNT})"
    )
    parser.add_argument(
        "--slow-ticks",
        type=int,
        help="of these, those that Quix Streams and Bytewax fold, and Faust a tenth of (default: a tenth)",
    )
    parser.add_argument("--only", nargs="+", metavar="WORD", help="contenders whose name holds one of these, and ours")
    options = parser.parse_args()
    slow_ticks = options.slow_ticks or options.ticks // 10
    with tempfile.TemporaryDirectory() as directory, _servers(Path(directory)) as servers:
        setup = Setup(load_settings(kafka_bootstrap=servers.kafka_bootstrap, kafka_partitions=1), Path(directory))
        chosen = [
            peer
            for peer in asyncio.run(peers(setup, options.ticks, slow_ticks))
            if peer.name in OURS or not options.only or any(word.lower() in peer.name.lower() for word in options.only)
        ]
        run_rounds(
            NAME,
            {peer.name: contender(setup, peer) for peer in chosen},
            rounds=options.rounds,
            unit="ticks",
            ours=OURS,
            versions={
                "kafka-streams": KAFKA_STREAMS_VERSION, "jackson": JACKSON_VERSION, "flink": FLINK_VERSION,
                **{name: version for name, _, version in (one.partition("==") for one in (*QUIX, *BYTEWAX))},
            },
            notes=[
                f"Every contender folded the same {options.ticks * len(SYMBOLS):,} ticks into candles equal to a plain "
                f"fold's; Quix Streams and Bytewax folded the first {slow_ticks * len(SYMBOLS):,} of them, Faust the "
                f"first {slow_ticks // FAUST_SHARE * len(SYMBOLS):,}.",
            ],
        )  # fmt: skip


if __name__ == "__main__":
    main()
