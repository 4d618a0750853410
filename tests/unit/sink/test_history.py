"""How history is sorted before it is copied."""

import random

from marketdata.candle import Candle
from sink.history import History, pack_candle
from tests.unit.sink.candles import MINUTE, candle


def sorted_in(candles: list[Candle], piece: int) -> History:
    history = History()
    history.add(candles[: len(candles) // 2])
    history.add(candles[len(candles) // 2 :])
    for _ in history.pack(piece):
        pass
    return history


def test_rows_come_in_the_order_in_which_a_judged_batch_locks_them() -> None:
    # Arrange: symbols of one and of several sources, as several partitions bring them
    rng = random.Random(1)
    series = [("A", "S"), ("A", "T"), ("AB", "T"), ("B", "S"), ("B", "T"), ("C", "S")]
    candles = [
        candle(symbol=symbol, source=source, ts=MINUTE + n * 60_000) for symbol, source in series for n in range(30)
    ]
    rng.shuffle(candles)

    # Act
    history = sorted_in(candles, piece=7)

    # Assert
    in_order = sorted(candles, key=lambda one: (one.symbol, one.timeframe, one.ts, one.source))
    assert list(history.ordered(dict.fromkeys(history.series, 0))) == list(map(pack_candle, in_order))


def test_of_each_series_what_is_stored_already_is_left_out() -> None:
    candles = [candle(symbol=symbol, ts=MINUTE + n * 60_000) for n in range(5) for symbol in ("A", "B")]
    history = sorted_in(candles, piece=125)

    rows = list(history.ordered({("A", "M1", "S"): 5, ("B", "M1", "S"): 3}))

    assert rows == [pack_candle(one) for one in candles if one.symbol == "B"][3:]


def test_a_key_that_comes_twice_is_noticed() -> None:
    minutes = [candle(ts=MINUTE + n * 60_000) for n in range(3)]
    assert sorted_in(minutes, piece=2).is_single
    assert not sorted_in([*minutes, candle(ts=MINUTE, volume=11)], piece=2).is_single


def test_four_minutes_of_a_symbol_are_history() -> None:
    minutes = [candle(ts=MINUTE + n * 60_000) for n in range(4)]
    assert not sorted_in(minutes[:3], piece=2).is_long
    assert sorted_in(minutes, piece=2).is_long
    assert not sorted_in([*minutes, candle(symbol="B")], piece=2).is_long
