"""Rows as they are written for programs, times as they are typed and shown."""

import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tickpipe.candles import COLUMNS
from tickpipe.console import (
    Format,
    epoch_ms,
    err,
    iso_utc,
    moment_of,
    out,
    parse_time,
    print_table,
    write_csv,
    write_json,
    write_rows,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

ROWS = [
    (datetime(2019, 2, 4, tzinfo=UTC), "EURUSD", "M1", 1.14543, 1.1457, 1.14542, 0.1 + 0.2, 153, "S"),
    (datetime(2019, 2, 4, 0, 1, tzinfo=UTC), "EURUSD", "M1", 1.0, 1e-07, 1.14542, 1.14569, 0, "S"),
]


async def each(rows: Sequence[Sequence[Any]]) -> AsyncIterator[Sequence[Any]]:
    for row in rows:
        yield row


async def test_csv_keeps_every_digit(capsys: pytest.CaptureFixture[str]) -> None:
    await write_csv(COLUMNS, each(ROWS))

    assert capsys.readouterr().out == (
        "ts,symbol,timeframe,open,high,low,close,volume,source\n"
        "2019-02-04T00:00:00Z,EURUSD,M1,1.14543,1.1457,1.14542,0.30000000000000004,153,S\n"
        "2019-02-04T00:01:00Z,EURUSD,M1,1.0,1e-07,1.14542,1.14569,0,S\n"
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


@pytest.mark.parametrize(
    ("format_", "text"),
    [
        (Format.CSV, "name,value\na,1\nb,2\n"),
        (Format.JSON, '[\n{"name": "a", "value": 1},\n{"name": "b", "value": 2}\n]\n'),
    ],
)
async def test_rows_are_written_alike_from_a_list_and_from_a_stream(
    capsys: pytest.CaptureFixture[str], format_: Format, text: str
) -> None:
    rows = [("a", 1), ("b", 2)]

    await write_rows(("name", "value"), rows, format_)
    await write_rows(("name", "value"), each(rows), format_)

    assert capsys.readouterr().out == text * 2


def test_table_shows_what_looks_like_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "value"), [("[red]", None)])

    assert "[red]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2019-02-04", "2019-02-04T00:00:00+00:00"),
        ("2019-02-04T10:30", "2019-02-04T10:30:00+00:00"),
        ("2019-02-04 10:30:05.250", "2019-02-04T10:30:05.250000+00:00"),
        ("2019-02-04T10:30Z", "2019-02-04T10:30:00+00:00"),
        ("2019-02-04T12:30+02:00", "2019-02-04T10:30:00+00:00"),
        ("now", "2026-03-01T12:00:00+00:00"),
        ("-90s", "2026-03-01T11:58:30+00:00"),
        ("-5m", "2026-03-01T11:55:00+00:00"),
        ("-1h", "2026-03-01T11:00:00+00:00"),
        ("-2d", "2026-02-27T12:00:00+00:00"),  # 2026 has a February of 28 days
        ("-1w", "2026-02-22T12:00:00+00:00"),
    ],
)
def test_time_is_understood(text: str, moment: str) -> None:
    assert parse_time(text, now=NOW) == datetime.fromisoformat(moment)


@pytest.mark.parametrize(
    "text", ["", "yesterday", "-1y", "1h", "-999999999w", "2019-02-30", "0001-01-01T00:00+14:00", "-１h"]
)
def test_what_is_no_time_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match="use one of: 2019-02-04"):
        parse_time(text, now=NOW)


def test_milliseconds_survive_both_ways() -> None:
    assert epoch_ms(moment_of(1_549_238_400_994)) == 1_549_238_400_994
    # A tick of the millisecond before is not at or after it.
    assert epoch_ms(moment_of(1_549_238_400_994) + timedelta(microseconds=1)) == 1_549_238_400_995


def test_shown_times_are_utc_without_needless_fraction() -> None:
    assert iso_utc(datetime.fromisoformat("2019-02-04T02:00:00+02:00")) == "2019-02-04T00:00:00Z"
    assert iso_utc(moment_of(1_549_238_400_994)) == "2019-02-04T00:00:00.994Z"


def test_foreign_text_neither_moves_the_cursor_nor_becomes_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    foreign = "EUR\x1b[2J\x07USD\r\x9b1A\u202e[bold]:bomb:"
    shown = "EUR\\x1b[2J\\x07USD\\x0d\\x9b1A\\u202e[bold]:bomb:"

    print_table(["symbol\x1b"], [[foreign]], title="of \x1b")
    out.print(foreign, markup=False, soft_wrap=True)
    err.print(foreign, markup=False, soft_wrap=True)

    written = capsys.readouterr()
    assert written.out.count(shown) == 2
    assert shown in written.err
    assert not {"\x1b", "\x07", "\r", "\x9b", "\u202e"} & set(written.out + written.err)
    # What the program itself says in lines and columns stays.
    out.print("one\ttwo\nthree é — 💶", markup=False)
    assert capsys.readouterr().out.split() == ["one", "two", "three", "é", "—", "💶"]
