"""The ledger of minutes: what senders report, what the user enters, and what is known of each minute then."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from aiokafka import TopicPartition
from msgspec import convert
from prometheus_client import CollectorRegistry

from marketdata.wire import Fill, QuoteSessions, Report, candle_key, decode_wanted, encode, frame_key
from runtime.kafka import SharedAdmin, new_producer
from runtime.settings import Settings
from runtime.topics import wait_for_kafka
from sink.db.connection import Connection, Database, connect
from sink.db.session import database_conninfo
from sink.gaps import Gap, State, find_gaps, minute_states
from sink.ledger import LedgerKeeper, apply_reports, close, reopen
from sink.metrics import Metrics
from sink.stored_until import StoredUntil
from sink.times import time_msc
from tests.integration.sink.flow import RunningSink, value
from tests.kafka_log import read_records
from tests.unit.sink.candles import candle
from tests.waiting import eventually

#: A Monday.
T = datetime(2024, 3, 4, 10, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SERIES = ("EURUSD", "S")


async def trade(connection: Connection, *minutes: int, start: datetime = T, symbol: str = "EURUSD") -> None:
    """Candles of minutes after the start."""
    async with connection.cursor() as cursor:
        await cursor.executemany(
            b"INSERT INTO market_data (ts, symbol, timeframe, open, high, low, close, volume, source, origin, closed,"
            b" first_tick, last_tick, log, offsets) VALUES (%s, %s, 'M1', 1, 1, 1, 1, 3, 'S', 'ticks', true,"
            b" %s, %s, 'log', '{[0,1)}')",
            [[at, symbol, at, at] for at in (start + minute * MINUTE for minute in minutes)],
        )


def fill(first: int, end: int, ticks: int | None = None, error: str = "", after: int = 60) -> Report:
    return Fill(
        source="S", symbol="EURUSD", from_ms=time_msc(T + first * MINUTE), to_ms=time_msc(T + end * MINUTE),
        ticks=ticks, error=error, received=time_msc(T + after * MINUTE),
    )  # fmt: skip


async def states(connection: Connection, first: int, end: int) -> list[tuple[int, int, str]]:
    found = await minute_states(connection, SERIES, T + first * MINUTE, T + end * MINUTE, {})
    return [((begins - T) // MINUTE, (ends - T) // MINUTE, state) for begins, ends, state in found]


async def gaps(connection: Connection, first: int, end: int) -> list[Gap]:
    return await find_gaps(connection, T + first * MINUTE, T + end * MINUTE, least=2)


@pytest.fixture
async def traded(connection: Connection) -> Connection:
    """Two hours of candles, without those of 20 minutes in the second hour."""
    await connection.execute(b"TRUNCATE minute_ledger, quote_sessions")
    await trade(connection, *range(80), *range(100, 120))
    return connection


async def test_a_fill_says_of_all_its_minutes_that_the_broker_had_no_more(traded: Connection) -> None:
    await apply_reports(traded, [fill(85, 90, ticks=0), fill(78, 86, ticks=4), fill(78, 86, ticks=4)])

    assert await states(traded, 75, 105) == [
        (75, 80, "ticks"),
        (80, 90, "none"),
        (90, 100, "quiet"),
        (100, 105, "ticks"),
    ]
    assert [(gap.state, (gap.begins - T) // MINUTE) for gap in await gaps(traded, 70, 110)] == [
        (State.NONE, 80), (State.UNKNOWN, 90)
    ]  # fmt: skip


async def test_what_could_not_be_filled_says_why_until_it_is(traded: Connection) -> None:
    await traded.execute(
        b"INSERT INTO minute_ledger (source, symbol, state, begins, ends, expected)"
        b" VALUES ('S', 'EURUSD', 'wanted', %s, %s, 20)",
        [T + 80 * MINUTE, T + 100 * MINUTE],
    )

    await apply_reports(traded, [fill(79, 90, error="4401")])
    assert await states(traded, 80, 100) == [(80, 90, "failed"), (90, 100, "wanted")]
    assert [(gap.state, gap.error) for gap in await gaps(traded, 70, 110)] == [
        (State.FAILED, "4401"), (State.UNKNOWN, None)
    ]  # fmt: skip

    await apply_reports(traded, [fill(79, 101, ticks=7), fill(79, 90, error="late")])
    assert await states(traded, 80, 100) == [(80, 100, "none")]


async def test_what_the_user_closes_is_not_missing_until_it_is_reopened(traded: Connection) -> None:
    await close(traded, SERIES, T + 80 * MINUTE, T + 95 * MINUTE)
    await close(traded, SERIES, T + 90 * MINUTE, T + 100 * MINUTE)
    assert await states(traded, 79, 101) == [(79, 80, "ticks"), (80, 100, "closed"), (100, 101, "ticks")]

    await reopen(traded, SERIES, T + 84 * MINUTE, T + 88 * MINUTE)
    assert await states(traded, 80, 100) == [(80, 84, "closed"), (84, 88, "quiet"), (88, 100, "closed")]


async def test_outside_of_the_sessions_nothing_is_missing(traded: Connection) -> None:
    # Monday by a clock that is an hour ahead: closed from 11:20 to 11:30 UTC.
    def sessions(until: int, received: int) -> Report:
        of_day = [(1, 0, until), (1, 12 * 60 + 30, 1440)]
        return QuoteSessions(source="S", symbol="EURUSD", utc_offset_s=3600, sessions=of_day, received=received)

    newer, older = sessions(12 * 60 + 20, 1_709_546_400_001), sessions(0, 1_709_546_400_000)
    await apply_reports(traded, [newer])
    await apply_reports(traded, [older])

    assert await states(traded, 79, 101) == [
        (79, 80, "ticks"), (80, 90, "closed"), (90, 100, "quiet"), (100, 101, "ticks")
    ]  # fmt: skip
    found = await gaps(traded, 70, 110)
    assert [(gap.state, gap.minutes > 0) for gap in found] == [(State.CLOSED, False), (State.UNKNOWN, True)]


async def test_reports_and_the_user_wait_for_each_other_in_turn(traded: Connection, url: str) -> None:
    """Both enter the same rows in other orders: by rows one of them would be broken off, with its batch of candles."""
    others = [fill(first, first + 2, ticks=0, after=120 - first) for first in range(80, 100, 2)]

    async def enter(connection: Connection) -> int:
        async with connection.transaction():
            return await apply_reports(connection, others)

    async with await connect(url) as second:
        async with traded.transaction():
            await apply_reports(traded, [fill(80, 82, ticks=0)])
            entering = asyncio.create_task(enter(second))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(entering), 0.3)
            await apply_reports(traded, [fill(82, 100, ticks=0)])
        assert await entering == len(others)

    assert await states(traded, 79, 101) == [(79, 80, "ticks"), (80, 100, "none"), (100, 101, "ticks")]


class Always(StoredUntil):
    """Everything is stored up to now."""

    async def newest(self, now: datetime) -> datetime | None:
        return now


@asynccontextmanager
async def ledger_keeper(
    settings: Settings, metrics: Metrics
) -> AsyncIterator[Callable[[], Awaitable[dict[bytes, object]]]]:
    """A keeper of the ledger; called, it looks at all that is new and tells what is published."""
    stopping = asyncio.Event()
    settings = settings.model_copy(update={"ledger_days": 2})
    await wait_for_kafka(settings)
    database = Database(database_conninfo(settings), stopping, name="ledger")
    mine = {TopicPartition(settings.fills_topic, 0)}
    admin = SharedAdmin(settings)
    keeper = LedgerKeeper(settings, database, metrics, Always(settings, admin), assignment=lambda: mine)

    async def look() -> dict[bytes, object]:
        while not await keeper.step():
            pass
        records = await read_records(settings, settings.wanted_topic)
        published = {record.key: record.value and decode_wanted(record.value) for record in records}
        return {key: ranges for key, ranges in published.items() if ranges}

    try:
        yield look
    finally:
        await keeper.close()
        await admin.aclose()
        await database.close()


async def test_what_is_missing_is_wanted_until_it_is_filled_closed_or_comes_by_itself(
    settings: Settings, connection: Connection
) -> None:
    # Arrange: trading from 30 hours ago until 4 hours ago, but for 20 minutes, and 5 minutes of which bars are known
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=30)
    lost, barred = range(600, 620), range(1000, 1005)
    key = frame_key("S", "EURUSD")

    def ms(minute: int) -> int:
        return time_msc(start) + minute * 60_000

    await trade(connection, *(n for n in range(26 * 60) if n not in lost), start=start)
    await connection.execute(
        b"UPDATE market_data SET origin = 'broker', log = NULL, offsets = NULL, first_tick = NULL, last_tick = NULL"
        b" WHERE ts >= %s AND ts < %s",
        [start + barred[0] * MINUTE, start + (barred[-1] + 1) * MINUTE],
    )
    await close(connection, SERIES, start + 26 * 60 * MINUTE, start + timedelta(days=9))
    metrics = Metrics(CollectorRegistry())
    async with ledger_keeper(settings, metrics) as look:
        # Act, assert: each with the minutes beside it, the newest first
        missing, silent = (ms(999), ms(1006)), (ms(599), ms(621))
        assert await look() == {key: [missing, silent]}
        # The lost hour itself is all that tells how many minutes are usual at that time: 40.
        assert metrics.registry.get_sample_value("tickpipe_gap_minutes", {"state": "wanted"}) == 5 + round(20 * 40 / 60)

        # A sender fills a part, and cannot fill another: neither is asked for again now.
        def report(first: int, end: int, **outcome: object) -> Report:
            received = time_msc(datetime.now(UTC))
            return convert(
                {"kind": "fill", "source": "S", "symbol": "EURUSD", "from": ms(first), "to": ms(end)}
                | {"received": received} | outcome,
                type=Fill,
            )  # fmt: skip

        await apply_reports(connection, [report(599, 610, ticks=0), report(1002, 1006, error="4401")])
        assert await look() == {key: [(ms(999), ms(1003)), (ms(610), ms(621))]}
        # Ticks that come by another way leave what is still missing.
        await trade(connection, *range(610, 615), start=start)
        assert await look() == {key: [(ms(999), ms(1003)), (ms(614), ms(621))]}
        # After six hours what could not be filled is asked for again.
        await connection.execute(b"UPDATE minute_ledger SET tried_at = tried_at - interval '7 hours'")
        assert await look() == {key: [missing, (ms(614), ms(621))]}
        await close(connection, SERIES, start + 990 * MINUTE, start + 1010 * MINUTE)
        await apply_reports(connection, [report(614, 621, ticks=2)])
        assert await look() == {}
    async with ledger_keeper(settings, metrics) as look:
        assert await look() == {}


async def test_what_any_sink_stores_late_is_looked_at_once(
    settings: Settings, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two sinks one has the ledger; the other stores minutes of the past, with a hole among them."""
    # Arrange: the ledger knows the past, in which KNOWN lost minutes
    monkeypatch.setattr(LedgerKeeper, "interval_seconds", 0.5)
    settings = settings.model_copy(update={"ledger_days": 2, "kafka_partitions": 2})
    await wait_for_kafka(settings)
    start = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(hours=20)
    await trade(connection, *range(60), *range(80, 120), start=start, symbol="KNOWN")
    for symbol in ("KNOWN", "PART0", "PART1", "PART2"):
        await close(connection, (symbol, "S"), start + 120 * MINUTE, start + timedelta(days=9))

    async def published() -> dict[str, list[object]]:
        """By symbol what was published, one after the other."""
        records = await read_records(settings, settings.wanted_topic)
        found: dict[str, list[object]] = {}
        for record in records:
            found.setdefault((record.key or b"").decode().rpartition("/")[2], []).append(
                record.value and decode_wanted(record.value)
            )
        return found

    async def are_wanted(*symbols: str) -> bool:
        return {symbol: of_symbol[-1] for symbol, of_symbol in (await published()).items()} == dict.fromkeys(
            symbols, asked
        )

    asked = [(time_msc(start + 59 * MINUTE), time_msc(start + 81 * MINUTE))]
    async with RunningSink(settings, registry=CollectorRegistry()):
        async with RunningSink(settings, registry=CollectorRegistry()):
            await eventually(lambda: are_wanted("KNOWN"), what="the hole of the first pass")

            # Act: each sink stores late minutes
            async with new_producer(settings) as producer:
                for partition in range(2):
                    for minute in (*range(60), *range(80, 120)):
                        ts = time_msc(start + minute * MINUTE)
                        late = candle(ts=ts, symbol=f"PART{partition}", closed=True, received=ts, emitted=ts)
                        await producer.send(
                            settings.candles_topic, encode(late), key=candle_key(late), partition=partition
                        )

            # Assert
            await eventually(lambda: are_wanted("KNOWN", "PART0", "PART1"), what="the holes of both sinks")
        # The one that is left keeps the ledger, or goes on keeping it.
        await trade(connection, *range(60), *range(80, 120), start=start, symbol="PART2")
        await eventually(lambda: are_wanted("KNOWN", "PART0", "PART1", "PART2"), what="a later hole")
    for of_symbol in (await published()).values():
        assert all(one != other for one, other in pairwise(of_symbol)), "published twice"
    assert await value(connection, "SELECT count(*) FROM late_minutes") == 0
