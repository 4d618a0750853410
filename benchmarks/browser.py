"""How the page performs in a browser: its weight, the first candle, frames while candles move, and whether it grows.

`python -m benchmarks.browser` starts the embedded stack with its demo (`tickpipe up --demo`) on a directory of its own
and opens the page in the Chromium that TEST_BROWSER names or that is on the PATH, at 1280 × 760 pixels.

- weight: bytes of the files that an empty cache loads, as sent.
- first candle: from the navigation to the moment the chart holds its bars, with an empty cache, ten times, each in a
  window whose own pages have loaded.
- frames: a chart of 1,500 bars with four indicators gets a new state of its newest bar sixty times a second, once the
  stack is stopped, in turns with an empty page that paints as many pixels (`benchmarks.frames`). A frame is dropped
  where two or more refreshes of the browser pass between one and the next.
- growth: the page is open while the demo trades. Each minute the heap after a collection, DOM nodes and listeners.

Speed wants the machine alone, growth does not: `--minutes 0` measures speed, `--seconds 0` growth.
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from playwright.async_api import Browser, Page, async_playwright
from rich.console import Console

from benchmarks.frames import frames, rows_of
from benchmarks.outcome import Beginning
from benchmarks.report import table_of
from tests.integration.dashboard.reader import BARE_CHART
from tests.ports import free_port

OPENINGS = 10
QUERY = "?symbol=EURUSD&studies=sma20,ema50,vwap,rsi14"

#: The chart once it holds bars.
DRAWN = '#chart[data-bars]:not([data-bars="0"])'


@dataclass(frozen=True)
class Minute:
    """What the open page held after a minute."""

    minutes: int
    heap_mb: float
    nodes: int
    listeners: int


@contextmanager
def dashboard(url: str | None) -> Iterator[tuple[str, Callable[[], None]]]:
    """The address of a dashboard, and what stops it: the one that is given, or a stack of its own with its demo."""
    if url:
        yield url, lambda: None
        return
    tickpipe, port = str(Path(sys.executable).with_name("tickpipe")), free_port()
    with tempfile.TemporaryDirectory() as directory:
        ports = ["--producer-port", "0", "--dashboard-port", str(port)]
        run = [tickpipe, "up", "--detach", "--demo", "--data-dir", directory, *ports]
        subprocess.run(run, check=True)  # noqa: S603  # our own

        def stop() -> None:
            subprocess.run([tickpipe, "down", "--data-dir", directory], check=True)  # noqa: S603  # our own

        try:
            # The day of history is folded and stored.
            time.sleep(30)
            yield f"http://127.0.0.1:{port}/", stop
        finally:
            stop()


def chromium() -> str | None:
    """The Chromium that TEST_BROWSER names or that is on the PATH."""
    return os.environ.get("TEST_BROWSER") or shutil.which("chromium") or shutil.which("google-chrome")


def browser_cpu() -> float:
    """Processor seconds of the browser's processes so far: a busy machine makes them hardly more."""
    seconds = 0.0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "chrom" in process.name():
                spent = process.cpu_times()
                seconds += spent.user + spent.system
    return seconds


async def settled() -> None:
    """Wait until the browser is idle.

    A new window loads pages of the browser's own (its tabs and its toolbar): half a second on a processor, which the
    next address in an open window does not cost.
    """
    spent = browser_cpu()
    for _ in range(40):
        await asyncio.sleep(0.5)
        before, spent = spent, browser_cpu()
        if spent - before <= 0.01:
            return


async def first_candle(browser: Browser, url: str) -> tuple[float, float, int]:
    """Seconds from the navigation to the first bars, of them the browser's on a processor, and bytes of the files."""
    context = await browser.new_context(viewport={"width": 1280, "height": 760})
    page = await context.new_page()
    await settled()
    spent = browser_cpu()
    await page.goto(url + QUERY)
    await page.wait_for_selector(DRAWN)
    spent = browser_cpu() - spent
    seconds = await page.evaluate("performance.now() / 1000")
    sent = await page.evaluate(
        """performance.getEntries().filter(({ name }) => !/(candles|symbols|stream|senders)([?]|$)/.test(name))
            .reduce((sum, { transferSize }) => sum + (transferSize ?? 0), 0)"""
    )
    await context.close()
    return float(seconds), spent, int(sent)


async def drawing(browser: Browser, url: str, seconds: float, stop: Callable[[], None]) -> dict[str, dict[str, Any]]:
    """Frames of the chart and of the floor, once the stack is stopped: it runs on another machine."""
    page = await browser.new_page(viewport={"width": 1280, "height": 760})
    await page.goto(url + QUERY)
    await page.wait_for_selector(DRAWN)
    await page.evaluate(BARE_CHART)
    await asyncio.to_thread(stop)
    await settled()
    found = await frames(browser, page, seconds, browser_cpu)
    await page.close()
    return found


async def held(page: Page, minutes: int) -> Minute:
    """The page's heap, nodes and listeners, after the garbage was collected."""
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("HeapProfiler.collectGarbage")
    await devtools.send("Performance.enable")
    metrics = {m["name"]: m["value"] for m in (await devtools.send("Performance.getMetrics"))["metrics"]}
    await devtools.detach()
    return Minute(
        minutes, round(metrics["JSHeapUsedSize"] / 1e6, 2), int(metrics["Nodes"]), int(metrics["JSEventListeners"])
    )


async def growth(browser: Browser, url: str, minutes: int) -> list[Minute]:
    """The open page, minute by minute; the first after a minute, in which it has loaded all that it loads."""
    page = await browser.new_page(viewport={"width": 1280, "height": 760})
    await page.goto(url + QUERY)
    await page.keyboard.press("p")
    rows = []
    for minute in range(1, minutes + 2):
        await asyncio.sleep(60)
        rows.append(await held(page, minute))
        Console().print(rows[-1])
    await page.close()
    return rows


async def measure(url: str, stop: Callable[[], None], *, seconds: float, minutes: int) -> dict[str, Any]:
    """All figures of the page at the address; `stop` ends the stack behind it."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        figures: dict[str, Any] = {"chromium": browser.version}
        if seconds:
            openings = [await first_candle(browser, url) for _ in range(OPENINGS)]
            figures |= {
                "first_candle_seconds": [seconds for seconds, _, _ in openings],
                "first_candle_cpu": [cpu for _, cpu, _ in openings], "bytes": openings[0][2],
            }  # fmt: skip
        if minutes:
            figures["growth"] = [asdict(row) for row in await growth(browser, url, minutes)]
        if seconds:
            figures["frames"] = await drawing(browser, url, seconds, stop)
        await browser.close()
    return figures


def lines_of(figures: dict[str, Any], seconds: float) -> Sequence[str]:
    """The figures as Markdown."""
    rows = speed_rows(figures, seconds) if seconds else []
    if growth := figures.get("growth"):
        minutes = f"after {growth[0]['minutes']} and {growth[-1]['minutes']} minutes; most"
        for what, name in {"heap, MB": "heap_mb", "DOM nodes": "nodes", "listeners": "listeners"}.items():
            most = max(row[name] for row in growth)
            rows.append([f"{what}, {minutes}", f"{growth[0][name]:,} and {growth[-1][name]:,}; {most:,}"])
    return [*table_of(["of the page", f"Chromium {figures['chromium']}"], rows), ""]


def speed_rows(figures: dict[str, Any], seconds: float) -> list[list[str]]:
    """Weight, first candle and frames."""
    opened = figures["first_candle_seconds"]
    return [
        ["weight, as sent", f"{figures['bytes'] / 1000:.0f} kB"],
        [f"first candle, median (most) of {len(opened)}", f"{median(opened):.2f} s ({max(opened):.2f} s)"],
        ["of them the browser on a processor", f"{median(figures['first_candle_cpu']):.2f} s"],
        *rows_of(figures["frames"], seconds),
    ]


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="of drawing; 0 leaves all of speed out (default: 20)"
    )
    parser.add_argument(
        "--minutes", type=int, default=10, help="that the page is left open; 0 leaves that out (default: 10)"
    )
    parser.add_argument("--url", help="of a dashboard that runs already, instead of a stack of its own")
    options = parser.parse_args()
    if not options.seconds and not options.minutes:
        parser.error("with --seconds 0 and --minutes 0 nothing is measured")
    beginning = Beginning.now()
    with dashboard(options.url) as (url, stop):
        figures = asyncio.run(measure(url, stop, seconds=options.seconds, minutes=options.minutes))
    name = "browser" if options.seconds and options.minutes else f"browser-{'speed' if options.seconds else 'growth'}"
    beginning.store(name, lines_of(figures, options.seconds), figures)


if __name__ == "__main__":
    main()
