from typing import Any

import pytest

from benchmarks.peers.running import Compared
from benchmarks.peers.ticks import SYMBOLS, Bars, closing_tick, expected_bars, ticks_of_a_symbol
from marketdata.tick import DAY_MS
from tests.days import EURUSD_COUNT, eurusd_bars

MINUTE = 1_549_238_400_000
BARS: Bars = {("SYM0", MINUTE): (1.0, 3.0, 0.5, 2.0, 4), ("SYM1", MINUTE): (1.0, 3.0, 0.5, 2.0, 4)}


def update(symbol: str, volume: int = 4, ts: float = MINUTE) -> dict[str, Any]:
    return {"symbol": symbol, "ts": ts, "open": 1.0, "high": 3.0, "low": 0.5, "close": 2.0, "volume": volume}


def test_expected_bars_are_those_of_the_day() -> None:
    # Two laps, so that the second is the same day a day later.
    bars = expected_bars(ticks_of_a_symbol(2 * EURUSD_COUNT))
    of_a_day = eurusd_bars()
    assert len(bars) == len(SYMBOLS) * 2 * len(of_a_day)
    for symbol in SYMBOLS:
        for minute, bar in of_a_day.items():
            assert bars[symbol, minute][:4] == bars[symbol, minute + DAY_MS][:4] == bar
    assert sum(bar[4] for bar in bars.values()) == len(SYMBOLS) * 2 * EURUSD_COUNT


def test_closing_tick_has_a_minute_of_its_own() -> None:
    ticks = ticks_of_a_symbol(1_000)
    assert (SYMBOLS[0], closing_tick(ticks).time_msc // 60_000 * 60_000) not in expected_bars(ticks)


def test_complete_when_the_newest_update_of_each_candle_is_right() -> None:
    compared = Compared(BARS)
    compared.take(update("SYM0", volume=3), 10.0)
    compared.take(update("SYM1"), 11.0)
    assert not compared.is_complete()
    compared.take(update("SYM0"), 12.0)
    assert compared.is_complete()
    assert compared.stored_at == 12.0


def test_later_wrong_update_is_noticed() -> None:
    compared = Compared(BARS)
    for symbol in ("SYM0", "SYM1"):
        compared.take(update(symbol), 10.0)
    compared.take(update("SYM1", volume=1), 11.0)
    assert not compared.is_complete()
    assert "1 of 2 candles differ; the first, SYM1" in compared.difference()


@pytest.mark.parametrize("field", ["open", "high", "low", "close", "volume"])
def test_every_field_is_compared(field: str) -> None:
    compared = Compared({("SYM0", MINUTE): BARS["SYM0", MINUTE]})
    compared.take(update("SYM0") | {field: 7}, 10.0)
    assert not compared.is_complete()


def test_minute_that_nobody_asked_for_does_not_move_the_end() -> None:
    compared = Compared(BARS)
    compared.take(update("SYM0"), 10.0)
    compared.take(update("SYM0", ts=MINUTE + 3_600_000), 20.0)
    assert compared.stored_at == 10.0
