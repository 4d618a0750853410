"""Indicators on the page, against polars: over bars of any kind, and in the legend while the newest bar moves."""

import random
import re
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import Page, expect

from marketdata.candle import Candle
from runtime import clock
from tests.integration.dashboard.market import MINUTE_MS, Market
from tests.integration.dashboard.reader import BARE_CHART, Reader

if TYPE_CHECKING:
    import polars

pytestmark = pytest.mark.long(6)

DAY_MS = 24 * 60 * MINUTE_MS


def sma(closes: "polars.Series", period: int) -> "polars.Series":
    return closes.rolling_mean(period)


def ema(closes: "polars.Series", period: int) -> "polars.Series":
    return closes.ewm_mean(span=period, adjust=False)


def rsi(closes: "polars.Series", period: int) -> list[float]:
    """From the `period`th change on: Wilder's means begin with the plain ones of the first changes."""
    import polars  # noqa: PLC0415  # slow to load

    changes = closes.diff().drop_nulls()
    means = []
    for moved in (changes.clip(lower_bound=0), (-changes).clip(lower_bound=0)):
        seeded = polars.concat([polars.Series([moved[:period].mean()]), moved[period:]])
        means.append(seeded.ewm_mean(com=period - 1, adjust=False))
    return [100 * up / (up + down) if up + down else 50.0 for up, down in zip(*means, strict=True)]


async def computed(page: Page, name: str, bars: list[dict[str, float]]) -> list[float | None]:
    found: list[float | None] = await page.evaluate(
        """async ([name, bars]) => {
            const { indicatorsOf, arithmeticOf } = await import("./js/indicators.js");
            const arithmetic = arithmeticOf(indicatorsOf(name)[0], bars, true);
            let state = arithmetic.start;
            return bars.map((bar) => (state = arithmetic.step(state, bar)).value);
        }""",
        [name, bars],
    )
    return found


async def test_indicators_are_what_polars_computes(reader: Reader) -> None:
    import polars  # noqa: PLC0415  # slow to load

    await reader.open()
    rng = random.Random(7)
    closes = [round(1.1 + rng.gauss(0, 0.01), 5) for _ in range(300)]
    # Two hundred bars of nothing, and a market that only rises.
    for prices in (closes, [1.5] * 200, [1 + n / 1000 for n in range(200)]):
        bars = [{"time": n * MINUTE_MS, "close": price} for n, price in enumerate(prices)]
        series = polars.Series(prices)
        for period in (2, 14, 50):
            first = period - 1
            assert (await computed(reader.page, f"sma{period}", bars))[first:] == pytest.approx(
                sma(series, period)[first:].to_list()
            )
            assert (await computed(reader.page, f"ema{period}", bars))[first:] == pytest.approx(
                ema(series, period)[first:].to_list()
            )
            strength = await computed(reader.page, f"rsi{period}", bars)
            assert strength[:period] == [None] * period
            assert strength[period:] == pytest.approx(rsi(series, period))


@pytest.mark.parametrize("weight", ["volume", pytest.param("real_volume", marks=pytest.mark.full)])
async def test_vwap_begins_with_each_day(reader: Reader, weight: str) -> None:
    await reader.open()
    rng = random.Random(8)
    bars = []
    for n in range(40):
        low = 1 + rng.random()
        bars.append(
            {
                "time": n * DAY_MS / 10, "low": low, "high": low + 2, "close": low + 1, "volume": rng.randrange(1, 9),
                "real_volume": rng.random() if weight == "real_volume" else 0.0,
            }
        )  # fmt: skip
    import polars  # noqa: PLC0415  # slow to load

    typical = (polars.col("high") + polars.col("low") + polars.col("close")) / 3
    day = polars.col("time") // DAY_MS
    expected = polars.DataFrame(bars).select(
        (typical * polars.col(weight)).cum_sum().over(day) / polars.col(weight).cum_sum().over(day)
    )
    assert await computed(reader.page, "vwap", bars) == pytest.approx(expected.to_series().to_list())


@pytest.mark.full
async def test_indicators_follow_bars_that_move_begin_and_come_late(reader: Reader, market: Market) -> None:
    import polars  # noqa: PLC0415  # slow to load

    now = clock.now_ms() // MINUTE_MS * MINUTE_MS

    def minute(n: int, close: float, ticks: int = 4) -> Candle:
        return market.candle("STUDIED", now - n * MINUTE_MS, (1.1, 1.3, 1.0, close), ticks=ticks, closed=n > 1)

    closes = [round(1.10001 + n % 7 / 100, 5) for n in range(30)]
    await market.publish(*(minute(31 - n, close) for n, close in enumerate(closes)))
    await market.stored("STUDIED", 30)
    await reader.open("?symbol=STUDIED&studies=sma5,ema10,rsi14,nonsense")

    async def shown() -> None:
        series = polars.Series(closes)
        for name, value in {
            "SMA 5": f"{sma(series, 5)[-1]:.5f}", "EMA 10": f"{ema(series, 10)[-1]:.5f}",
            "RSI 14": f"{rsi(series, 14)[-1]:.1f}",
        }.items():  # fmt: skip
            await expect(reader.page.locator("#legend")).to_contain_text(re.compile(f"{name}{re.escape(value)}"))

    await shown()
    for closes[-1] in (1.22003, 1.04004):
        await market.publish(minute(2, closes[-1], ticks=5 + (closes[-1] < 1.1)))
        await shown()
    for close in (1.16002, 1.09007):
        closes.append(close)
        await market.publish(minute(32 - len(closes), close))
        await shown()
    # More ticks of an older minute move everything behind it.
    closes[-4] = 1.29001
    await market.publish(minute(31 - len(closes) + 4, 1.29001, ticks=9))
    await shown()

    # Chosen, they stand in the link, and are remembered without it.
    await reader.page.keyboard.press("c")
    await reader.page.get_by_label("SMA").fill("7 and 3")
    await reader.page.get_by_label("VWAP").check()
    await reader.page.keyboard.press("Escape")
    assert "studies=sma7,sma3,ema10,rsi14,vwap" in reader.page.url
    await reader.open("?symbol=STUDIED&timeframe=M5")
    for name in ("SMA 7", "SMA 3", "EMA 10", "RSI 14", "VWAP"):
        await expect(reader.page.locator("#legend")).to_contain_text(name)


@pytest.mark.full
async def test_panes_below_have_their_own_scale_whatever_that_of_prices_is(reader: Reader) -> None:
    await reader.open()
    await reader.page.evaluate(BARE_CHART)
    scales = await reader.page.evaluate(
        """() => {
            const { chart, made } = bare;
            chart.setScale("percent");
            chart.keepClear(200);
            chart.overlays.showSpread(true);
            chart.chooseStudies("rsi14");
            chart.setScale("log");
            return made.panes().map((pane) => {
                const { mode, scaleMargins } = pane.priceScale("right").options();
                return [mode, scaleMargins.top < 0.2];
            });
        }"""
    )
    assert scales == [[1, False], [0, True], [0, True]]
