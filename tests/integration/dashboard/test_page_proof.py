"""The proof of a candle and the broker's bars beside it, as the API tells them and the page shows them."""

import asyncio
import re
import zlib
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from marketdata.candle import BrokerBar, Candle
from runtime import clock
from tests.integration.dashboard.market import MINUTE_MS, Market
from tests.integration.dashboard.reader import Reader, colours_of
from tests.integration.dashboard.test_page import HISTORY_START
from tests.waiting import eventually

pytestmark = pytest.mark.long(15)

MINUTES = 30
#: No ticks came in it, though the broker has a bar.
SILENT = 20
#: The broker's bar is another.
OTHER = 10
#: A tick of it is received after all others.
LATE = 5


def minute_ms(minute: int) -> int:
    return HISTORY_START + minute * MINUTE_MS


def path_of(minute: int, query: str = "") -> str:
    return f"/candles/{minute_ms(minute)}/proof?symbol=PROVEN{query}"


@pytest_asyncio.fixture(scope="module")
async def proven(market: Market) -> list[Candle]:
    """Half an hour of PROVEN out of a real log, with the broker's bars; its candles in order of time."""
    times = [minute_ms(n) + second * 1000 for n in range(MINUTES) if n != SILENT for second in (1, 20, 40)]
    logged = await market.log_ticks("PROVEN", times)
    logged += await market.log_ticks("PROVEN", [minute_ms(LATE) + 50_000], received=minute_ms(MINUTES + 60))
    candles = sorted(market.flow.candles(logged), key=lambda candle: candle.ts)
    await market.publish(*candles)
    await market.stored("PROVEN", MINUTES - 1)
    bars = [bar_of(candle) for candle in candles]
    bars.insert(SILENT, bar_of(candles[SILENT], ts=minute_ms(SILENT)))
    bars[OTHER] = bar_of(candles[OTHER], high=candles[OTHER].high + 0.0001, volume=7)
    await market.flow.send_bars(bars)

    async def are_stored() -> bool:
        answer = market.get(f"/compared?symbol=PROVEN&from={minute_ms(0)}")
        return len(answer.json()["bars"]) == MINUTES

    await eventually(are_stored, what="the broker's bars of PROVEN")
    return candles


def bar_of(candle: Candle, **others: Any) -> BrokerBar:
    """The broker's bar that agrees with the candle."""
    agreeing: dict[str, Any] = {
        "ts": candle.ts, "open": candle.open, "high": candle.high, "low": candle.low, "close": candle.close,
        "volume": candle.volume, "spread": candle.spread,
    }  # fmt: skip
    return BrokerBar(
        source=candle.source, symbol=candle.symbol, timeframe="M1", received=candle.received, **agreeing | others
    )


def test_proof_names_the_records_and_the_times(market: Market, proven: list[Candle]) -> None:
    candle = proven[LATE]
    proof = market.get(path_of(LATE)).json()
    assert (proof["minutes"], proof["ticks"], proof["broker_minutes"], proof["verified"]) == (1, 4, 0, None)
    ranges = [list(each) for each in candle.offsets]
    assert proof["logs"] == [{"log": market.flow.own_log, "is_current": True, "ranges": ranges}]
    assert (proof["first_tick"], proof["last_tick"]) == ("2023-11-16T09:05:01Z", "2023-11-16T09:05:50Z")
    assert proof["received_at"] == "2023-11-16T10:30:00Z"
    assert proof["stored_at"] > proof["folded_at"] > proof["received_at"]
    hour = market.get(path_of(0, "&timeframe=H1")).json()
    # The broker's bar stands in for the minute without ticks.
    assert (hour["minutes"], hour["broker_minutes"], hour["ticks"]) == (MINUTES, 1, 3 * MINUTES + 1)
    assert hour["to"] == "2023-11-16T10:00:00Z"


def test_candle_is_verified_on_the_spot(market: Market, proven: list[Candle]) -> None:
    for query, minutes in (("", 1), ("&timeframe=D1", MINUTES - 1)):
        verified = market.get(path_of(LATE, f"{query}&verify=true")).json()["verified"]
        assert verified == {
            "verdict": "equal", "checked": minutes, "equal": minutes, "unprovable": 0, "pending": 0, "differences": [],
        }  # fmt: skip


def test_row_that_is_not_the_fold_is_different(market: Market, proven: list[Candle]) -> None:
    with psycopg.connect(market.settings.database_url.get_secret_value(), autocommit=True) as connection:
        about = ("PROVEN", minute_ms(1) / 1000)
        change = b"UPDATE market_data SET volume = volume + %s WHERE symbol = %s AND ts = to_timestamp(%s)"
        connection.execute(change, (5, *about))
        verified = market.get(path_of(1, "&verify=true")).json()["verified"]
        connection.execute(change, (-5, *about))
    assert verified["verdict"] == "different"
    assert [(d["field"], d["stored"], d["folded"]) for d in verified["differences"]] == [("volume", 8, 3)]


def test_records_that_the_log_does_not_hold_prove_nothing(market: Market) -> None:
    # The day's candles were published with offsets of records that were never sent.
    market.get("/candles?symbol=EURUSD&source=S&limit=1")
    verified = market.get("/candles/2019-02-04T12:00Z/proof?symbol=EURUSD&source=S&verify=true").json()["verified"]
    assert (verified["verdict"], verified["checked"], verified["unprovable"]) == ("unprovable", 0, 1)


def test_brokers_bars_stand_beside_ours(market: Market, proven: list[Candle]) -> None:
    bars = market.get(f"/compared?symbol=PROVEN&from={minute_ms(0)}").json()["bars"]
    counts = [(bar["equal"], bar["differs"], bar["no_bar"], bar["no_candle"]) for bar in bars]
    expected = [(1, 0, 0, 0)] * MINUTES
    expected[OTHER], expected[SILENT] = (0, 1, 0, 0), (0, 0, 0, 1)
    assert counts == expected
    assert bars[OTHER]["volume"] == 7
    (hour,) = market.get(f"/compared?symbol=PROVEN&from={minute_ms(0)}&timeframe=H1").json()["bars"]
    assert (hour["open"], hour["high"], hour["close"]) == (
        bars[0]["open"], max(bar["high"] for bar in bars), bars[-1]["close"],
    )  # fmt: skip
    assert (hour["equal"], hour["differs"], hour["no_candle"]) == (MINUTES - 2, 1, 1)


def test_compared_bars_begin_between_the_times_and_are_whole(market: Market, proven: list[Candle]) -> None:
    def counted(query: str) -> list[tuple[str, int]]:
        bars = market.get(f"/compared?symbol=PROVEN&{query}").json()["bars"]
        minutes = ("equal", "differs", "no_bar", "no_candle")
        return [(bar["ts"][11:16], sum(bar[name] for name in minutes)) for bar in bars]

    within = f"from={minute_ms(3)}&to={minute_ms(16)}"
    assert counted(f"{within}&timeframe=M15") == [("09:15", 15)]
    assert counted(f"{within}&timeframe=M5") == [("09:05", 5), ("09:10", 5), ("09:15", 5)]
    assert counted(f"{within}&timeframe=H1") == []
    assert counted(f"from={minute_ms(0)}&to={minute_ms(0) + 1}&timeframe=H1") == [("09:00", MINUTES)]


def test_compared_bars_come_page_by_page(market: Market, proven: list[Candle]) -> None:
    path: str | None = f"/compared?symbol=PROVEN&from={minute_ms(0)}&limit=12"
    sizes, found = [], []
    while path:
        page = market.get(path).json()
        sizes.append(len(page["bars"]))
        found += [bar["ts"] for bar in page["bars"]]
        path = page["next"] and f"/{page['next']}"
    assert sizes == [12, 12, 6]
    assert len(set(found)) == MINUTES


async def test_bar_is_closed_when_its_time_is_over(market: Market) -> None:
    ts = clock.now_ms() // MINUTE_MS * MINUTE_MS
    await market.publish(market.candle("OVER", ts, (1.0, 2.0, 1.0, 2.0), ticks=3, closed=True))
    await market.stored("OVER", 1)
    for timeframe, is_closed in (("M1", True), ("MN1", False)):
        (bar,) = market.get(f"/candles?symbol=OVER&timeframe={timeframe}").json()["candles"]
        proof = market.get(f"/candles/{ts}/proof?symbol=OVER&timeframe={timeframe}").json()
        assert (bar["closed"], proof["closed"]) == (is_closed, is_closed)


async def test_click_on_a_candle_shows_its_proof_and_verifies_it(
    reader: Reader, market: Market, proven: list[Candle]
) -> None:
    page = reader.page
    await reader.open("?symbol=PROVEN")
    await reader.until_bars(MINUTES)
    pane = page.locator("#proof")
    await click_bar(page, LATE)
    partition, first, last = proven[LATE].offsets[0]
    await expect(pane).to_contain_text("Equal to the fold of the log")
    await expect(pane).to_contain_text("09:05 UTC")
    await expect(pane).to_contain_text(f"Partition {partition}: {first} to {last}")
    for words in ("09:05:01.000", "09:05:50.000", "10:30:00.000", market.flow.own_log):
        await expect(pane).to_contain_text(words)
    await pane.get_by_role("button", name="Show them").click()
    await expect(pane.get_by_role("row", name=re.compile("09:05:50.000 1.00000"))).to_be_visible()
    await expect(pane.locator("tbody tr")).to_have_count(4)
    await page.keyboard.press("Escape")
    await expect(pane).to_be_hidden()
    # By the keyboard, the bar that the legend tells of.
    await page.mouse.move(0, 0)
    await page.keyboard.press("v")
    await expect(pane).to_contain_text("09:29 UTC")
    # Of the day only the candles are there, not what they were folded from.
    await reader.open()
    await expect(page.locator("#legend")).to_contain_text("EURUSD")
    await page.keyboard.press("v")
    await expect(pane).to_contain_text("The log does not hold its records")


@pytest.mark.full
async def test_brokers_bars_are_laid_over_ours_and_differences_marked(reader: Reader, proven: list[Candle]) -> None:
    page = reader.page
    await reader.open("?symbol=PROVEN")
    await reader.until_bars(MINUTES)
    legend = page.locator("#legend")
    await page.keyboard.press("b")
    await expect(legend).to_contain_text(f"{MINUTES - 2} of {MINUTES} minutes equal")
    assert "#b97a10" in await colours_of(page)
    await point_at(page, OTHER)
    await expect(legend.locator(".differs")).to_have_text([f"H{proven[OTHER].high + 0.0001:.5f}", "Vol7"])
    # It is remembered; a feed of which there are no bars of the broker says so.
    await reader.open()
    await expect(legend).to_contain_text("no bars of the broker")
    await page.keyboard.press("b")
    await expect(legend).not_to_contain_text("roker")


@pytest.mark.full
async def test_late_and_open_bars_are_marked(reader: Reader, market: Market, proven: list[Candle]) -> None:
    await reader.open("?symbol=PROVEN")
    await reader.until_bars(MINUTES)
    tags = reader.page.locator("#legend .tag")
    await point_at(reader.page, LATE)
    await expect(tags).to_have_text(["late ticks"])
    await point_at(reader.page, LATE + 1)
    await expect(tags).to_have_count(0)
    now = clock.now_ms() // MINUTE_MS * MINUTE_MS
    await market.publish(market.candle("OPEN", now, (1.2, 1.3, 1.1, 1.25), ticks=3))
    await market.stored("OPEN", 1)
    for timeframe in ("M1", "H4"):
        await reader.open(f"?symbol=OPEN&timeframe={timeframe}")
        await expect(tags).to_have_text(["still moves"])
    # The day is over.
    await reader.open("?symbol=EURUSD&source=S&timeframe=M15")
    await expect(reader.page.locator("#legend")).to_contain_text("23:45 UTC")
    await expect(tags).to_have_count(0)


@pytest.mark.full
async def test_spread_has_a_pane_of_its_own(reader: Reader, proven: list[Candle]) -> None:
    page = reader.page
    await reader.open("?symbol=PROVEN")
    await reader.until_bars(MINUTES)
    await expect(page.locator("#legend")).to_contain_text("Spread2")
    panes = page.locator("#chart table > tr:has(canvas)")
    before = await panes.count()
    await page.keyboard.press("c")
    await page.get_by_role("checkbox", name="Spread, in points").check()
    await page.get_by_role("combobox", name="Scale").select_option("Percent of the first bar")
    await page.keyboard.press("Escape")
    assert await panes.count() > before
    await page.reload()
    await reader.until_bars(MINUTES)
    assert await panes.count() > before
    await page.keyboard.press("s")
    await expect(panes).to_have_count(before)


@pytest.mark.full
async def test_bars_and_picture_are_saved(reader: Reader, proven: list[Candle]) -> None:
    page = reader.page
    await reader.open("?symbol=PROVEN&timeframe=M5")
    await reader.until_bars(MINUTES // 5)
    await page.keyboard.press("c")
    for button, name, begins in (("Bars as CSV", "csv", b"ts,symbol,source"), ("Picture", "png", b"\x89PNG")):
        async with page.expect_download() as saved:
            await page.get_by_role("button", name=button).click()
        download = await saved.value
        assert download.suggested_filename == f"PROVEN M5.{name}"
        content = await asyncio.to_thread(Path(await download.path()).read_bytes)
        assert content.startswith(begins)
        if name == "csv":
            assert content.count(b"\n") == MINUTES // 5 + 1
        else:
            assert is_opaque(content)


def is_opaque(png: bytes) -> bool:
    """Whether the first pixel is: whatever the viewer has behind it would be seen."""
    colour_type, pixels, at = png[25], b"", 8
    while at < len(png):
        size = int.from_bytes(png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            pixels += png[at + 8 : at + 8 + size]
        at += size + 12
    # One byte for the filter of the row, then red, green, blue, alpha.
    return colour_type == 2 or zlib.decompress(pixels)[4] == 255


@pytest.mark.full
async def test_days_and_sessions_are_separated_by_the_chosen_clock(reader: Reader) -> None:
    """A Friday that ends at 21:00, a Sunday that begins at 22:00, an hour's break: days of UTC and of New York."""
    hour = 3_600_000
    friday = 1_700_236_800_000 + 4 * hour  # 2023-11-17T20:00Z
    times = [friday, friday + hour // 2, friday + 50 * hour, friday + 52 * hour, friday + 53 * hour]
    await reader.open()
    found = await reader.page.evaluate(
        """async (times) => {
            const { separatorsOf } = await import("./js/overlays.js");
            const { setZone } = await import("./js/zone.js");
            return ["UTC", "America/New_York"].map((zone) => {
                setZone(zone);
                const lines = separatorsOf(times.map((time) => ({ time })), 1_800_000);
                return lines.map(({ time, isDay }) => [times.indexOf(time), isDay]);
            });
        }""",
        times,
    )
    # Sunday 22:00 UTC is Sunday in both, Monday begins at 0:00 in UTC alone; 20:30 to 22:00 is a break of a session.
    assert found == [[[2, True], [3, True]], [[2, True], [3, False]]]


async def point_at(page: Page, bar: int) -> None:
    """Move the pointer until the legend tells of the bar."""
    wanted = f"09:{bar:02d} UTC"
    box = await page.locator("#chart canvas").nth(1).bounding_box()
    assert box is not None
    low, high = box["x"], box["x"] + box["width"]
    while high - low > 1:
        middle = (low + high) / 2
        await page.mouse.move(middle, box["y"] + box["height"] * 0.6)
        text = await page.locator("#legend .when").inner_text()
        if wanted in text:
            return
        shown = re.search(r"09:(\d\d) UTC", text)
        if shown is not None and int(shown[1]) < bar:
            low = middle
        else:
            high = middle
    raise AssertionError(f"no bar of {wanted} on the chart")


async def click_bar(page: Page, bar: int) -> None:
    """Click on a bar."""
    await point_at(page, bar)
    await page.mouse.down()
    await page.mouse.up()
