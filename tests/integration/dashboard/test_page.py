"""The page in a real Chromium: a day, live bars, the past, a lost connection, languages, themes."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Page, Route, async_playwright, expect
from playwright.async_api import Error as BrowserError

from runtime import clock
from tests import tools
from tests.days import EURUSD_COUNT, eurusd_bars
from tests.integration.dashboard.conftest import MINUTE_MS, Market
from tests.waiting import eventually

pytestmark = pytest.mark.long(46)

#: A busy machine draws late (milliseconds).
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)

DAY = "?symbol=EURUSD&source=S"

#: A Thursday, 09:00 UTC (epoch milliseconds): the first minute of the long history.
HISTORY_START = 1_700_125_200_000
HISTORY_MINUTES = 4_000


def last_close() -> float:
    """The close of the day."""
    return eurusd_bars()[max(eurusd_bars())][3]


@pytest_asyncio.fixture(scope="module")
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


class Reader:
    """A person in front of the page, and what the console of the browser said to them."""

    def __init__(self, page: Page, market: Market) -> None:
        self.page = page
        self.market = market
        self.complaints: list[str] = []
        self._attend(page)

    async def another(self) -> Page:
        """One more page beside the first."""
        page = await self.page.context.new_page()
        self._attend(page)
        return page

    def _attend(self, page: Page) -> None:
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._listen)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    async def open(self, query: str = DAY) -> None:
        await self.page.goto(f"{self.market.url}/{query}")

    async def legend(self) -> dict[str, Any]:
        """Title, time and numbers of the bar that the legend shows."""
        text = await self.page.locator("#legend").inner_text()
        numbers = {
            name: float(number.replace(",", "")) for name, number in re.findall(r"\b(O|H|L|C|Vol)\s*([\d.,]+)", text)
        }
        return {"text": text, **numbers}

    async def bars(self) -> int:
        return int(await self.page.locator("#chart").get_attribute("data-bars") or 0)

    async def until_bars(self, count: int) -> None:
        await expect(self.page.locator("#chart")).to_have_attribute("data-bars", str(count))

    async def close(self, number: float) -> None:
        """Wait until the bar in the legend closes at the price."""
        await expect(self.page.locator("#legend")).to_contain_text(f"C{number:.5f}")


@pytest.fixture
async def reader(browser: Browser, market: Market) -> AsyncIterator[Reader]:
    """A page without a cache or choices of before; what the console says must be nothing."""
    context = await browser.new_context(viewport={"width": 1280, "height": 760}, locale="en-GB", color_scheme="light")
    page = await context.new_page()
    reader = Reader(page, market)
    yield reader
    await context.close()
    assert reader.complaints == []


async def test_day_is_drawn_as_its_bars(reader: Reader) -> None:
    await reader.open()
    await reader.until_bars(len(eurusd_bars()))
    last = eurusd_bars()[max(eurusd_bars())]
    shown = await reader.legend()
    assert (shown["O"], shown["H"], shown["L"], shown["C"]) == last
    assert "Mon, 04 Feb 2019, 23:59 UTC" in shown["text"]

    box = await reader.page.locator("#chart").bounding_box()
    assert box is not None
    await reader.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    await expect(reader.page.locator("#legend")).not_to_contain_text("23:59 UTC")
    pointed = await reader.legend()
    clock = re.search(r"(\d\d):(\d\d) UTC", pointed["text"])
    assert clock is not None
    minute = min(eurusd_bars()) + (int(clock[1]) * 60 + int(clock[2])) * MINUTE_MS
    assert (pointed["O"], pointed["H"], pointed["L"], pointed["C"]) == eurusd_bars()[minute]
    assert {"#149279", "#d44a55"} <= await _colours(reader.page)


async def test_bar_moves_and_the_next_one_begins(reader: Reader, market: Market) -> None:
    ts = clock.now_ms() // MINUTE_MS * MINUTE_MS
    await market.publish(market.candle("MOVING", ts, (1.10000, 1.10010, 1.09990, 1.10005), ticks=5))
    await market.stored("MOVING", 1)
    await reader.open("?symbol=MOVING")
    await reader.close(1.10005)
    await market.publish(market.candle("MOVING", ts, (1.10000, 1.10030, 1.09990, 1.10022), ticks=9))
    await reader.close(1.10022)
    assert (await reader.legend())["Vol"] == 9
    await market.publish(market.candle("MOVING", ts + MINUTE_MS, (1.10022, 1.10041, 1.10022, 1.10041), ticks=2))
    await reader.close(1.10041)
    assert await reader.bars() == 2
    # A fold of fewer offsets comes late: nothing moves back.
    await market.publish(
        market.candle("MOVING", ts + MINUTE_MS, (1.10022, 1.10022, 1.10022, 1.10022), ticks=1),
        market.candle("MOVING", ts + MINUTE_MS, (1.10022, 1.10043, 1.10022, 1.10043), ticks=3),
    )
    await reader.close(1.10043)


async def test_bar_of_a_higher_timeframe_is_the_exact_fold_while_it_moves(reader: Reader, market: Market) -> None:
    hour = clock.now_ms() // (60 * MINUTE_MS) * 60 * MINUTE_MS
    stored = [market.candle("HOURLY", hour + n * MINUTE_MS, (1.2, 1.3, 1.1, 1.25001), ticks=10) for n in range(3)]
    await market.publish(*stored)
    await market.stored("HOURLY", 3)
    for timeframe in ("H1", "D1"):
        await reader.open(f"?symbol=HOURLY&timeframe={timeframe}")
        await expect(reader.page.locator("#legend")).to_contain_text("Vol30")
    await market.publish(market.candle("HOURLY", hour + 2 * MINUTE_MS, (1.2, 1.4, 1.1, 1.26002), ticks=14))
    await reader.close(1.26002)
    # 10 + 10 + 14: the minute is replaced, not added.
    assert (await reader.legend()) | {"text": ""} == {"text": "", "O": 1.2, "H": 1.4, "L": 1.1, "C": 1.26002, "Vol": 34}
    await market.publish(market.candle("HOURLY", hour + 3 * MINUTE_MS, (1.26, 1.27, 1.0, 1.01003), ticks=1))
    await reader.close(1.01003)
    assert (await reader.legend()) | {"text": ""} == {"text": "", "O": 1.2, "H": 1.4, "L": 1.0, "C": 1.01003, "Vol": 35}
    assert await reader.bars() == 1


async def test_late_ticks_of_an_old_minute_are_added_to_it_in_the_open_page(reader: Reader, market: Market) -> None:
    """20 ticks, twelve minutes later 40 more for the same minute: 60, in its hour as well, without a reload."""
    hour = clock.now_ms() // (60 * MINUTE_MS) * 60 * MINUTE_MS - 2 * 60 * MINUTE_MS
    times = [
        *(hour + n * 100 for n in range(20)),
        *(hour + n * MINUTE_MS for n in range(11, 23)),
        *(hour + 30_000 + n * 100 for n in range(40)),
    ]
    logged = await market.log_ticks("OLD", times)
    await market.publish(*market.flow.candles(logged[:32]))
    await market.stored("OLD", 13)
    pages = {timeframe: await reader.another() for timeframe in ("M1", "M5", "H1")}
    for timeframe, page in pages.items():
        await page.goto(f"{market.url}/?symbol=OLD&timeframe={timeframe}")
        await expect(page.locator("#legend")).to_contain_text("OLD")
        await page.keyboard.press("d")
    for timeframe, ticks in {"M1": 20, "M5": 20, "H1": 32}.items():
        await expect(pages[timeframe].get_by_role("cell").last).to_have_text(str(ticks))

    await market.publish(*market.flow.candles(logged[32:]))
    for timeframe, ticks in {"M1": 60, "M5": 60, "H1": 72}.items():
        await expect(pages[timeframe].get_by_role("cell").last).to_have_text(str(ticks))
        stored = market.get(f"/candles?symbol=OLD&timeframe={timeframe}").json()["candles"]
        assert await rows_of(pages[timeframe]) == as_shown(stored)


async def rows_of(page: Page) -> list[list[str]]:
    """Prices and ticks in the table of the open page, the oldest bar first."""
    rows: list[list[str]] = await page.evaluate(
        """() => [...document.querySelectorAll("#table tbody tr")].map((row) =>
            [...row.querySelectorAll("td")].map((cell) => cell.textContent)).reverse()"""
    )
    return rows


def as_shown(candles: list[dict[str, Any]]) -> list[list[str]]:
    """The same of candles of the API."""
    return [
        [*(f"{candle[name]:.5f}" for name in ("open", "high", "low", "close")), f"{candle['volume']:,}"]
        for candle in candles
    ]


async def test_timeframe_is_switched_by_pointer_and_key(reader: Reader) -> None:
    await reader.open()
    await reader.until_bars(len(eurusd_bars()))
    await reader.page.get_by_role("radio", name="H1", exact=True).click()
    await reader.until_bars(24)
    await expect(reader.page.locator("#legend")).to_contain_text("EURUSD · H1")
    await reader.page.keyboard.press("7")
    await reader.until_bars(1)
    assert (await reader.legend())["Vol"] == EURUSD_COUNT
    assert "timeframe=D1" in reader.page.url
    await reader.page.keyboard.press("2")
    await reader.until_bars(len({ts // (5 * MINUTE_MS) for ts in eurusd_bars()}))


async def test_scrolling_back_brings_the_past_until_there_is_none(reader: Reader, market: Market) -> None:
    await market.publish(*(
        market.candle("LONG", HISTORY_START + n * MINUTE_MS, (1.0, 1.1, 0.9, 1 + n / 1e5), ticks=1, closed=True)
        for n in range(HISTORY_MINUTES)
    ))  # fmt: skip
    await market.stored("LONG", HISTORY_MINUTES)
    await reader.open("?symbol=LONG")
    await reader.until_bars(1500)
    box = await reader.page.locator("#chart").bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    while await reader.bars() == 1500:
        await reader.page.mouse.move(box["x"] + 100, middle)
        await reader.page.mouse.down()
        await reader.page.mouse.move(box["x"] + 1000, middle, steps=4)
        await reader.page.mouse.up()
    assert await reader.bars() == 2500
    while await reader.bars() < HISTORY_MINUTES:
        await reader.page.keyboard.press("ArrowLeft")
    await expect(reader.page.locator("#chart")).to_have_attribute("data-first", "2023-11-16T09:00:00.000Z")
    await expect(reader.page.locator("#latest")).to_be_visible()
    await reader.page.keyboard.press("End")
    await expect(reader.page.locator("#latest")).to_be_hidden()


async def test_lost_connection_is_told_and_its_gap_is_filled(reader: Reader, market: Market) -> None:
    ts = clock.now_ms() // MINUTE_MS * MINUTE_MS
    await market.publish(market.candle("GAP", ts - 20 * MINUTE_MS, (1.3, 1.3, 1.3, 1.3), ticks=1, closed=True))
    await market.stored("GAP", 1)
    await reader.open("?symbol=GAP")
    await reader.until_bars(1)
    status = reader.page.locator("#status")

    market.dashboard.kill()
    await expect(status).to_have_attribute("data-kind", "bad")
    await expect(status).to_contain_text("Connection lost")
    # More minutes than a new stream begins with.
    await market.publish(*(
        market.candle("GAP", ts - n * MINUTE_MS, (1.3, 1.4, 1.2, 1.3 + n / 1e5), ticks=4, closed=True)
        for n in range(19, 1, -1)
    ))  # fmt: skip
    await asyncio.to_thread(lambda: market.dashboard.start().wait_ready())
    await market.stored("GAP", 19)
    await expect(status).not_to_have_attribute("data-kind", "bad")
    await reader.until_bars(19)
    await reader.close(1.30002)
    await market.publish(market.candle("GAP", ts - MINUTE_MS, (1.5, 1.6, 1.5, 1.55005), ticks=2))
    await reader.close(1.55005)
    await reader.until_bars(20)

    refused = [text for text in reader.complaints if "ERR_" in text or "Failed to load resource" in text]
    assert refused
    reader.complaints = [text for text in reader.complaints if text not in refused]


async def test_symbol_is_found_by_typing(reader: Reader, market: Market) -> None:
    await market.publish(market.candle("XAUUSD", HISTORY_START, (2650.1, 2651.2, 2649.3, 2650.45), ticks=3))
    await market.stored("XAUUSD", 1)
    await reader.open()
    await reader.until_bars(len(eurusd_bars()))
    await reader.page.keyboard.press("/")
    await reader.page.get_by_role("combobox", name="Search").fill("xau")
    await expect(reader.page.locator("#symbol-list").get_by_role("option")).to_have_count(1)
    await reader.page.keyboard.press("Enter")
    # Gold has two digits.
    await expect(reader.page.locator("#legend")).to_contain_text("C2,650.45")
    await expect(reader.page).to_have_title("XAUUSD · Tickpipe")


async def test_language_and_theme_are_switched_and_kept(reader: Reader) -> None:
    await reader.open()
    await reader.until_bars(len(eurusd_bars()))
    root = reader.page.locator("html")
    await expect(root).to_have_attribute("data-theme", "light")
    await reader.page.get_by_role("button", name="Português (L)").click()
    await reader.page.keyboard.press("t")
    for _ in range(2):
        await expect(root).to_have_attribute("lang", "pt")
        await expect(root).to_have_attribute("data-theme", "dark")
        await expect(reader.page.locator("#legend")).to_contain_text(f"F{last_close():.5f}".replace(".", ","))
        await expect(reader.page.locator("#status")).to_contain_text("Último tick")
        assert {"#2bb596", "#e8626c"} <= await _colours(reader.page)
        await reader.page.reload()
        await reader.until_bars(len(eurusd_bars()))


async def test_pane_shows_the_state_of_the_pipeline(reader: Reader) -> None:
    await reader.open()
    await reader.page.keyboard.press("p")
    pane = reader.page.locator("#pane")
    await expect(pane).to_contain_text("Everything flows")
    for words in ("Ticks per second", "Latency", "tick → received", "received → stored", "to be stored", "Rejected"):
        await expect(pane).to_contain_text(words)
    await expect(pane.get_by_role("row", name=f"EURUSD S {last_close():.5f}")).to_be_visible()
    await reader.page.keyboard.press("p")
    await expect(pane).to_be_hidden()


async def test_pane_keeps_what_the_reader_is_at_while_it_changes(reader: Reader, market: Market) -> None:
    await reader.open()
    await reader.page.keyboard.press("p")
    button = reader.page.get_by_role("button", name="EURUSD S", exact=True)
    await button.focus()
    await button.evaluate("(element) => { window.focused = element; window.changes = 0; }")
    await reader.page.evaluate(
        """() => new MutationObserver(() => { window.changes += 1; })
            .observe(document.querySelector("#pane"), { subtree: true, childList: true, characterData: true })"""
    )
    # A feed that comes before it moves it down.
    now = clock.now_ms() // MINUTE_MS * MINUTE_MS
    await market.publish(market.candle("AAA", now, (1.0, 1.0, 1.0, 1.0), ticks=1))
    await expect(reader.page.get_by_role("button", name="AAA Live", exact=True)).to_be_visible()

    async def has_changed() -> bool:
        return bool(await reader.page.evaluate("window.changes") >= 3)

    await eventually(has_changed, what="three changes in the pane")
    assert await reader.page.evaluate("document.activeElement === window.focused && window.focused.isConnected")
    await reader.page.get_by_role("button", name="AAA Live", exact=True).click()
    await expect(reader.page).to_have_title("AAA · Tickpipe")


async def test_theme_of_the_system_is_followed_until_the_other_is_chosen(reader: Reader) -> None:
    await reader.open()
    root = reader.page.locator("html")
    await reader.page.emulate_media(color_scheme="dark")
    await expect(root).to_have_attribute("data-theme", "dark")
    await reader.page.keyboard.press("t")
    await expect(root).to_have_attribute("data-theme", "light")
    await reader.page.emulate_media(color_scheme="light")
    await reader.page.emulate_media(color_scheme="dark")
    await expect(root).to_have_attribute("data-theme", "light")
    await reader.page.keyboard.press("t")
    await expect(root).to_have_attribute("data-theme", "dark")
    await reader.page.emulate_media(color_scheme="light")
    await expect(root).to_have_attribute("data-theme", "light")


async def test_names_in_both_languages_are_the_same(reader: Reader) -> None:
    await reader.open()
    texts = await reader.page.evaluate(
        """async () => {
            const { TEXTS } = await import("./js/i18n.js");
            return Object.values(TEXTS).map((texts) =>
                Object.entries(texts).map(([name, text]) => [name, [...text.matchAll(/\\{\\w+\\}/g)].join()]).sort());
        }"""
    )
    assert texts[0] == texts[1]


async def test_page_without_the_chart_library_says_how_to_get_it(reader: Reader) -> None:
    await reader.page.route("**/vendor/**", lambda route: route.fulfill(status=404))
    await reader.open()
    await expect(reader.page.locator("#notice")).to_contain_text("make setup")
    assert len(reader.complaints) == 1
    reader.complaints.clear()


async def test_api_is_described_on_a_page_of_its_own(reader: Reader) -> None:
    await reader.open()
    await reader.page.keyboard.press("?")
    await reader.page.get_by_role("link", name="/candles").click()
    headings = reader.page.get_by_role("heading", level=2)
    await expect(headings).to_contain_text(["GET /candles", "GET /stream", "GET /symbols", "GET /pipeline"])
    await expect(reader.page.get_by_role("cell", name="1 to 20,000 candles")).to_be_visible()


async def test_symbol_of_a_link_that_is_not_there_is_said_and_found_when_it_comes(
    reader: Reader, market: Market
) -> None:
    await reader.open("?symbol=YOUNG")
    notice = reader.page.locator("#notice")
    await expect(notice).to_contain_text("There are no candles of YOUNG")
    assert await reader.bars() == 0
    now = clock.now_ms() // MINUTE_MS * MINUTE_MS
    await market.publish(market.candle("YOUNG", now, (1.1, 1.2, 1.1, 1.10007), ticks=3))
    await reader.close(1.10007)
    await expect(notice).to_be_hidden()
    assert "source=Live" in reader.page.url

    await reader.open("?symbol=EURUSD&source=Nobody")
    await expect(notice).to_contain_text("There are no candles of EURUSD from Nobody")


async def test_remembered_symbol_that_is_gone_gives_way_to_one_that_is_there(reader: Reader) -> None:
    await reader.open()
    await reader.page.evaluate("localStorage.setItem('tickpipe', JSON.stringify({ symbol: 'GONE', source: 'S' }))")
    await reader.open("")
    await expect(reader.page.locator("#legend")).to_contain_text("Vol")


async def test_nothing_of_the_symbol_before_stands_beside_the_name_of_the_next(reader: Reader, market: Market) -> None:
    now = clock.now_ms() // MINUTE_MS * MINUTE_MS
    live = market.candle("NEXT", now, (2.1, 2.2, 2.1, 2.10007), ticks=3)
    await market.publish(msgspec.structs.replace(live, last_tick=now))
    await market.stored("NEXT", 1)
    await reader.open("?symbol=NEXT")
    await reader.close(2.10007)
    await expect(reader.page.locator("#status")).to_have_attribute("data-kind", "good")
    # The candles of the other are long in coming.
    asked = asyncio.Event()
    answer = asyncio.Event()

    async def hold(route: Route) -> None:
        asked.set()
        await answer.wait()
        await route.continue_()

    await reader.page.route("**/candles?*", hold)
    await reader.page.keyboard.press("/")
    await reader.page.get_by_role("combobox", name="Search").fill("eurusd")
    await reader.page.keyboard.press("Enter")
    await asyncio.wait_for(asked.wait(), 60)
    await expect(reader.page.locator("#symbol-name")).to_have_text("EURUSD")
    await expect(reader.page.locator("#loading")).to_be_visible()
    await expect(reader.page.locator("#legend")).to_be_empty()
    await expect(reader.page.locator("#status")).to_have_attribute("data-kind", "quiet")
    assert await reader.bars() == 0
    assert not {"#149279", "#d44a55"} & await _colours(reader.page)
    answer.set()
    await reader.until_bars(len(eurusd_bars()))


async def test_last_tick_is_the_newest_tick_not_the_opening_of_its_bar(reader: Reader, market: Market) -> None:
    # Its day's bar opens hours before.
    hour = clock.now_ms() // (60 * MINUTE_MS) * 60 * MINUTE_MS - 5 * 60 * MINUTE_MS
    await market.publish(market.candle("QUIET", hour + 50 * MINUTE_MS, (1.2, 1.2, 1.2, 1.2), ticks=2, closed=True))
    await market.stored("QUIET", 1)
    await reader.open("?symbol=QUIET&timeframe=D1")
    ago = (clock.now_ms() - hour - 50 * MINUTE_MS - 30_000) // (60 * MINUTE_MS)
    await expect(reader.page.locator("#status")).to_have_text(f"Last tick {ago} hr ago")
    await expect(reader.page.locator("#status")).to_have_attribute("data-kind", "quiet")


async def test_tick_stamped_tomorrow_does_not_make_the_feed_live(reader: Reader, market: Market) -> None:
    tomorrow = clock.now_ms() // MINUTE_MS * MINUTE_MS + 24 * 60 * MINUTE_MS
    await market.publish(market.candle("AHEAD", tomorrow, (1.2, 1.2, 1.2, 1.2), ticks=2))
    await market.stored("AHEAD", 1)
    await reader.open("?symbol=AHEAD")
    await expect(reader.page.locator("#status")).to_contain_text("Ticks are stamped ahead")
    await expect(reader.page.locator("#status")).to_have_attribute("data-kind", "quiet")


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [(503, "TOO_MANY_STREAMS", "too many streams"), (401, "UNAUTHORIZED", "reload the page"), (500, "X", "it broke")],
)
async def test_refused_stream_is_said_as_such(reader: Reader, status: int, code: str, says: str) -> None:
    refusal = {"error": "it broke", "code": code}
    await reader.page.route("**/stream?*", lambda route: route.fulfill(status=status, json=refusal))
    await reader.open()
    await reader.until_bars(len(eurusd_bars()))
    await expect(reader.page.locator("#status")).to_contain_text("No live data")
    await expect(reader.page.locator("#status")).to_contain_text(says)
    await reader.page.unroute("**/stream?*")
    await expect(reader.page.locator("#status")).to_contain_text("Last tick")
    assert all("Failed to load resource" in text for text in reader.complaints)
    reader.complaints.clear()


@pytest.mark.parametrize("width", [360, 390, 768])
async def test_nothing_is_wider_than_a_small_screen(reader: Reader, width: int) -> None:
    await reader.page.set_viewport_size({"width": width, "height": 780})
    await reader.open()
    await reader.until_bars(len(eurusd_bars()))
    for _ in range(2):
        assert await reader.page.evaluate("document.documentElement.scrollWidth") == width
        await reader.page.locator("#pane-toggle").click()
    chart = await reader.page.locator("#chart").bounding_box()
    assert chart is not None
    assert chart["height"] > 500


async def _colours(page: Page) -> set[str]:
    """Colours on the page's canvases, as `#rrggbb`."""
    found = await page.evaluate(
        """() => {
            const colours = new Set();
            for (const canvas of document.querySelectorAll("#chart canvas")) {
                if (!canvas.width || !canvas.height) continue;
                const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
                for (let i = 0; i < data.length; i += 4) {
                    if (data[i + 3] === 255) colours.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
                }
            }
            return [...colours];
        }"""
    )
    return {f"#{colour:06x}" for colour in found}
