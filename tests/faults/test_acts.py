"""What operators do to a running stack by hand, one act after the other; after each the table is the fold of the log.

`TICKPIPE_ACTS` names the acts to try, by comma; by default all of them.
"""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import acts_on_kafka, acts_on_the_database, acts_on_the_machine, truth
from tests.faults.acts import ACTS, TO_REPAIR
from tests.faults.operator_at_work import Operator, judged
from tests.faults.sender import Sender
from tickpipe.embedded.stack import StackConfig, start_detached, stop_stack

#: Their acts are registered when they are imported.
MODULES = (acts_on_kafka, acts_on_the_database, acts_on_the_machine)

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
            await judged(operator, senders, ACTS[name], repair=name in TO_REPAIR)
        except Exception as exc:  # the next act is tried all the same
            outcome = f"{type(exc).__name__}: {str(exc)[:600]}"
            failed.append(f"{name}: {outcome}")
        print(f"| {name} | {outcome} | {time.monotonic() - began:.0f} s |", flush=True)
    written = set((await truth.read_log(operator.settings)).ticks())
    assert {(each.symbol, tick) for each in senders for tick in each.acknowledged} <= written
    assert failed == []
