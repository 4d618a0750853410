"""How often the sink waits for an answer of the database while live candles wait for it, as libpq's trace says."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from psycopg.pq import Trace

from marketdata.candle import Candle
from marketdata.wire import Instrument, QuoteSessions
from sink.db.connection import Connection
from sink.progress import Span
from tests.integration.sink.fixed import new_writer
from tests.integration.sink.flow import value
from tests.unit.sink.candles import MINUTE, candle

SYMBOLS = 8


def live(number: int, *, closed: bool = False) -> list[Candle]:
    """The candles of the open minute after so many updates."""
    return [
        candle(((10 * n, 10 * n + number),), symbol=f"S{n}", volume=number, closed=closed) for n in range(SYMBOLS)
    ]  # fmt: skip


@contextmanager
def counted(connection: Connection, into: list[int]) -> Iterator[None]:
    """Appends how often an answer was waited for: so often something was sent after something had come."""
    with tempfile.TemporaryFile("w+") as trace:
        connection.pgconn.trace(trace.fileno())
        connection.pgconn.set_trace_flags(Trace.SUPPRESS_TIMESTAMPS)
        try:
            yield
        finally:
            connection.pgconn.untrace()
        trace.seek(0)
        sides = [line.split("\t", 1)[0] for line in trace if line[:2] in ("F\t", "B\t")]
    turns = sum(now == "F" != before for before, now in zip(["B", *sides], sides, strict=False))
    into.append(turns)


async def turns_of(connection: Connection, batches: Sequence[Sequence[Candle]]) -> list[int]:
    """Turns that storing each batch takes, with its progress."""
    await connection.execute(b"INSERT INTO sink_progress VALUES ('log', 0, 0)")
    writer, turns = new_writer(), list[int]()
    for number, candles in enumerate(batches):
        batch = await writer.prepare(candles)
        with counted(connection, turns):
            await writer.store(connection, batch, [Span("log", 0, number, number + 1)])
    return turns


async def test_live_candles_and_their_progress_take_one_turn(connection: Connection) -> None:
    # Arrange: psycopg prepares a statement when it comes for the sixth time
    batches = [live(number) for number in range(1, 11)]

    # Act
    turns = await turns_of(connection, [*batches, live(10, closed=True), live(10)])

    # Assert
    assert turns[6:] == [1] * 6
    assert await value(connection, "SELECT next_offset FROM sink_progress") == 12
    assert await value(connection, "SELECT count(*) FROM market_data WHERE volume = 10 AND closed") == SYMBOLS


async def test_nothing_is_created_or_emptied_for_a_batch(connection: Connection) -> None:
    # Of a table that every commit empties the file is truncated, and that takes a file system 100 ms now and then.
    await turns_of(connection, [live(1), live(2)])
    assert await value(connection, "SELECT count(*) FROM pg_class WHERE relpersistence = 't'") == 0


async def test_what_senders_say_of_many_symbols_takes_a_few_turns(connection: Connection) -> None:
    # Arrange
    names = [f"S{n}" for n in range(200)]
    points = [Instrument(source="S", symbol=name, point=0.01, received=MINUTE) for name in names]
    sessions = [
        QuoteSessions(source="S", symbol=name, utc_offset_s=None, sessions=[(1, 0, 1440)], received=MINUTE)
        for name in names
    ]
    writer, turns = new_writer(), list[int]()
    batch = await writer.prepare(reference=points, reports=sessions)

    # Act
    with counted(connection, turns):
        await writer.store(connection, batch)

    # Assert
    assert turns[0] < 20
    for table in ("instruments", "quote_sessions"):
        assert await value(connection, f"SELECT count(*) FROM {table}") == len(names)  # noqa: S608 - our own
