"""One round of a contender: its process, the candles that it publishes, and what it took."""

import asyncio
import itertools
import os
import re
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.peers.ticks import Bar, Bars
from benchmarks.peers.topics import STORED_AT, create_topic
from benchmarks.rounds import Contender, Measured, NotMeasured, cpu_seconds, peak_bytes
from runtime.kafka import new_consumer
from runtime.settings import Settings

#: From its start to its first tick (seconds).
START_SECONDS = 120.0
#: A contender that publishes nothing for so long has failed (seconds). Kafka Streams' default publishes all at the end.
SILENT_SECONDS = 300.0
#: The same for one that uses hardly any processor either (seconds, share of a core).
STALL_SECONDS, STALL_SHARE = 30.0, 0.1
#: How often the published candles are read: rarely, because the reader shares the machine (seconds).
LOOK_SECONDS = 0.1

#: Tells when the first tick reached the contender: ticks that were done by then.
Started = Callable[[Process], Awaitable[int]]


@dataclass(frozen=True)
class Setup:
    """What all contenders of a run share."""

    settings: Settings
    #: For state and logs of the contenders.
    directory: Path


@dataclass(frozen=True)
class Round:
    """Names that only one round uses."""

    setup: Setup
    ticks_topic: str
    candles_topic: str
    group: str

    @property
    def state(self) -> Path:
        """An empty folder of its own."""
        return self.setup.directory / self.group


@dataclass(frozen=True)
class Peer:
    """How a contender is started."""

    name: str
    ticks_topic: str
    #: Ticks in that topic.
    ticks: int
    #: The candles that it has to publish.
    bars: Bars
    command: Callable[[Round], Sequence[str]]
    environment: Callable[[Round], Mapping[str, str]] = field(default=lambda _: {})
    #: None: the process says `first` on its standard output.
    started: Started | None = None


def contender(setup: Setup, peer: Peer) -> Contender:
    """Rounds of a peer, each with topics, group and state of its own."""
    numbers = itertools.count()

    def run() -> Measured:
        name = f"{re.sub('[^a-z0-9]+', '-', peer.name.lower())}-{next(numbers)}"
        return asyncio.run(_one_round(peer, Round(setup, peer.ticks_topic, f"candles-{name}", f"bench-{name}")))

    return run


async def _one_round(peer: Peer, this: Round) -> Measured:
    await create_topic(this.setup.settings, this.candles_topic, STORED_AT)
    this.state.mkdir()
    log = this.setup.directory / f"{this.group}.log"
    command = peer.command(this)
    consumer = new_consumer(this.setup.settings)
    await consumer.start()
    try:
        with log.open("wb") as errors:
            spawned = time.time()
            process = await asyncio.create_subprocess_exec(
                *command, env=os.environ | dict(peer.environment(this)), stdout=PIPE, stderr=errors
            )
        try:
            watched = psutil.Process(process.pid)
            try:
                async with asyncio.timeout(START_SECONDS):
                    before = await (peer.started or _says_first)(process)
            except (_Ended, TimeoutError) as exc:
                raise NotMeasured(_last_words(log, isinstance(exc, _Ended))) from exc
            if before >= peer.ticks:
                raise NotMeasured("it had folded every tick before it could be asked; give it more with --ticks")
            began, cpu_before = time.time(), cpu_seconds(watched)
            published = Published(consumer, this.candles_topic, peer.bars)
            ended = await published.complete(watched)
            cpu, peak = cpu_seconds(watched) - cpu_before, peak_bytes(watched)
        except psutil.NoSuchProcess as exc:
            raise NotMeasured(_last_words(log, ended=True)) from exc
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await published.check_rest()
    finally:
        await consumer.stop()
    return Measured(ended - began, cpu, peak, peer.ticks - before, began - spawned)


class _Ended(Exception):
    """The process ended before its first tick."""


async def _says_first(process: Process) -> int:
    if process.stdout is not None:
        async for line in process.stdout:
            if line.strip() == b"first":
                return 0
    raise _Ended


def _last_words(log: Path, ended: bool) -> str:
    what = "its process ended" if ended else f"no tick reached it in {START_SECONDS:.0f} s"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"{what}: {lines[-1] if lines else 'without a word'}"


class Compared:
    """The newest update of each candle, compared with what it should be."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        #: Those that are not yet, or no longer, as they should be.
        self._open = dict(bars)
        self._newest: Bars = {}
        #: When the broker stored the newest (seconds of the epoch).
        self.stored_at = 0.0

    def is_complete(self) -> bool:
        """Whether every candle is there and right."""
        return not self._open

    def take(self, candle: Mapping[str, Any], stored_at: float) -> None:
        """One update, in the order of the topic."""
        key = candle["symbol"], int(candle["ts"])
        if (wanted := self._bars.get(key)) is None:
            return  # the minute of the closing tick
        bar: Bar = (candle["open"], candle["high"], candle["low"], candle["close"], candle["volume"])
        self._newest[key] = bar
        self.stored_at = stored_at
        if bar == wanted:
            self._open.pop(key, None)
        else:
            self._open[key] = wanted

    def difference(self) -> str:
        """How many candles differ, and the first of them."""
        key = min(self._open, key=lambda one: one[1])
        symbol, minute = key
        found = self._newest.get(key)
        return (
            f"{len(self._open)} of {len(self._bars)} candles differ; the first, {symbol} at {minute}, should be "
            f"{self._bars[key]} and {f'is {found}' if found else 'is missing'}"
        )


class Published:
    """What a contender has published so far."""

    def __init__(self, consumer: AIOKafkaConsumer, topic: str, bars: Bars) -> None:
        self._consumer = consumer
        self._partition = TopicPartition(topic, 0)
        self._compared = Compared(bars)
        consumer.assign([self._partition])

    async def complete(self, watched: psutil.Process) -> float:
        """Wait until every candle is there and right; when the broker stored the last (seconds of the epoch).

        Raises:
            NotMeasured: naming a candle that is missing or wrong once nothing happens any more.
        """
        await self._consumer.seek_to_beginning(self._partition)
        heard, looked, cpu = time.monotonic(), time.monotonic(), cpu_seconds(watched)
        while not self._compared.is_complete():
            if await self._look():
                heard = time.monotonic()
            now = time.monotonic()
            if now - heard > SILENT_SECONDS:
                raise NotMeasured(self._compared.difference())
            if now - looked > STALL_SECONDS:
                used = cpu_seconds(watched) - cpu
                if now - heard > STALL_SECONDS and used < STALL_SHARE * STALL_SECONDS:
                    raise NotMeasured(self._compared.difference())
                looked, cpu = now, cpu + used
            if not self._compared.is_complete():
                await asyncio.sleep(LOOK_SECONDS)
        return self._compared.stored_at

    async def check_rest(self) -> None:
        """Read to the end: nothing that came afterwards may have made a candle wrong.

        Raises:
            NotMeasured: naming the candle.
        """
        ends = await self._consumer.end_offsets([self._partition])
        while await self._consumer.position(self._partition) < ends[self._partition]:
            if not await self._look():
                # Looking waits for nothing, so that what fetches would never have its turn.
                await asyncio.sleep(LOOK_SECONDS)
        if not self._compared.is_complete():
            raise NotMeasured(self._compared.difference())

    async def _look(self) -> int:
        found = 0
        for records in (await self._consumer.getmany(timeout_ms=0)).values():
            found += len(records)
            for record in records:
                self._compared.take(msgspec.json.decode(record.value), record.timestamp / 1000)
        return found
