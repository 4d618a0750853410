"""One-minute candles from the same records by Tickpipe and by other stream processors, in turn.

Each contender reads one topic of one partition from its beginning: symbols with ticks of the generated day, one tick a
record. What it publishes must equal a plain fold of the ticks, or it has no figures. The time is from the first
tick that reaches it to the moment at which the broker stored its last candle.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers import contenders as start
from benchmarks.peers.installed import BYTEWAX, FLINK_VERSION, JACKSON_VERSION, KAFKA_STREAMS_VERSION, QUIX
from benchmarks.peers.running import Peer, Setup, contender
from benchmarks.peers.ticks import SYMBOLS, expected_bars, symbols_of, ticks_of_a_symbol, write_ticks
from benchmarks.rounds import run_rounds
from marketdata.tick import Tick
from runtime.settings import load_settings
from runtime.topics import wait_for_kafka
from tests.days import EURUSD_COUNT
from tests.servers import EmbeddedServers

NAME = "peers"
OURS = ("Tickpipe", "Tickpipe, frames of 200")

#: Faust folds this part of what the other slow ones fold: at some hundred ticks a second all of it takes half an hour.
FAUST_SHARE = 10


async def peers(setup: Setup, symbols: Sequence[str], ticks: int, slow_ticks: int) -> list[Peer]:
    """Write the topics; returns the contenders in the order in which they run."""
    await wait_for_kafka(setup.settings)
    history = ticks_of_a_symbol(ticks)
    part, least = history[:slow_ticks], history[: slow_ticks // FAUST_SHARE]

    async def topic(name: str, of_a_symbol: list[Tick], frame_size: int = 1) -> start.Topic:
        count = await write_ticks(setup.settings, name, of_a_symbol, frame_size, symbols)
        return name, count, expected_bars(of_a_symbol, symbols)

    single, frames = await topic("ticks-single", history), await topic("ticks-frames", history, 200)
    fewer, fewest = await topic("ticks-fewer", part), await topic("ticks-fewest", least)
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
    parser.add_argument("--symbols", type=int, default=len(SYMBOLS), help="how many (default: %(default)s)")
    parser.add_argument(
        "--ticks", type=int, help=f"of each symbol (default: so many that all have {EURUSD_COUNT * len(SYMBOLS):,})"
    )
    parser.add_argument(
        "--slow-ticks",
        type=int,
        help="of these, those that Quix Streams and Bytewax fold, and Faust a tenth of (default: a tenth)",
    )
    parser.add_argument("--only", nargs="+", metavar="WORD", help="contenders whose name holds one of these, and ours")
    options = parser.parse_args()
    symbols = symbols_of(options.symbols)
    ticks = options.ticks or EURUSD_COUNT * len(SYMBOLS) // len(symbols)
    slow_ticks = options.slow_ticks or ticks // 10
    with tempfile.TemporaryDirectory() as directory, _servers(Path(directory)) as servers:
        setup = Setup(load_settings(kafka_bootstrap=servers.kafka_bootstrap, kafka_partitions=1), Path(directory))
        chosen = [
            peer
            for peer in asyncio.run(peers(setup, symbols, ticks, slow_ticks))
            if peer.name in OURS or not options.only or any(word.lower() in peer.name.lower() for word in options.only)
        ]
        run_rounds(
            NAME if len(symbols) == len(SYMBOLS) else f"{NAME}-{len(symbols)}-symbols",
            {peer.name: contender(setup, peer) for peer in chosen},
            rounds=options.rounds,
            unit="ticks",
            ours=OURS,
            versions={
                "kafka-streams": KAFKA_STREAMS_VERSION, "jackson": JACKSON_VERSION, "flink": FLINK_VERSION,
                **{name: version for name, _, version in (one.partition("==") for one in (*QUIX, *BYTEWAX))},
            },
            notes=[
                f"Every contender folded the same {ticks * len(symbols):,} ticks into candles equal to a plain "
                f"fold's; Quix Streams and Bytewax folded the first {slow_ticks * len(symbols):,} of them, Faust the "
                f"first {slow_ticks // FAUST_SHARE * len(symbols):,}.",
            ],
        )  # fmt: skip


if __name__ == "__main__":
    main()
