"""A market to look at: a day and live symbols, stored by a real sink, shown by a real dashboard, seen in a Chromium."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, ViewportSize, async_playwright
from playwright.async_api import Error as BrowserError

from runtime.logreader import wait_for_log
from tests import tools
from tests.days import eurusd_bars
from tests.integration.dashboard.market import Market, day_candles, market_settings
from tests.integration.dashboard.reader import Reader
from tests.integration.sink.flow import Flow
from tests.servers import EmbeddedServers
from tests.services import running

VIEWPORT: ViewportSize = {"width": 1280, "height": 760}


@pytest_asyncio.fixture(scope="session")
async def market(servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Market]:
    settings = market_settings(servers, "market", tmp_path_factory.mktemp("market"))
    log_name = await wait_for_log(settings)
    with ExitStack() as stack:
        stack.enter_context(running(settings, "sink"))
        (dashboard,) = stack.enter_context(running(settings, "dashboard"))
        async with Flow(settings, log_name) as flow:
            market = Market(settings, flow, dashboard)
            await market.publish(*day_candles(flow.own_log))
            await market.stored("EURUSD", len(eurusd_bars()))
            yield market


@pytest_asyncio.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """The Chromium that TEST_BROWSER names, or the one on the PATH."""
    path = os.environ.get("TEST_BROWSER") or tools.find("chromium", "chromium-browser", "google-chrome")
    await asyncio.to_thread(tools.probe, "chromium", [path, "--version"])
    async with async_playwright() as playwright:
        try:
            launched = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except BrowserError as exc:
            tools.unavailable("chromium", f"does not start: {exc.message.splitlines()[0]}")
        yield launched
        await launched.close()


@pytest_asyncio.fixture(scope="session")
async def page_of_all(browser: Browser) -> Page:
    """The page that the tests use one after the other: a new one takes a second of a processor more to open."""
    context = await browser.new_context(viewport=VIEWPORT, locale="en-GB", color_scheme="light")
    return await context.new_page()


@pytest.fixture
async def reader(page_of_all: Page, market: Market) -> AsyncIterator[Reader]:
    """A page without a cache or choices of before; what the console says must be nothing."""
    reader = Reader(page_of_all, market)
    yield reader
    await clear(page_of_all, market)
    reader.leave()
    assert reader.complaints == []


async def clear(page: Page, market: Market) -> None:
    """Make the page as a new one is: no other beside it, nothing stored, nothing emulated, the pointer nowhere."""
    for other in page.context.pages:
        if other is not page:
            await other.close()
    await page.unroute_all(behavior="ignoreErrors")
    await page.goto("about:blank")
    await page.context.clear_cookies()
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("Network.clearBrowserCache")
    await devtools.send("Storage.clearDataForOrigin", {"origin": market.url, "storageTypes": "all"})
    await devtools.detach()
    await page.emulate_media(color_scheme="light")
    await page.set_viewport_size(VIEWPORT)
    await page.mouse.move(0, 0)
