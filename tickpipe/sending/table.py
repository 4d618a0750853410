"""Copies a table of bars out of somebody's PostgreSQL into files, which are then read like any file of bars.

The known shape is `market_data` of the older collection stack: ts, symbol, timeframe, open, high, low, close, volume,
tick_volume, real_volume, spread, each of the last four only where it is there. The table is read and never changed.
"""

import asyncio
import hashlib
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection, sql

from marketdata.errors import TickpipeError
from runtime.settings import check_database_url
from sink.db.session import open_session
from tickpipe.connection import without_password
from tickpipe.console import Bar, iso_utc, out

#: Columns that are copied, by the names that such tables give them.
_TIMES: Final = ("ts", "time", "timestamp", "bar_time", "datetime")
_NEEDED: Final = ("symbol", "open", "high", "low", "close")
_OPTIONAL: Final = ("timeframe", "tick_volume", "volume", "real_volume", "spread")

#: Rows of ticks among the bars of such tables; they hold prices in columns that mean something else.
_TICK_NAMES: Final = ("tick", "ticks", "")

#: Beside the copies when all are there.
_COMPLETE: Final = "complete"

#: A moment with its offset, as the files of bars have it; times without a zone are copied as they are.
_INSTANT: Final = "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS\"+00:00\"')"
_WALL_TIME: Final = "to_char({}, 'YYYY-MM-DD HH24:MI:SS.MS')"


class TableUnusable(TickpipeError):
    """A table cannot be read as bars; the message says what is missing, or what the server said."""

    is_wrong_use = True


def copied(url: str, table: str, folder: Path) -> list[Path]:
    """The bars of a table as files, one for each timeframe; copies of an interrupted import are used again.

    Args:
        url: of the database.
        table: with its schema or without.
        folder: for the copies.

    Raises:
        TableUnusable: when the database cannot be reached, or the table has not the columns of bars.
    """
    try:
        check_database_url(url)
    except ValueError as exc:
        raise TableUnusable(str(exc)) from exc
    source = hashlib.sha256(f"{without_password(url)} {table}".encode()).hexdigest()[:12]
    folder = folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', table)}-{source}"
    complete = folder / _COMPLETE
    if complete.exists():
        made = datetime.fromtimestamp(complete.stat().st_mtime, UTC)
        out.print(
            f"continues with the copy of {table} made at {iso_utc(made)}; --from-start makes another", markup=False
        )
        return _copies(folder)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    try:
        asyncio.run(_copy_all(url, table, folder))
    except psycopg.Error as exc:
        raise TableUnusable(f"{without_password(url)}: {' '.join(str(exc).split())}") from exc
    complete.touch()
    return _copies(folder)


def discard(copies: list[Path]) -> None:
    """Remove the copies, because they were posted or are to be made again."""
    for folder in {path.parent for path in copies}:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def _copies(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.csv"))


async def _copy_all(url: str, table: str, folder: Path) -> None:
    connection = await open_session(url, "tickpipe-import")
    async with connection, connection.transaction():
        # One state of the table, whoever still writes to it.
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        columns, name = await _columns(connection, table)
        timeframes = await _timeframes(connection, name) if "timeframe" in columns else [None]
        with Bar(f"reading {table}") as bar:
            for timeframe in timeframes:
                path = folder / f"{_file_name(table)}_{_file_name(timeframe or 'bars')}.csv"
                query = _query(list(columns.values()), name, timeframe)
                size = 0
                with path.with_suffix(".new").open("wb") as file:
                    async with connection.cursor() as cursor, cursor.copy(query) as rows:
                        async for row in rows:
                            file.write(row)
                            size += len(row)
                            bar.update(0, f"{timeframe or 'bars'} {size / 1e6:,.0f} MB")
                os.replace(path.with_suffix(".new"), path)


def _query(columns: list[sql.Composable], name: sql.Composable, timeframe: str | None) -> sql.Composed:
    wanted = sql.SQL("") if timeframe is None else sql.SQL("WHERE timeframe = {}").format(sql.Literal(timeframe))
    query = "COPY (SELECT {} FROM {} {} ORDER BY 1, symbol) TO STDOUT (FORMAT csv, HEADER, DELIMITER E'\\t')"
    return sql.SQL(query).format(sql.SQL(", ").join(columns), name, wanted)


async def _columns(connection: AsyncConnection[Any], table: str) -> tuple[dict[str, sql.Composable], sql.Composable]:
    """What is selected, by the name that it gets, and the table's own name.

    Raises:
        TableUnusable: when it is not there, or no table of bars.
    """
    found = await (await connection.execute("SELECT to_regclass(%s)::oid", [table])).fetchone()
    if found is None or found[0] is None:
        raise TableUnusable(f"there is no table {table} in the database; --table names another")
    rows = await connection.execute(
        "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute"
        " WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped",
        [found[0]],
    )
    types = dict(await rows.fetchall())
    time = next((name for name in _TIMES if name in types), "")
    if missing := [name for name in _NEEDED if name not in types] + ([] if time else [_TIMES[0]]):
        raise TableUnusable(f"{table} is no table of bars: it has no column {', '.join(missing)}")
    form = {"timestamp with time zone": _INSTANT, "timestamp without time zone": _WALL_TIME}.get(types[time], "{}")
    selected: dict[str, sql.Composable] = {"time": sql.SQL(form + " AS time").format(sql.Identifier(time))}
    selected |= {name: sql.Identifier(name) for name in (*_NEEDED, *_OPTIONAL) if name in types}
    schema, _, bare = table.rpartition(".")
    return selected, sql.Identifier(schema, bare) if schema else sql.Identifier(bare)


async def _timeframes(connection: AsyncConnection[Any], name: sql.Composable) -> list[str | None]:
    rows = await connection.execute(sql.SQL("SELECT DISTINCT timeframe::text FROM {} ORDER BY 1").format(name))
    return [each for (each,) in await rows.fetchall() if each is not None and each.lower() not in _TICK_NAMES]


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "", text.rpartition(".")[2])
