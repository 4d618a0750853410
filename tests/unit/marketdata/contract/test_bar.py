"""Bars as senders write them: when they opened, and whether they were over."""

import math
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from marketdata.candle import BrokerBar
from marketdata.contract.bar import read_bar
from marketdata.contract.times import Clock, ShiftedZone
from marketdata.errors import InvalidItem

BROKER = ShiftedZone(ZoneInfo("America/New_York"), timedelta(hours=7))
ATHENS = ZoneInfo("Europe/Athens")
INDIA = timezone(timedelta(hours=5, minutes=30))
NOW_MS = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp()) * 1000


def bar(timeframe: str, ts: object, **more: Any) -> dict[str, Any]:
    return {
        "symbol": "EURUSD", "timeframe": timeframe, "ts": ts, "open": 1.1, "high": 1.3, "low": 1.0, "close": 1.2,
        "volume": 42, **more,
    }  # fmt: skip


def read(item: dict[str, Any], zone: tzinfo | None = None) -> BrokerBar:
    return read_bar(item).of("s", Clock(zone, NOW_MS), NOW_MS)


def utc(ts_ms: int) -> str:
    return datetime.fromtimestamp(ts_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M")


@pytest.mark.parametrize(
    ("timeframe", "ts", "zone", "opened"),
    [
        ("M1", "2025-10-20T02:21:00Z", None, "2025-10-20T02:21"),
        ("M30", "2025-10-20T02:30:00Z", None, "2025-10-20T02:30"),
        # By the broker's clock, whose days begin at 17:00 in New York.
        ("H4", "2025-10-20T04:00:00Z", BROKER, "2025-10-20T01:00"),
        ("D1", "2025-10-20T00:00:00Z", BROKER, "2025-10-19T21:00"),
        ("W1", "2025-10-19", BROKER, "2025-10-18T21:00"),
        ("W1", "2025-10-20", None, "2025-10-20T00:00"),
        ("MN1", "2025-10-01", BROKER, "2025-09-30T21:00"),
        # 09:00 in India is 03:30 in UTC.
        ("H1", "2025-10-20T09:00:00Z", INDIA, "2025-10-20T03:30"),
        ("H1", "2025-10-20T03:30:00+00:00", INDIA, "2025-10-20T03:30"),
    ],
)
def test_a_bar_opens_on_its_grid_by_the_senders_clock(
    timeframe: str, ts: str, zone: tzinfo | None, opened: str
) -> None:
    one = read(bar(timeframe, ts), zone)

    assert (utc(one.ts), one.closed) == (opened, True)


@pytest.mark.parametrize(
    ("timeframe", "ts", "zone"),
    [
        ("M1", "2025-10-20T02:20:01Z", None), ("M5", "2025-10-20T02:21:00Z", None),
        ("H1", "2025-10-20T02:20:00Z", None), ("H4", "2025-10-20T03:00:00Z", BROKER),
        ("D1", "2025-10-20T21:00:00Z", None), ("W1", "2025-10-21", None), ("MN1", "2025-10-02", None),
        ("H1", "2025-10-20T03:30:00+00:00", None),
    ],
)  # fmt: skip
def test_a_bar_off_its_grid_is_refused(timeframe: str, ts: str, zone: tzinfo | None) -> None:
    with pytest.raises(InvalidItem, match=f"no bar of {timeframe} opens then") as caught:
        read(bar(timeframe, ts), zone)
    assert caught.value.field == "ts"


@pytest.mark.parametrize(
    ("timeframe", "ts", "meta", "opened", "closed"),
    [
        # A collector on an H1 chart at 02:25: ts is the minute of the collection.
        pytest.param(
            "H1", "2025-10-20T02:25:00Z",
            {"bar_time": "2025.10.20 02:00", "last_tick": "2025.10.20 02:24:58", "collected_at": "2025.10.20 02:25:01"},
            "2025-10-20T02:00", False, id="still forming",
        ),
        pytest.param(
            "M1", "2025-10-20T02:25:00Z",
            {"bar_time": 1760927040, "last_tick": 1760927105, "collected_at": 1760927101},
            "2025-10-20T02:24", True, id="over when it was read",
        ),
        pytest.param(
            "H1", "2025-10-20T09:25:00Z", {"bar_time": "2025.10.20 02:00", "last_tick": "2025.10.20 02:24:58"},
            "2025-10-20T02:00", False, id="a symbol that is quiet since",
        ),
        pytest.param(
            "M5", "2025-10-20T02:23:17Z", {"collected_at": "2025-10-20T02:23:17Z"}, "2025-10-20T02:20", False,
            id="the time of the collection alone",
        ),
        pytest.param(
            "MN1", "2025-10-20T02:23:17Z", {"last_tick": "2025-10-20T02:23:17Z"}, "2025-10-01T00:00", False,
            id="a month",
        ),
        pytest.param(
            "H1", "2025-10-20T03:25:00Z", {"last_tick": "2025.10.20 02:24:58", "collected_at": "2025.10.20 03:25:01"},
            "2025-10-20T02:00", False, id="quiet since the hour before, stamped with the collection alone",
        ),
        pytest.param(
            "H1", "2025-10-20T03:00:00Z", {"last_tick": "2025.10.17 20:59:58", "collected_at": "2025.10.20 03:00:01"},
            "2025-10-17T20:00", False, id="quiet since Friday",
        ),
        pytest.param(
            "H1", "2025-10-20T02:00:00Z", {"last_tick": "2025.10.20 03:00:02", "collected_at": "2025.10.20 03:00:02"},
            "2025-10-20T02:00", True, id="the hour before, read in the next",
        ),
        pytest.param("M1", "2025-10-20T02:20:00Z", {"last_tick": "soon"}, "2025-10-20T02:20", True, id="unreadable"),
        pytest.param("M1", "2025-10-20T02:20:00Z", {"srv": "Broker"}, "2025-10-20T02:20", True, id="says nothing"),
    ],
)  # fmt: skip
def test_a_bar_that_was_read_within_its_period_is_open(
    timeframe: str, ts: str, meta: dict[str, Any], opened: str, closed: bool
) -> None:
    one = read(bar(timeframe, ts, meta=meta))

    assert (utc(one.ts), one.closed) == (opened, closed)


@pytest.mark.parametrize(
    ("received", "timeframe", "wall", "meta", "opened"),
    [
        # Athens shows 03:00 to 04:00 from 00:00Z on and from 01:00Z on. M1 bars, each sent soon after it was over:
        ("00:11:02", "M1", "03:10", {}, "00:10"),
        ("01:11:02", "M1", "03:10", {}, "01:10"),
        ("01:00:03", "M1", "03:59", {}, "00:59"),
        # It is over, so at 01:10:05 it cannot be the one that opened five seconds ago.
        ("01:10:05", "M1", "03:10", {"collected_at": "2025-10-26T03:10:05Z"}, "01:10"),
        ("01:00:05", "H1", "03:00", {}, "00:00"),
        ("02:00:05", "H1", "03:00", {}, "01:00"),
        # Still open, and seen at a time that only one of the two can mean.
        ("01:00:05", "H1", "03:00", {"last_tick": "2025-10-26T03:59:58Z"}, "00:00"),
        ("01:00:05", "H1", "03:00", {"last_tick": "2025-10-26T03:00:01Z"}, "01:00"),
        ("01:30:05", "M30", "03:00", {"collected_at": "2025-10-26T03:29:58Z"}, "01:00"),
    ],
)
def test_a_bar_of_the_hour_that_comes_twice_goes_by_its_receipt(
    received: str, timeframe: str, wall: str, meta: dict[str, str], opened: str
) -> None:
    now_ms = int(datetime.fromisoformat(f"2025-10-26T{received}+00:00").timestamp()) * 1000

    one = read_bar(bar(timeframe, f"2025-10-26T{wall}:00Z", meta=meta)).of("s", Clock(ATHENS, now_ms), now_ms)

    assert utc(one.ts) == f"2025-10-26T{opened}"


def test_a_bar_that_is_wider_than_the_hour_opened_in_its_first_pass() -> None:
    # New York + 7: 08:00 to 09:00 from 05:00Z on and from 06:00Z on. H4 opens at 08:00, whenever it is read.
    for received in ("05:20:05", "06:20:05", "10:00:02"):
        now_ms = int(datetime.fromisoformat(f"2025-11-02T{received}+00:00").timestamp()) * 1000
        item = bar("H4", "2025-11-02T08:00:00Z", meta={"collected_at": "2025-11-02T08:20:00Z"})

        assert utc(read_bar(item).of("s", Clock(BROKER, now_ms), now_ms).ts) == "2025-11-02T05:00"


def test_of_many_symbols_in_one_request_each_has_an_order_of_its_own() -> None:
    # History: nothing but the order tells the two passes apart.
    walls = [f"2025-10-26T03:{minute:02}:00Z" for minute in range(60)]
    clock = Clock(ATHENS, NOW_MS)

    for symbol in ("BTCUSD", "ETHUSD"):
        found = [
            utc(read_bar(bar("M1", wall) | {"symbol": symbol}).of("s", clock, NOW_MS).ts) for wall in [*walls, *walls]
        ]

        assert found == [f"2025-10-26T{hour}:{minute:02}" for hour in ("00", "01") for minute in range(60)], symbol


@pytest.mark.parametrize(
    ("said", "closed"),
    [
        ({}, True), ({"closed": True}, True), ({"closed": False}, False), ({"complete": False}, False),
        ({"is_closed": 0}, False), ({"is_closed": "false"}, False), ({"complete": None}, True),
        ({"closed": "FALSE"}, False), ({"closed": math.nan}, True),
    ],
)  # fmt: skip
def test_a_sender_may_say_itself_that_a_bar_is_open(said: dict[str, Any], closed: bool) -> None:
    assert read(bar("M1", "2025-10-20T02:21:00Z", **said)).closed is closed


@pytest.mark.parametrize(
    ("said", "ticks", "real_volume"),
    [
        ({"tick_volume": math.nan, "volume": 84}, 84, None),
        ({"volume": 3.5}, 0, 3.5),
        ({"tick_volume": 3, "volume": 3}, 3, None),
        ({"tick_volume": 3, "volume": 120}, 3, 120.0),
        ({"tick_volume": 3, "volume": 120, "real_volume": 7}, 3, 7.0),
        ({"tick_volume": 3, "volume": "nan", "real_volume": "nan"}, 3, None),
    ],
)
def test_ticks_and_what_was_traded_are_told_apart(said: dict[str, Any], ticks: int, real_volume: float | None) -> None:
    one = read(bar("M1", "2025-10-20T02:21:00Z") | said)

    assert (one.volume, one.real_volume) == (ticks, real_volume)


@pytest.mark.parametrize(
    ("number", "name"),
    [(60, "H1"), ("240", "H4"), (1440, "D1"), (16385, "H1"), (16388, "H4"), (16408, "D1"), (5.0, "M5")],
)
def test_a_timeframe_may_be_a_number_of_metatrader(number: object, name: str) -> None:
    assert read(bar("M1", "2025-10-20") | {"timeframe": number}).timeframe == name


@pytest.mark.parametrize("nothing", [math.nan, 0, "0", "", None])
def test_a_bar_time_that_says_nothing_leaves_the_bar_its_own_time(nothing: object) -> None:
    one = read(bar("M1", "2025-10-20T02:21:00Z", meta={"bar_time": nothing, "last_tick": nothing}))

    assert (utc(one.ts), one.closed) == ("2025-10-20T02:21", True)


@pytest.mark.parametrize(
    ("price", "said", "points"),
    [
        # Gold: 1.00 is a hundred points. EURUSD: nobody asks 2.00 for it over the bid, so these are points of pandas.
        (4021.5, {"spread": 1.0, "digits": 2}, 100), (4021.5, {"spread": "1.00", "point": 0.01}, 100),
        (1.16, {"spread": 2.0, "digits": 5}, 2), (1.16, {"spread": "13.0"}, 13),
        (1.16, {"spread": 0.00002, "digits": 5}, 2),
        # The ask was below the bid.
        (1.16, {"spread": -2}, -2), (1.16, {"spread": "-13"}, -13), (1.16, {"spread": -0.00002, "digits": 5}, -2),
        (1.16, {"spread": 2.5, "digits": 5}, None), (1.16, {"spread": math.nan, "digits": 5}, None),
    ],
)  # fmt: skip
def test_a_fraction_is_a_price_difference_unless_it_is_larger_than_the_price(
    price: float, said: dict[str, Any], points: int | None
) -> None:
    prices = dict.fromkeys(("open", "high", "low", "close"), price)

    assert read(bar("M1", "2025-10-20T02:21:00Z", **prices, **said)).spread == points


def test_a_moment_that_opens_no_bar_by_the_clock_of_the_source_asks_for_its_zone() -> None:
    """Days of New York, as sites of shares write them, in a source whose zone was never said."""
    with pytest.raises(InvalidItem, match=r"which shows 04:00:00; is its zone right\?"):
        read(bar("D1", "2024-03-25T00:00:00-04:00"))
    new_york = Clock(ZoneInfo("America/New_York"), None)
    assert read_bar(bar("D1", "2024-03-25T00:00:00-04:00")).of("S", new_york, 0).ts == 1_711_339_200_000
