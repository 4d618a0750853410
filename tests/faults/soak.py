"""`python -m tests.faults.soak --minutes 30`: live traffic under faults, and whether memory or descriptors grow.

Writes `soak.png` and `soak.json` to docs/. In the first quarter everything is killed. After that faults are such as
leave the services alive (pauses, a killed database, a locked table), so that what they hold can be compared: the last
third with the one in the middle.
"""

import argparse
import asyncio
import json
import random
import signal
import statistics
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
from aiokafka.errors import KafkaError

from marketdata.errors import TickpipeError
from runtime.settings import Settings, load_settings
from tests.conftest import API_KEY
from tests.faults import truth
from tests.faults.record import SOAK
from tests.faults.stage import Stage
from tests.ports import free_port
from tests.servers import EmbeddedServers

SAMPLE_SECONDS = 5.0

#: Symbols that trade at ten requests a second each.
SYMBOLS = ("EURUSD", "GBPUSD", "USDJPY", "XAUUSD")

#: Pause between two faults (seconds).
FAULT_PAUSE = (30.0, 75.0)

#: What the last third may hold more, or less, than the one in the middle.
TOLERANCE = 0.05


@dataclass
class Samples:
    """What was seen of each process; lists are parallel to `at` (seconds), None where it was dead."""

    at: list[float] = field(default_factory=list)
    lag: list[int | None] = field(default_factory=list)
    rss_bytes: dict[str, list[int | None]] = field(default_factory=dict)
    descriptors: dict[str, list[int | None]] = field(default_factory=dict)
    faults: list[tuple[float, str]] = field(default_factory=list)

    def take(self, at: float, pids: dict[str, int | None], lag: int | None) -> None:
        """Add one sample of every process."""
        self.at.append(at)
        self.lag.append(lag)
        for name, pid in pids.items():
            memory = count = None
            with suppress(psutil.Error):
                if pid is not None:
                    process = psutil.Process(pid)
                    memory, count = process.memory_info().rss, process.num_fds()
            self.rss_bytes.setdefault(name, []).append(memory)
            self.descriptors.setdefault(name, []).append(count)

    def growth(self, values: list[int | None]) -> float:
        """Median of the last third against that of the middle third; 0.05 is 5 % more."""
        third = len(values) // 3
        middle = [value for value in values[third : 2 * third] if value is not None]
        last = [value for value in values[2 * third :] if value is not None]
        return statistics.median(last) / statistics.median(middle) - 1


class Soak:
    """One run on servers of its own."""

    def __init__(self, stage: Stage, minutes: float) -> None:
        self.stage = stage
        self.seconds = minutes * 60
        self.samples = Samples()
        self._began = time.monotonic()

    @property
    def _now(self) -> float:
        return time.monotonic() - self._began

    async def run(self) -> Samples:
        """Trade and suffer for the given time."""
        self.stage.trade(*SYMBOLS, start_ms=None)
        sampling = asyncio.create_task(self._sample())
        try:
            while True:
                pause = self.stage.rng.uniform(*FAULT_PAUSE)
                if self._now + pause > self.seconds - 30:
                    break
                await asyncio.sleep(pause)
                fault = self._fault()
                self.samples.faults.append((self._now, fault))
                await self._suffer(fault)
            await asyncio.sleep(max(0.0, self.seconds - self._now))
        finally:
            sampling.cancel()
            # What it died of, if it did: half a run's samples say nothing about the whole.
            with suppress(asyncio.CancelledError):
                await sampling
        return self.samples

    def _fault(self) -> str:
        lethal = ("kill producer", "kill stream_app", "kill sink", "kill broker", "kill database")
        mild = ("pause producer", "pause stream_app", "pause sink", "kill database", "lock table")
        return self.stage.rng.choice(lethal if self._now < self.seconds / 4 else mild)

    async def _suffer(self, fault: str) -> None:
        what, _, whom = fault.partition(" ")
        if what == "kill":
            await self.stage.kill(whom)
            return
        self.stage.rounds += 1
        if what == "lock":
            async with await psycopg.AsyncConnection.connect(self._url) as connection:
                await connection.execute("LOCK TABLE market_data IN EXCLUSIVE MODE")
                await asyncio.sleep(self.stage.rng.uniform(2, 15))
            return
        self.stage[whom].send_signal(signal.SIGSTOP)
        await asyncio.sleep(self.stage.rng.uniform(1, 14))
        self.stage[whom].send_signal(signal.SIGCONT)

    @property
    def _url(self) -> str:
        return self.stage.settings.database_url.get_secret_value()

    async def _sample(self) -> None:
        while True:
            lag = None
            # While the broker comes back, every request may fail in its own way.
            with suppress(TickpipeError, KafkaError, TimeoutError):
                lag = await asyncio.wait_for(truth.lag(self.stage.settings), SAMPLE_SECONDS)
            pids: dict[str, int | None] = {s.module: s.pid for s in self.stage.services if s.returncode is None}
            pids["broker"] = _child_named("java")
            self.samples.take(self._now, pids, lag)
            await asyncio.sleep(SAMPLE_SECONDS)


def _child_named(name: str) -> int | None:
    return next((child.pid for child in psutil.Process().children() if child.name() == name), None)


def _settings(servers: EmbeddedServers, folder: Path) -> Settings:
    unique = uuid.uuid4().hex[:8]
    return load_settings(
        kafka_bootstrap=servers.kafka_bootstrap,
        database_url=servers.database_url,
        # What the pipeline loses must not be mended before the table is compared.
        check_days=0,
        api_keys={"*": API_KEY},
        stream_instance=f"worker-{unique}",
        sink_instance=f"sink-{unique}",
        producer_port=free_port(),
        stream_port=free_port(),
        sink_port=free_port(),
        data_dir=folder,
    )


async def soak(minutes: float, seed: int) -> dict[str, object]:
    """Run, compare the table with the log, draw; returns the found."""
    with tempfile.TemporaryDirectory() as name, EmbeddedServers(Path(name) / "servers") as servers:
        settings = _settings(servers, Path(name))
        async with Stage(settings, servers, case="soak", seed=seed) as stage:
            samples = await Soak(stage, minutes).run()
            await stage.settle_and_compare()
            ticks = sum(sender.ticks for sender in stage.senders)
    found: dict[str, object] = {
        "minutes": minutes,
        "seed": seed,
        "ticks": ticks,
        "faults": len(samples.faults),
        "memory": {name: round(samples.growth(values), 4) for name, values in samples.rss_bytes.items()},
        "descriptors": {name: round(samples.growth(values), 4) for name, values in samples.descriptors.items()},
        "most_memory_mb": {
            name: round(max(value or 0 for value in values) / 1e6) for name, values in samples.rss_bytes.items()
        },
        "most_lag": max(value or 0 for value in samples.lag),
    }
    await asyncio.to_thread(SOAK.write_text, json.dumps(found, indent=1) + "\n")
    from tests.faults.plot import plot  # noqa: PLC0415  # slow to load, and for a soak alone

    await asyncio.to_thread(plot, samples.at, samples.rss_bytes, samples.descriptors, samples.lag, samples.faults)
    return found


def main() -> None:
    """Exit code 1 when memory or descriptors of a process are not level."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    arguments = parser.parse_args()
    found = asyncio.run(soak(arguments.minutes, arguments.seed))
    print(json.dumps(found, indent=1))
    level = True
    for what in ("memory", "descriptors"):
        growths = found[what]
        assert isinstance(growths, dict)
        for name, growth in growths.items():
            verdict = "level" if abs(growth) <= TOLERANCE else "NOT level"
            level = level and abs(growth) <= TOLERANCE
            print(f"{name}: {what} of the last third is {verdict}, {growth:+.1%} against the middle third")
    sys.exit(0 if level else 1)


if __name__ == "__main__":
    main()
