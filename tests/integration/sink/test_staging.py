import math
import random
from typing import Any

import msgspec
import psycopg
import pytest

from marketdata.offsets import MAX_OFFSET, MAX_PARTITION, Ranges, normalized
from marketdata.rule import Reduced
from sink.db.connection import Connection
from sink.staging import Staging
from tests.integration.sink.fixed import new_writer
from tests.integration.sink.inserting import InsertStaging
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


async def staged(connection: Connection, candles: list[Reduced], *, use_copy: bool) -> list[Any]:
    async with connection.transaction():
        staging = Staging() if use_copy else InsertStaging()
        await staging.stage_candles(connection, candles, staging.pack(candles))
        rows = await (await connection.execute(b"SELECT i::text FROM incoming_candles AS i")).fetchall()
    return sorted(row[0] for row in rows)


@pytest.mark.parametrize("seed", range(2))
async def test_packed_rows_are_those_that_insert_writes(connection: Connection, seed: int) -> None:
    # Arrange
    rng = random.Random(seed)
    candles = [reduced(rng) for _ in range(200)]

    # Act
    packed = await staged(connection, candles, use_copy=True)
    plain = await staged(connection, candles, use_copy=False)

    # Assert
    assert packed == plain
    assert len(packed) == len(candles)


@pytest.mark.parametrize("use_copy", [True, False], ids=["copy", "insert"])
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
    connection: Connection, use_copy: bool, change: dict[str, object]
) -> None:
    refused = msgspec.structs.replace(candle(((1, 2),)), **change)
    with pytest.raises((psycopg.DataError, UnicodeEncodeError)):
        await new_writer(use_copy=use_copy).write(connection, [candle(((3, 4),), symbol="OTHER"), refused])
    assert await (await connection.execute(b"SELECT count(*) FROM market_data")).fetchone() == (0,)
