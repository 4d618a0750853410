"""What the tests of the dashboard have it show: a market whose candles the test publishes."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import httpx

from marketdata.candle import Candle
from marketdata.fold import CandleFold, split_by_period
from marketdata.offsets import from_spans
from marketdata.resends import Passes
from marketdata.tick import Frame, Tick
from runtime import clock
from runtime.settings import Settings
from tests import plainhttp
from tests.conftest import own_settings
from tests.integration.sink.flow import Flow, Logged, day_frames
from tests.ports import free_port
from tests.servers import EmbeddedServers
from tests.services import Service
from tests.waiting import eventually

MINUTE_MS = 60_000

#: The source of the day's frames.
DAY_SOURCE = "S"


@dataclass
class Market:
    """The services, and the test's hand in `candles.m1`."""

    settings: Settings
    flow: Flow
    dashboard: Service

    @property
    def url(self) -> str:
        return self.dashboard.url

    def get(self, path: str, **headers: str) -> httpx.Response:
        return plainhttp.get(
            self.url + path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )

    def candle(
        self, symbol: str, ts: int, prices: tuple[float, float, float, float], *, ticks: int, closed: bool = False,
        ask: float | None = None,
    ) -> Candle:  # fmt: skip
        """A state of a minute: open, high, low, close. With an ask its newest tick has both prices."""
        open_, high, low, close = prices
        now = clock.now_ms()
        return Candle(
            source="Live", symbol=symbol, ts=ts, open=open_, high=high, low=low, close=close, volume=ticks,
            real_volume=0.0, spread=2, first_tick=ts, last_tick=ts + 30_000, log=self.flow.own_log,
            offsets=((0, 0, ticks),), closed=closed, received=now, emitted=now,
            bid=None if ask is None else prices[3], ask=ask,
        )  # fmt: skip

    async def log_ticks(self, symbol: str, times_msc: Iterable[int], *, received: int | None = None) -> list[Logged]:
        """Append to the log one frame for each of these ticks, whose prices tell them apart.

        Without `received` each is received 50 ms after its own time.
        """
        frames = []
        for number, time_msc in enumerate(times_msc):
            price = 1 + number / 1e5
            tick = Tick(time_msc, price, price + 0.00002, 0.0, 0.0, 6)
            frames.append(
                Frame(
                    v=1, source="Live", symbol=symbol, mode="bid", point=0.00001, request=f"{symbol}-{number}",
                    received=received or time_msc + 50, ticks=[tick],
                )
            )  # fmt: skip
        return await self.flow.log_frames(frames)

    async def publish(self, *candles: Candle) -> None:
        await self.flow.send_candles(candles)

    async def stored(self, symbol: str, candles: int) -> None:
        """Wait until the sink has stored so many minutes of the symbol."""

        async def count() -> bool:
            answer = self.get(f"/candles?symbol={symbol}&limit=20000").json()
            return len(answer.get("candles", [])) >= candles

        await eventually(count, what=f"{candles} candles of {symbol}")


def market_settings(servers: EmbeddedServers, name: str, data_dir: Path) -> Settings:
    """Settings of a pipeline of its own, with an empty database."""
    unique = f"{name}_{data_dir.parent.name}_{free_port()}".replace("-", "_")
    return own_settings(servers, unique, data_dir=data_dir, kafka_partitions=1)


def day_candles(log: str) -> list[Candle]:
    """The closed minutes of the day, as the stream app folds them from frames at offsets 0, 1, 2 and so on."""
    folds: dict[int, CandleFold] = {}
    for offset, frame in enumerate(day_frames()):
        for ts, ticks in split_by_period(frame)[2]:
            fold = folds.setdefault(ts, CandleFold(DAY_SOURCE, "EURUSD", ts))
            fold.add(offset, 0, Passes(), frame, ticks)
    now = clock.now_ms()
    candles = [
        fold.candle(log=log, offsets=from_spans(fold.spans), closed=True, emitted=now) for fold in folds.values()
    ]
    assert all(candles)
    return [candle for candle in candles if candle is not None]
