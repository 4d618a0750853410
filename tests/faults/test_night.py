"""A bad night in short: everything is killed at random under EAs, and in the end the table is the fold of the log.

In between partitions are added, offsets get lost and the database is put back to an older state, while two producers
learn of the partitions at different moments. The stack's own supervisor restarts what dies. `TICKPIPE_NIGHT_SECONDS`
makes the night longer.
"""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from runtime.settings import load_settings
from tests.faults import truth
from tests.faults.misfortunes import Misfortunes
from tests.faults.record import Figures, write
from tests.faults.sender import Sender
from tests.ports import free_port
from tests.services import Service, running
from tickpipe.embedded.stack import StackConfig, StackState, find_stack, start_detached, stop_stack

pytestmark = [pytest.mark.fault, pytest.mark.full, pytest.mark.long(400), pytest.mark.timeout(3600)]

NIGHT_SECONDS = float(os.environ.get("TICKPIPE_NIGHT_SECONDS", "300"))

#: After the last kill: restart of everything on a busy machine, session timeouts, the refolds.
HEAL_SECONDS = 300.0

SYMBOLS = ("EURUSD", "GBPUSD", "PETR4")


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StackState]:
    # The sink's own check would store what was lost.
    monkeypatch.setenv("TICKPIPE_CHECK_DAYS", "0")
    config = StackConfig(data_dir=tmp_path / "night", producer_port=free_port(), stream_workers=2)
    try:
        yield start_detached(config)
    finally:
        stop_stack(config.data_dir)


@pytest.fixture
def second_producer(stack: StackState) -> Iterator[Service]:
    """It is not killed, so it knows the partitions from its own looks; the stack's knows them at each start."""
    settings = load_settings(api_keys={"*": stack.api_key}, producer_port=free_port(), **stack.kafka_settings)
    with running(settings, "producer") as [producer]:
        yield producer


async def test_after_a_bad_night_the_table_is_the_fold_of_the_log(
    stack: StackState, second_producer: Service, tmp_path: Path, seed: int
) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    senders = [Sender(symbol, random.Random(rng.random())) for symbol in SYMBOLS]
    settings = load_settings(database_url=stack.database_url, **stack.kafka_settings)
    morning = asyncio.Event()
    misfortunes = Misfortunes(tmp_path / "night", settings, rng)
    urls = (stack.producer_url, second_producer.url)
    trading = [asyncio.create_task(sender.trade(urls, stack.api_key, morning)) for sender in senders]
    killed = await pass_the_night(tmp_path / "night", rng, misfortunes)
    morning.set()
    began = time.monotonic()
    async with asyncio.timeout(HEAL_SECONDS):
        await asyncio.gather(*trading)
        while not await truth.is_settled(settings):  # noqa: ASYNC110 - servers have no event for it
            await asyncio.sleep(0.5)
    settled = time.monotonic() - began

    log = await truth.read_log(settings)
    found = await truth.table(settings)
    expected = log.expected()
    written = set(log.ticks())
    acknowledged = {(sender.symbol, tick) for sender in senders for tick in sender.acknowledged}
    may_have_arrived = {(sender.symbol, tick) for sender in senders for tick in sender.may_have_arrived}
    lost, doubled = truth.miscounted(found, expected)
    write(
        Figures(
            case="a bad night: everything killed at random",
            rounds=killed.total() + misfortunes.befallen.total(),
            ticks=sum(sender.ticks for sender in senders),
            unknown=sum(len(sender.unknown) for sender in senders),
            lost=lost + len(acknowledged - written),
            doubled=doubled,
            candles=len(found),
            standstill=None,
            settled=round(settled, 1),
            seed=seed,
            ended=[],
            missing_rows=truth.missing_rows(found, expected),
        )
    )
    print(f"killed {dict(killed)}, befallen {dict(misfortunes.befallen)}, partitions {len(log.ends)}")
    assert killed.total() >= NIGHT_SECONDS / 20
    assert len(misfortunes.befallen) == 3
    assert killed.keys() == {service.name for service in stack.services}
    assert acknowledged <= written, "a confirmed tick is not in the log"
    assert written <= may_have_arrived, "a tick is in the log that certainly did not arrive"
    assert truth.differences(found, expected) == []
    assert sum(candle.volume for candle in found.values()) == len(written), "every tick counts once"


async def pass_the_night(data_dir: Path, rng: random.Random, misfortunes: Misfortunes) -> Counter[str]:
    """Kill at random, and let a misfortune happen now and then; the first ones need something to be in the table."""
    count = max(3, round(NIGHT_SECONDS / 30))
    killed = await kill_at_random(data_dir, rng, NIGHT_SECONDS / (count + 2))
    await misfortunes.save_database()
    for _ in range(count):
        killed += await kill_at_random(data_dir, rng, NIGHT_SECONDS / (count + 2))
        await misfortunes.next()
    return killed + await kill_at_random(data_dir, rng, NIGHT_SECONDS / (count + 2))


async def kill_at_random(data_dir: Path, rng: random.Random, seconds: float) -> Counter[str]:
    """How often each service was killed; all of them have their turn before one is killed again."""
    killed = Counter[str]()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        await asyncio.sleep(rng.uniform(0.5, 4))
        state = find_stack(data_dir)
        if state is None:
            continue
        fewest = min(killed[service.name] for service in state.services)
        victim = rng.choice([service for service in state.services if killed[service.name] == fewest])
        if victim.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(victim.pid, signal.SIGKILL)
                killed[victim.name] += 1
    return killed
