from datetime import UTC, datetime

import pytest

from sink.times import time_msc, utc


@pytest.mark.parametrize("msc", [0, 1, 1_549_238_401_003, 253_402_300_799_999])
def test_times_come_back_to_the_millisecond(msc: int) -> None:
    assert time_msc(utc(msc)) == msc


def test_times_are_utc() -> None:
    assert utc(1_549_238_400_000) == datetime(2019, 2, 4, tzinfo=UTC)
