"""The page in a real Chromium: a day, the past, other symbols, languages, themes, a small screen."""

import asyncio
import re

import msgspec
import pytest
from playwright.async_api import Route, expect

from runtime import clock
from tests.days import EURUSD_COUNT, eurusd_bars
from tests.integration.dashboard.market import MINUTE_MS, Market
from tests.integration.dashboard.reader import Reader, colours_of, last_close
from tests.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.long(15)

#: A Thursday, 09:00 UTC (epoch milliseconds): the first minute of the long history.
HISTORY_START = 1_700_125_200_000
HISTORY_MINUTES = 4_000


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
    assert {"#149279", "#d44a55"} <= await colours_of(reader.page)


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


@pytest.mark.full
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


@pytest.mark.parametrize(
    "listed", [300, pytest.param(1, marks=pytest.mark.full)], ids=["of_a_whole_list", "of_more_than_are_listed"]
)
async def test_symbol_is_found_by_typing(reader: Reader, market: Market, listed: int) -> None:
    async def list_so_many(route: Route) -> None:
        await route.continue_(url=route.request.url.replace("limit=300", f"limit={listed}"))

    await reader.page.route("**/symbols?*", list_so_many)
    await market.publish(market.candle("XAUUSD", HISTORY_START, (2650.1, 2651.2, 2649.3, 2650.45), ticks=3))
    await market.stored("XAUUSD", 1)
    await reader.open()
    await reader.until_bars(len(eurusd_bars()))
    await reader.page.keyboard.press("/")
    await reader.page.get_by_role("combobox", name="Search").fill("xau")
    await expect(reader.page.locator("#symbol-list").get_by_role("option")).to_have_text(["XAUUSDLive"])
    await reader.page.keyboard.press("Enter")
    # Gold has two digits.
    await expect(reader.page.locator("#legend")).to_contain_text("C2,650.45")
    await expect(reader.page).to_have_title("XAUUSD · Tickpipe")


async def test_negative_prices_rise_as_others_do(reader: Reader, market: Market) -> None:
    await market.publish(market.candle("OIL", HISTORY_START, (-37.0, -29.6, -40.0, -29.6), ticks=3))
    await market.stored("OIL", 1)
    await reader.open("?symbol=OIL&source=Live")
    await expect(reader.page.locator("#legend .numbers.up .change")).to_have_text("+20.000%")


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
        assert {"#2bb596", "#e8626c"} <= await colours_of(reader.page)
        await reader.page.reload()
        await reader.until_bars(len(eurusd_bars()))


@pytest.mark.full
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


@pytest.mark.full
async def test_api_is_described_on_a_page_of_its_own(reader: Reader) -> None:
    await reader.open()
    await reader.page.keyboard.press("?")
    await reader.page.get_by_role("link", name="/candles").click()
    headings = reader.page.get_by_role("heading", level=2)
    await expect(headings).to_contain_text(["GET /candles", "GET /stream", "GET /symbols", "GET /pipeline"])
    await expect(reader.page.get_by_role("cell", name="1 to 20,000 candles").first).to_be_visible()


@pytest.mark.full
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


@pytest.mark.full
async def test_remembered_symbol_that_is_gone_gives_way_to_one_that_is_there(reader: Reader) -> None:
    await reader.open()
    await reader.page.evaluate("localStorage.setItem('tickpipe', JSON.stringify({ symbol: 'GONE', source: 'S' }))")
    await reader.open("")
    await expect(reader.page.locator("#legend")).to_contain_text("Vol")


@pytest.mark.full
async def test_nothing_of_the_symbol_before_stands_beside_the_name_of_the_next(reader: Reader, market: Market) -> None:
    # At the end of a minute its first tick is too old to be live.
    now = clock.now_ms()
    live = market.candle("NEXT", now // MINUTE_MS * MINUTE_MS, (2.1, 2.2, 2.1, 2.10007), ticks=3)
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
    await asyncio.wait_for(asked.wait(), PATIENCE_SECONDS)
    await expect(reader.page.locator("#symbol-name")).to_have_text("EURUSD")
    await expect(reader.page.locator("#loading")).to_be_visible()
    await expect(reader.page.locator("#legend")).to_be_empty()
    await expect(reader.page.locator("#status")).to_have_attribute("data-kind", "quiet")
    assert await reader.bars() == 0
    assert not {"#149279", "#d44a55"} & await colours_of(reader.page)
    answer.set()
    await reader.until_bars(len(eurusd_bars()))


async def test_nothing_is_wider_than_a_small_screen(reader: Reader) -> None:
    for width in (360, 390, 768):
        await reader.page.set_viewport_size({"width": width, "height": 780})
        await reader.open()
        await reader.until_bars(len(eurusd_bars()))
        for _ in range(2):
            assert await reader.page.evaluate("document.documentElement.scrollWidth") == width
            await reader.page.locator("#pane-toggle").click()
        chart = await reader.page.locator("#chart").bounding_box()
        assert chart is not None
        assert chart["height"] > 500
