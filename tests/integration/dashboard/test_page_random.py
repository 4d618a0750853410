"""Open pages under late, resent and live ticks at random, folded by a real worker: they end with what is stored."""

import asyncio
import random
import time
from contextlib import AsyncExitStack

import pytest

from marketdata.tick import Frame, Tick
from runtime import clock
from runtime.log_identity import wait_for_log
from tests import plainhttp
from tests.conftest import FULL
from tests.integration.dashboard.market import MINUTE_MS, Market, market_settings
from tests.integration.dashboard.reader import Reader, as_shown, rows_of
from tests.integration.sink.flow import Flow
from tests.servers import EmbeddedServers
from tests.services import running
from tests.waiting import eventually

pytestmark = pytest.mark.long(18)

SECONDS = 20 if FULL else 8
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


async def test_open_pages_end_with_what_is_stored(
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
        while time.monotonic() < ends:
            await sender.send()
            await asyncio.sleep(sender.random.random() * 0.1)

        async def whole() -> bool:
            candles = plainhttp.get(f"{market.url}/candles?symbol={SYMBOL}&limit=500").json()["candles"]
            return bool(sum(candle["volume"] for candle in candles) == len(sender.times))

        await eventually(whole, what=f"{len(sender.times)} ticks in the table")
        stored_at = time.monotonic()
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
