import math
import random
from collections.abc import Mapping
from typing import Any

import msgspec
import psycopg
import pytest

from marketdata.offsets import MAX_OFFSET, MAX_PARTITION, Ranges, normalized, to_multirange
from marketdata.rule import Reduced
from sink.columns import candle_columns
from sink.db.connection import Connection
from sink.db.session import SQL
from sink.history import folded_rows, pack_candle
from sink.times import utc
from tests.integration.sink.fixed import new_writer
from tests.unit.sink.candles import MINUTE, candle

#: Where a packed number may go wrong: around zero, at the ends of a type, before PostgreSQL's year 2000.
PRICES = (0.0, -0.0, 1.1, 5e-324, 1.7976931348623157e308, math.inf, math.nan, 0.1 + 0.2)
VOLUMES = (0, 1, -1, 2**63 - 1, -(2**63))
SPREADS = (None, 0, 2**31 - 1, -(2**31))
TIMES = (0, 946_684_800_000, 946_684_799_999, MINUTE + 1, 4_102_444_800_000)
NAMES = ("EURUSD", "#DE40.cash", "Ação", "\t\\N\n", "€" * 32)


def ranges(rng: random.Random) -> Ranges:
    firsts = [rng.choice((0, 5, rng.randrange(10**6), MAX_OFFSET - 100)) for _ in range(rng.randint(1, 6))]
    return normalized((rng.choice((0, 7, MAX_PARTITION)), first, first + rng.choice((0, 1, 94))) for first in firsts)


def reduced(rng: random.Random) -> Reduced:
    chosen = candle(
        ranges(rng), source=rng.choice(NAMES), symbol=rng.choice(NAMES), ts=rng.choice(TIMES),
        open=rng.choice(PRICES), high=rng.choice(PRICES), low=rng.choice(PRICES), close=rng.choice(PRICES),
        volume=rng.choice(VOLUMES), real_volume=rng.choice(PRICES), spread=rng.choice(SPREADS),
        first_tick=rng.choice(TIMES), last_tick=rng.choice(TIMES), log=rng.choice(NAMES),
        closed=rng.random() < 0.5, received=rng.choice(TIMES),
    )  # fmt: skip
    return Reduced(chosen, chosen.offsets if rng.random() < 0.5 else ranges(rng))


def plain_columns(candles: list[Reduced]) -> dict[str, list[Any]]:
    """The columns as lists of what psycopg knows."""
    of = [one.candle for one in candles]
    texts = {name: [getattr(one, name) for one in of] for name in ("symbol", "timeframe", "source", "log")}
    numbers = ("open", "high", "low", "close", "volume", "real_volume", "spread", "closed")
    times = {
        "ts": "ts",
        "first_tick": "first_tick",
        "last_tick": "last_tick",
        "received": "received_at",
        "emitted": "folded_at",
    }
    return {
        **texts, **{name: [getattr(one, name) for one in of] for name in numbers},
        **{column: [utc(getattr(one, name)) for one in of] for name, column in times.items()},
        "offsets": [to_multirange(one.offsets) for one in of], "wanted": [to_multirange(one.wanted) for one in candles],
    }  # fmt: skip


async def rows_of(connection: Connection, columns: Mapping[str, object]) -> list[str]:
    query = b"SELECT i::text FROM (" + SQL["incoming_candles"] + b") AS i"
    return sorted(row[0] for row in await (await connection.execute(query, columns)).fetchall())


@pytest.mark.parametrize("seed", range(2))
async def test_packed_columns_are_those_of_plain_lists(connection: Connection, seed: int) -> None:
    # Arrange
    rng = random.Random(seed)
    candles = [reduced(rng) for _ in range(200)]

    # Act
    packed = await rows_of(connection, dict(candle_columns(candles)))

    # Assert
    assert packed == await rows_of(connection, plain_columns(candles))
    assert len(packed) == len(candles)


@pytest.mark.parametrize("seed", range(2))
async def test_rows_of_copy_are_those_of_columns(connection: Connection, seed: int) -> None:
    # Arrange: a table without checks takes what COPY brings
    rng = random.Random(seed)
    candles = [reduced(rng) for _ in range(200)]
    incoming = SQL["incoming_candles"]
    await connection.execute(
        b"CREATE TEMP TABLE plain AS SELECT *, '' AS origin FROM (" + incoming + b") AS i LIMIT 0",
        plain_columns(candles),
    )
    statement = SQL["append_candles"].replace(b"market_data", b"plain")

    # Act
    async with connection.cursor() as cursor, cursor.copy(statement) as copy:
        await copy.write(folded_rows(pack_candle(one.candle) for one in candles))

    # Assert
    same = [Reduced(one.candle, one.candle.offsets) for one in candles]
    query = b"UPDATE plain SET wanted = offsets RETURNING plain::text, origin"
    copied = await (await connection.execute(query)).fetchall()
    assert {origin for _, origin in copied} == {"ticks"}
    assert sorted(row.removesuffix(",ticks)") + ")" for row, _ in copied) == await rows_of(
        connection, dict(candle_columns(same))
    )


@pytest.mark.parametrize("minutes", [1, 20], ids=["live", "history"])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"volume": 2**63}, id="a number beyond its type"),
        pytest.param({"spread": 2**31}, id="a small one"),
        pytest.param({"log": "a\0b"}, id="a text with a zero byte"),
        pytest.param({"log": "\ud800"}, id="half a surrogate"),
    ],
)
async def test_what_a_column_cannot_hold_is_refused_alike(
    connection: Connection, minutes: int, change: dict[str, object]
) -> None:
    refused = msgspec.structs.replace(candle(((1, 2),)), **change)
    others = [candle(((3, 4),), symbol="OTHER", ts=MINUTE + n * 60_000) for n in range(minutes)]
    with pytest.raises((psycopg.DataError, UnicodeEncodeError)):
        await new_writer().write(connection, [*others, refused])
    assert await (await connection.execute(b"SELECT count(*) FROM market_data")).fetchone() == (0,)
