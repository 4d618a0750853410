"""How soon the page's stream says that something has stopped: a frozen database, a killed worker, a killed sink."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from marketdata.tick import Frame, Tick
from runtime import clock
from runtime.logreader import wait_for_log
from tests.faults.network import Proxy
from tests.integration.dashboard.market import MINUTE_MS, Market, market_settings
from tests.integration.dashboard.test_stream import events, first
from tests.integration.sink.flow import Flow
from tests.ports import free_port
from tests.servers import EmbeddedServers
from tests.services import Service, running

pytestmark = pytest.mark.long(27)

#: What a busy machine may add to what is promised (seconds).
BUSY_SECONDS = 2.0


async def seconds_until(stream: Any, name: str, value: object) -> float:
    """How long it takes until the state of the pipeline says so."""
    started = time.monotonic()
    while (await first(stream, "pipeline"))[name] is not value:
        pass
    took = time.monotonic() - started
    print(f"{name} was seen to be {value} after {took:.1f} s")
    return took


@pytest.mark.fault
async def test_frozen_database_is_seen_and_the_newest_minute_goes_on_without_it(market: Market) -> None:
    there = conninfo_to_dict(market.settings.database_url.get_secret_value())
    proxy = Proxy(int(there["port"] or 5432))
    await proxy.start()
    through = make_conninfo("", **{**there, "host": "127.0.0.1", "port": proxy.port})
    settings = market.settings.model_copy(
        update={"dashboard_database_url": SecretStr(through), "dashboard_port": free_port()}
    )
    now = clock.now_ms() // MINUTE_MS * MINUTE_MS
    try:
        async with (
            started(Service("dashboard", settings)) as dashboard,
            aclosing(events(f"{dashboard.url}/stream?symbol=FROZEN", "pipeline", "candle")) as stream,
        ):
            assert (await first(stream, "pipeline"))["database"] is True
            proxy.hang()
            assert await seconds_until(stream, "database", False) < 3 + BUSY_SECONDS
            await market.publish(market.candle("FROZEN", now, (1.0, 1.0, 1.0, 1.0), ticks=3))
            candle = await first(stream, "candle")
            assert (candle["volume"], candle["stored"]) == (3, False)
            proxy.heal()
            await seconds_until(stream, "database", True)
            await market.publish(market.candle("FROZEN", now, (1.0, 1.0, 1.0, 1.0), ticks=4))
            while (await first(stream, "candle"))["volume"] != 4:
                pass
    finally:
        proxy.heal()
        await proxy.stop()


@pytest.mark.fault
@pytest.mark.full
async def test_killed_worker_and_sink_are_seen(
    servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = market_settings(servers, "seen", tmp_path_factory.mktemp("seen"))
    log_name = await wait_for_log(settings)
    with running(settings, "sink", "stream_app", "dashboard") as (sink, worker, dashboard):
        async with (
            Flow(settings, log_name) as flow,
            ticking(flow),
            aclosing(events(f"{dashboard.url}/stream", "pipeline")) as stream,
        ):
            while (state := await first(stream, "pipeline"))["ticks_per_second"] < 5:
                pass
            assert (state["folding"], state["storing"]) == (True, True)
            worker.kill()
            assert await seconds_until(stream, "folding", False) < 5 + BUSY_SECONDS
            await asyncio.to_thread(lambda: worker.start().wait_ready())
            await seconds_until(stream, "folding", True)
            sink.kill()
            assert await seconds_until(stream, "storing", False) < 5 + BUSY_SECONDS


@asynccontextmanager
async def started(service: Service) -> AsyncIterator[Service]:
    """The service, ready, and killed afterwards: it may hang on what is frozen."""
    service.start()
    try:
        await asyncio.to_thread(service.wait_ready)
        yield service
    finally:
        service.kill()


@asynccontextmanager
async def ticking(flow: Flow) -> AsyncIterator[None]:
    """Ten ticks a second, as of now."""

    async def send() -> None:
        number = 0
        while True:
            number += 1
            now = clock.now_ms()
            tick = Tick(now, 1 + number / 1e5, 1.1, 0.0, 0.0, 6)
            await flow.log_frames([
                Frame(
                    v=1, source="Live", symbol="TICKS", mode="bid", point=0.00001, request=str(number), received=now,
                    ticks=[tick],
                )
            ])  # fmt: skip
            await asyncio.sleep(0.1)

    task = asyncio.create_task(send())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
