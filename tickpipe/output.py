"""Rows as a table for people, or as CSV or JSON for programs: one row at a time, so that millions can be written."""

import csv
import json
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tickpipe.console import out
from tickpipe.times import iso_utc

#: Width of a table that goes to no terminal (characters).
_PIPE_WIDTH = 240


class Format(StrEnum):
    """How rows are written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", "-f", help="Table for people; csv and json for programs.")]


def plain(value: Any) -> Any:
    """The value as JSON has it: times are ISO-8601 UTC; a double keeps every digit (shortest round trip)."""
    if isinstance(value, datetime):
        return iso_utc(value)
    if isinstance(value, Decimal):
        return float(value)
    return value


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """All rows as one table on the standard output."""
    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, padding=(0, 1))
    rows = [[plain(value) for value in row] for row in rows]
    for index, column in enumerate(columns):
        numbers = any(isinstance(row[index], (int, float)) for row in rows)
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else escape(str(value)) for value in row))
    # In a file or a pipe there is no width to fold at.
    console = out if out.is_terminal else Console(width=_PIPE_WIDTH, highlight=False)
    console.print(table)


def print_json(content: Any) -> None:
    """One JSON document on the standard output."""
    sys.stdout.write(json.dumps(content, indent=2, default=plain) + "\n")


async def write_csv(columns: Sequence[str], rows: AsyncIterator[Sequence[Any]]) -> None:
    """CSV with a header; an empty cell is no value."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    async for row in rows:
        writer.writerow([plain(value) for value in row])
    sys.stdout.flush()


async def write_json(columns: Sequence[str], rows: AsyncIterator[Sequence[Any]]) -> None:
    """A JSON array with one object on each line."""
    separator = "["
    async for row in rows:
        entry = {name: plain(value) for name, value in zip(columns, row, strict=True)}
        sys.stdout.write(f"{separator}\n{json.dumps(entry)}")
        separator = ","
    sys.stdout.write("\n]\n" if separator == "," else "[]\n")
    sys.stdout.flush()
