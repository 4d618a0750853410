import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from marketdata.candle import BrokerBar, Candle
from sink.db.connection import Connection
from sink.writer import Writer
from tests.unit.sink.candles import MINUTE, candle

MONDAY = datetime(2019, 2, 4, tzinfo=UTC)

FIELDS = ("open", "high", "low", "close", "volume")


def bar_of(one: Candle, **changes: Any) -> BrokerBar:
    """The broker's bar of the same minute, with the same prices."""
    values = {name: getattr(one, name) for name in ("source", "symbol", "ts", *FIELDS)}
    return BrokerBar(timeframe="M1", received=MINUTE, **(values | changes))


def at(minute: int, **changes: Any) -> Candle:
    return candle(((10 * minute, 10 * minute + 9),), ts=MINUTE + minute * 60_000, **{"closed": True, **changes})


async def rows(connection: Connection, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    return await (await connection.execute(query.encode(), parameters or None)).fetchall()


async def test_minutes_are_equal_differ_or_miss_a_side(connection: Connection, writer: Writer) -> None:
    # Arrange: the broker's bars begin at minute 2, our folds end at minute 8
    candles = [at(n) for n in (0, 1, 2, 3, 5, 6, 7, 8)]
    bars = [
        bar_of(at(2)), bar_of(at(3), high=1.5, volume=11), bar_of(at(4)), bar_of(at(6)), bar_of(at(7), close=1.25),
        bar_of(at(8)), bar_of(at(9)),
    ]  # fmt: skip
    await writer.write(connection, candles, bars)

    # Act
    found = await rows(connection, "SELECT ts, verdict, differing, equal FROM bar_fidelity ORDER BY ts")

    # Assert: 0 and 1 are before the first bar, 9 is after the last fold
    assert [(round((ts - MONDAY) / timedelta(minutes=1)), *rest) for ts, *rest in found] == [
        (2, "equal", [], True),
        (3, "differs", ["high", "volume"], False),
        (4, "no_candle", None, None),
        (5, "no_bar", None, None),
        (6, "equal", [], True),
        (7, "differs", ["close"], False),
        (8, "equal", [], True),
    ]


async def test_what_still_moves_is_not_compared(connection: Connection, writer: Writer) -> None:
    moving = at(1, closed=False)
    await writer.write(connection, [at(0), moving, at(2)], [bar_of(at(n)) for n in range(4)])
    found = await rows(connection, "SELECT verdict FROM bar_fidelity ORDER BY ts")
    assert found == [("equal",), ("equal",)]


async def test_a_bar_that_was_still_forming_is_not_compared(connection: Connection, writer: Writer) -> None:
    bars = [bar_of(at(0)), bar_of(at(1), closed=False, volume=3), bar_of(at(2))]
    await writer.write(connection, [at(n) for n in range(3)], bars)
    found = await rows(connection, "SELECT ts FROM bar_fidelity WHERE verdict = 'equal' ORDER BY ts")
    assert [ts for (ts,) in found] == [MONDAY, MONDAY + timedelta(minutes=2)]
    assert await rows(connection, "SELECT count(*) FROM bar_fidelity") == [(2,)]


async def test_real_volume_and_spread_are_compared_where_both_sides_say_them(
    connection: Connection, writer: Writer
) -> None:
    # Arrange: ours say 12.5 and 7 points, of the last minute no spread
    ours = [at(n, real_volume=12.5, spread=7 if n < 4 else None) for n in range(5)]
    theirs: list[dict[str, Any]] = [
        {},
        {"real_volume": 12.5, "spread": 7},
        {"real_volume": 12.0},
        {"spread": 9},
        {"spread": 9},
    ]

    # Act
    await writer.write(connection, ours, [bar_of(one, **changes) for one, changes in zip(ours, theirs, strict=True)])

    # Assert
    found = await rows(
        connection, "SELECT differing, real_volume_difference, spread_difference FROM bar_fidelity ORDER BY ts"
    )
    assert found == [
        ([], None, None), ([], 0, 0), (["real_volume"], 0.5, None), (["spread"], None, -2), ([], None, None)
    ]  # fmt: skip
    days = await rows(connection, "SELECT equal, differs, real_volume_differs, spread_differs FROM bar_fidelity_daily")
    assert days == [(3, 2, 1, 1)]


async def test_nothing_is_compared_while_one_side_is_unknown(connection: Connection, writer: Writer) -> None:
    await writer.write(connection, [at(0), at(1, symbol="USDJPY")], [bar_of(at(0, symbol="XAUUSD"))])
    assert await rows(connection, "SELECT * FROM bar_fidelity") == []
    assert await rows(connection, "SELECT * FROM bar_fidelity_daily") == []


async def test_a_part_has_the_same_rows_as_the_whole(connection: Connection, writer: Writer) -> None:
    # Arrange
    dice = random.Random(4)
    for symbol in ("EURUSD", "USDJPY"):
        known = [at(n, symbol=symbol) for n in range(10, 400) if dice.random() < 0.8]
        bars = [
            bar_of(at(n, symbol=symbol), low=dice.choice([1.0, 1.0, 0.9])) for n in range(390) if dice.random() < 0.8
        ]
        for start in range(0, 400, 100):
            await writer.write(connection, known[start : start + 100], bars[start : start + 100])

    for first, end in [(0, 400), (100, 300), (17, 18), (350, 2_000), (-50, 5), (390, 391)]:
        low, high = (MONDAY + timedelta(minutes=n) for n in (first, end))

        # Act
        whole = await rows(
            connection,
            "SELECT * FROM bar_fidelity WHERE symbol = 'EURUSD' AND ts >= %s AND ts < %s ORDER BY ts", low, high,
        )  # fmt: skip
        part = await rows(
            connection, "SELECT * FROM compared_minutes(%s, %s) WHERE symbol = 'EURUSD' ORDER BY ts", low, high
        )
        days = await rows(connection, "SELECT * FROM compared_days(%s, %s) WHERE symbol = 'EURUSD'", low, high)

        # Assert
        assert part == whole
        if whole:
            verdicts = Counter(row[-3] for row in whole)
            ((day, _, _, minutes, *counts),) = days
            assert (day, minutes) == (MONDAY, len(whole))
            assert counts[:4] == [verdicts[name] for name in ("equal", "differs", "no_bar", "no_candle")]
            assert counts[4:11] == [0, 0, verdicts["differs"], 0, 0, 0, 0]
            assert counts[11] == max((abs(row[11]) for row in whole if row[11] is not None), default=None)
        else:
            assert days == []


async def test_days_are_those_of_the_settings(connection: Connection, writer: Writer) -> None:
    candles = [at(60 * n) for n in range(24)]
    await writer.write(connection, candles, [bar_of(one) for one in candles])
    await connection.execute(b"SELECT set_candle_day('America/New_York', '17:00')")
    found = await rows(connection, "SELECT day, minutes, equal FROM bar_fidelity_daily ORDER BY day")
    assert found == [
        (datetime(2019, 2, 3, 22, tzinfo=UTC), 22, 22),
        (datetime(2019, 2, 4, 22, tzinfo=UTC), 2, 2),
    ]
