"""What axe finds on the page as it is opened, with everything that can be opened on it: nothing."""

from importlib.resources import files
from typing import Any

import pytest
from playwright.async_api import Frame, Page, expect

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


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_axe_finds_nothing(reader: Reader, market: Market, theme: str) -> None:
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
    # Each lies over the chart.
    opened = {
        "v": "#proof .verdict",
        "d": "#table table",
        "/": "#symbols",
        "g": "#going",
        "c": "#view",
        "a": "#alerts",
        "?": "#help",
    }
    for key, selector in opened.items():
        await page.keyboard.press(key)
        await expect(page.locator(selector)).to_be_visible()
        assert await violations(page) == []
        await page.keyboard.press("Escape")
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
