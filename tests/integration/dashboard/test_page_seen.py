"""What the open page says when something has stopped or refuses, and how soon: database, worker, password, streams."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, Page, expect
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from runtime.logreader import wait_for_log
from tests.faults.network import Proxy
from tests.integration.dashboard.market import Market, market_settings
from tests.integration.dashboard.test_seen import BUSY_SECONDS, started, ticking
from tests.integration.sink.flow import Flow
from tests.ports import free_port
from tests.servers import EmbeddedServers
from tests.services import Service, running

pytestmark = pytest.mark.long(3)


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context(locale="en-GB")
    yield await context.new_page()
    await context.close()


async def seconds_until(page: Page, words: str) -> float:
    """How long it takes until the line at the top of the page says so."""
    began = time.monotonic()
    await expect(page.locator("#status")).to_contain_text(words)
    took = time.monotonic() - began
    print(f"{words!r} was shown after {took:.1f} s")
    return took


@pytest.mark.full  # dashboard/test_seen.py has what the page is told
@pytest.mark.fault
async def test_frozen_database_shows_within_three_seconds(page: Page, market: Market) -> None:
    there = conninfo_to_dict(market.settings.database_url.get_secret_value())
    proxy = Proxy(int(there["port"] or 5432))
    await proxy.start()
    through = make_conninfo("", **{**there, "host": "127.0.0.1", "port": proxy.port})
    settings = market.settings.model_copy(
        update={"dashboard_database_url": SecretStr(through), "dashboard_port": free_port()}
    )
    try:
        async with started(Service("dashboard", settings)) as dashboard:
            await page.goto(f"{dashboard.url}/?symbol=EURUSD&source=S")
            await seconds_until(page, "Last tick")
            proxy.hang()
            assert await seconds_until(page, "The database does not answer") < 3 + BUSY_SECONDS
            await expect(page.locator("#status")).to_have_attribute("data-kind", "bad")
            proxy.heal()
            await seconds_until(page, "Last tick")
    finally:
        proxy.heal()
        await proxy.stop()


@pytest.mark.full  # dashboard/test_seen.py has what the page is told
@pytest.mark.fault
async def test_killed_worker_shows_within_five_seconds(
    page: Page, servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = market_settings(servers, "shown", tmp_path_factory.mktemp("shown"))
    log_name = await wait_for_log(settings)
    with running(settings, "sink", "stream_app", "dashboard") as (_, worker, dashboard):
        async with Flow(settings, log_name) as flow, ticking(flow):
            await page.goto(dashboard.url)
            await seconds_until(page, "Live")
            worker.kill()
            assert await seconds_until(page, "not folded") < 5 + BUSY_SECONDS
            await asyncio.to_thread(lambda: worker.start().wait_ready())
            await seconds_until(page, "Live")


@pytest.mark.full
async def test_a_password_that_was_changed_is_said_with_what_helps(browser: Browser, market: Market) -> None:
    before, after = (
        market.settings.model_copy(update={"dashboard_password": SecretStr(word), "dashboard_port": port})
        for port in (free_port(),)
        for word in ("the first one", "another one")
    )
    context = await browser.new_context(
        locale="en-GB", http_credentials={"username": "me", "password": "the first one"}
    )
    page = await context.new_page()
    async with started(Service("dashboard", before)) as dashboard:
        await page.goto(f"{dashboard.url}/?symbol=EURUSD&source=S")
        await seconds_until(page, "Last tick")
    async with started(Service("dashboard", after)):
        await seconds_until(page, "No live data: the password is another now; reload the page")
        await expect(page.locator("#status")).to_have_attribute("data-kind", "bad")
    await context.close()


@pytest.mark.full
async def test_one_stream_too_many_is_said_and_comes_by_itself_when_another_is_closed(
    browser: Browser, market: Market
) -> None:
    settings = market.settings.model_copy(update={"dashboard_max_streams": 1, "dashboard_port": free_port()})
    context = await browser.new_context(locale="en-GB")
    async with started(Service("dashboard", settings)) as dashboard:
        first, second = [await context.new_page() for _ in range(2)]
        await first.goto(f"{dashboard.url}/?symbol=EURUSD&source=S")
        await seconds_until(first, "Last tick")
        await second.goto(f"{dashboard.url}/?symbol=EURUSD&source=S")
        await seconds_until(second, "No live data: too many streams are open")
        # Candles need no stream.
        await expect(second.locator("#legend")).to_contain_text("EURUSD")
        await first.close()
        await seconds_until(second, "Last tick")
    await context.close()
