"""Where in time the page is: a date, the start of history, gaps, the clock that times are shown on, the countdown."""

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio
from playwright.async_api import Page, Request, Route, expect

from runtime import clock
from tests.integration.dashboard.market import MINUTE_MS, Market
from tests.integration.dashboard.reader import BARE_CHART, Reader, as_shown, rows_of
from tests.integration.dashboard.test_page import HISTORY_START
from tests.waiting import eventually

pytestmark = pytest.mark.long(10)


#: Minutes of the history, of which those in the gap have no ticks.
MINUTES = 2_600
GAP = range(1_000, 1_005)
BARS = MINUTES - len(GAP)


def price(minute: int) -> float:
    return round(1 + minute / 1e5, 5)


def minute_ms(minute: int) -> int:
    return HISTORY_START + minute * MINUTE_MS


@pytest_asyncio.fixture(scope="module")
async def history(market: Market) -> Market:
    """Two days of minutes of PAST, of which each closes at a price of its own."""
    await market.publish(*(
        market.candle("PAST", minute_ms(n), (1.0, 1.1, 0.9, price(n)), ticks=1, closed=True)
        for n in range(MINUTES) if n not in GAP
    ))  # fmt: skip
    await market.stored("PAST", BARS)
    return market


async def go_to(page: Page, shown: str) -> None:
    """Ask for a date and time, as the chosen clock shows it."""
    await page.keyboard.press("g")
    await page.locator("#going-time").fill(shown)
    await page.keyboard.press("Enter")


async def test_date_start_of_history_and_back(reader: Reader, history: Market) -> None:
    page = reader.page
    await reader.open("?symbol=PAST")
    await reader.until_bars(1_500)
    await go_to(page, f"{datetime.fromtimestamp(minute_ms(GAP[2]) / 1000, UTC):%Y-%m-%dT%H:%M}")
    # Of a moment in the gap, the bar behind it.
    await reader.close(price(GAP.stop))
    assert "&at=2023-11-17T01:42Z" in page.url
    box = await page.locator("#chart canvas").nth(1).bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    await expect(page.locator("#legend")).to_contain_text("01:40 UTC")
    await expect(page.locator("#legend")).to_contain_text("no ticks until Fri, 17 Nov 2023, 01:45 UTC")
    await page.mouse.move(box["x"] + box["width"] / 2, 5)

    await page.keyboard.press("Home")
    await reader.close(price(0))
    await expect(page.locator("#chart")).to_have_attribute("data-first", "2023-11-16T09:00:00.000Z")
    await page.keyboard.press("d")
    stored = history.get(f"/candles?symbol=PAST&from={HISTORY_START}&limit=250").json()["candles"]
    assert await rows_of(page) == as_shown(stored)
    await page.keyboard.press("d")
    await page.go_back()
    await reader.close(price(GAP.stop))
    await page.keyboard.press("End")
    await reader.close(price(MINUTES - 1))
    assert "at=" not in page.url


@pytest.mark.full
async def test_the_present_is_reached_by_scrolling_and_moves_only_then(reader: Reader, history: Market) -> None:
    page = reader.page
    await reader.open(f"?symbol=PAST&at={datetime.fromtimestamp(minute_ms(0) / 1000, UTC):%Y-%m-%dT%H:%MZ}")
    await reader.until_bars(1_000)
    # What is live is no neighbour of the last bar that is loaded; what comes late for one that is loaded changes it.
    last = minute_ms(MINUTES)
    await history.publish(history.candle("PAST", last, (1.0, 1.1, 0.9, 1.07), ticks=2))
    await history.publish(history.candle("PAST", minute_ms(0), (1.0, 1.1, 0.9, 1.08), ticks=9, closed=True))
    await reader.close(1.08)
    assert await reader.bars() == 1_000
    await expect(page.locator("#latest")).to_be_visible()
    while await reader.bars() < BARS + 1:
        await page.keyboard.press("ArrowRight")
    await history.publish(history.candle("PAST", last + MINUTE_MS, (1.0, 1.1, 0.9, 1.09), ticks=2))
    await reader.until_bars(BARS + 2)
    await reader.close(1.09)
    assert "at=" not in page.url
    # It was never read afresh: the chart still begins where it began.
    assert await reader.bars() == BARS + 2


@pytest.mark.full
async def test_longer_bars_are_those_of_the_same_moment(reader: Reader, history: Market) -> None:
    await reader.open("?symbol=PAST&at=2023-11-16T12:34Z")
    await reader.close(price(3 * 60 + 34))
    await reader.page.keyboard.press("5")
    await expect(reader.page.locator("#legend")).to_contain_text("12:00 UTC")
    await reader.close(price(3 * 60 + 59))


@pytest.mark.full
async def test_clock_is_that_of_the_zone(reader: Reader) -> None:
    """Against Python's own zones, around the changes of two years."""
    zones = {"UTC": 0, "America/Sao_Paulo": 0, "Europe/Athens": 0, "Australia/Lord_Howe": 0, "America/New_York": 7}
    times = [datetime(2018, 1, 1, 0, 15, tzinfo=UTC) + timedelta(hours=6 * n) for n in range(2 * 365 * 4)]
    await reader.open()
    for zone, shift_hours in zones.items():
        shown = await reader.page.evaluate(
            """async ([zone, shift, times]) => {
                const { setZone, wall, momentOf } = await import("./js/zone.js");
                setZone(zone, shift);
                return times.map((time) => [wall(time), wall(momentOf(wall(time)))]);
            }""",
            [zone, shift_hours * 3_600_000, [round(time.timestamp() * 1000) for time in times]],
        )
        local = [time.astimezone(ZoneInfo(zone)) + timedelta(hours=shift_hours) for time in times]
        expected = [round(time.replace(tzinfo=UTC).timestamp() * 1000) for time in local]
        assert (zone, [wall for wall, _ in shown]) == (zone, expected)
        assert (zone, [again for _, again in shown]) == (zone, expected)


@pytest.mark.full
async def test_another_clock_is_chosen_and_remembered(reader: Reader, history: Market) -> None:
    page = reader.page
    await reader.open("?symbol=PAST&at=2023-11-17T00:30Z")
    await reader.close(price(15 * 60 + 30))
    await page.get_by_role("combobox", name="Time zone").select_option("São Paulo")
    for _ in range(2):
        await expect(page.locator("#legend")).to_contain_text("Thu, 16 Nov 2023, 21:30 UTC−3")
        await expect(page.locator("#clock")).to_contain_text("UTC−3")
        await page.reload()
    # What is asked for is meant on that clock, too.
    await go_to(page, "2023-11-16T22:00")
    await expect(page.locator("#legend")).to_contain_text("22:00 UTC−3")
    await reader.close(price(16 * 60))


async def told(route: Route, state: dict[str, Any]) -> None:
    """Let the stream tell this state of the pipeline, and end."""
    body = f"retry: 1000\n\nevent: pipeline\ndata: {json.dumps(state)}\n\n"
    await route.fulfill(status=200, content_type="text/event-stream", body=body)


@pytest.mark.full
async def test_span_up_to_now_is_shown_by_bars_that_fit_it(reader: Reader, history: Market) -> None:
    page = reader.page
    await reader.open("?symbol=PAST")
    await reader.until_bars(1500)
    await page.keyboard.press("Home")
    await page.keyboard.press("g")
    await page.get_by_role("button", name="1 day").click()
    # The pointer would point at a bar.
    await page.mouse.move(0, 0)
    await expect(page.locator("#legend")).to_contain_text("PAST · M5")
    assert "timeframe=M5" in page.url
    assert "at=" not in page.url
    # Another test may have added a minute.
    bars = history.get("/candles?symbol=PAST&timeframe=M5&limit=1").json()["candles"]
    newest = datetime.fromisoformat(bars[-1]["ts"])
    await expect(page.locator("#legend")).to_contain_text(f"{newest:%H:%M} UTC")
    # The first bar on the screen.
    box = await page.locator("#chart").bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + 3, box["y"] + 300)
    await expect(page.locator("#legend")).to_contain_text(f"{newest - timedelta(days=1):%d %b %Y, %H:%M} UTC")

    # It begins three years ago.
    await page.keyboard.press("g")
    await page.get_by_role("button", name="All").click()
    await expect(page.locator("#legend")).to_contain_text("PAST · W1")


@pytest.mark.full
async def test_days_begin_on_the_axis_by_the_clock_that_is_chosen_later(reader: Reader) -> None:
    """Whatever is drawn beside the candles: the spread, here."""
    await reader.open()
    await reader.page.evaluate(BARE_CHART)
    days = await reader.page.evaluate(
        """async () => {
            const { chart, made } = bare;
            const { setZone } = await import("./js/zone.js");
            const begins = Date.UTC(2023, 10, 16);
            const bars = Array.from({ length: 400 }, (_, n) =>
                ({ time: begins + n * 300_000, open: 1, high: 1.1, low: 0.9, close: 1, volume: 1, spread: 2 }));
            chart.overlays.showSpread(true);
            chart.draw(bars, 5, { widthMs: 300_000 });
            chart.reset();
            setZone("America/Sao_Paulo");
            chart.relabel("en-GB");
            const days = new Set();
            made.applyOptions({ timeScale: { tickMarkFormatter: (time, kind) => {
                if (kind === 2) days.add(new Date(time * 1000).toISOString());
                return "a label";
            } } });
            for (let frame = 0; frame < 4; frame += 1) await new Promise(requestAnimationFrame);
            return [...days];
        }"""
    )
    assert days == ["2023-11-17T03:00:00.000Z"]


@pytest.mark.full
async def test_clock_of_the_candles_days_is_offered_where_it_is_another(reader: Reader, history: Market) -> None:
    page = reader.page
    state = history.get("/pipeline").json()
    assert state["day"] == {"zone": "UTC", "shift_ms": 0}
    state["day"] = {"zone": "America/New_York", "shift_ms": 7 * 3_600_000}
    await page.route("**/stream?*", lambda route: told(route, state))
    await reader.open("?symbol=PAST&at=2023-11-16T22:30Z")
    await page.get_by_role("combobox", name="Time zone").select_option("The candles’ days (America/New_York + 7 h)")
    # Their days begin at 17:00 in New York, which is 22:00 UTC in winter.
    await expect(page.locator("#legend")).to_contain_text("Fri, 17 Nov 2023, 00:30 UTC+2")


@pytest.mark.full
async def test_countdown_tells_when_the_bar_closes(reader: Reader, market: Market) -> None:
    for timeframe, minutes in {"M5": 5, "H1": 60}.items():
        # The bar must not end while the page is looked at.
        left = minutes * 60 - clock.now_ms() / 1000 % (minutes * 60)
        if left < 30:
            await asyncio.sleep(left + 1)
        symbol = f"SOON{timeframe}"
        now = clock.now_ms() // MINUTE_MS * MINUTE_MS
        await market.publish(market.candle(symbol, now, (1.2, 1.3, 1.1, 1.20004), ticks=3))
        await market.stored(symbol, 1)
        await reader.open(f"?symbol={symbol}&timeframe={timeframe}")
        countdown = reader.page.locator("#countdown")
        await expect(countdown).to_have_text(re.compile(r"bar closes in \d+:\d\d$"))
        found = re.search(r"(\d+):(\d\d)$", await countdown.inner_text())
        assert found is not None
        left = minutes * 60 - clock.now_ms() / 1000 % (minutes * 60)
        assert abs(int(found[1]) * 60 + int(found[2]) - left) % (minutes * 60) < 5
    # Nothing moves that could close.
    await reader.open()
    await expect(reader.page.locator("#legend")).to_contain_text("EURUSD")
    await expect(reader.page.locator("#countdown")).to_be_empty()


@pytest.mark.full
async def test_page_of_another_version_is_loaded_again_once(reader: Reader, history: Market) -> None:
    state = history.get("/pipeline").json()
    versions = ["before"]

    async def tell(route: Route) -> None:
        await told(route, state | {"version": versions[-1]})
        versions.append("after")

    loads = 0

    def count(request: Request) -> None:
        nonlocal loads
        loads += request.is_navigation_request()

    reader.page.on("request", count)
    await reader.page.route("**/stream?*", tell)
    await reader.open("?symbol=PAST")

    async def is_told_again() -> bool:
        return len(versions) > 5

    await eventually(is_told_again, what="five states of the pipeline")
    # The page that was loaded is of the version that is told.
    assert loads == 2
    reader.page.remove_listener("request", count)
    await expect(reader.page.locator("#legend")).to_contain_text("PAST")
