"""The primary is gone and a standby takes its place, at the same address: the sink goes on and no candle is missing."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from runtime.logreader import wait_for_log
from runtime.settings import Settings
from sink.service import Sink
from tests.integration.sink.flow import Flow, RunningSink
from tests.integration.tickpipe.test_operations import commands
from tests.network import Cable
from tests.operations.test_progress import ROUND, rows, send_round
from tests.pooler import pooler, through
from tests.standby import Pair, replicated
from tests.waiting import PATIENCE_SECONDS, eventually
from tickpipe.embedded.postgres import server_binaries

pytestmark = pytest.mark.long(20)

#: What a sink needs to find a server, to be refused, and to try again (seconds).
_SEVERAL_ATTEMPTS = 2.0


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with replicated(tmp_path) as running:
        yield running


@pytest.fixture
async def cable(pair: Pair) -> AsyncIterator[Cable]:
    """The address that clients know, which leads to the primary at first."""
    async with Cable(pair.primary.port) as plugged:
        yield plugged


@pytest.fixture(params=["directly", pytest.param("pooler", marks=pytest.mark.full)])
async def settings(
    settings: Settings, pair: Pair, cable: Cable, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Settings]:
    url = make_conninfo(pair.primary.url, port=cable.port)
    with ExitStack() as stack:
        if request.param == "pooler":
            # In a thread, for the cable needs this one.
            url = through(url, await asyncio.to_thread(stack.enter_context, pooler(url, tmp_path)))
        yield settings.model_copy(update={"database_url": SecretStr(url), "sink_port": 0, "sink_instance": ""})
        await asyncio.to_thread(stack.close)


async def becomes_ready(sink: Sink, ready: bool) -> None:
    async def is_so() -> bool:
        return (sink.health.ready()[0] == 200) == ready

    await eventually(is_so, what=f"ready: {ready}")


async def test_a_standby_that_lagged_takes_over_and_is_filled_up(settings: Settings, pair: Pair, cable: Cable) -> None:
    async def are_stored(rounds: int) -> bool:
        return await rows(settings) == rounds * ROUND

    async with Flow(settings, await wait_for_log(settings)) as flow, RunningSink(settings) as sink:
        # Arrange: of three rounds the standby has two
        await becomes_ready(sink, True)
        for number in range(3):
            if number == 2:
                await asyncio.to_thread(pair.wait_replicated)
                await asyncio.to_thread(pair.standby.stop)
            await send_round(flow, number)
            await eventually(lambda stored=number + 1: are_stored(stored))  # type: ignore[misc]  # of a default

        # Act: the primary dies, and the address leads to the standby, which takes no writes yet
        await asyncio.to_thread(pair.primary.kill)
        await becomes_ready(sink, False)
        await asyncio.to_thread(pair.standby.start)
        await cable.lead_to(pair.standby.port)
        await send_round(flow, 3)
        await asyncio.sleep(_SEVERAL_ATTEMPTS)
        assert sink.health.ready()[0] == 503
        assert pair.standby.value("SELECT count(*) FROM market_data") == 2 * ROUND
        (promote,) = commands(of=["Failover of PostgreSQL"])
        path = f"{server_binaries()}:{os.environ['PATH']}"
        done = await asyncio.to_thread(
            subprocess.run, ["bash", "-euc", promote], capture_output=True, text=True, check=False,
            timeout=PATIENCE_SECONDS,
            env=os.environ | {"STANDBY_URL": pair.standby.url, "PATH": path},
        )  # fmt: skip
        assert (done.returncode, done.stdout.split()) == (0, ["t", "t"]), done.stderr

        # Assert
        await becomes_ready(sink, True)
        await eventually(lambda: are_stored(4))
