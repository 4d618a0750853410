"""How long a tick takes from its POST to each stage that it passes, at shares of the rate that the machine sustains.

`python -m benchmarks.latency` starts Kafka, PostgreSQL, the producer, one stream worker, the sink and the dashboard on
this machine. First it posts as fast as answers come, one tick a request, until the broker's JVM has compiled what it
runs: services run for weeks, and in the first minute of load its compilers take as much as its work. The rate at which
ticks then reach every stage is what saturates. Then it posts at shares of that rate, each tick at its planned moment
whatever became of those before it, and counts from that moment. Both cores are shared by all of that and by this
client. What waits for a core differs widely from one quarter of a minute to the next, so each rate has several rounds,
in turn with those of the other rates: the figures are their medians, beside least and most.

A tick has reached a stage once something of its symbol is seen there that is not older:

- answered: the answer to its POST, after Kafka has confirmed it
- chosen: the candle with it was chosen to be published, by the time written in the candle (whole milliseconds)
- published: a consumer of the candles topic gets that candle
- stream: a client of the dashboard's `/stream` gets it
- row: another connection to the database, which asks every few milliseconds, reads its row
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import psutil
from rich.console import Console

from benchmarks.ingest import read_answer, request_of, tick_of
from benchmarks.latency_report import Compilation, Round, lines_of
from benchmarks.memory import SERVICES, variables
from benchmarks.outcome import Beginning
from benchmarks.rounds import cpu_seconds
from benchmarks.services import serving
from benchmarks.watches import Watches, watch_rows, watch_stream, watch_topic
from runtime import clock
from tests import plainhttp
from tests.servers import EmbeddedServers

#: Goals at half of what saturates, 99th percentile (seconds).
GOALS = {"row": 0.025, "stream": 0.015}
GOAL_SHARE = 0.5

SHARES = (0.25, 0.5, 0.8, 0.95)
SYMBOLS = 8
CONNECTIONS = 64

#: What is counted of the rounds of worker and sink: service, and metric of it.
TURNS = {
    "publishing": ("stream_app", "tickpipe_stream_emit_seconds"),
    "storing": ("sink", "tickpipe_sink_batch_seconds"),
}

#: The broker counts as compiled once its compilers take less than this in a step (cores, seconds). At the end of the
#: longest time it is measured as it is.
COMPILED_CORES = 0.02
COMPILE_STEP_SECONDS = 5.0
MAX_COMPILE_SECONDS = 60.0

#: For how long is posted to find the rate that saturates (seconds).
SATURATING_SECONDS = 10.0

#: Ticks of the first seconds are not counted: connections open, minutes and plans are new (seconds).
WARM_UP_SECONDS = 3.0


class Client:
    """Posts ticks over many connections."""

    def __init__(self, port: int, symbols: int, watches: Watches) -> None:
        self._port = port
        self._symbols = symbols
        self._watches = watches
        self._newest = [0] * symbols

    async def post(self, schedule: Iterable[float]) -> int:
        """One tick at each moment of `schedule` (epoch seconds), late ones at once; returns how many.

        Raises:
            SystemExit: when a tick is refused.
        """
        turns = iter(enumerate(schedule))
        return sum(await asyncio.gather(*(self._post(turns) for _ in range(CONNECTIONS))))

    async def _post(self, turns: Iterator[tuple[int, float]]) -> int:
        incoming, outgoing = await asyncio.open_connection("127.0.0.1", self._port)
        answered, count = self._watches.of["answered"], 0
        for turn, planned in turns:
            count += 1
            if (pause := planned - time.time()) > 0:
                await asyncio.sleep(pause)
            number = turn % self._symbols
            # No two of a symbol have the same time.
            self._newest[number] = time_msc = max(self._newest[number] + 1, clock.now_ms())
            self._watches.posted(f"SYM{number}", time_msc, planned)
            outgoing.write(request_of(tick_of(number, time_msc)))
            await read_answer(incoming)
            if planned >= answered.counts_from:
                answered.latencies.append(time.time() - planned)
        outgoing.close()
        return count


def compiler_seconds(jvm: int) -> float:
    """Processor time so far of the threads of a JVM that compile (seconds)."""
    seconds = 0.0
    for thread in Path(f"/proc/{jvm}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            name, _, rest = (thread / "stat").read_text().partition("(")[2].rpartition(")")
            if "CompilerThre" in name:
                user, system = rest.split()[11:13]
                seconds += (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return seconds


def flat_out(seconds: float) -> Iterator[float]:
    """Moments without end, all of them now, for so long."""
    end = time.time() + seconds
    while (now := time.time()) < end:
        yield now


class Bench:
    """The services under load, and all who watch."""

    def __init__(self, ports: Mapping[str, int], watches: Watches, processes: Mapping[str, psutil.Process]) -> None:
        self._ports = ports
        self._port = ports["producer"]
        self._watches = watches
        self._processes = processes

    async def compile(self, symbols: int) -> Compilation:
        """Post as fast as answers come until the broker's JVM has compiled what it runs."""
        began, kafka = time.monotonic(), self._processes["Kafka"].pid
        while True:
            before, since = compiler_seconds(kafka), time.monotonic()
            await self.saturating_rate(symbols, COMPILE_STEP_SECONDS)
            now = time.monotonic()
            # A compiler thread without work ends, and what it has used is no longer seen.
            cores = max(0.0, compiler_seconds(kafka) - before) / (now - since)
            if cores < COMPILED_CORES or now - began > MAX_COMPILE_SECONDS - COMPILE_STEP_SECONDS:
                return Compilation(now - began, cores)

    async def saturating_rate(self, symbols: int, seconds: float) -> float:
        """Ticks a second that reach every stage while they are posted as fast as answers come."""
        began = time.time()
        self._watches.begin(began)
        posted = await Client(self._port, symbols, self._watches).post(flat_out(seconds))
        await self._watches.until_seen()
        return posted / (time.time() - began)

    async def round(self, rate: float, symbols: int, seconds: float, share: float = 0.0) -> Round:
        """Post at the rate, each tick at its moment."""
        began = time.time() + 0.5
        counts_from = began + WARM_UP_SECONDS
        self._watches.begin(counts_from)
        posting = asyncio.create_task(
            Client(self._port, symbols, self._watches).post(
                began + turn / rate for turn in range(int((WARM_UP_SECONDS + seconds) * rate))
            )
        )
        await asyncio.sleep(counts_from - time.time())
        before, turns_before, since = self._cpu(), await self._turns(), time.monotonic()
        await posting
        after, turns_after, took = self._cpu(), await self._turns(), time.monotonic() - since
        await self._watches.until_seen()
        cpu = {name: (after[name] - before[name]) / took for name in after}
        turns = {}
        for name, (count, spent) in turns_after.items():
            more = count - turns_before[name][0]
            turns[name] = (more / took, (spent - turns_before[name][1]) / max(1, more))
        ticks = len(self._watches.of["row"].latencies)
        return Round(share, rate, symbols, ticks, self._watches.percentiles(), cpu, turns)

    async def _turns(self) -> dict[str, tuple[float, float]]:
        """How often so far the worker published and the sink stored, and how long that took in all (seconds)."""
        found = {}
        for name, (service, metric) in TURNS.items():
            text = (await asyncio.to_thread(plainhttp.get, f"http://127.0.0.1:{self._ports[service]}/metrics")).text
            figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(metric))
            found[name] = (float(figures[f"{metric}_count"]), float(figures[f"{metric}_sum"]))
        return found

    def _cpu(self) -> dict[str, float]:
        # Without the ended children of this process, which are the servers and services.
        own = {"client": cpu_seconds(psutil.Process(), alone=True)}
        return own | {name: cpu_seconds(process) for name, process in self._processes.items()}


@asynccontextmanager
async def bench(
    servers: EmbeddedServers, ports: Mapping[str, int], processes: Mapping[str, psutil.Process]
) -> AsyncIterator[Bench]:
    """With everyone who watches at work."""
    watches = Watches()
    of = watches.of
    watching = [
        asyncio.create_task(watch_rows(servers.database_url, of["row"])),
        asyncio.create_task(watch_topic(servers.kafka_bootstrap, of["chosen"], of["published"])),
        asyncio.create_task(watch_stream(ports["dashboard"], of["stream"])),
    ]
    work = Bench(ports, watches, processes)
    try:
        await asyncio.sleep(1)
        yield work
    finally:
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)


async def sweep(work: Bench, options: argparse.Namespace, console: Console) -> tuple[float, Compilation, list[Round]]:
    """The saturating rate, 0 when rates were given, and the rounds of each rate and number of symbols, in turn."""
    saturating, rounds = 0.0, []
    compilation = await work.compile(SYMBOLS)
    if not options.rate:
        saturating = await work.saturating_rate(SYMBOLS, SATURATING_SECONDS)
        console.print(f"saturated by {saturating:,.0f} ticks/s", highlight=False)
    plans = [(0.0, rate, symbols) for rate in options.rate for symbols in options.symbols]
    plans = plans or [(share, share * saturating, SYMBOLS) for share in options.share]
    for share, rate, symbols in plans * options.rounds:
        rounds.append(one := await work.round(rate, symbols, options.seconds, share))
        figures = ", ".join(
            f"{stage} {p50 * 1e3:.1f}/{p99 * 1e3:.1f}" for stage, (p50, p99, _) in one.latencies.items()
        )
        console.print(f"{rate:,.0f} ticks/s of {symbols:,} symbols: {figures} ms", highlight=False)
    return saturating, compilation, rounds


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each round, after the warm-up (default: 8)")
    parser.add_argument("--rounds", type=int, default=3, help="of each rate (default: 3)")
    parser.add_argument(
        "--share", type=float, nargs="+", default=list(SHARES), help="shares of what saturates (default: all four)"
    )
    parser.add_argument(
        "--rate", type=float, nargs="+", default=[], help="ticks a second, instead of shares of what saturates"
    )
    parser.add_argument(
        "--symbols", type=int, nargs="+", default=[SYMBOLS], help=f"with --rate: symbols that tick (default: {SYMBOLS})"
    )
    parser.add_argument("--interval", type=float, help="interval of updates (seconds; default: the setting's)")
    parser.add_argument("--port", type=int, default=18_985, help="of the producer; three more follow (default: 18985)")
    options = parser.parse_args()
    console, beginning = Console(), Beginning.now()
    ports = {service: options.port + n for n, service in enumerate((*SERVICES, "dashboard"))}
    with tempfile.TemporaryDirectory() as directory:
        before = set(psutil.Process().children())
        with EmbeddedServers(Path(directory) / "servers", short_lived=False) as servers:
            started = {
                "PostgreSQL" if "postgres" in one.name() else "Kafka": one
                for one in psutil.Process().children()
                if one not in before
            }
            settings = variables(servers, Path(directory), ports) | {"TICKPIPE_DASHBOARD_PORT": str(ports["dashboard"])}
            if options.interval:
                settings["TICKPIPE_EMIT_INTERVAL_SECONDS"] = str(options.interval)
            with serving(ports, settings) as services:

                async def measure() -> tuple[float, Compilation, list[Round]]:
                    async with bench(servers, ports, {**services, **started}) as work:
                        return await sweep(work, options, console)

                saturating, compilation, rounds = asyncio.run(measure())
    name = "latency-symbols" if options.rate else "latency"
    figures = {
        "saturating": saturating, "compilation": asdict(compilation), "rounds": [asdict(one) for one in rounds]
    }  # fmt: skip
    beginning.store(name, lines_of(saturating, compilation, rounds, COMPILE_STEP_SECONDS), figures)


if __name__ == "__main__":
    main()
