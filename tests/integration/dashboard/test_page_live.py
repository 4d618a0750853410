"""The page while candles come: bars that move, late ticks, a lost connection, the pane and the status line."""

import asyncio
import re
import time
from urllib.parse import quote

import pytest
from msgspec.structs import replace
from playwright.async_api import Dialog, expect

from runtime import clock
from tests.days import eurusd_bars
from tests.integration.dashboard.market import MINUTE_MS, Market
from tests.integration.dashboard.reader import Reader, as_shown, has_line, last_close, rows_of
from tests.integration.dashboard.test_seen import BUSY_SECONDS
from tests.waiting import eventually

pytestmark = pytest.mark.long(15)


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


@pytest.mark.full
async def test_bid_and_ask_are_those_of_the_newest_tick(reader: Reader, market: Market) -> None:
    ts = clock.now_ms() // MINUTE_MS * MINUTE_MS
    await market.publish(market.candle("QUOTED", ts, (1.1, 1.1001, 1.0999, 1.10005), ticks=5, ask=1.10009))
    await market.stored("QUOTED", 1)
    await reader.open("?symbol=QUOTED&timeframe=M5")
    quote = reader.page.locator("#legend .quote")
    await expect(quote).to_have_text("Bid1.10005Ask1.10009")
    # Of an older minute that is told later: late ticks quote nothing. Its price is near, so that the lines at bid and
    # ask are not drawn over each other.
    await market.publish(
        market.candle("QUOTED", ts - MINUTE_MS, (1.1002, 1.1002, 1.1002, 1.1002), ticks=1, ask=1.1004),
        market.candle("QUOTED", ts, (1.1, 1.1001, 1.0999, 1.10005), ticks=6, ask=1.10012),
    )
    await expect(quote).to_have_text("Bid1.10005Ask1.10012")
    await eventually(lambda: has_line(reader.page), what="a line at the bid")
    await reader.page.keyboard.press("q")
    await expect(quote).to_be_hidden()
    assert not await has_line(reader.page)
    # It is a choice that stays.
    await reader.page.reload()
    await reader.close(1.10005)
    await expect(quote).to_be_hidden()


async def test_names_that_are_markup_are_shown_as_they_are(reader: Reader, market: Market) -> None:
    """In the legend, the table, the list of symbols, the pane and the title; nothing of them runs."""
    symbol, source = "<img src=x onerror=alert(1)>", '"><script>alert(2)</script>'
    ts = clock.now_ms() // MINUTE_MS * MINUTE_MS
    candle = market.candle(symbol, ts, (1.1, 1.2, 1.0, 1.15001), ticks=5)
    await market.publish(replace(candle, source=source))
    await market.stored(quote(symbol), 1)
    dialogs: list[str] = []

    async def dismiss(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        await dialog.dismiss()

    reader.page.on("dialog", dismiss)
    try:
        scripts = "document.querySelectorAll('script:not([src])').length"
        await reader.open()
        before = await reader.page.evaluate(scripts)
        await reader.open(f"?symbol={quote(symbol)}&source={quote(source)}")
        await reader.close(1.15001)
        await expect(reader.page.locator("#legend")).to_contain_text(symbol)
        await reader.page.keyboard.press("d")
        await reader.page.keyboard.press("/")
        await reader.page.get_by_role("combobox", name="Search").fill("img")
        await expect(reader.page.locator("#symbol-list").get_by_role("option")).to_contain_text([symbol])
        assert await reader.page.evaluate(scripts) == before
        assert await reader.page.locator("img[src=x]").count() == 0
    finally:
        reader.page.remove_listener("dialog", dismiss)
    assert dialogs == []


@pytest.mark.full
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


@pytest.mark.full
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

    async def is_stored() -> bool:
        return bool(market.get("/candles?symbol=OLD&timeframe=H1").json()["candles"][-1]["volume"] == 72)

    await eventually(is_stored, what="the late ticks in the table")
    stored_at = time.monotonic()
    for timeframe, ticks in {"M1": 60, "M5": 60, "H1": 72}.items():
        await expect(pages[timeframe].get_by_role("cell").last).to_have_text(str(ticks))
    took = time.monotonic() - stored_at
    print(f"M1, M5 and H1 were whole {took:.1f} s after the row was stored")
    assert took < 2 + BUSY_SECONDS
    for timeframe, page in pages.items():
        stored = market.get(f"/candles?symbol=OLD&timeframe={timeframe}").json()["candles"]
        assert await rows_of(page) == as_shown(stored)


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


@pytest.mark.full
async def test_stream_is_opened_anew_when_the_machine_wakes_up(reader: Reader) -> None:
    """A socket that died meanwhile looks open, and the timer that would tell was asleep as well."""
    await reader.open()
    await reader.until_bars(len(eurusd_bars()))
    await expect(reader.page.locator("#status")).to_contain_text("Last tick")
    async with reader.page.expect_request("**/stream?*since=*"):
        await reader.page.evaluate(
            """() => {
                const now = Date.now();
                Date.now = () => now + 60_000;
                document.dispatchEvent(new Event("visibilitychange"));
            }"""
        )
    await expect(reader.page.locator("#status")).to_contain_text("Last tick")


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


@pytest.mark.full
async def test_newest_ticks_are_listed_with_the_days_change(reader: Reader, market: Market) -> None:
    today = clock.now_ms() // (24 * 60 * MINUTE_MS) * 24 * 60 * MINUTE_MS
    await market.publish(
        market.candle("CHANGED", today - 3 * MINUTE_MS, (2.0, 2.0, 1.9, 1.9), ticks=3, closed=True),
        market.candle("CHANGED", today - 2 * MINUTE_MS, (1.9, 2.0, 1.9, 2.0), ticks=3, closed=True),
        market.candle("CHANGED", today, (2.1, 2.1, 2.0, 2.05), ticks=3),
    )
    await market.stored("CHANGED", 3)
    await reader.open("?symbol=CHANGED")
    await reader.page.keyboard.press("p")
    row = reader.page.get_by_role("row", name=re.compile(r"CHANGED Live 2.05\d* \+2.50%"))
    await expect(row).to_be_visible()
    await expect(reader.page.get_by_role("row", name=re.compile(r"EURUSD S 1.\d+ –"))).to_be_visible()


@pytest.mark.full
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


@pytest.mark.full
async def test_last_tick_is_the_newest_tick_not_the_opening_of_its_bar(reader: Reader, market: Market) -> None:
    # Its day's bar opens hours before.
    hour = clock.now_ms() // (60 * MINUTE_MS) * 60 * MINUTE_MS - 5 * 60 * MINUTE_MS
    await market.publish(market.candle("QUIET", hour + 50 * MINUTE_MS, (1.2, 1.2, 1.2, 1.2), ticks=2, closed=True))
    await market.stored("QUIET", 1)
    await reader.open("?symbol=QUIET&timeframe=D1")
    ago = (clock.now_ms() - hour - 50 * MINUTE_MS - 30_000) // (60 * MINUTE_MS)
    await expect(reader.page.locator("#status")).to_have_text(f"Last tick {ago} hr ago")
    await expect(reader.page.locator("#status")).to_have_attribute("data-kind", "quiet")


@pytest.mark.full
async def test_tick_stamped_tomorrow_does_not_make_the_feed_live(reader: Reader, market: Market) -> None:
    tomorrow = clock.now_ms() // MINUTE_MS * MINUTE_MS + 24 * 60 * MINUTE_MS
    await market.publish(market.candle("AHEAD", tomorrow, (1.2, 1.2, 1.2, 1.2), ticks=2))
    await market.stored("AHEAD", 1)
    await reader.open("?symbol=AHEAD")
    await expect(reader.page.locator("#status")).to_contain_text("Ticks are stamped ahead")
    await expect(reader.page.locator("#status")).to_have_attribute("data-kind", "quiet")


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (503, "TOO_MANY_STREAMS", "too many streams"),
        pytest.param(401, "UNAUTHORIZED", "reload the page", marks=pytest.mark.full),
        pytest.param(500, "X", "it broke", marks=pytest.mark.full),
    ],
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
