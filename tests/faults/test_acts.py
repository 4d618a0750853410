"""What operators do to a running stack by hand, one act after the other; after each the table is the fold of the log.

`TICKPIPE_ACTS` names the acts to try, by comma; by default all of them.
"""

import asyncio
import os
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import psycopg
import pytest

from marketdata.errors import TickpipeError
from sink.verify import verify
from tests.faults import truth
from tests.faults.acts import ACTS, TO_REPAIR
from tests.faults.operator_at_work import HEAL_SECONDS, Operator
from tests.faults.sender import Sender
from tests.waiting import eventually
from tickpipe.embedded.stack import StackConfig, start_detached, stop_stack

pytestmark = [pytest.mark.fault, pytest.mark.full, pytest.mark.long(900), pytest.mark.timeout(3600)]


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Operator]:
    # The sink's own check would store what was lost; and less grace is less time between two acts.
    monkeypatch.setenv("TICKPIPE_CHECK_DAYS", "0")
    monkeypatch.setenv("TICKPIPE_GRACE_SECONDS", "1")
    config = StackConfig(data_dir=tmp_path / "stack", producer_port=0, stream_workers=2)
    try:
        start_detached(config)
        yield Operator(config.data_dir)
    finally:
        stop_stack(config.data_dir)


async def test_after_each_act_the_table_is_the_fold_of_the_log(operator: Operator) -> None:
    chosen = os.environ.get("TICKPIPE_ACTS", "")
    names = [name for name in ACTS if not chosen or any(part in name for part in chosen.split(","))]
    senders = [Sender(symbol, random.Random(number)) for number, symbol in enumerate(("EURUSD", "GBPUSD"))]
    failed = []
    for name in names:
        began = time.monotonic()
        outcome = "equal"
        try:
            await do(operator, senders, name)
        except Exception as exc:  # the next act is tried all the same
            outcome = f"{type(exc).__name__}: {str(exc)[:600]}"
            failed.append(f"{name}: {outcome}")
        print(f"| {name} | {outcome} | {time.monotonic() - began:.0f} s |", flush=True)
    written = set((await truth.read_log(operator.settings)).ticks())
    assert {(each.symbol, tick) for each in senders for tick in each.acknowledged} <= written
    assert failed == []


async def is_read(operator: Operator) -> bool:
    """Whether workers and sink have read everything; False as well while Kafka does not answer."""
    with suppress(TickpipeError, psycopg.Error):
        return await truth.lag(operator.settings) == 0
    return False


async def do(operator: Operator, senders: list[Sender], name: str) -> None:
    """Do it while the senders trade; then everything heals and is compared."""
    over = asyncio.Event()
    trading = [asyncio.create_task(sender.trade(operator.producer_url, operator.api_key, over)) for sender in senders]
    try:
        await asyncio.sleep(1)
        await ACTS[name](operator)
        await asyncio.sleep(1)
    finally:
        over.set()
        async with asyncio.timeout(HEAL_SECONDS):
            await asyncio.gather(*trading)

    async def is_settled() -> bool:
        return await truth.is_settled(operator.settings)

    if name in TO_REPAIR:
        # A minute whose ticks nobody folds any more stays open until then.
        await eventually(partial(is_read, operator), what="no lag", within_seconds=HEAL_SECONDS)
        found = await verify(operator.settings, complete=True, repair=True)
        assert found.missing or found.differences, "nothing was missing"
    await eventually(is_settled, what="a table that is settled", within_seconds=HEAL_SECONDS)
    found = await verify(operator.settings, complete=True)
    assert (found.missing, found.differences) == ([], [])
    expected = (await truth.read_log(operator.settings)).expected()
    assert truth.differences(await truth.table(operator.settings), expected) == []
