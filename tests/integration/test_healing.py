"""Holes are healed: a scripted terminal with the whole history fills what a pipeline that missed parts asks for."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import httpx
import psycopg
import pytest

from marketdata.contract.http import FILLS_ROUTE, TICKS_ROUTE
from marketdata.minutes import Range, intersect, union
from marketdata.tick import MINUTE_MS
from runtime import clock
from runtime.settings import Settings
from sink.db.schema import migrate
from sink.db.session import database_conninfo, open_session
from sink.gaps import minute_states
from sink.ledger import LedgerKeeper, close
from tests.conftest import API_KEY
from tests.integration.sink.flow import RunningSink
from tests.services import running
from tests.waiting import PATIENCE_SECONDS, eventually

pytestmark = pytest.mark.long(60)

SOURCE = "Broker"
DAY_MS, HOUR_MS = 86_400_000, 3_600_000

#: The market's day: an hour's pause, in which nothing is quoted (minutes of the UTC day).
PAUSE = (21 * 60, 22 * 60)

#: time_msc, bid.
Tick = tuple[int, float]

#: Open, high, low, close, ticks.
Row = tuple[float, float, float, float, int]


@dataclass
class Terminal:
    """All ticks of a broker, and the parts that the pipeline never got."""

    symbols: list[str]
    begin_ms: int
    end_ms: int
    chance: random.Random
    #: When nobody trades, though the broker quotes: a holiday.
    holiday: Range = (0, 0)
    ticks: dict[str, list[Tick]] = field(default_factory=dict)
    holes: dict[str, list[Range]] = field(default_factory=lambda: defaultdict(list))
    #: Reports by symbol: the ranges that were filled.
    filled: dict[str, list[Range]] = field(default_factory=lambda: defaultdict(list))

    def trade(self) -> None:
        """Make the history: two ticks a minute, and a minute in fifty without any."""
        for number, symbol in enumerate(self.symbols):
            price, found = 1.0 + number, []
            for minute in range(self.begin_ms, self.end_ms, MINUTE_MS):
                if self.is_closed(minute) or self.chance.random() < 0.02:
                    continue
                for at in sorted(self.chance.sample(range(MINUTE_MS), 2)):
                    price = round(price + self.chance.choice((-1, 1)) * 0.0001, 4)
                    found.append((minute + at, price))
            self.ticks[symbol] = found

    def is_closed(self, minute: int) -> bool:
        of_day = minute % DAY_MS // MINUTE_MS
        return PAUSE[0] <= of_day < PAUSE[1] or self.holiday[0] <= minute < self.holiday[1]

    def lose(self, holes: int) -> None:
        """Outages of one symbol, of all of them, of seconds to half a day, begun and ended within minutes."""
        for _ in range(holes):
            length = self.chance.choice((3, 5, 20, 90, 400)) * MINUTE_MS + self.chance.randrange(MINUTE_MS)
            first = self.chance.randrange(self.begin_ms + HOUR_MS, self.end_ms - HOUR_MS)
            of = self.symbols if self.chance.random() < 0.2 else [self.chance.choice(self.symbols)]
            for symbol in of:
                self.holes[symbol].append((first, min(first + length, self.end_ms - HOUR_MS // 2)))

    def live(self) -> Iterator[tuple[str, list[Tick]]]:
        """What the pipeline gets: the ticks beside the holes."""
        for symbol, ticks in self.ticks.items():
            lost = union(self.holes[symbol])
            yield symbol, [tick for tick in ticks if not intersect([(tick[0], tick[0] + 1)], lost)]

    def within(self, symbol: str, range_: Range) -> list[Tick]:
        """CopyTicksRange."""
        return [tick for tick in self.ticks[symbol] if range_[0] <= tick[0] < range_[1]]

    def rows(self, symbol: str) -> dict[int, Row]:
        """The naive fold of the whole history."""
        minutes: dict[int, list[float]] = defaultdict(list)
        for at, bid in self.ticks[symbol]:
            minutes[at // MINUTE_MS * MINUTE_MS].append(bid)
        return {ts: (bids[0], max(bids), min(bids), bids[-1], len(bids)) for ts, bids in minutes.items()}


class Sender:
    """An EA that can fill, as far as the contract tells it what to do."""

    def __init__(self, terminal: Terminal, url: str) -> None:
        self._terminal = terminal
        self._http = httpx.AsyncClient(
            base_url=url, headers={"X-API-Key": API_KEY, "X-Source": SOURCE}, timeout=PATIENCE_SECONDS
        )

    async def post(self, symbol: str, ticks: Sequence[Tick], **headers: str) -> None:
        for start in range(0, len(ticks), 500):
            items = [
                {"symbol": symbol, "time_msc": at, "bid": bid, "ask": bid + 0.0001, "flags": 6}
                for at, bid in ticks[start : start + 500]
            ]
            answer = await self._http.post(TICKS_ROUTE, json={"ticks": items}, headers=headers)
            assert answer.status_code == 200, answer.text

    async def report(self, body: object) -> None:
        answer = await self._http.post(FILLS_ROUTE, json=body)
        assert answer.status_code == 200, answer.text

    async def sessions(self) -> None:
        """Tell when the broker quotes."""
        of_day = ((0, PAUSE[0]), (PAUSE[1], 1440))
        await self.report({
            "utc_offset_s": 0,
            "sessions": [
                {"symbol": symbol, "day": day, "from": begin, "to": end}
                for symbol in self._terminal.symbols for day in range(7) for begin, end in of_day
            ],
        })  # fmt: skip

    async def fill(self) -> int:
        """Ask once, and fill what is wanted; how many ranges."""
        answer = await self._http.post(TICKS_ROUTE, json={"ticks": []}, headers={"X-Can-Fill": "ticks"})
        wanted = answer.json().get("wanted", [])
        reports = []
        for one in wanted:
            range_ = (one["from"], one["to"])
            assert 0 < range_[1] - range_[0] <= HOUR_MS
            ticks = self._terminal.within(one["symbol"], range_)
            await self.post(one["symbol"], ticks, **{"X-Fill": "ticks"})
            reports.append({**one, "ticks": len(ticks)})
            self._terminal.filled[one["symbol"]].append(range_)
        if reports:
            await self.report({"fills": reports})
        return len(wanted)


@contextmanager
def quick_sink() -> Iterator[pytest.MonkeyPatch]:
    """The sink's tasks do not wait for what may still come."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LedgerKeeper, "interval_seconds", 0.3)
        yield patch


def stored(settings: Settings, symbol: str) -> dict[int, Row]:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        found = connection.execute(
            "SELECT (extract(epoch FROM ts) * 1000)::bigint, open, high, low, close, volume FROM market_data"
            " WHERE symbol = %s AND timeframe = 'M1' AND origin = 'ticks'",
            [symbol],
        ).fetchall()
    return {ts: (open_, high, low, close_, volume) for ts, open_, high, low, close_, volume in found}


def deadlocks(settings: Settings) -> int:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        [(count,)] = connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchall()
    return int(count)


def whole(terminal: Terminal, symbol: str) -> dict[int, Row]:
    """The minutes of which no tick was lost, by the fold of the whole history."""
    lost = union(terminal.holes[symbol])
    return {ts: row for ts, row in terminal.rows(symbol).items() if not intersect([(ts, ts + MINUTE_MS)], lost)}


@pytest.mark.parametrize(
    ("symbols", "days", "holes"), [(3, 1, 8), pytest.param(10, 3, 200, marks=pytest.mark.full)], ids=["few", "200"]
)
async def test_holes_are_healed_and_every_minute_is_named_rightly(
    settings: Settings, symbols: int, days: int, holes: int
) -> None:
    settings = settings.model_copy(update={"ledger_days": 8})
    end_ms = clock.now_ms() // HOUR_MS * HOUR_MS - HOUR_MS
    begin_ms = end_ms - days * DAY_MS
    chance = random.Random(holes)
    names = [f"SYM{number}" for number in range(symbols)]
    # A holiday of which the broker's sessions say nothing, and one that the user knows of.
    noon = (begin_ms + DAY_MS // 2) // HOUR_MS * HOUR_MS
    terminal = Terminal(names, begin_ms, end_ms, chance, holiday=(noon, noon + 4 * HOUR_MS))
    terminal.trade()
    terminal.lose(holes)
    await migrate(database_conninfo(settings))
    with running(settings, "producer", "stream_app") as (producer, _), quick_sink():
        async with RunningSink(settings):
            sender = Sender(terminal, producer.url)
            await sender.sessions()
            for symbol, ticks in terminal.live():
                await sender.post(symbol, ticks)

            async def are_there() -> bool:
                return all(stored(settings, name).items() >= whole(terminal, name).items() for name in names)

            await eventually(are_there, what="the minutes that were not lost", within_seconds=400)
            before = {name: stored(settings, name) for name in names}
            async with await open_session(database_conninfo(settings), "test") as connection:
                holiday = [datetime.fromtimestamp(ms / 1000, UTC) for ms in terminal.holiday]
                await close(connection, (names[0], SOURCE), holiday[0], holiday[1])

            async def is_asked() -> bool:
                return await sender.fill() > 0

            await eventually(is_asked, what="a range that is wanted")

            async def is_healed() -> bool:
                asked = await sender.fill()
                return not asked and all(stored(settings, name) == terminal.rows(name) for name in names)

            await eventually(is_healed, what="the fold of the whole history", within_seconds=400)

            # What the broker never had may still be asked for, but nothing a second time.
            async def is_quiet() -> bool:
                await asyncio.sleep(1)
                return await sender.fill() == 0

            await eventually(is_quiet, what="an answer that asks for nothing")
            for ranges in terminal.filled.values():
                assert sum(last - first for first, last in ranges) == sum(
                    last - first for first, last in union(ranges)
                ), "asked for twice"

    assert deadlocks(settings) == 0
    for name in names:
        assert {ts: before[name][ts] for ts in whole(terminal, name)} == whole(terminal, name)
        await check_ledger(settings, terminal, name, is_holiday_known=name == names[0])


async def check_ledger(settings: Settings, terminal: Terminal, name: str, *, is_holiday_known: bool) -> None:
    """Hold the state of each minute against what the terminal knows."""
    rows = terminal.rows(name)
    first = min(rows)
    span = [datetime.fromtimestamp(ms / 1000, UTC) for ms in (first, terminal.end_ms)]
    async with await open_session(database_conninfo(settings), "test") as connection:
        states = await minute_states(connection, (name, SOURCE), span[0], span[1], {})
    assert all(before[1] == after[0] for before, after in pairwise(states))
    assert (states[0][0], states[-1][1]) == tuple(span)
    for begins, ends, state in states:
        minute = begins
        while minute < ends:
            ts = round(minute.timestamp() * 1000)
            of_day = ts % DAY_MS // MINUTE_MS
            if ts in rows:
                expected = {"ticks"}
            elif PAUSE[0] <= of_day < PAUSE[1] or (is_holiday_known and terminal.is_closed(ts)):
                expected = {"closed"}
            elif terminal.is_closed(ts):
                expected = {"none"}
            else:
                # A minute alone without a tick is what happens; longer silences were asked for.
                expected = {"none", "quiet"} if ends - begins <= timedelta(minutes=2) else {"none"}
            assert state in expected, (name, minute, state, expected)
            minute += timedelta(minutes=1)
