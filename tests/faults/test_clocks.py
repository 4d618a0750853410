"""The clocks of services are put forward and back while EAs trade; nothing is lost.

Kafka and PostgreSQL keep the right time, so when all services are wrong together it is the same as if the servers were:
a JVM under libfaketime does not get started.
"""

import asyncio
import random
import sys
from collections.abc import Iterator

import pytest

from tests.faked_clock import FakedClock
from tests.faults.operator_at_work import Operator, judged
from tests.faults.sender import Sender
from tickpipe.embedded.stack import StackConfig, start_detached, stop_stack

pytestmark = [pytest.mark.fault, pytest.mark.full, pytest.mark.long(400), pytest.mark.timeout(1800)]

#: What has a clock of its own here.
MODULES = {"producer": "producer", "stream": "stream_app", "sink": "sink"}

#: Whose clock is wrong, and where it is put one after the other; in the end each is put right.
CASES = [
    (["producer"], ["+2h", "-2h"]),
    (["stream"], ["+2h", "-2h"]),
    (["sink"], ["+2d", "-2d"]),
    (list(MODULES), ["+10d", "-1d"]),
]


@pytest.fixture(scope="module")
def clocks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FakedClock]:
    return {name: FakedClock(tmp_path_factory.mktemp(name)) for name in MODULES}


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory, clocks: dict[str, FakedClock]) -> Iterator[Operator]:
    data_dir = tmp_path_factory.mktemp("clocks") / "stack"
    commands = {
        name: (
            "env",
            *(f"{key}={value}" for key, value in clocks[name].environment.items()),
            sys.executable,
            "-m",
            module,
        )
        for name, module in MODULES.items()
    }
    config = StackConfig(data_dir=data_dir, producer_port=0, commands=commands)
    with pytest.MonkeyPatch.context() as patch:
        # The sink's own check would store what was lost; and less grace is less time to wait.
        patch.setenv("TICKPIPE_CHECK_DAYS", "0")
        patch.setenv("TICKPIPE_GRACE_SECONDS", "1")
        start_detached(config)
    try:
        yield Operator(data_dir)
    finally:
        stop_stack(data_dir)


@pytest.mark.parametrize(("names", "offsets"), CASES, ids=" ".join)
async def test_a_wrong_clock_loses_nothing(
    operator: Operator, clocks: dict[str, FakedClock], names: list[str], offsets: list[str]
) -> None:
    async def put(_: Operator) -> None:
        for offset in (*offsets, "+0"):
            for name in names:
                clocks[name].set(offset)
            await asyncio.sleep(8)

    await judged(operator, [Sender("EURUSD", random.Random(1)), Sender("GBPUSD", random.Random(2))], put)
