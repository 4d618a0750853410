"""What a reader does with the chart: measures between two points, and sets alerts on a price and on silence."""

import asyncio
import re
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import Route, expect

from marketdata.candle import Candle
from marketdata.refold import iso_milliseconds as iso
from runtime import clock
from tests.days import eurusd_bars
from tests.integration.dashboard.market import MINUTE_MS, Market
from tests.integration.dashboard.reader import DAY, Reader, has_line
from tests.waiting import eventually

pytestmark = pytest.mark.long(10)


@pytest.mark.full
async def test_distance_is_measured_in_price_percent_points_bars_and_time(reader: Reader) -> None:
    page = reader.page
    await reader.open()
    await reader.until_bars(len(eurusd_bars()))
    box = await page.locator("#chart").bounding_box()
    assert box is not None
    (left, top), (right, bottom) = (
        (box["x"] + box["width"] * share, box["y"] + box["height"] * share) for share in (0.3, 0.6)
    )
    shown, minutes = page.locator("#measured"), []
    for x in (left, right):
        await page.mouse.move(x, top)
        # The legend follows with the next frame.
        await page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
        found = re.search(r"(\d\d):(\d\d) UTC", (await reader.legend())["text"])
        assert found is not None
        minutes.append(int(found[1]) * 60 + int(found[2]))
    bars = sum(minutes[0] < ts // MINUTE_MS % 1440 <= minutes[1] for ts in eurusd_bars())
    time = f"{minutes[1] - minutes[0]} min".replace("60 min", "1 h")

    await page.keyboard.down("Shift")
    await page.mouse.move(left, top)
    await page.mouse.down()
    await page.mouse.move(right, bottom, steps=3)
    await page.mouse.up()
    await page.keyboard.up("Shift")
    down = re.fullmatch(r"-(0\.\d{5}) · -(0\.\d\d)% · -(\d+) points · (\d+) bars · (.+)", await shown.inner_text())
    assert down is not None
    points = int(down[3])
    assert points > 10
    assert (down[1], int(down[4]), down[5]) == (f"{points / 1e5:.5f}", bars, time)
    # The day is between 1.14 and 1.147.
    assert abs(float(down[2]) - points / 1e5 / 1.1435 * 100) < 0.011
    # It was not scrolled.
    await page.mouse.move(left, top)
    await expect(page.locator("#legend")).to_contain_text(f"{minutes[0] // 60:02}:{minutes[0] % 60:02} UTC")
    await page.keyboard.press("Escape")
    await expect(shown).to_be_hidden()

    # Once after the key, and upwards.
    await page.keyboard.press("m")
    await page.mouse.move(left, bottom)
    await page.mouse.down()
    await page.mouse.move(right, top, steps=3)
    await page.mouse.up()
    await expect(shown).to_contain_text(f"+{points} points · {bars} bars")
    # The next drag scrolls, and what was measured is gone.
    await page.mouse.down()
    await page.mouse.move(right + 300, top, steps=3)
    await page.mouse.up()
    await expect(shown).to_be_hidden()
    await expect(page.locator("#latest")).to_be_visible()


@pytest.mark.full
async def test_distance_is_measured_by_touch(reader: Reader) -> None:
    page = reader.page
    await reader.open()
    await reader.until_bars(len(eurusd_bars()))
    touch = await page.context.new_cdp_session(page)
    await touch.send("Emulation.setTouchEmulationEnabled", {"enabled": True})

    async def drag() -> None:
        for kind, at in (("touchStart", (400, 300)), ("touchMove", (500, 350)), ("touchMove", (600, 400))):
            await touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": at[0], "y": at[1]}]})
        await touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    await page.get_by_title("What the chart shows (C)").click()
    await page.get_by_role("button", name="Measure").click()
    await drag()
    await expect(page.locator("#measured")).to_contain_text(re.compile(r"-\d+ points · \d+ bars"))
    # It was not scrolled, and the next touch takes it away.
    await expect(page.locator("#latest")).to_be_hidden()
    await drag()
    await expect(page.locator("#measured")).to_be_hidden()
    await touch.send("Emulation.setTouchEmulationEnabled", {"enabled": False})
    await touch.detach()


@pytest.mark.full
async def test_touch_that_takes_the_crosshair_away_opens_nothing(reader: Reader) -> None:
    page = reader.page
    await reader.open()
    await reader.until_bars(len(eurusd_bars()))
    touch = await page.context.new_cdp_session(page)
    await touch.send("Emulation.setTouchEmulationEnabled", {"enabled": True})

    async def press(seconds: float = 0) -> None:
        await touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": 500, "y": 300}]})
        await asyncio.sleep(seconds)
        await touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    await press(0.6)
    await expect(page.locator("#legend")).not_to_contain_text("23:59 UTC")
    await press()
    await expect(page.locator("#legend")).to_contain_text("23:59 UTC")
    await expect(page.locator("#proof")).to_be_hidden()
    # Two at once are another gesture.
    await asyncio.sleep(0.6)
    await press()
    await expect(page.locator("#proof")).to_be_visible()
    await touch.send("Emulation.setTouchEmulationEnabled", {"enabled": False})
    await touch.detach()


async def test_gaps_have_a_band_that_says_what_the_ledger_knows(reader: Reader) -> None:
    page = reader.page
    minutes = sorted(eurusd_bars())
    missing, closed = (minutes[-110], minutes[-1] - 20 * MINUTE_MS), (minutes[-20], minutes[-10])
    asked: list[str] = []

    async def answer(route: Route) -> None:
        asked.append(route.request.url)
        # The server's own answer; in the table of this market no minute is missing.
        told = await (await route.fetch()).json()
        assert {"ticks"} <= {known["state"] for known in told["ranges"]}
        told["ranges"] += [
            told["ranges"][0] | {"from": iso(first), "to": iso(end), "state": state}
            for state, (first, end) in {"wanted": missing, "closed": closed}.items()
        ]
        await route.fulfill(json=told)

    await page.route("**/gaps?*", answer)
    await reader.open()
    await reader.until_bars(len(eurusd_bars()))

    async def is_drawn() -> bool:
        return await has_line(page, "warn")

    await eventually(is_drawn, what="a band")
    query = parse_qs(urlsplit(asked[0]).query)
    assert (query["symbol"], query["source"]) == (["EURUSD"], ["S"])
    assert query["from"][0] <= iso(missing[0]) < iso(minutes[-1]) <= query["to"][0]


@pytest.mark.full
async def test_list_of_symbols_says_nothing_is_found_only_when_it_is_known(reader: Reader) -> None:
    page = reader.page
    answered = asyncio.Event()

    async def answer(route: Route) -> None:
        await answered.wait()
        await route.continue_()

    await page.route("**/symbols?*", answer)
    await reader.open()
    await page.keyboard.press("/")
    listed = page.locator("#symbol-list li")
    await expect(listed).to_have_text(["Searching…"])
    answered.set()
    await expect(page.locator("#symbol-list")).to_contain_text("EURUSD")
    await page.locator("#symbol-search").fill("no such symbol")
    await expect(listed).to_have_text(["Nothing found"])


@pytest.mark.full
async def test_second_chart_has_indicators_and_alerts_of_its_own(reader: Reader) -> None:
    page = reader.page
    await reader.open(f"{DAY}&studies=sma20")
    await reader.until_bars(len(eurusd_bars()))
    await page.keyboard.press("x")
    second = page.frame_locator("iframe.beside")
    await expect(second.locator("#legend")).to_contain_text("SMA 20")
    await second.get_by_title("What the chart shows (C)").click()
    await second.get_by_label("SMA").fill("")
    await second.get_by_label("EMA").fill("5")
    await second.get_by_role("button", name="Close").click()
    await expect(second.locator("#legend")).to_contain_text("EMA 5")
    await expect(page.locator("#legend")).to_contain_text("SMA 20")
    await expect(page).to_have_url(re.compile("studies=sma20.*second-studies=ema5"))

    # It is set there, and watched by the first, which draws it as well: both show the symbol.
    await second.get_by_title("Alerts (A)").click()
    await second.get_by_label("When the price reaches").fill("1.2")
    await second.get_by_label("When the price reaches").press("Enter")
    await second.get_by_role("button", name="Close").click()
    await expect(page.locator("#alerts-open")).to_have_attribute("aria-pressed", "true")
    await page.locator("#chart").focus()
    await page.keyboard.press("a")
    await expect(page.locator("#alert-list li")).to_contain_text(["EURUSD · S: ≥ 1.20000"])


@pytest.mark.full
async def test_second_chart_shows_what_it_likes_with_the_crosshair_in_step(reader: Reader) -> None:
    page = reader.page
    await reader.open()
    await reader.until_bars(len(eurusd_bars()))
    await page.keyboard.press("x")
    second = page.frame_locator("iframe.beside")
    await expect(second.locator("#chart")).to_have_attribute("data-bars", "24")
    await second.get_by_role("radio", name="M15", exact=True).click()
    await expect(second.locator("#legend")).to_contain_text("EURUSD · M15")
    await expect(page).to_have_url(re.compile("second=EURUSD&second-source=S&second-timeframe=M15"))
    # The first has not changed.
    await expect(page.locator("#legend")).to_contain_text("EURUSD · M1")
    assert "&timeframe=M1&" in page.url

    await page.locator("#chart").focus()
    await page.keyboard.press("End")
    box = await page.locator("#chart").bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 200)
    first, other = page.locator("#legend .when"), second.locator("#legend .when")
    minute = re.search(r"(\d\d):(\d\d)", await first.inner_text())
    assert minute is not None
    await expect(other).to_contain_text(f"{minute[1]}:{int(minute[2]) // 15 * 15:02}")
    # And the other way round; nothing is pointed at where there is no bar of that time.
    inner = await page.locator("iframe.beside").bounding_box()
    assert inner is not None
    await page.mouse.move(inner["x"] + inner["width"] * 0.7, inner["y"] + 300)
    await expect(first).to_contain_text("23:59")

    # It looks as the first does, and comes back with a reload.
    await page.locator("#chart").focus()
    await page.keyboard.press("t")
    await expect(second.locator("html")).to_have_attribute("data-theme", "dark")
    await page.reload()
    await expect(second.locator("#legend")).to_contain_text("EURUSD · M15")
    await page.set_viewport_size({"width": 600, "height": 700})
    await expect(page.locator("iframe")).to_have_count(0)
    await page.set_viewport_size({"width": 1280, "height": 760})
    await expect(page.locator("iframe")).to_have_count(1)
    await page.locator("#chart").focus()
    await page.keyboard.press("x")
    await expect(page.locator("iframe")).to_have_count(0)
    assert "second" not in page.url


#: Chromium without a desktop shows no notifications; this notes what would be shown.
NOTE_NOTIFICATIONS = """window.notified = []; window.Notification = class {
    static permission = "granted";
    constructor(title, { body }) { window.notified.push(body); }
}; undefined"""


async def test_alerts_tell_a_price_once_and_silence_each_time(reader: Reader, market: Market) -> None:
    page = reader.page

    def minute(symbol: str, ago: int, close: float, ticks: int) -> Candle:
        ts = clock.now_ms() // MINUTE_MS * MINUTE_MS - ago * MINUTE_MS
        return market.candle(symbol, ts, (1.1, max(1.1, close), min(1.1, close), close), ticks=ticks)

    # Its newest tick is over an hour old: silent.
    await market.publish(minute("ALERTED", 90, 1.10003, 3))
    await market.stored("ALERTED", 1)
    await reader.open("?symbol=ALERTED")
    await page.evaluate(NOTE_NOTIFICATIONS)
    await reader.close(1.10003)
    await expect(page.locator("#status")).to_contain_text("Last tick")
    await page.keyboard.press("a")
    price, silence = page.get_by_label("When the price reaches"), page.get_by_label("without a tick")
    await expect(price).to_have_value("1.10003")
    for wanted in ("1.2", "1,05", "", "soon"):
        await price.fill(wanted)
        await page.keyboard.press("Enter")
    await expect(price).to_have_js_property("validationMessage", "Type a price, such as 1.1035")
    await silence.fill("600")
    await page.keyboard.press("Enter")
    rows = page.locator("#alert-list li")
    await expect(rows).to_contain_text(["≥ 1.20000", "≤ 1.05000", "600 s without a tick"])
    await expect(page.get_by_label("Sound")).not_to_be_checked()
    toasts = page.get_by_role("alert")
    await expect(toasts).to_contain_text(["No tick of ALERTED (Live) for 600 s"])
    assert len(await page.evaluate("window.notified")) == 1
    # Another symbol is shown; the alerts are watched all the same, and after a reload.
    await reader.open()
    await page.evaluate(NOTE_NOTIFICATIONS)
    await market.publish(minute("ALERTED", 0, 1.19, 3))
    await market.publish(minute("ALERTED", 0, 1.20001, 4))
    await expect(toasts).to_contain_text(["ALERTED (Live) has reached 1.20000"])
    # Reached again: told already.
    await market.publish(minute("ALERTED", 0, 1.25, 5))
    await market.publish(minute("ALERTED", 0, 1.04, 6))
    await expect(toasts).to_contain_text(["reached 1.20000", "reached 1.05000"])
    assert len(await page.evaluate("window.notified")) >= 2

    await page.keyboard.press("a")
    await expect(rows).to_contain_text(["due at", "due at", "600 s without a tick"])
    await page.get_by_role("button", name="Remove ALERTED · Live: ≥ 1.20000").click()
    await expect(rows).to_have_count(2)
    await page.reload()
    await page.keyboard.press("a")
    await expect(rows).to_have_count(2)
