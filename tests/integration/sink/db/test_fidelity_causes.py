"""With a single fault in what came, the comparison with the broker's bars names it, and nothing else."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import groupby

import pytest
from msgspec.structs import replace

from marketdata.candle import BrokerBar, Candle
from marketdata.fold import CandleFold, split_by_period
from marketdata.resends import Passes
from marketdata.tick import ChartMode, Frame, Tick, period_of
from sink.db.connection import Connection
from sink.queries import compared, different_minutes
from sink.writer import Writer
from tests.days import DAYS, Bars
from tests.integration.sink.db.editions import database_on
from tests.servers import EmbeddedServers
from tickpipe.fidelity import Cause, diagnose

#: Of the generated day: a clock that is an hour off needs more than two hours to be seen.
HOURS = 3
MINUTE_MS = 60_000


@dataclass(frozen=True)
class Quotes:
    """The quotes that a day is made of."""

    point: float
    ticks: list[Tick]
    #: A minute with many quotes.
    faulty: int
    #: The provider's own prices of the minutes, where they are known.
    provider: Bars = field(default_factory=dict)
    #: Whether a clock that is an hour off can be seen in them.
    is_long: bool = True


@cache
def quotes(name: str) -> Quotes:
    """`hours` of the generated day, or a whole real day: EURUSD with the provider's bars, or the sparse USDJPY."""
    day = DAYS[-1]
    if name == "real EURUSD":
        return Quotes(0.00001, day.ticks, period_of(day.ticks[0].time_msc) + 720 * MINUTE_MS, day.bars)
    if name == "real USDJPY":
        return Quotes(0.001, day.sparse, max(day.sparse_minutes, key=day.sparse_minutes.__getitem__), is_long=False)
    start = period_of(DAYS[0].ticks[0].time_msc)
    return Quotes(
        0.00001,
        [tick for tick in DAYS[0].ticks if tick.time_msc < start + HOURS * 60 * MINUTE_MS],
        start + 90 * MINUTE_MS,
    )


@pytest.fixture
def database(servers: EmbeddedServers) -> Iterator[str]:
    """Of one edition: the comparison itself is held to be the same on both elsewhere."""
    with database_on(servers.database_url) as url:
        yield url


def with_deals(found: list[Tick]) -> list[Tick]:
    """Each third is a deal, whose price and volume the next ones repeat, as MetaTrader writes them."""
    dice = random.Random(1)
    ticks, last, lots = [], 0.0, 0.0
    for n, tick in enumerate(found):
        is_deal = n % 3 == 0
        if is_deal:
            last, lots = tick.ask, dice.randrange(1, 9) / 4
        ticks.append(replace(tick, last=last, volume=lots, flags=56 if is_deal else 6))
    return ticks


@dataclass
class Day:
    """What the broker had, and what came of it."""

    #: How the broker charts the symbol, and how we do.
    charted: ChartMode
    quotes: Quotes
    mode: ChartMode = "bid"
    ticks: list[Tick] = field(default_factory=list)
    bars: dict[int, BrokerBar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.mode = self.charted
        self.ticks = with_deals(self.quotes.ticks)
        minutes = groupby(self.ticks, lambda t: period_of(t.time_msc))
        bars = (self.bar_of(ts, list(ticks)) for ts, ticks in minutes)
        self.bars = {bar.ts: bar for bar in bars if bar is not None}
        if self.charted == "bid":
            for ts, (open_, high, low, close) in self.quotes.provider.items():
                self.bars[ts] = replace(self.bars[ts], open=open_, high=high, low=low, close=close)

    def of_minute(self, ts: int) -> list[int]:
        return [n for n, tick in enumerate(self.ticks) if period_of(tick.time_msc) == ts]

    def bar_of(self, ts: int, ticks: list[Tick]) -> BrokerBar | None:
        """MetaTrader's bar: by bid of all ticks, by last of the deals alone; none where there is nothing to chart."""
        deals = [tick for tick in ticks if tick.flags == 56]
        prices = [tick.bid for tick in ticks] if self.charted == "bid" else [tick.last for tick in deals]
        if not prices:
            return None
        return BrokerBar(
            source="S", symbol="EURUSD", timeframe="M1", ts=ts, open=prices[0], high=max(prices), low=min(prices),
            close=prices[-1], volume=len(prices), real_volume=sum(tick.volume for tick in deals),
            spread=min(round((tick.ask - tick.bid) / self.quotes.point) for tick in ticks), received=ts + 60_000,
        )  # fmt: skip

    def candles(self) -> list[Candle]:
        passes, folds = Passes(), dict[int, CandleFold]()
        # Requests of some ticks, never cut within a millisecond.
        cuts = [n for n in range(1, len(self.ticks)) if self.ticks[n].time_msc != self.ticks[n - 1].time_msc][::20]
        for offset, (begin, end) in enumerate(zip([0, *cuts], [*cuts, len(self.ticks)], strict=True)):
            frame = Frame(
                v=1, source="S", symbol="EURUSD", mode=self.mode, point=self.quotes.point,
                request=str(offset), received=self.ticks[0].time_msc, ticks=self.ticks[begin:end],
            )  # fmt: skip
            earliest, latest, minutes = split_by_period(frame)
            passes.enter(frame, earliest, latest)
            for minute, ticks in minutes:
                fold = folds.setdefault(minute, CandleFold("S", "EURUSD", minute))
                fold.add(offset, 0, passes, frame, ticks)
        made = [
            fold.candle(log="log", offsets=((0, 0, n),), closed=True, emitted=0)
            for n, fold in enumerate(folds.values())
        ]
        return [candle for candle in made if candle is not None]


def nothing(day: Day) -> None:
    """Live ticks carry bits that nobody documented."""
    day.ticks = [replace(tick, flags=tick.flags | 1152) for tick in day.ticks]


def zone_an_hour_off(day: Day) -> None:
    day.ticks = [replace(tick, time_msc=tick.time_msc + 3_600_000) for tick in day.ticks]


def open_bar_taken_as_closed(day: Day) -> None:
    at = day.of_minute(day.quotes.faulty)
    high = max(at, key=lambda n: day.ticks[n].bid)
    part = day.bar_of(day.quotes.faulty, [day.ticks[n] for n in at[: max(1, high - at[0])]])
    assert part is not None
    day.bars[day.quotes.faulty] = part


def deals_repeated_in_quotes(day: Day) -> None:
    day.ticks = [replace(tick, flags=0) for tick in day.ticks]


def no_volume_of_deals(day: Day) -> None:
    day.ticks = [replace(tick, volume=0.0) for tick in day.ticks]


def spread_as_price_difference(day: Day) -> None:
    day.bars = {ts: replace(bar, spread=0) for ts, bar in day.bars.items()}


def a_deal_of(day: Day) -> int:
    """One in the middle of the minute, neither its highest nor its lowest."""
    deals = [n for n in day.of_minute(day.quotes.faulty)[1:-1] if day.ticks[n].flags == 56]
    return sorted(deals, key=lambda n: day.ticks[n].last)[len(deals) // 2]


def a_lost_tick(day: Day) -> None:
    del day.ticks[a_deal_of(day)]


def a_doubled_tick(day: Day) -> None:
    at = a_deal_of(day)
    day.ticks.insert(at, day.ticks[at])


def quotes_counted_twice(day: Day) -> None:
    """Of a symbol charted by last they count nowhere."""
    day.ticks = [tick for each in day.ticks for tick in ([each] if each.flags == 56 else [each, each])]


def charted_by_bid(day: Day) -> None:
    day.mode = "bid"


def a_minute_without_ticks(day: Day) -> None:
    day.ticks = [tick for tick in day.ticks if period_of(tick.time_msc) != day.quotes.faulty]


def a_missing_bar(day: Day) -> None:
    del day.bars[day.quotes.faulty]


def bars_of_another_server(day: Day) -> None:
    point = day.quotes.point
    day.bars = {
        ts: replace(bar, open=bar.open + point, high=bar.high + point, low=bar.low + point, close=bar.close + point)
        for ts, bar in day.bars.items()
    }


ALL, ONE = "all", "one"


REAL = () if len(DAYS) == 1 else ("real EURUSD", "real USDJPY")


@pytest.mark.parametrize(
    "of", ["hours", *(pytest.param(name, marks=[pytest.mark.full, pytest.mark.long(30)]) for name in REAL)]
)
@pytest.mark.parametrize(
    ("charted", "fault", "expected"),
    [
        ("bid", nothing, None),
        ("bid", zone_an_hour_off, (Cause.CLOCK, ALL)),
        ("bid", open_bar_taken_as_closed, (Cause.OPEN_BAR, ONE)),
        ("bid", deals_repeated_in_quotes, (Cause.DEALS, ALL)),
        ("bid", no_volume_of_deals, (Cause.REAL_VOLUME, ALL)),
        ("bid", spread_as_price_difference, (Cause.SPREAD, ALL)),
        ("bid", a_lost_tick, (Cause.FEWER_TICKS, ONE)),
        ("bid", a_doubled_tick, (Cause.MORE_TICKS, ONE)),
        ("bid", a_minute_without_ticks, (Cause.NO_TICKS, ONE)),
        ("bid", a_missing_bar, (Cause.NO_BAR, ONE)),
        ("bid", bars_of_another_server, (Cause.PRICE, ALL)),
        ("last", nothing, None),
        ("last", quotes_counted_twice, None),
        ("last", charted_by_bid, (Cause.CHART, ALL)),
        ("last", deals_repeated_in_quotes, (Cause.DEALS, ALL)),
        ("last", a_lost_tick, (Cause.FEWER_TICKS, ONE)),
        ("last", a_doubled_tick, (Cause.MORE_TICKS, ONE)),
    ],
)
async def test_exactly_the_fault_is_named(
    connection: Connection,
    writer: Writer,
    *,
    charted: ChartMode,
    fault: Callable[[Day], None],
    expected: tuple[Cause, str] | None,
    of: str,
) -> None:
    # Arrange
    day = Day(charted, quotes(of))
    if fault is zone_an_hour_off and not day.quotes.is_long:
        return
    fault(day)
    await writer.write(connection, day.candles(), list(day.bars.values()))

    # Act
    found = diagnose(await different_minutes(connection, None, None, None))
    days = [row async for row in compared(connection, None, None, None, daily=True)][1:]

    # Assert
    half = len({period_of(tick.time_msc) for tick in day.ticks}) / 2
    assert sum(row[3] for row in days) > half  # minutes were compared
    cause, minutes = expected or (None, ONE)
    assert [each.cause for each in found] == ([] if cause is None else [cause])
    if found and minutes == ALL:
        assert len(found[0].minutes) > half
    elif found:
        assert found[0].minutes == [datetime.fromtimestamp(day.quotes.faulty / 1000, UTC)]
    if cause is Cause.CLOCK:
        assert found[0].ahead == timedelta(hours=1)
        assert "1:00 h later" in str(found[0])
