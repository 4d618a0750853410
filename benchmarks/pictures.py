"""Take the pictures of docs/dashboard.md again: `python -m benchmarks.pictures [NAME …]`.

Each is taken in a Chromium of the demo, of the embedded stack or with --url of a dashboard that runs and has a day of
history, and written to `docs/images/dashboard-NAME.png`. Look at each before it is committed.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from playwright.async_api import Browser, Page, async_playwright

from benchmarks.browser import DRAWN, chromium, dashboard
from benchmarks.page import DOCS

#: The rate of ticks has a line when it was seen for some time (milliseconds).
RATE_MS = 45_000
#: What is asked for is read and drawn.
DRAWN_MS = 2_500

WIDE = {"viewport": {"width": 1280, "height": 760}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}
PORTUGUESE = {"locale": "pt-BR"}


async def measured(page: Page) -> None:
    """A distance, measured."""
    await page.keyboard.press("m")
    await page.mouse.move(520, 330)
    await page.mouse.down()
    await page.mouse.move(760, 250, steps=4)
    await page.mouse.up()


async def pipeline(page: Page) -> None:
    """The state of the pipeline, opened."""
    await page.keyboard.press("p")
    await page.wait_for_timeout(RATE_MS)


async def proof(page: Page) -> None:
    """A bar that was clicked, with its ticks."""
    await page.mouse.move(640, 300)
    await page.mouse.click(640, 300)
    await page.locator("#proof .proofs .secondary").click()


async def second(page: Page) -> None:
    """A second chart, of another symbol, that is pointed at on the first."""
    await page.keyboard.press("x")
    frame = page.frame_locator("iframe.beside")
    await frame.locator(DRAWN).wait_for()
    await frame.locator("#symbol").click()
    await frame.get_by_role("option", name="GBPUSD").click()
    await frame.get_by_role("radio", name="M15", exact=True).click()
    await page.wait_for_timeout(DRAWN_MS)
    await page.mouse.move(420, 330)


async def sao_paulo(page: Page) -> None:
    """Times of São Paulo."""
    await page.select_option("#zone", "America/Sao_Paulo")


async def spread(page: Page) -> None:
    """The same, and the spread."""
    await page.keyboard.press("s")
    await sao_paulo(page)


@dataclass(frozen=True)
class Picture:
    """What is opened how, and what is done there."""

    query: str
    act: Callable[[Page], Awaitable[None]]
    context: dict[str, Any]
    theme: Literal["light", "dark"] = "light"


PICTURES = {
    "light": Picture("&timeframe=M5&studies=sma20,ema50,vwap,rsi14", measured, WIDE),
    "dark": Picture("&timeframe=M1&studies=ema50", pipeline, WIDE, "dark"),
    "proof": Picture("&timeframe=M1", proof, WIDE),
    "second": Picture("&timeframe=M5&studies=sma20", second, {"viewport": {"width": 1440, "height": 760}}, "dark"),
    "pt": Picture("&timeframe=M5&studies=rsi14", spread, WIDE | PORTUGUESE),
    "phone": Picture("&timeframe=M5", sao_paulo, PHONE | PORTUGUESE, "dark"),
    "phone-pipeline": Picture("&timeframe=M5", pipeline, PHONE | PORTUGUESE),
}  # fmt: skip


async def take(browser: Browser, url: str, name: str) -> None:
    """Take one picture."""
    picture = PICTURES[name]
    context = await browser.new_context(**{"locale": "en-GB", **picture.context}, color_scheme=picture.theme)
    page = await context.new_page()
    await page.goto(f"{url}?symbol=EURUSD&source=Simulated{picture.query}")
    await page.wait_for_selector(DRAWN)
    await page.wait_for_timeout(DRAWN_MS)
    await picture.act(page)
    await page.wait_for_timeout(DRAWN_MS)
    path = DOCS / "images" / f"dashboard-{name}.png"
    await page.screenshot(path=path)
    print(path)
    await context.close()


async def take_all(url: str, names: list[str]) -> None:
    """Take these pictures, or all."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        for name in names or PICTURES:
            await take(browser, url, name)
        await browser.close()


def main() -> None:
    """Of the named ones, or of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="those to take (default: all)")
    parser.add_argument("--url", help="of a dashboard that runs already, instead of a stack of its own")
    options = parser.parse_args()
    if unknown := set(options.names) - set(PICTURES):
        parser.error(f"no such picture: {', '.join(sorted(unknown))}; there are {', '.join(PICTURES)}")
    with dashboard(options.url) as (url, _):
        asyncio.run(take_all(url, options.names))


if __name__ == "__main__":
    main()
