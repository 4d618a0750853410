"""Bars, hours and days that no longer equal what they are derived from, on every edition."""

from datetime import UTC, datetime

from sink.completeness import Key, Selection
from sink.db.connection import Connection
from sink.db.session import SQL
from sink.derived import key_columns, unfilled_bars, wrong_roll_ups
from sink.writer import Writer
from tests.integration.sink.db.editions import every_edition
from tests.integration.sink.flow import value
from tests.unit.sink.candles import MINUTE, bar_of_minute, candle

MINUTE_UTC = datetime.fromtimestamp(MINUTE / 1000, UTC)
_ALL = Selection()


async def _wrong(connection: Connection) -> list[Key]:
    return [row async for rows in wrong_roll_ups(connection, _ALL) for row in rows]


@every_edition
async def test_they_are_found_and_made_again(connection: Connection, writer: Writer) -> None:
    # Arrange: an hour of folds, and one of bars before it
    folds = [candle(ts=MINUTE + n * 60_000) for n in range(3)]
    await writer.write(connection, folds, [bar_of_minute(MINUTE - n * 60_000) for n in (1, 2)])
    while await value(connection, "SELECT refresh_candles()"):
        pass
    assert (await unfilled_bars(connection, _ALL), await _wrong(connection)) == ([], [])

    # Act
    await connection.execute(b"DELETE FROM market_data WHERE origin = 'broker'")
    await connection.execute(b"UPDATE candle_hours SET volume = 1 WHERE ts = %s", [MINUTE_UTC])

    # Assert
    assert len(await unfilled_bars(connection, _ALL)) == 2
    wrong = await _wrong(connection)
    assert [(row.ts, row.timeframe) for row in wrong] == [(MINUTE_UTC, "D1"), (MINUTE_UTC, "H1")]
    for statement, rows in (("fill_from_bars", await unfilled_bars(connection, _ALL)), ("make_stale", wrong)):
        await connection.execute(SQL[statement], key_columns(rows))
    for _ in range(2):
        assert (await unfilled_bars(connection, _ALL), await _wrong(connection)) == ([], [])
        while await value(connection, "SELECT refresh_candles()"):
            pass
    assert await value(connection, "SELECT array_agg(volume ORDER BY ts) FROM candle_days") == [
        sum(bar_of_minute(MINUTE).volume for _ in range(2)),
        sum(fold.volume for fold in folds),
    ]
