import asyncio
import random
from collections import Counter
from typing import Any

import msgspec
import psycopg
import pytest

from marketdata.candle import BrokerBar, Candle
from marketdata.offsets import Ranges, contains, from_multirange, normalized, union
from marketdata.rule import Verdict, verdict
from sink.db.connection import Connection, connect
from tests.integration.sink.fixed import new_writer
from tests.integration.sink.flow import value
from tests.unit.sink.candles import MINUTE, OWN_LOG, candle

STORED = ((10, 19),)


def bar(received: int = MINUTE, **changes: object) -> BrokerBar:
    plain = BrokerBar(
        source="S", symbol="EURUSD", timeframe="M1", ts=MINUTE, open=2.0, high=2.3, low=1.9, close=2.1, volume=7,
        received=received,
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


#: Fills no minute that the others ask for.
OTHER_BAR = bar(symbol="GBPUSD")


async def stored_row(connection: Connection) -> tuple[Any, ...]:
    """xmin, offsets, volume, high, closed, log, origin of the one row."""
    rows = await (
        await connection.execute(
            b"SELECT xmin::text, offsets, volume, high, closed, log, origin FROM market_data WHERE symbol = 'EURUSD'"
        )
    ).fetchall()
    assert len(rows) == 1
    return tuple(rows[0])


async def pending_ranges(connection: Connection) -> Ranges:
    rows = await (await connection.execute(b"SELECT offsets FROM pending_refolds")).fetchall()
    return from_multirange(rows[0][0]) if rows else ()


@pytest.mark.parametrize("bars", [[], [OTHER_BAR]], ids=["alone", "in a transaction with others"])
@pytest.mark.parametrize(
    "incoming",
    [
        pytest.param(candle(((10, 25),), high=1.4), id="contains the stored"),
        pytest.param(candle(((5, 19), (30, 31)), high=1.4), id="contains it in one of two ranges"),
        pytest.param(candle(((12, 15),), high=1.4), id="is contained"),
        pytest.param(candle(((12, 15),), high=1.4, closed=True), id="is contained and knows the minute is over"),
        pytest.param(candle(((12, 25),), high=1.4), id="overlaps"),
        pytest.param(candle(((30, 31),), high=1.4), id="lies elsewhere"),
        pytest.param(candle(((1, 10, 19),), high=1.4), id="lies in another partition"),
        pytest.param(candle(((0, 10, 19), (1, 0, 3)), high=1.4), id="contains it beside another partition's"),
        pytest.param(candle(STORED), id="equal"),
        pytest.param(candle(STORED, closed=True), id="equal but closed"),
        pytest.param(candle(STORED, high=1.4), id="equal set, other price"),
        pytest.param(candle(STORED, spread=None), id="equal set, no spread"),
    ],
)
async def test_the_sql_follows_the_rule(connection: Connection, incoming: Candle, bars: list[BrokerBar]) -> None:
    # Arrange
    writer = new_writer()
    await writer.write(connection, [candle(STORED)])
    before = await stored_row(connection)
    expected = verdict(candle(STORED), incoming)

    # Act
    actions = await writer.write(connection, [incoming], bars)

    # Assert
    assert actions[expected] == 1
    after = await stored_row(connection)
    written = expected in (Verdict.REPLACED, Verdict.CLOSED)
    assert (after[0] != before[0]) is written
    kept = incoming if expected is Verdict.REPLACED else candle(STORED)
    assert from_multirange(after[1]) == kept.offsets
    assert after[3] == kept.high
    assert after[4] is (incoming.closed and written)
    wanted = union(candle(STORED).offsets, incoming.offsets) if expected is Verdict.REFOLD else ()
    assert await pending_ranges(connection) == wanted


async def test_the_sql_follows_the_rule_for_any_two_sets(connection: Connection) -> None:
    # Arrange: four hundred minutes, each with a stored and an incoming candle of random ranges
    dice = random.Random(20190204)

    def some_ranges() -> Ranges:
        firsts = dice.sample(range(12), dice.randint(1, 3))
        return normalized((dice.choice((0, 0, 1)), first, first + dice.randrange(4)) for first in firsts)

    def some_candle(number: int) -> Candle:
        return candle(
            some_ranges(), ts=MINUTE + number * 60_000, high=dice.choice([1.3, 1.4]), closed=dice.random() < 0.5
        )

    pairs = [(some_candle(i), some_candle(i)) for i in range(400)]
    writer = new_writer()
    await writer.write(connection, [stored for stored, _ in pairs])

    # Act
    actions = await writer.write(connection, [incoming for _, incoming in pairs])

    # Assert
    expected = [verdict(stored, incoming) for stored, incoming in pairs]
    assert {action: rows for action, rows in actions.items() if rows} == Counter(expected)
    assert len(set(expected)) == 4
    query = (
        b"SELECT m.offsets, m.high, m.closed, coalesce(p.offsets, '{}') "
        b"FROM market_data m LEFT JOIN pending_refolds p USING (source, symbol, timeframe, ts) ORDER BY ts"
    )
    rows = await (await connection.execute(query)).fetchall()
    for (stored, incoming), what, (offsets, high, closed, pending) in zip(pairs, expected, rows, strict=True):
        kept = incoming if what is Verdict.REPLACED else stored
        assert (from_multirange(offsets), high) == (kept.offsets, kept.high)
        assert closed is (stored.closed or (incoming.closed and what is not Verdict.REFOLD))
        assert from_multirange(pending) == (union(stored.offsets, incoming.offsets) if what is Verdict.REFOLD else ())


async def test_closed_stays_closed_when_a_wider_candle_comes(connection: Connection) -> None:
    writer = new_writer()
    await writer.write(connection, [candle(STORED, closed=True)])
    await writer.write(connection, [candle(((10, 25),), volume=11)])
    assert (await stored_row(connection))[2:5:2] == (11, True)


async def test_replay_of_a_batch_writes_nothing(connection: Connection) -> None:
    # Arrange
    writer = new_writer()
    batch = [candle(((i, i + 5),), ts=MINUTE + i * 60_000) for i in range(50)]
    await writer.write(connection, batch)
    before = await (await connection.execute(b"SELECT ts, xmin::text, xmax::text FROM market_data")).fetchall()

    # Act
    actions = await writer.write(connection, batch + batch)

    # Assert: not even a lock was taken
    assert actions[Verdict.IGNORED] == 100
    assert before == await (await connection.execute(b"SELECT ts, xmin::text, xmax::text FROM market_data")).fetchall()


async def test_pending_offsets_accumulate(connection: Connection) -> None:
    writer = new_writer()
    await writer.write(connection, [candle(STORED), candle(((30, 31),))])
    await writer.write(connection, [candle(((40, 41),), closed=True)])
    assert await pending_ranges(connection) == ((0, 10, 19), (0, 30, 31), (0, 40, 41))
    assert await value(connection, "SELECT closed FROM pending_refolds") is True


@pytest.mark.parametrize(
    ("stored", "incoming", "wins"),
    [
        (candle(log="a", volume=10), candle(log=OWN_LOG, volume=11), True),
        (candle(log="a", volume=10), candle(log=OWN_LOG, volume=9), False),
        (candle(log="a", volume=10), candle(log=OWN_LOG, volume=10), True),  # a tie: the one that can be proven
        (candle(log=OWN_LOG, volume=10), candle(log="a", volume=10), False),
    ],
)
async def test_between_logs_more_ticks_win(
    connection: Connection, stored: Candle, incoming: Candle, wins: bool
) -> None:
    writer = new_writer()
    await writer.write(connection, [stored])
    actions = await writer.write(connection, [incoming])
    row = await stored_row(connection)
    assert (row[2], row[5]) == ((incoming.volume, incoming.log) if wins else (stored.volume, stored.log))
    assert actions[Verdict.CROSS_LOG] == 1
    assert await pending_ranges(connection) == ()


@pytest.mark.parametrize(
    ("volume", "log"),
    [(9, f"{OWN_LOG} (gone)"), (10, OWN_LOG), (11, OWN_LOG)],  # stored: 10 ticks
)
async def test_offsets_beyond_the_end_belong_to_a_log_that_is_gone(
    connection: Connection, volume: int, log: str
) -> None:
    # Arrange: offsets up to 9,999 were stored, then the topic was re-created and holds 500 records
    await new_writer().write(connection, [candle(((400, 9_999),))])

    # Act: by offsets alone it would be ignored
    await new_writer(end=500).write(connection, [candle(((450, 499),), volume=volume)])

    # Assert
    assert (await stored_row(connection))[5] == log


async def test_a_folded_candle_replaces_the_brokers_bar_and_not_the_other_way(connection: Connection) -> None:
    writer = new_writer()
    await writer.write(connection, bars=[bar()])
    assert (await stored_row(connection))[3:] == (2.3, True, None, "broker")
    await writer.write(connection, [candle(STORED)])
    assert (await stored_row(connection))[3:] == (1.3, False, OWN_LOG, "ticks")
    await writer.write(connection, bars=[bar(received=MINUTE + 1, high=2.4)])
    assert (await stored_row(connection))[3:] == (1.3, False, OWN_LOG, "ticks")
    assert await value(connection, "SELECT high FROM broker_bars") == 2.4


async def test_the_newer_bar_wins_and_repeats_write_nothing(connection: Connection) -> None:
    # Arrange
    writer = new_writer()
    old, new = bar(), bar(received=MINUTE + 5, high=2.5)
    await writer.write(connection, bars=[new, old])
    before = await stored_row(connection)

    # Act
    actions = await writer.write(connection, bars=[old, new])

    # Assert
    assert actions["bar"] == 0
    assert await stored_row(connection) == before
    assert before[3] == 2.5


@pytest.mark.parametrize("together", [True, False])
async def test_a_bar_that_was_still_forming_gives_way_and_is_never_the_last_word(
    connection: Connection, together: bool
) -> None:
    # Arrange: two states of the forming bar, the bar, and a state that was on its way for longer
    forming = [bar(received=MINUTE + n, high=2.3 + n / 10, closed=False) for n in (1, 2)]
    whole, late = bar(received=MINUTE + 3, high=2.6), bar(received=MINUTE + 4, high=2.4, closed=False)

    # Act
    shown = []
    for bars in [[*forming, whole, late]] if together else [[one] for one in (*forming, whole, late)]:
        await new_writer().write(connection, bars=bars)
        shown.append((await stored_row(connection))[3:5])

    # Assert
    assert shown[-1] == (2.6, True)
    assert shown[:-1] == ([] if together else [(2.4, False), (2.5, False), (2.6, True)])
    assert await value(connection, "SELECT (high, closed)::text FROM broker_bars") == "(2.6,t)"


async def test_bars_off_the_grid_are_refused_by_the_table(connection: Connection) -> None:
    for timeframe, ts in (("M1", MINUTE + 1_000), ("M5", MINUTE + 60_000), ("H1", MINUTE + 5 * 60_000)):
        with pytest.raises(psycopg.errors.CheckViolation):
            await new_writer().write(connection, bars=[bar(timeframe=timeframe, ts=ts)])
    # India's hours begin at half past.
    await new_writer().write(connection, bars=[bar(timeframe="H1", ts=MINUTE + 30 * 60_000)])


async def test_a_refused_row_leaves_no_trace_of_its_batch(connection: Connection) -> None:
    with pytest.raises(psycopg.DataError):
        await new_writer().write(connection, [candle(), candle(ts=MINUTE + 60_000, spread=2**40)])
    assert await value(connection, "SELECT count(*) FROM market_data") == 0


async def test_two_writers_at_once_neither_lock_up_nor_lose(url: str) -> None:
    # Arrange: each minute grows in twenty steps, and both writers see all of it in opposite orders of minutes
    minutes = [MINUTE + i * 60_000 for i in range(40)]
    steps = [[candle(((0, step),), ts=ts, volume=step + 1) for ts in minutes] for step in range(20)]

    async def write(reverse: bool) -> None:
        async with await connect(url) as connection:
            for step in steps:
                await new_writer().write(connection, step[::-1] if reverse else step)

    # Act
    await asyncio.gather(write(False), write(True))

    # Assert
    async with await connect(url) as connection:
        assert await value(connection, "SELECT array_agg(DISTINCT volume) FROM market_data") == [20]
        assert await value(connection, "SELECT count(*) FROM market_data") == 40
        assert await value(connection, "SELECT count(*) FROM pending_refolds") == 0


async def test_two_writers_at_once_forget_no_offsets(url: str) -> None:
    # Arrange: incomparable candles of the same minutes, inserted at the same time
    minutes = [MINUTE + i * 60_000 for i in range(60)]
    sets: list[Ranges] = [((0, 0, 9),), ((0, 20, 29),), ((0, 5, 12), (1, 0, 3))]

    async def write(offsets: Ranges) -> None:
        async with await connect(url) as connection:
            for start in range(0, len(minutes), 6):
                await new_writer().write(connection, [candle(offsets, ts=ts) for ts in minutes[start : start + 6]])

    # Act
    await asyncio.gather(*(write(offsets) for offsets in sets))

    # Assert
    async with await connect(url) as connection:
        query = b"SELECT m.offsets + p.offsets FROM market_data m JOIN pending_refolds p USING (source, symbol, ts)"
        rows = await (await connection.execute(query)).fetchall()
        assert len(rows) == len(minutes)
        assert all(contains(from_multirange(known), offsets) for (known,) in rows for offsets in sets)
