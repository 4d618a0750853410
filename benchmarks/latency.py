"""How long a tick takes from its POST to a row that others can read, at a rate that all services sustain.

`python -m benchmarks.latency` starts Kafka, PostgreSQL, the producer, one stream worker and the sink on this machine
and posts 1,000 ticks a second of 8 symbols, one tick a request, each at its planned moment whatever the answers before
it took. A reader asks the table every few milliseconds: a tick is visible once the row of its minute has a `last_tick`
that is not older. So the figures hold the reader's own interval and the database's answer. Rounds alternate between the
emit intervals.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles

import psycopg
from rich.console import Console
from rich.progress import Progress

from benchmarks.ingest import KEY, TICK, read_answer
from benchmarks.memory import SERVICES, variables
from benchmarks.outcome import Beginning
from benchmarks.report import table_of
from benchmarks.services import serving
from runtime import clock
from tests.servers import EmbeddedServers

SYMBOLS = 8

#: Emit intervals (seconds) and their goals, median and 99th percentile (seconds).
GOALS = {0.2: (0.3, 1.0), 0.02: (0.06, 0.25)}

#: Ticks of the first seconds are not counted: connections open, minutes and plans are new (seconds).
WARM_UP_SECONDS = 10.0

#: The reader looks this often (seconds), and waits this long for the last ticks.
LOOK_SECONDS = 0.004
PATIENCE_SECONDS = 15.0

#: Newest tick of each symbol that a reader sees; the bound on ts spares what is older.
VISIBLE = """
SELECT symbol, (extract(epoch FROM max(last_tick)) * 1000)::bigint FROM market_data
WHERE timeframe = 'M1' AND ts >= now() - interval '2 minutes' GROUP BY symbol
"""


@dataclass(frozen=True)
class Round:
    """Of one emit interval."""

    emit_interval_seconds: float
    ticks: int
    #: Latencies (seconds).
    p50: float
    p99: float
    most: float

    @classmethod
    def of(cls, emit_interval_seconds: float, latencies: Sequence[float]) -> "Round":
        """From the latency of each tick (seconds)."""
        percentiles = quantiles(latencies, n=100)
        return cls(emit_interval_seconds, len(latencies), percentiles[49], percentiles[98], max(latencies))


class Reader:
    """Notes when each tick became visible; ticks of a symbol become visible in their order."""

    def __init__(self) -> None:
        #: Posted and not yet visible, by symbol: (time in the tick (epoch milliseconds), moment it was to be posted).
        self.waiting: dict[str, list[tuple[int, float]]] = {f"SYM{n}": [] for n in range(SYMBOLS)}
        self.latencies: list[float] = []
        self.counts_from = 0.0

    async def look(self, database_url: str, posted: asyncio.Event) -> None:
        """Until all was posted and is visible.

        Raises:
            SystemExit: when posted ticks do not become visible.
        """
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            changed = time.monotonic()
            while not (posted.is_set() and not any(self.waiting.values())):
                newest = await (await connection.execute(VISIBLE)).fetchall()
                now = time.monotonic()
                if sum(self._note(symbol, visible_ms, now) for symbol, visible_ms in newest):
                    changed = now
                if now - changed > PATIENCE_SECONDS:
                    raise SystemExit(f"{sum(map(len, self.waiting.values()))} ticks did not become visible")
                await asyncio.sleep(LOOK_SECONDS)

    def _note(self, symbol: str, visible_ms: int, now: float) -> int:
        waiting = self.waiting[symbol]
        visible = [planned for time_msc, planned in waiting if time_msc <= visible_ms]
        del waiting[: len(visible)]
        self.latencies += [now - planned for planned in visible if planned >= self.counts_from]
        return len(visible)


async def post_symbol(port: int, number: int, schedule: Sequence[float], reader: Reader) -> None:
    """Ticks of one symbol over one connection at the moments of `schedule` (monotonic seconds); late ones go at once.

    Raises:
        SystemExit: when a tick is refused.
    """
    incoming, outgoing = await asyncio.open_connection("127.0.0.1", port)
    head = b"POST /ingest/tick HTTP/1.1\r\nHost: bench\r\nX-API-Key: %b\r\nContent-Length: %d\r\n\r\n%b"
    waiting = reader.waiting[f"SYM{number}"]
    for planned in schedule:
        await asyncio.sleep(max(0.0, planned - time.monotonic()))
        body = TICK % (number, time_msc := clock.now_ms())
        # Whole milliseconds of the clock: two ticks that are late together are one to the reader.
        waiting.append((time_msc, planned))
        outgoing.write(head % (KEY.encode(), len(body), body))
        await read_answer(incoming)
    outgoing.close()


async def measure(port: int, database_url: str, rate: int, seconds: float) -> list[float]:
    """The latency of every tick after the warm-up (seconds)."""
    reader, posted = Reader(), asyncio.Event()
    began = time.monotonic() + 0.5
    reader.counts_from = began + WARM_UP_SECONDS
    schedule = [began + turn / rate for turn in range(int((WARM_UP_SECONDS + seconds) * rate))]
    looking = asyncio.create_task(reader.look(database_url, posted))
    await asyncio.gather(*(post_symbol(port, number, schedule[number::SYMBOLS], reader) for number in range(SYMBOLS)))
    posted.set()
    await looking
    return reader.latencies


def one_round(servers: EmbeddedServers, emit_seconds: float, first_port: int, rate: int, seconds: float) -> Round:
    """Fresh services on the servers that run."""
    ports = {service: first_port + n for n, service in enumerate(SERVICES)}
    with tempfile.TemporaryDirectory() as directory:
        settings: Mapping[str, str] = variables(servers, Path(directory), ports) | {
            "TICKPIPE_EMIT_INTERVAL_SECONDS": str(emit_seconds)
        }
        with serving(ports, settings):
            latencies = asyncio.run(measure(first_port, servers.database_url, rate, seconds))
    return Round.of(emit_seconds, latencies)


def lines_of(rounds: Sequence[Round], rate: int) -> list[str]:
    """The table and what was done, as Markdown."""
    rows = []
    for interval, (goal50, goal99) in GOALS.items():
        mine = [one for one in rounds if one.emit_interval_seconds == interval]
        rows.append(
            [f"{interval * 1000:.0f} ms"]
            + [_spread([getattr(one, name) * 1000 for one in mine]) for name in ("p50", "p99", "most")]
            + [f"{goal50 * 1000:.0f} / {goal99 * 1000:.0f}"]
        )
    heading = ["emit interval", "p50 ms", "p99 ms", "most ms", "goal p50 / p99 ms"]
    count = len(rounds) // len(GOALS)
    return [
        *table_of(heading, rows), "",
        f"{rate:,} ticks/s of {SYMBOLS} symbols, one tick a request; medians of {count} rounds in turn (least–most), "
        f"{rounds[0].ticks:,} ticks in each.",
    ]  # fmt: skip


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.0f} ({min(values):.0f}–{max(values):.0f})"


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=1_000, help="ticks a second (default: 1000)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each round, after the warm-up (default: 60)")
    parser.add_argument("--rounds", type=int, default=3, help="for each emit interval (default: 3)")
    parser.add_argument("--port", type=int, default=18_985, help="of the producer; two more follow (default: 18985)")
    options = parser.parse_args()
    console, beginning = Console(), Beginning.now()
    rounds = []
    with (
        tempfile.TemporaryDirectory() as directory,
        EmbeddedServers(Path(directory)) as servers,
        Progress(console=console, disable=not console.is_terminal) as progress,
    ):
        for _ in progress.track(range(options.rounds), description="rounds"):
            for interval in GOALS:
                rounds.append(one := one_round(servers, interval, options.port, options.rate, options.seconds))
                console.print(
                    f"every {interval * 1000:.0f} ms: p50 {one.p50 * 1000:.0f} ms, p99 {one.p99 * 1000:.0f} ms",
                    highlight=False,
                )
    figures = {"rate": options.rate, "rounds": [asdict(one) for one in rounds]}
    beginning.store("latency", lines_of(rounds, options.rate), figures)


if __name__ == "__main__":
    main()
