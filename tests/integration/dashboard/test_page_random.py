"""Open pages under late, resent and live ticks at random, folded by a real worker, show what is stored."""

import asyncio
import os
import random
import time
from contextlib import AsyncExitStack

import pytest
from playwright.async_api import Page

from marketdata.tick import Frame, Tick
from runtime import clock
from runtime.logreader import wait_for_log
from tests import plainhttp
from tests.integration.dashboard.market import MINUTE_MS, Market, market_settings
from tests.integration.dashboard.reader import Reader, as_shown, rows_of
from tests.integration.sink.flow import Flow
from tests.servers import EmbeddedServers
from tests.services import running
from tests.waiting import eventually

pytestmark = [pytest.mark.full, pytest.mark.long(18)]

#: How long the ticks come; ten minutes have been tried.
SECONDS = int(os.environ.get("TICKPIPE_TEST_PAGE_SECONDS", "8"))
SYMBOL = "RANDOM"
TIMEFRAMES = ("M1", "M5", "H1", "D1")


class Sender:
    """An EA that loses its connection again and again: what it sends comes in time, late, and twice."""

    def __init__(self, flow: Flow, seed: int) -> None:
        self.random = random.Random(seed)
        self._flow = flow
        self._sent: list[Frame] = []
        #: Every tick that counts, by its time.
        self.times: set[int] = set()

    async def send(self) -> None:
        """One frame."""
        now = clock.now_ms()
        kind = self.random.random()
        if self._sent and kind < 0.15:
            await self._flow.log_frames([self.random.choice(self._sent)])
            return
        # Late by up to two hours, or of now.
        start = now - (self.random.randrange(120 * MINUTE_MS) if kind < 0.5 else 0)
        times = [t for t in range(start, start + self.random.randrange(1, 6)) if t not in self.times]
        if times:
            self.times.update(times)
            prices = [1 + t % 1000 / 1e5 for t in times]
            frame = Frame(
                v=1, source="Live", symbol=SYMBOL, mode="bid", point=0.00001, request=str(len(self._sent)),
                received=now, ticks=[Tick(t, p, p + 0.00002, 0.0, 0.0, 6) for t, p in zip(times, prices, strict=True)],
            )  # fmt: skip
            self._sent.append(frame)
            await self._flow.log_frames([frame])


class Looks:
    """What pages showed when they were looked at, held against what the table held before and came to hold.

    A bar is different when it has as many ticks as the table's had at some time, and other prices, when the table has
    held more of it for longer than it may take to be shown, or when the table never comes to hold what it shows. As
    many ticks are the same ticks, but in the newest bars of longer timeframes: they may be ahead in one minute and
    behind in another.
    """

    #: Two seconds are promised; a busy machine may take longer.
    PATIENCE_SECONDS = 10.0

    def __init__(self, market: Market) -> None:
        self._market = market
        #: By timeframe and bar: when the table was seen to hold each state of it, by number of ticks.
        self._held: dict[tuple[str, str], dict[int, tuple[float, list[str]]]] = {}
        #: What a page showed before the table was seen to hold it: timeframe, bar, row and when.
        self._ahead: list[tuple[str, str, list[str], float]] = []
        self.bars = self.looks = 0
        self.slowest_seconds = 0.0

    def read(self) -> None:
        """Note what the table holds."""
        for timeframe in TIMEFRAMES:
            path = f"/candles?symbol={SYMBOL}&timeframe={timeframe}&limit=500"
            candles = plainhttp.get(self._market.url + path).json()["candles"]
            for candle, row in zip(candles, as_shown(candles), strict=True):
                states = self._held.setdefault((timeframe, candle["ts"][:16]), {})
                known = states.setdefault(candle["volume"], (time.monotonic(), row))
                assert known[1] == row

    async def at(self, timeframe: str, page: Page) -> None:
        """Look at a page."""
        rows = await page.evaluate(
            """() => [...document.querySelectorAll("#table tbody tr")].map((row) =>
                [row.dataset.ts, ...[...row.querySelectorAll("td")].map((cell) => cell.textContent)])"""
        )
        self.looks += 1
        moving = sorted(ts for ts, *_ in rows)[-2:] if timeframe != "M1" else []
        for ts, *row in rows:
            self.bars += 1
            ticks = int(row[-1].replace(",", ""))
            states = self._held.get((timeframe, ts), {})
            if ticks in states and ts not in moving:
                assert row == states[ticks][1], (timeframe, ts)
            newer = [seen for held, (seen, _) in states.items() if held > ticks]
            if newer:
                lag = time.monotonic() - min(newer)
                self.slowest_seconds = max(self.slowest_seconds, lag)
                assert lag < self.PATIENCE_SECONDS, (timeframe, ts, row, states)
            elif ticks not in states and ts not in moving:
                self._ahead.append((timeframe, ts, row, time.monotonic()))

    def settle(self) -> None:
        """Everything that a page showed ahead of the table is in it by now."""
        for timeframe, ts, row, _ in self._ahead:
            ticks, states = int(row[-1].replace(",", "")), self._held[timeframe, ts]
            assert max(states) >= ticks
            assert ticks not in states or states[ticks][1] == row


@pytest.mark.timeout(SECONDS + 300)
async def test_open_pages_show_and_end_with_what_is_stored(
    servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory, reader: Reader
) -> None:
    settings = market_settings(servers, "random", tmp_path_factory.mktemp("random"))
    log_name = await wait_for_log(settings)
    seed = random.randrange(2**32)
    print(f"the seed is {seed}")
    async with AsyncExitStack() as stack:
        _, _, dashboard = stack.enter_context(running(settings, "sink", "stream_app", "dashboard"))
        flow = await stack.enter_async_context(Flow(settings, log_name))
        market = Market(settings, flow, dashboard)
        sender = Sender(flow, seed)
        await sender.send()
        await market.stored(SYMBOL, 1)
        pages = {timeframe: await reader.another() for timeframe in TIMEFRAMES}
        for timeframe, page in pages.items():
            await page.goto(f"{market.url}/?symbol={SYMBOL}&timeframe={timeframe}")
            await page.keyboard.press("d")

        ends = time.monotonic() + SECONDS
        looks = Looks(market)
        next_look = time.monotonic() + 1
        while time.monotonic() < ends:
            await sender.send()
            await asyncio.sleep(sender.random.random() * 0.1)
            if time.monotonic() > next_look:
                await asyncio.to_thread(looks.read)
                for timeframe, page in pages.items():
                    await looks.at(timeframe, page)
                next_look = time.monotonic() + 1

        async def whole() -> bool:
            candles = plainhttp.get(f"{market.url}/candles?symbol={SYMBOL}&limit=500").json()["candles"]
            return bool(sum(candle["volume"] for candle in candles) == len(sender.times))

        await eventually(whole, what=f"{len(sender.times)} ticks in the table")
        stored_at = time.monotonic()
        looks.read()
        looks.settle()
        print(f"{looks.bars} bars at {looks.looks} looks, the slowest {looks.slowest_seconds:.1f} s behind the table")
        for timeframe, page in pages.items():
            stored = as_shown(market.get(f"/candles?symbol={SYMBOL}&timeframe={timeframe}&limit=500").json()["candles"])
            while (found := await rows_of(page)) != stored:
                # Two seconds are promised; a busy machine may take longer.
                assert time.monotonic() < stored_at + 10, {tuple(row) for row in found} ^ {tuple(row) for row in stored}
                await asyncio.sleep(0.1)
            print(f"{timeframe}: {len(stored)} bars equal {time.monotonic() - stored_at:.1f} s after they were stored")
        # Before the dashboard ends: they would say that it is gone.
        for page in pages.values():
            await page.close()
