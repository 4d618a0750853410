"""The list of timeframes: each has the parent that it is made of, and only equal bars are folded from ticks. What else
knows timeframes knows those of the list.
"""

from pathlib import Path

import pytest

from marketdata.contract.fields import timeframe_of
from marketdata.errors import UnknownTimeframe
from marketdata.timeframes import M1, TIMEFRAMES, Timeframe, timeframe_named
from tickpipe.sending.dialects import parse_file_name

MINUTE_MS = 60_000


def test_minutes_are_folded_and_everything_else_is_rolled_up_from_something_shorter() -> None:
    names = list(TIMEFRAMES)
    assert [name for name in names if TIMEFRAMES[name].parent is None] == ["M1"]
    for name, timeframe in TIMEFRAMES.items():
        if timeframe.parent is not None:
            assert names.index(timeframe.parent) < names.index(name)


def test_a_bar_is_a_whole_number_of_its_parents_bars() -> None:
    for timeframe in TIMEFRAMES.values():
        if timeframe.parent is not None and timeframe.width_ms is not None:
            parent = TIMEFRAMES[timeframe.parent].width_ms
            assert parent is not None
            assert timeframe.width_ms % parent == 0


@pytest.mark.parametrize(
    ("name", "width_ms"), [("M1", MINUTE_MS), ("H1", 60 * MINUTE_MS), ("S5", 5_000), ("S1", 1_000)]
)
def test_bars_of_one_length_can_be_folded(name: str, width_ms: int) -> None:
    assert timeframe_named(name).base_width_ms == width_ms


@pytest.mark.parametrize("name", ["H4", "D1", "W1", "MN1"])
def test_bars_of_the_calendar_cannot_be_folded(name: str) -> None:
    with pytest.raises(UnknownTimeframe, match=name):
        _ = timeframe_named(name).base_width_ms


@pytest.mark.parametrize("name", ["", "m1", "M2", "S0", "S7", "S60", "S05", "S5\n", "H24"])
def test_other_names_are_no_timeframes(name: str) -> None:
    with pytest.raises(UnknownTimeframe, match="M1, M5"):
        timeframe_named(name)


def test_the_default_is_one_of_the_list() -> None:
    assert TIMEFRAMES["M1"] is M1


@pytest.mark.parametrize(
    ("timeframe", "minutes", "mql5_number"),
    [
        (TIMEFRAMES["M30"], 30, 30),
        (TIMEFRAMES["H1"], 60, 16385),
        (Timeframe("H12", 12 * 60 * MINUTE_MS, "H1", calendar=True), 720, 16396),
        (TIMEFRAMES["D1"], 1_440, 16408),
        (TIMEFRAMES["W1"], 10_080, 32769),
        (TIMEFRAMES["MN1"], 43_200, 49153),
    ],
)
def test_a_timeframe_has_the_numbers_of_mql(timeframe: Timeframe, minutes: int, mql5_number: int) -> None:
    assert (timeframe.minutes, timeframe.mql5_number) == (minutes, mql5_number)


def test_every_timeframe_of_the_list_is_known_by_its_numbers_and_in_names_of_files() -> None:
    for name, timeframe in TIMEFRAMES.items():
        assert timeframe_of(str(timeframe.minutes)) == timeframe_of(timeframe.mql5_number) == name
        assert parse_file_name(Path(f"EURUSD_{name}.csv"))[:2] == ("EURUSD", name)
