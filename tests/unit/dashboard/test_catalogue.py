"""A hundred thousand symbols: a page costs what it holds, and what is searched is found wherever it is."""

from datetime import UTC, datetime, timedelta

import pytest

from dashboard.answers import encode
from dashboard.catalogue import Listing, Listings
from dashboard.hub import Hub
from marketdata.candle import Candle

MANY = 100_000
T0 = datetime(2026, 2, 4, 10, tzinfo=UTC)


def listing(symbol: str, source: str = "Broker", minutes: int = 0) -> Listing:
    last = T0 + timedelta(minutes=minutes)
    return Listing(symbol, source, T0, last, 1.25, last)


def live(symbol: str, source: str, minutes: int) -> Candle:
    ts = int((T0 + timedelta(minutes=minutes)).timestamp() * 1000)
    return Candle(
        source=source, symbol=symbol, ts=ts, open=1.5, high=1.5, low=1.5, close=1.5, volume=1, real_volume=0.0,
        spread=1, first_tick=ts, last_tick=ts, log="log", offsets=((0, 1, 1),), closed=False, received=ts, emitted=ts,
    )  # fmt: skip


@pytest.fixture(scope="module")
def many() -> Listings:
    listings = Listings(Hub())
    listings.take((listing(f"S{n:06}", minutes=n) for n in range(MANY)), {("Broker", "S000001"): 5})
    return listings


def names(found: list[Listing]) -> list[str]:
    return [one.symbol for one in found]


def test_first_page_of_many_is_small(many: Listings) -> None:
    found, last = many.find(limit=1_000)
    assert (len(found), last) == (1_000, "S000999")
    assert found[1].digits == 5
    assert len(encode([one._asdict() for one in found])) < 250_000


def test_pages_join(many: Listings) -> None:
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        page, after = many.find(after=after, limit=20_000)
        found += names(page)
    assert found == [f"S{n:06}" for n in range(MANY)]


def test_search_finds_the_last_in_any_case(many: Listings) -> None:
    assert names(many.find("s09999", limit=1_000)[0]) == [f"S09999{n}" for n in range(10)]
    assert many.find("S09999", limit=10)[1] is None
    assert many.find("S09999", limit=9)[1] == "S099998"
    assert many.find("099999 broker", limit=9)[0] == [listing("S099999", minutes=MANY - 1)]
    assert many.find("nobody", limit=9) == ([], None)


def test_newest_are_those_that_ticked_last(many: Listings) -> None:
    assert names(many.newest()) == [f"S{n:06}" for n in range(MANY - 100, MANY)]


def test_sources_of_one_symbol_stay_together_the_newest_first() -> None:
    listings = Listings(Hub())
    listings.take([listing("A", "x"), listing("A", "y", 2), listing("A", "z", 1), listing("B")], {})
    found, last = listings.find(limit=1)
    assert [one.source for one in found] == ["y", "z", "x"]
    assert last == "A"
    assert listings.find(after="A", limit=1) == ([listing("B")], None)


def test_live_feeds_are_listed_before_they_are_stored_and_move_those_that_are() -> None:
    hub = Hub(clock=(T0 + timedelta(minutes=5)).timestamp)
    listings = Listings(hub)
    listings.take([listing("B", "x"), listing("B", "y", 1)], {("x", "A"): 3})
    assert names(listings.find(limit=9)[0]) == ["B", "B"]
    for candle in (live("A", "x", 3), live("B", "x", 4)):
        hub.publish(candle)
        key = ((candle.source, candle.symbol), candle.ts)
        hub.settle([key], {key: candle})
    found, _ = listings.find(limit=9)
    assert [(one.symbol, one.source, one.close, one.digits) for one in found] == [
        ("A", "x", 1.5, 3), ("B", "x", 1.5, None), ("B", "y", 1.25, None),
    ]  # fmt: skip
    assert [(one.symbol, one.source) for one in listings.newest()] == [("A", "x"), ("B", "x"), ("B", "y")]
