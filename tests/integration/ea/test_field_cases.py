"""Ticks as brokers really quote them, from the EA through the real producer: the candles have the right values."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
import pytest

from marketdata.candle import BrokerBar, Candle
from marketdata.fold import CandleFold, split_by_period
from marketdata.resends import Passes
from marketdata.tick import Frame, Tick
from marketdata.wire import decode_bar, decode_frame
from runtime.settings import Settings
from tests.conftest import API_KEY, own_settings
from tests.finished_topics import finish_topics
from tests.integration.ea.conftest import StartTerminal
from tests.integration.ea.terminal import Terminal
from tests.kafka_log import read_records
from tests.servers import EmbeddedServers
from tests.services import Service, running

pytestmark = pytest.mark.long(8)

#: Input `Clock`: the offset that the terminal knows, or the zone that the server knows of the source.
THIS_TERMINAL, SERVER = 0, 1

#: What most brokers run: two or three hours ahead of UTC, with the dates of the United States.
NEW_YORK: Final = "America/New_York+07:00"


class Site(NamedTuple):
    producer: Service
    settings: Settings


@pytest.fixture(scope="module")
def site(servers: EmbeddedServers) -> Iterator[Site]:
    """A producer that knows the zones of two brokers."""
    zones = {"New-York-Close": NEW_YORK, "Athens": "Europe/Athens"}
    settings = own_settings(servers, "fieldcases", source_zones=zones)
    with running(settings, "producer") as (producer,):
        yield Site(producer, settings)
    finish_topics(settings)


class Desk(NamedTuple):
    """A terminal at a broker, and what came of its ticks."""

    terminal: Terminal
    site: Site
    source: str

    async def frames(self, symbol: str) -> list[Frame]:
        records = await read_records(self.site.settings, self.site.settings.ticks_topic)
        frames = [decode_frame(record.value) for record in records]
        return [frame for frame in frames if (frame.source, frame.symbol) == (self.source, symbol)]

    async def ticks(self, symbol: str) -> list[Tick]:
        return [tick for frame in await self.frames(symbol) for tick in frame.ticks]

    async def candles(self, symbol: str) -> dict[str, Candle]:
        """The candles of a symbol by their time in UTC."""
        passes, folds = Passes(), dict[int, CandleFold]()
        for offset, frame in enumerate(await self.frames(symbol)):
            earliest, latest, minutes = split_by_period(frame)
            passes.enter(frame, earliest, latest)
            for minute, ticks in minutes:
                fold = folds.setdefault(minute, CandleFold(self.source, symbol, minute))
                fold.add(offset, 0, passes, frame, ticks)
        made = [fold.candle(log="log", offsets=(), closed=True, emitted=0) for fold in folds.values()]
        return {clock_of(candle.ts): candle for candle in made if candle is not None}

    async def bars(self, symbol: str) -> dict[str, BrokerBar]:
        records = await read_records(self.site.settings, self.site.settings.broker_candles_topic)
        bars = [decode_bar(record.value) for record in records]
        return {clock_of(bar.ts): bar for bar in bars if (bar.source, bar.symbol) == (self.source, symbol)}


def clock_of(ms: int) -> str:
    """`18:08`."""
    return f"{ms // 3_600_000 % 24:02d}:{ms // 60_000 % 60:02d}"


def desk(start_terminal: StartTerminal, site: Site, source: str, **inputs: object) -> Desk:
    terminal = start_terminal()
    terminal("server", source)
    terminal("allow", site.producer.url)
    terminal.inputs(**{"RelayUrl": site.producer.url, "ApiKey": API_KEY, "Source": "auto"} | inputs)
    return Desk(terminal, site, source)


def prices(candle: Candle | BrokerBar) -> tuple[float, ...]:
    return candle.open, candle.high, candle.low, candle.close, candle.volume


def utc(text: str) -> int:
    """Epoch milliseconds of `2020-04-20T18:07:58.100`, read as UTC."""
    return round(msgspec.convert(f"{text}Z", type=datetime).timestamp() * 1000)


def play(terminal: Terminal, symbol: str, ticks: list[Tick], *, seconds: float = 70) -> None:
    """Let the broker quote; a bar is closed for the terminal when a later tick has begun the next."""
    terminal.ticks(symbol, ticks)
    terminal.start(ticks[0].time_msc - 10_000)
    terminal.run((ticks[-1].time_msc - ticks[0].time_msc) / 1000 + seconds, step_ms=1_000)


async def test_a_day_of_negative_prices(start_terminal: StartTerminal, site: Site) -> None:
    # Arrange: 20 April 2020, and one quote whose bid is 0, which is none
    at = desk(start_terminal, site, "Negative")
    at.terminal.symbol("USOIL", digits=2, point=0.01)
    quoted = [
        ("18:07:58.100", 0.05, 0.12), ("18:08:02.300", -0.02, 0.05), ("18:08:30.000", -1.43, -1.30),
        ("18:08:45.000", 0.10, 0.20), ("18:29:01.000", -37.63, -37.40), ("18:29:40.000", -40.32, -40.00),
        ("18:30:01.000", -39.00, -38.77),
    ]  # fmt: skip

    # Act
    play(at.terminal, "USOIL", [Tick(utc(f"2020-04-20T{t}"), bid, ask, 0.0, 0.0, 6) for t, bid, ask in quoted])

    # Assert
    candles, bars = await at.candles("USOIL"), await at.bars("USOIL")
    assert prices(candles["18:08"]) == prices(bars["18:08"]) == (-0.02, 0.10, -1.43, 0.10, 3)
    assert prices(candles["18:29"]) == prices(bars["18:29"]) == (-37.63, -37.63, -40.32, -40.32, 2)
    assert {candle.spread for candle in candles.values()} == {7, 23}


async def test_a_future_charted_by_its_deals(start_terminal: StartTerminal, site: Site) -> None:
    # Arrange: as MqlTick is documented, each quote repeats the last deal's price and volume
    at = desk(start_terminal, site, "Futures")
    at.terminal.symbol("WINV26", digits=0, point=1.0, mode="last")
    quoted = [
        ("09:00:32.665", 156750, 156755, 156755, 10, 56), ("09:00:32.700", 156745, 156755, 156755, 10, 2),
        ("09:00:32.900", 156745, 156750, 156755, 10, 4), ("09:00:40.000", 156740, 156750, 156755, 10, 6),
        ("09:00:59.000", 156740, 156750, 156760, 5, 56), ("09:01:00.100", 156735, 156750, 156760, 5, 2),
        ("09:01:20.000", 156735, 156750, 156700, 3, 88), ("09:02:10.000", 156700, 156710, 156700, 3, 6),
        ("09:03:00.000", 156700, 156710, 156710, 1, 56),
    ]  # fmt: skip

    # Act
    play(
        at.terminal,
        "WINV26",
        [Tick(utc(f"2026-08-12T{t}"), bid, ask, last, lots, flags) for t, bid, ask, last, lots, flags in quoted],
    )

    # Assert: 15, 3 and 0 of real volume, as the broker's bars have it
    candles, bars = await at.candles("WINV26"), await at.bars("WINV26")
    assert sorted(candles) == ["09:00", "09:01", "09:03"]
    for minute, expected in (("09:00", (156755, 156760, 156755, 156760)), ("09:01", (156700,) * 4)):
        assert prices(candles[minute])[:4] == prices(bars[minute])[:4] == expected
    assert [(candles[m].volume, bars[m].volume) for m in ("09:00", "09:01")] == [(2, 2), (1, 1)]
    assert [(candles[m].real_volume, bars[m].real_volume) for m in ("09:00", "09:01")] == [(15, 15), (3, 3)]
    assert [(candles[m].spread, bars[m].spread) for m in ("09:00", "09:01")] == [(5, 5), (15, 15)]


async def test_fractions_of_volume_and_spreads_by_the_digits_of_the_symbol(
    start_terminal: StartTerminal, site: Site
) -> None:
    at = desk(start_terminal, site, "Fractions")
    at.terminal.symbol("BTCUSD", digits=2, point=0.01)
    at.terminal.symbol("US30", digits=2, point=0.01)
    begin = utc("2026-02-16T19:00:00.083")
    deals = [(67849.69, 67855.0, 0.25), (67849.70, 67856.0, 1.5), (67849.70, 67856.0, 0.4)]
    at.terminal.ticks(
        "US30", [Tick(begin + k * 1_000, 49_500.0 + k, 49_502.0 + k, 0.0, 0.0, 6) for k in range(4)]
    )  # fmt: skip

    play(
        at.terminal, "BTCUSD",
        [Tick(begin + k * 100, bid, bid + 12, last, volume, 24) for k, (bid, last, volume) in enumerate(deals)],
    )  # fmt: skip

    (bitcoin,), (index,) = (await at.candles("BTCUSD")).values(), (await at.candles("US30")).values()
    assert bitcoin.real_volume == pytest.approx(2.15, abs=1e-12)
    assert (bitcoin.spread, index.spread) == (1_200, 200)
    assert prices(index) == (49_500, 49_503, 49_500, 49_503, 4)


ODD_QUOTES = [
    ("PEPEUSD", 10, 1e-10, 0.0000081234, 0.0000081244),
    ("BTCUSD.8", 8, 1e-8, 113000.12345678, 113010.12345678),
    ("CROSS", 0, 1.0, 250_000.0, 156_755.0),
    ("ASK.ONLY", 4, 0.0001, 0.0, 1.1653),
    ("BID.ONLY", 4, 0.0001, 1.1651, 0.0),
    ("NEITHER", 4, 0.0001, 0.0, 0.0),
    ("LARGE", 2, 0.01, 1e15, 1e15),
]
NAMES = [
    "EURUSD.a", "#AAPL", "XAUUSD+", "BTC/USD", "[SP500]", "WIN$N", "@ES", "_CrudeOilUS_Z0", "Volatility 75 (1s) Index",
    "Volatility Switch High Vol Index", "EURUSD*", "US30,c", "SP500|m", "BRK.B?", "[b]", "[/]", "EURUSD.£", "Газпром",
    'say "x"', "back\\slash", "Ж" * 32,
]  # fmt: skip


async def test_every_name_and_every_number_arrives_as_the_terminal_has_it(
    start_terminal: StartTerminal, site: Site
) -> None:
    at = desk(start_terminal, site, "Names", SendBars=False)
    begin = utc("2025-10-20T02:20:00.417")
    quotes = {symbol: Tick(begin, bid, ask, 0.0, 0.0, 6) for symbol, _, _, bid, ask in ODD_QUOTES}
    quotes |= {name: Tick(begin, 1.5, 1.6, 0.0, 0.0, 1158) for name in NAMES}
    facts = {symbol: (digits, point) for symbol, digits, point, _, _ in ODD_QUOTES}
    for symbol, quote in quotes.items():
        digits, point = facts.get(symbol, (1, 0.1))
        at.terminal.symbol(symbol, digits=digits, point=point)
        at.terminal.ticks(symbol, [quote])

    at.terminal.start(begin - 10_000)
    at.terminal.run(30)

    records = await read_records(site.settings, site.settings.ticks_topic)
    frames = [frame for record in records if (frame := decode_frame(record.value)).source == at.source]
    assert {frame.symbol: frame.ticks for frame in frames} == {symbol: [tick] for symbol, tick in quotes.items()}
    assert {f.symbol: f.point for f in frames} == {s: facts.get(s, (1, 0.1))[1] for s in quotes}


async def test_the_clock_of_a_broker_with_the_dates_of_the_united_states(
    start_terminal: StartTerminal, site: Site
) -> None:
    # Arrange: the clock goes on on 10 March, three weeks before Europe's
    at = desk(start_terminal, site, "New-York-Close", SendBars=False, Clock=SERVER)
    at.terminal.symbol("EURUSD")
    wall = ["2019-03-08T23:58:30.100", "2019-03-15T23:58:30.100", "2019-03-18T00:05:00.200", "2019-04-01T00:05:00.200"]
    right = ["2019-03-08T21:58:30.100", "2019-03-15T20:58:30.100", "2019-03-17T21:05:00.200", "2019-03-31T21:05:00.200"]
    at.terminal.ticks("EURUSD", [Tick(utc(text), 1.1, 1.2, 0.0, 0.0, 6) for text in wall])

    # Act
    at.terminal("offset", 7_200)
    at.terminal.start(utc(right[0]) - 10_000)
    at.terminal.run(1)
    for text, shown in zip(right, wall, strict=True):
        at.terminal("offset", (utc(shown) - utc(text)) // 1000)
        at.terminal("now", utc(text))
        # After a pause two readings must agree.
        at.terminal.run(6)

    # Assert
    assert [tick.time_msc for tick in await at.ticks("EURUSD")] == [utc(text) for text in right]


async def test_the_hour_that_a_clock_shows_twice(start_terminal: StartTerminal, site: Site) -> None:
    # Arrange: history that the EA reads at its first start, in the terminal's order
    at = desk(start_terminal, site, "Athens", SendBars=False, Clock=SERVER, FirstHours=4)
    at.terminal.symbol("BTCUSD", digits=2, point=0.01)
    at.terminal("offset", 7_200)
    wall = [
        ("02:59:30", 113_000.0), ("03:10:05", 113_100.0), ("03:10:45", 113_200.0), ("03:59:59", 113_300.0),
        ("03:10:07", 111_000.0), ("03:10:40", 111_100.0), ("04:00:01", 111_200.0),
    ]  # fmt: skip
    ticks = [Tick(utc(f"2025-10-26T{text}"), bid, bid + 10, 0.0, 0.0, 6) for text, bid in wall]
    at.terminal.ticks("BTCUSD", ticks)

    # Act
    at.terminal.start(utc("2025-10-26T02:10:00"))
    at.terminal.run(5)

    # Assert
    candles = await at.candles("BTCUSD")
    assert prices(candles["00:10"]) == (113_100, 113_200, 113_100, 113_200, 2)
    assert prices(candles["01:10"]) == (111_000, 111_100, 111_000, 111_100, 2)
    assert sorted(candles) == ["00:10", "00:59", "01:10", "02:00", "23:59"]
