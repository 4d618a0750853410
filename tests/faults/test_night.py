"""A bad night in short: everything is killed at random under an EA, and in the end the table is the fold of the log.

`TICKPIPE_NIGHT_SECONDS` makes the night longer, `TICKPIPE_NIGHT_SEED` repeats one; the seed is printed.
"""

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import pytest
from aiokafka import TopicPartition

from marketdata.kafka import log_ends, new_consumer
from marketdata.settings import Settings, load_settings
from marketdata.tick import Frame, Tick
from marketdata.wire import decode_frame
from tests import oracle
from tests.conftest import free_port
from tickpipe.embedded.stack import StackConfig, StackState, find_stack, start_detached, stop_stack

pytestmark = [pytest.mark.fault, pytest.mark.timeout(3600)]

NIGHT_SECONDS = float(os.environ.get("TICKPIPE_NIGHT_SECONDS", "20"))
SEED = int(os.environ.get("TICKPIPE_NIGHT_SEED", str(random.SystemRandom().randrange(2**32))))

#: After the last kill: restart of everything, session timeouts, the refolds.
HEAL_SECONDS = 120.0

SYMBOLS = ("EURUSD", "GBPUSD", "PETR4")


@dataclass
class ExpertAdvisor:
    """Posts a symbol's ticks as real EAs do: what was not confirmed is sent again with newer ticks appended."""

    symbol: str
    rng: random.Random
    pending: list[Tick] = field(default_factory=list)
    confirmed: list[Tick] = field(default_factory=list)
    number: int = 0

    def trade(self) -> None:
        """One to three new ticks of this moment; each has a price of its own, so that it can be told from others."""
        now_ms = time.time_ns() // 1_000_000
        for _ in range(self.rng.randint(1, 3)):
            self.number += 1
            bid = 1.0 + self.number / 100_000
            last_ms = self.pending[-1].time_msc if self.pending else 0
            self.pending.append(Tick(max(now_ms, last_ms), bid, bid + 0.0001, 0.0, 0.0, 6))

    async def post(self, client: httpx.AsyncClient) -> None:
        sent = list(self.pending)
        items = [
            {"ts_msc": t.time_msc, "symbol": self.symbol, "bid": t.bid, "ask": t.ask, "flags": 6, "point": 0.00001}
            for t in sent
        ]
        with suppress(httpx.HTTPError):
            answer = await client.post("/ingest/tick", json={"ticks": items})
            if answer.status_code == 200:
                self.confirmed += sent
                self.pending = self.pending[len(sent) :]


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[StackState]:
    config = StackConfig(data_dir=tmp_path / "night", producer_port=free_port(), stream_workers=2)
    try:
        yield start_detached(config)
    finally:
        stop_stack(config.data_dir)


async def test_after_a_bad_night_the_table_is_the_fold_of_the_log(stack: StackState, tmp_path: Path) -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    advisors = [ExpertAdvisor(symbol, random.Random(rng.random())) for symbol in SYMBOLS]
    settings = load_settings(kafka_bootstrap=stack.kafka_bootstrap, database_url=stack.database_url)
    async with httpx.AsyncClient(
        base_url=stack.producer_url, headers={"X-API-Key": stack.api_key}, timeout=15
    ) as client:
        morning = time.monotonic() + NIGHT_SECONDS
        killing = asyncio.create_task(kill_at_random(tmp_path / "night", rng, morning))
        while time.monotonic() < morning:
            for advisor in advisors:
                advisor.trade()
            await asyncio.gather(*(advisor.post(client) for advisor in advisors))
            await asyncio.sleep(0.1)
        kills = await killing
        deadline = time.monotonic() + HEAL_SECONDS
        while any(advisor.pending for advisor in advisors):
            assert time.monotonic() < deadline, "the producer did not come back"
            await asyncio.gather(*(advisor.post(client) for advisor in advisors if advisor.pending))
            await asyncio.sleep(0.2)

    assert kills >= NIGHT_SECONDS / 10
    log = await read_log(settings)
    written = {(f.symbol, t) for frames in log.values() for _, f in frames for t in f.ticks}
    for advisor in advisors:
        assert {(advisor.symbol, tick) for tick in advisor.confirmed} <= written, "a confirmed tick is not in the log"

    await assert_table_is_the_fold(settings, log, deadline)
    stored = await rows(settings)
    ticks = {(advisor.symbol, tick) for advisor in advisors for tick in advisor.confirmed}
    assert sum(volume for volume, *_ in stored.values()) == len(ticks), "every tick counts once"


async def kill_at_random(data_dir: Path, rng: random.Random, until: float) -> int:
    kills = 0
    while time.monotonic() < until - 2:
        await asyncio.sleep(rng.uniform(0.5, 4))
        state = find_stack(data_dir)
        if state is None:
            continue
        victim = rng.choice(state.services)
        if victim.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(victim.pid, signal.SIGKILL)
                kills += 1
    return kills


async def read_log(settings: Settings) -> dict[int, list[tuple[int, Frame]]]:
    consumer = new_consumer(settings)
    ends = await log_ends(settings, settings.ticks_topic)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(settings.ticks_topic, p) for p in ends])
        await consumer.seek_to_beginning()
        log: dict[int, list[tuple[int, Frame]]] = {partition: [] for partition in ends}
        while sum(map(len, log.values())) < sum(end - first for first, end in ends.values()):
            for tp, batch in (await consumer.getmany(timeout_ms=1000)).items():
                log[tp.partition] += [(record.offset, decode_frame(record.value)) for record in batch]
        return log
    finally:
        await consumer.stop()


async def rows(settings: Settings) -> dict[tuple[str, int], tuple[int, float, float, float, float]]:
    async with await psycopg.AsyncConnection.connect(settings.database_url.get_secret_value()) as connection:
        cursor = await connection.execute(
            "SELECT symbol, (extract(epoch FROM ts) * 1000)::bigint, volume, open, high, low, close FROM market_data"
        )
        return {(symbol, ts): tuple(values) for symbol, ts, *values in await cursor.fetchall()}


async def assert_table_is_the_fold(
    settings: Settings, log: dict[int, list[tuple[int, Frame]]], deadline: float
) -> None:
    expected = {}
    for frames in log.values():
        for (source, symbol, ts), ranges in oracle.minutes_in(frames).items():
            fold = oracle.fold(frames, source, symbol, ts, ranges)
            assert fold is not None
            expected[symbol, ts] = (fold.volume, fold.open, fold.high, fold.low, fold.close)
    while True:
        with suppress(psycopg.OperationalError):
            if await rows(settings) == expected:
                return
        if time.monotonic() > deadline:
            assert await rows(settings) == expected
        await asyncio.sleep(0.5)
