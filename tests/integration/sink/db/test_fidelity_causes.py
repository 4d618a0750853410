"""With a single fault in what came, the comparison with the broker's bars names it, and nothing else."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby, takewhile

import pytest
from msgspec.structs import replace

from marketdata.candle import BrokerBar, Candle
from marketdata.fold import CandleFold, split_by_period
from marketdata.resends import Passes
from marketdata.tick import ChartMode, Frame, Tick, period_of
from sink.db.connection import Connection
from sink.queries import compared, different_minutes
from sink.writer import Writer
from tests.generated_day import START_MS, quotes
from tests.integration.sink.db.editions import database_on
from tests.servers import EmbeddedServers
from tickpipe.fidelity import Cause, diagnose

#: Of the generated day: a clock that is an hour off needs more than two hours to be seen.
HOURS = 3
POINT = 0.00001
#: A minute in the middle, with many quotes.
FAULTY = START_MS + 90 * 60_000


@pytest.fixture
def database(servers: EmbeddedServers) -> Iterator[str]:
    """Of one edition: the comparison itself is held to be the same on both elsewhere."""
    with database_on(servers.database_url) as url:
        yield url


def true_ticks() -> list[Tick]:
    """Quotes of which each third is a deal, whose price and volume the next ones repeat, as MetaTrader writes them."""
    end = START_MS + HOURS * 3_600_000
    dice = random.Random(1)
    ticks, last, lots = [], 0.0, 0.0
    for n, (msc, bid, ask) in enumerate(takewhile(lambda quote: quote[0] < end, quotes())):
        is_deal = n % 3 == 0
        if is_deal:
            last, lots = ask * POINT, dice.randrange(1, 9) / 4
        ticks.append(Tick(msc, bid * POINT, ask * POINT, last, lots, 56 if is_deal else 6))
    return ticks


@dataclass
class Day:
    """What the broker had, and what came of it."""

    #: How the broker charts the symbol, and how we do.
    charted: ChartMode
    mode: ChartMode = "bid"
    ticks: list[Tick] = field(default_factory=true_ticks)
    bars: dict[int, BrokerBar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.mode = self.charted
        minutes = groupby(self.ticks, lambda t: period_of(t.time_msc))
        bars = (bar_of(ts, list(ticks), self.charted) for ts, ticks in minutes)
        self.bars = {bar.ts: bar for bar in bars if bar is not None}

    def of_minute(self, ts: int) -> list[int]:
        return [n for n, tick in enumerate(self.ticks) if period_of(tick.time_msc) == ts]

    def candles(self) -> list[Candle]:
        passes, folds = Passes(), dict[int, CandleFold]()
        # Requests of some ticks, never cut within a millisecond.
        cuts = [n for n in range(1, len(self.ticks)) if self.ticks[n].time_msc != self.ticks[n - 1].time_msc][::20]
        for offset, (begin, end) in enumerate(zip([0, *cuts], [*cuts, len(self.ticks)], strict=True)):
            frame = Frame(
                v=1, source="S", symbol="EURUSD", mode=self.mode, point=POINT,
                request=str(offset), received=START_MS, ticks=self.ticks[begin:end],
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


def bar_of(ts: int, ticks: list[Tick], charted: ChartMode) -> BrokerBar | None:
    """MetaTrader's bar: by bid of all ticks, by last of the deals alone; none where there is nothing to chart."""
    prices = [tick.bid for tick in ticks] if charted == "bid" else [tick.last for tick in ticks if tick.flags == 56]
    if not prices:
        return None
    return BrokerBar(
        source="S", symbol="EURUSD", timeframe="M1", ts=ts, open=prices[0], high=max(prices), low=min(prices),
        close=prices[-1], volume=len(prices), real_volume=sum(tick.volume for tick in ticks if tick.flags == 56),
        spread=min(round((tick.ask - tick.bid) / POINT) for tick in ticks), received=ts + 60_000,
    )  # fmt: skip


def nothing(day: Day) -> None:
    """Live ticks carry bits that nobody documented."""
    day.ticks = [replace(tick, flags=tick.flags | 1152) for tick in day.ticks]


def zone_an_hour_off(day: Day) -> None:
    day.ticks = [replace(tick, time_msc=tick.time_msc + 3_600_000) for tick in day.ticks]


def open_bar_taken_as_closed(day: Day) -> None:
    at = day.of_minute(FAULTY)
    high = max(at, key=lambda n: day.ticks[n].bid)
    part = bar_of(FAULTY, [day.ticks[n] for n in at[: max(1, high - at[0])]], day.charted)
    assert part is not None
    day.bars[FAULTY] = part


def deals_repeated_in_quotes(day: Day) -> None:
    day.ticks = [replace(tick, flags=0) for tick in day.ticks]


def no_volume_of_deals(day: Day) -> None:
    day.ticks = [replace(tick, volume=0.0) for tick in day.ticks]


def spread_as_price_difference(day: Day) -> None:
    day.bars = {ts: replace(bar, spread=0) for ts, bar in day.bars.items()}


def a_deal_of(day: Day) -> int:
    """One in the middle of the minute, neither its highest nor its lowest."""
    deals = [n for n in day.of_minute(FAULTY)[1:-1] if day.ticks[n].flags == 56]
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
    day.ticks = [tick for tick in day.ticks if period_of(tick.time_msc) != FAULTY]


def a_missing_bar(day: Day) -> None:
    del day.bars[FAULTY]


def bars_of_another_server(day: Day) -> None:
    day.bars = {
        ts: replace(bar, open=bar.open + POINT, high=bar.high + POINT, low=bar.low + POINT, close=bar.close + POINT)
        for ts, bar in day.bars.items()
    }


ALL = None
ONE = [datetime.fromtimestamp(FAULTY / 1000, UTC)]


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
    charted: ChartMode,
    fault: Callable[[Day], None],
    expected: tuple[Cause, list[datetime] | None] | None,
) -> None:
    # Arrange
    day = Day(charted)
    fault(day)
    await writer.write(connection, day.candles(), list(day.bars.values()))

    # Act
    found = diagnose(await different_minutes(connection, None, None, None))
    days = [row async for row in compared(connection, None, None, None, daily=True)][1:]

    # Assert
    assert sum(day[3] for day in days) > 100  # minutes were compared
    cause, minutes = expected or (None, [])
    assert [each.cause for each in found] == ([] if cause is None else [cause])
    if minutes is ALL:
        assert len(found[0].minutes) > 100
    elif found:
        assert found[0].minutes == minutes
    if cause is Cause.CLOCK:
        assert found[0].ahead == timedelta(hours=1)
        assert "1:00 h later" in str(found[0])
