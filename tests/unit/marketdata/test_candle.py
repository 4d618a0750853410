"""What cannot be a candle or a bar is refused, and whatever the fold makes is accepted."""

from math import inf, nan
from typing import Any

import msgspec
import pytest
from hypothesis import given

from marketdata.candle import BrokerBar, check_bar, check_candle
from marketdata.errors import InvalidCandle
from marketdata.fold import CandleFold, split_by_period
from marketdata.offsets import MAX_OFFSET, MAX_PARTITION, from_spans
from marketdata.resends import Passes
from marketdata.tick import Frame
from tests.unit.marketdata.test_fold_properties import LOGS
from tests.unit.sink.candles import MINUTE, candle

BAR = BrokerBar(
    source="S",
    symbol="EURUSD",
    timeframe="H1",
    ts=MINUTE,
    open=1.1,
    high=1.3,
    low=1.0,
    close=1.2,
    volume=10,
    received=0,
)

#: 2100-01-01 UTC.
YEAR_2100_MS = 4_102_444_800_000

PRICES = [
    {"high": 1.05},  # below the open
    {"low": 1.15},  # above the open
    {"open": nan},
    {"high": inf},
    {"low": -inf},
    {"high": 1.1e15},
    {"low": -1.1e15},
    {"close": 1.31},  # above the high
    {"real_volume": -1.0},
    {"real_volume": nan},
    {"real_volume": inf},
    {"volume": -1},
    {"volume": 2**63},
    {"ts": -60_000},
    {"ts": YEAR_2100_MS},
    {"ts": MINUTE + 1},
]


@pytest.mark.parametrize(
    "change",
    [
        *PRICES,
        {"volume": 0},
        {"first_tick": MINUTE - 1},
        {"last_tick": MINUTE + 60_000},
        {"first_tick": MINUTE + 10, "last_tick": MINUTE + 9},
        {"log": ""},
        {"timeframe": "M2"},
        {"timeframe": "D1"},
        {"timeframe": "M5", "ts": MINUTE + 60_000},  # on the grid of minutes, not on that of five
        {"offsets": ()},
        {"offsets": ((0, 5, 4),)},
        {"offsets": ((0, 5, 9), (0, 10, 12))},  # touching
        {"offsets": ((1, 5, 9), (0, 50, 52))},
        {"offsets": ((-1, 5, 9),)},
        {"offsets": ((MAX_PARTITION + 1, 5, 9),)},
        {"offsets": ((0, -1, 9),)},
        {"offsets": ((0, 5, MAX_OFFSET + 1),)},
    ],
    ids=str,
)
def test_what_no_fold_can_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidCandle):
        check_candle(candle(**{"ts": MINUTE, **change}))


@pytest.mark.parametrize(
    "change", [*PRICES, {"timeframe": "S5"}, {"timeframe": "M2"}, {"ts": MINUTE + 60_000}], ids=str
)
def test_what_no_bar_can_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidCandle):
        check_bar(msgspec.structs.replace(BAR, **change))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"open": -37.63, "low": -40.32, "close": -37.63},  # oil on 20 April 2020
        {"open": 0.0, "high": 0.0, "low": 0.0, "close": 0.0},
        {"high": 1e15, "low": -1e15},
        {"spread": None},
        {"spread": -3},
        {"offsets": ((0, 5, 9), (0, 11, 12), (1, 0, 3))},
        {"offsets": ((MAX_PARTITION, 0, MAX_OFFSET),)},
        {"timeframe": "S5", "last_tick": MINUTE + 4_999},
        {"ts": YEAR_2100_MS - 60_000},
    ],
    ids=str,
)
def test_what_a_fold_can_be_is_accepted(change: dict[str, Any]) -> None:
    check_candle(candle(**change))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"volume": 0},
        {"open": -37.63, "low": -40.32, "close": -37.63},
        {"ts": MINUTE + 30 * 60_000},  # an hour of a broker in India
        {"timeframe": "MN1", "ts": MINUTE + 15 * 60_000},
        {"timeframe": "M1", "ts": MINUTE + 60_000},
        {"real_volume": 0.5},
    ],
    ids=str,
)
def test_what_a_broker_can_send_is_accepted(change: dict[str, Any]) -> None:
    check_bar(msgspec.structs.replace(BAR, **change))


@given(LOGS)
def test_every_fold_is_a_valid_candle(frames: list[Frame]) -> None:
    passes: dict[str, Passes] = {}
    folds: dict[tuple[str, int], CandleFold] = {}
    for offset, frame in enumerate(frames):
        earliest, latest, parts = split_by_period(frame)
        own = passes.setdefault(frame.symbol, Passes())
        own.enter(frame, earliest, latest)
        for ts, ticks in parts:
            fold = folds.setdefault((frame.symbol, ts), CandleFold(frame.source, frame.symbol, ts))
            fold.add(offset, 0, own, frame, ticks)

    for fold in folds.values():
        made = fold.candle(log="l", offsets=from_spans(fold.spans), closed=True, emitted=0)
        if made is not None:
            check_candle(made)
