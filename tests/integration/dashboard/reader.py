"""A person in front of the page, in a real Chromium, and what the page shows them."""

import re
from typing import Any

from playwright.async_api import ConsoleMessage, Page, expect

from tests.days import eurusd_bars
from tests.integration.dashboard.market import Market

#: A busy machine draws late (milliseconds).
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)

DAY = "?symbol=EURUSD&source=S"


#: Puts a chart of its own in the place of the page's: `bare.chart`, and `bare.made`, the library's below it.
BARE_CHART = """async () => {
    const { createChartEx } = LightweightCharts;
    let made;
    globalThis.LightweightCharts = { ...LightweightCharts, createChartEx: (...all) => (made = createChartEx(...all)) };
    const { Chart } = await import("./js/chart.js");
    const element = document.createElement("div");
    element.className = "chart";
    // The page goes on with its own, unseen.
    const own = document.querySelector("#chart");
    own.style.display = "none";
    own.after(element);
    const ignore = () => {};
    const chart = new Chart(element, {
        onPast: ignore, onFuture: ignore, onPoint: ignore, onPick: ignore, onView: ignore, onStudies: ignore,
    });
    globalThis.bare = { chart, made };
}"""


def last_close() -> float:
    """The close of the day."""
    return eurusd_bars()[max(eurusd_bars())][3]


class Reader:
    """A person in front of the page, and what the console of the browser said to them."""

    def __init__(self, page: Page, market: Market) -> None:
        self.page = page
        self.market = market
        self.complaints: list[str] = []
        self._attend(page)

    def leave(self) -> None:
        """Stop listening to the page, which the next test will use."""
        self.page.remove_listener("console", self._listen)
        self.page.remove_listener("pageerror", self._complain)

    async def another(self) -> Page:
        """One more page beside the first."""
        page = await self.page.context.new_page()
        self._attend(page)
        return page

    def _attend(self, page: Page) -> None:
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._listen)
        page.on("pageerror", self._complain)

    def _complain(self, error: object) -> None:
        self.complaints.append(str(error))

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


async def colours_of(page: Page) -> set[str]:
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


async def has_line(page: Page, name: str = "quote") -> bool:
    """Whether there is a line across the chart in the colour that the page's theme calls `name`."""
    found: bool = await page.evaluate(
        """async (name) => {
            await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
            const colour = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
            const wanted = parseInt(colour.slice(1), 16);
            for (const canvas of document.querySelectorAll("#chart canvas")) {
                if (canvas.width < 300 || !canvas.height) continue;
                const copy = document.createElement("canvas");
                [copy.width, copy.height] = [canvas.width, canvas.height];
                const context = copy.getContext("2d", { willReadFrequently: true });
                context.drawImage(canvas, 0, 0);
                const { data } = context.getImageData(0, 0, copy.width, copy.height);
                for (let y = 0; y < copy.height; y += 1) {
                    let count = 0;
                    for (let i = y * copy.width * 4; i < (y + 1) * copy.width * 4; i += 4) {
                        count += data[i + 3] === 255 && ((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]) === wanted;
                    }
                    if (count > copy.width / 4) return true;
                }
            }
            return false;
        }""",
        name,
    )
    return found
