"""Candles that are copied straight into the table: the same rows, stale hours and refolds as by judging them."""

import asyncio
import random
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg import sql

from marketdata.candle import BrokerBar, Candle
from marketdata.offsets import normalized
from marketdata.rule import Verdict
from runtime.settings import Settings
from sink.db.connection import Connection, Database, Trouble, connect
from sink.db.schema import migrate
from sink.writer import Writer
from tests.integration.sink.fixed import new_writer
from tests.integration.sink.flow import value
from tests.unit.sink.candles import MINUTE, OWN_LOG, candle
from tests.waiting import eventually

ROWS = (
    "SELECT to_jsonb(m) - 'stored_at' FROM market_data m ORDER BY symbol, source, ts",
    "SELECT to_jsonb(p) - 'requested_at' - 'updated_at' FROM pending_refolds p ORDER BY symbol, source, ts",
    "SELECT DISTINCT ts, symbol, source FROM stale_hours ORDER BY ts, symbol, source",
)


def history(minutes: int, first: int = 0, **changes: object) -> list[Candle]:
    """A minute after the other of one symbol."""
    return [
        candle(((10 * i, 10 * i + 9),), ts=MINUTE + i * 60_000, **changes) for i in range(first, first + minutes)
    ]  # fmt: skip


def some_batch(rng: random.Random) -> tuple[list[Candle], list[BrokerBar]]:
    """Runs of minutes of some symbols, with holes, repetitions, wider and other folds; now and then broker bars."""
    candles: list[Candle] = []
    for _ in range(rng.randint(1, 4)):
        feed = {
            "symbol": rng.choice(("A", "B", "C")),
            "source": rng.choice(("S", "T")),
            "log": rng.choice((OWN_LOG,) * 5 + ("another",)),
        }
        first = rng.randrange(120)
        for minute in range(first, first + rng.randint(1, 40)):
            start = minute * 10 + rng.choice((0, 0, 0, 3))
            late = [(rng.randrange(2), 5_000 + start, 5_001 + start)] if rng.random() < 0.1 else []
            made = candle(
                normalized([(0, start, start + rng.choice((4, 9))), *late]), ts=MINUTE + minute * 60_000,
                closed=rng.random() < 0.7, volume=rng.randint(1, 20), spread=rng.choice((None, 2)), **feed,
            )  # fmt: skip
            candles += [made] * rng.choice((1, 1, 1, 2))
    return candles, [some_bar(MINUTE + rng.randrange(120) * 60_000) for _ in range(rng.choice((0, 0, 3)))]


def some_bar(ts: int) -> BrokerBar:
    return BrokerBar(
        source="S", symbol="A", timeframe="M1", ts=ts, open=2.0, high=2.3, low=1.9, close=2.1, volume=7, received=MINUTE
    )


async def contents(connection: Connection) -> list[list[Any]]:
    return [await (await connection.execute(query.encode())).fetchall() for query in ROWS]


@pytest.fixture
async def other(settings: Settings, connection: Connection) -> Any:
    """A second database with the schema."""
    name = f"{connection.info.dbname}_other"
    await connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    conninfo = psycopg.conninfo.make_conninfo(settings.database_url.get_secret_value(), dbname=name)
    await migrate(conninfo)
    async with await connect(conninfo) as opened:
        yield opened


@pytest.mark.parametrize("seed", range(3))
async def test_history_leaves_the_same_as_judging_it(connection: Connection, other: Connection, seed: int) -> None:
    # Arrange: the plain way judges every candle
    rng, copying, plain = random.Random(seed), new_writer(), new_writer(appends=False)

    for _ in range(12):
        candles, bars = some_batch(rng)

        # Act
        copied = await copying.write(connection, candles, bars)
        judged = await plain.write(other, candles, bars)

        # Assert
        assert {a: n for a, n in copied.items() if n} == {a: n for a, n in judged.items() if n}
        assert await contents(connection) == await contents(other)
    assert await value(connection, "SELECT count(*) FROM market_data") > 100


async def test_what_is_newer_than_all_that_is_stored_is_not_judged(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Arrange
    judged: list[int] = []
    apply = Writer._apply

    async def counting(self: Writer, connection: Connection, about: dict[str, Any]) -> Any:
        applied = await apply(self, connection, about)
        judged.append(applied.actions.total())
        return applied

    monkeypatch.setattr(Writer, "_apply", counting)
    writer = new_writer()

    # Act: twenty new minutes; ten of them again with ten more; two of another symbol, which may be live
    await writer.write(connection, history(20))
    await writer.write(connection, history(20, first=10))
    await writer.write(connection, history(2, symbol="GBPUSD"))

    # Assert
    assert judged == [10, 2]
    assert await value(connection, "SELECT count(*) FROM market_data") == 32


async def test_another_sink_that_was_faster_is_no_error(url: str, connection: Connection) -> None:
    # Arrange: it holds rows that nobody else sees yet, of wider folds
    batch = history(20)
    wider = [candle(((10 * i, 10 * i + 12),), ts=c.ts, volume=13) for i, c in enumerate(batch[:5])]
    async with await connect(url) as faster, faster.transaction():
        await new_writer().write(faster, wider)

        # Act: this one waits for the other's rows, and judges them
        writing = asyncio.create_task(new_writer().write(connection, batch))
        await asyncio.sleep(0.5)
        assert not writing.done()
    actions = await writing

    # Assert
    assert (actions[Verdict.IGNORED], actions[Verdict.INSERTED]) == (5, 15)
    query = b"SELECT volume, count(*)::int FROM market_data GROUP BY volume ORDER BY volume"
    assert await (await connection.execute(query)).fetchall() == [(10, 15), (13, 5)]


async def test_two_sinks_that_append_the_same_history_in_opposite_orders_both_end(url: str) -> None:
    # Arrange
    batch = history(3_000)
    databases = [Database(url, asyncio.Event()) for _ in range(2)]

    async def write(database: Database, candles: list[Candle]) -> None:
        await database.run(lambda connection: new_writer().write(connection, candles))
        await database.close()

    # Act
    await asyncio.gather(write(databases[0], batch), write(databases[1], batch[::-1]))

    # Assert
    async with await connect(url) as connection:
        assert await value(connection, "SELECT count(*) FROM market_data") == len(batch)


async def test_a_sink_that_deadlocks_three_times_with_another_goes_on(url: str, connection: Connection) -> None:
    # Arrange
    batch = history(20)
    trouble: list[Trouble] = []
    attempts = asyncio.Semaphore(0)
    database = Database(url, asyncio.Event(), on_trouble=lambda _, kind: trouble.append(kind))

    async def write(connection: Connection) -> None:
        await attempts.acquire()
        await new_writer().write(connection, batch)

    writing = asyncio.create_task(database.run(write))
    async with await connect(url) as another:
        # PostgreSQL ends the transaction that has waited for its own deadlock_timeout, by default a second.
        await another.execute(b"SET deadlock_timeout = '1min'")
        for _ in range(3):
            # Another transaction holds a minute in the middle, and will want the first one.
            async with another.transaction(force_rollback=True):
                await new_writer().write(another, batch[10:11])
                attempts.release()
                await eventually(partial(is_waiting, connection))

                # Act
                await new_writer().write(another, batch[:1])
    attempts.release()
    await writing
    await database.close()

    # Assert
    assert trouble == [Trouble.BUSY] * 3
    assert await value(connection, "SELECT count(*) FROM market_data") == len(batch)


async def is_waiting(connection: Connection) -> bool:
    """Whether a transaction of this database waits for another one."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(await value(connection, query))


async def test_a_refused_minute_leaves_no_trace_of_its_history(connection: Connection) -> None:
    await connection.execute(b"ALTER TABLE market_data ADD CONSTRAINT cheap CHECK (high < 1.4)")
    batch = history(20)
    with pytest.raises(psycopg.errors.CheckViolation):
        await new_writer().write(connection, [*batch[:-1], candle(ts=batch[-1].ts, high=1.5)])
    assert await value(connection, "SELECT count(*) FROM market_data") == 0
