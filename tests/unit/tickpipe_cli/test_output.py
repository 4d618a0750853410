"""How rows are written for programs."""

import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from tickpipe.commands.candles import COLUMNS
from tickpipe.console import print_table, write_csv, write_json

ROWS = [
    (datetime(2019, 2, 4, tzinfo=UTC), "EURUSD", "M1", 1.14543, 1.1457, 1.14542, 0.1 + 0.2, 153),
    (datetime(2019, 2, 4, 0, 1, tzinfo=UTC), "EURUSD", "M1", 1.0, 1e-07, 1.14542, 1.14569, 0),
]


async def each(rows: Sequence[Sequence[Any]]) -> AsyncIterator[Sequence[Any]]:
    for row in rows:
        yield row


async def test_csv_keeps_every_digit(capsys: pytest.CaptureFixture[str]) -> None:
    await write_csv(COLUMNS, each(ROWS))

    assert capsys.readouterr().out == (
        "ts,symbol,timeframe,open,high,low,close,volume\n"
        "2019-02-04T00:00:00Z,EURUSD,M1,1.14543,1.1457,1.14542,0.30000000000000004,153\n"
        "2019-02-04T00:01:00Z,EURUSD,M1,1.0,1e-07,1.14542,1.14569,0\n"
    )


@pytest.mark.parametrize("count", [0, 1, 2])
async def test_json_is_one_array_with_an_object_on_each_line(capsys: pytest.CaptureFixture[str], count: int) -> None:
    await write_json(COLUMNS, each(ROWS[:count]))

    text = capsys.readouterr().out
    assert [row["close"] for row in json.loads(text)] == [row[6] for row in ROWS[:count]]
    assert text.count("\n") == (count + 2 if count else 1)


async def test_what_has_no_value_is_empty_in_csv_and_null_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    row = (None, Decimal("0.021"))

    await write_csv(("default", "seconds"), each([row]))
    await write_json(("default", "seconds"), each([row]))

    assert capsys.readouterr().out == 'default,seconds\n,0.021\n[\n{"default": null, "seconds": 0.021}\n]\n'


def test_table_shows_what_looks_like_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "value"), [("[red]", None)])

    assert "[red]" in capsys.readouterr().out
