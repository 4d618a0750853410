"""What axe finds on the page as it is opened, with everything that can be opened on it: nothing."""

from importlib.resources import files
from typing import Any

import pytest
from playwright.async_api import Frame, Page, expect

from tests.days import eurusd_bars
from tests.integration.dashboard.market import Market
from tests.integration.dashboard.reader import Reader

pytestmark = pytest.mark.long(12)

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


async def violations(page: Page | Frame) -> list[Any]:
    """Rules that are violated, each with the elements."""
    await page.evaluate(AXE)
    found: list[Any] = await page.evaluate(
        """async () => (await axe.run(document, { resultTypes: ["violations"] })).violations
            .map(({ id, nodes }) => [id, nodes.map(({ target, failureSummary }) => [target, failureSummary])])"""
    )
    return found


#: What each key opens; each lies over the chart.
OPENED = {
    "v": "#proof .verdict",
    "d": "#table table",
    "/": "#symbols",
    "g": "#going",
    "c": "#view",
    "a": "#alerts",
    "?": "#help",
}


@pytest.mark.parametrize(
    ("theme", "keys"),
    [
        ("light", "va"),
        pytest.param("light", "d/gc?x", marks=pytest.mark.full),
        pytest.param("dark", "vd/gca?x", marks=pytest.mark.full),
    ],
)
async def test_axe_finds_nothing(reader: Reader, market: Market, theme: str, keys: str) -> None:
    page = reader.page
    await page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
    # A few bars: axe looks at every cell of the table.
    await market.publish(market.candle("AXE", 1_700_055_000_000, (1.0, 1.2, 0.9, 1.1), ticks=5, closed=True))
    await market.stored("AXE", 1)
    await reader.open("?symbol=AXE")
    await expect(page.locator("#legend")).to_contain_text("AXE")
    await page.keyboard.press("p")
    await expect(page.locator("#pane")).to_contain_text("Everything flows")
    assert await violations(page) == []
    for key in keys.removesuffix("x"):
        await page.keyboard.press(key)
        await expect(page.locator(OPENED[key])).to_be_visible()
        assert await violations(page) == []
        await page.keyboard.press("Escape")
    if keys.endswith("x"):
        await page.keyboard.press("x")
        second = page.frame_locator("iframe.beside")
        await expect(second.locator("#legend")).to_contain_text("AXE")
        assert await violations(page.frames[-1]) == []
    # On a phone, in Portuguese; there is no second chart.
    await page.set_viewport_size({"width": 390, "height": 844})
    await page.keyboard.press("l")
    await expect(page.locator("html")).to_have_attribute("lang", "pt")
    assert await violations(page) == []
    await page.goto(f"{reader.market.url}/api.html")
    await expect(page.get_by_role("heading", level=2).first).to_be_visible()
    assert await violations(page) == []


@pytest.mark.full
async def test_who_hears_the_page_is_not_told_every_second(reader: Reader) -> None:
    await reader.open()
    status = reader.page.locator("#status")
    await expect(status).to_contain_text("Last tick")
    await expect(status).to_have_attribute("aria-live", "off")


@pytest.mark.full
async def test_list_of_symbols_closes_when_the_focus_leaves_it(reader: Reader) -> None:
    await reader.open()
    await reader.until_bars(len(eurusd_bars()))
    await reader.page.keyboard.press("/")
    await expect(reader.page.locator("#symbols")).to_be_visible()
    await reader.page.keyboard.press("Tab")
    await expect(reader.page.locator("#symbols")).to_be_hidden()
    await expect(reader.page.get_by_role("radio", name="M1", exact=True)).to_be_focused()


async def test_dialogs_fit_a_small_screen_and_begin_at_their_top(reader: Reader) -> None:
    page = reader.page
    await page.set_viewport_size({"width": 320, "height": 480})
    # There is nothing to save of it.
    await reader.open("?symbol=NOTHING")
    await page.keyboard.press("l")
    await expect(page.locator("html")).to_have_attribute("lang", "pt")
    for key, selector in {"g": "#going", "c": "#view", "a": "#alerts", "?": "#help"}.items():
        await page.keyboard.press(key)
        dialog = page.locator(selector)
        await expect(dialog).to_be_visible()
        assert await dialog.evaluate("(each) => [each.scrollTop, each.scrollWidth - each.clientWidth]") == [0, 0], (
            selector
        )
        if key == "c":
            await expect(page.locator("#view-csv")).to_be_disabled()
        # Beside it.
        await page.mouse.click(4, 4)
        await expect(dialog).to_be_hidden()


@pytest.mark.full
async def test_legend_covers_no_candle(reader: Reader) -> None:
    page = reader.page
    await page.set_viewport_size({"width": 320, "height": 640})
    await reader.open()
    await reader.until_bars(len(eurusd_bars()))
    top: int = await page.evaluate(
        """async () => {
            for (let frame = 0; frame < 4; frame += 1) await new Promise(requestAnimationFrame);
            const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
            const wanted = ["up", "down"].map((name) => parseInt(colour(name).slice(1), 16));
            const canvas = document.querySelector("#chart canvas");
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            for (let i = 0; i < data.length; i += 4) {
                if (data[i + 3] === 255 && wanted.includes((data[i] << 16) | (data[i + 1] << 8) | data[i + 2])) {
                    return Math.floor(i / 4 / canvas.width / devicePixelRatio);
                }
            }
            return -1;
        }"""
    )
    legend = await page.locator("#legend").bounding_box()
    chart = await page.locator("#chart").bounding_box()
    assert legend is not None
    assert chart is not None
    assert legend["height"] > 40
    assert top >= legend["y"] + legend["height"] - chart["y"]
