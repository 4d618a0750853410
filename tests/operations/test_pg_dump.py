"""What `pg_dump --data-only` of PostgreSQL writes is restored into a database that the migrations made."""

import asyncio
import os
import random
import subprocess
from collections.abc import Iterator
from datetime import time, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sink.db.connection import connect
from sink.db.schema import migrate
from sink.queries import set_candle_day
from tests.integration.sink.db.editions import database_on
from tests.integration.sink.db.history import insert, minute, stale_hours
from tests.integration.sink.test_retention import MONDAY
from tests.servers import EmbeddedServers
from tests.waiting import PATIENCE_SECONDS
from tickpipe.embedded.postgres import server_binaries


@pytest.fixture
def databases(servers: EmbeddedServers) -> Iterator[tuple[str, str]]:
    with database_on(servers.database_url) as first, database_on(servers.database_url) as second:
        yield first, second


def contents(url: str) -> dict[str, list[Any]]:
    """What people read: every candle of every timeframe, and when days begin."""
    with psycopg.connect(url) as connection:
        return {
            query: connection.execute(query.encode()).fetchall()
            for query in (
                "SELECT * FROM candles_m1 ORDER BY 1, 2, 3",
                "SELECT * FROM candles_h1 ORDER BY 1, 2, 3",
                "SELECT * FROM candles_d1 ORDER BY 1, 2, 3",
                "SELECT day_zone, day_shift, week_shift FROM candle_settings",
                "SELECT * FROM timeframes ORDER BY width",
                "SELECT name FROM tickpipe_migrations ORDER BY 1",
            )
        }


async def history(url: str) -> None:
    """Hours that are rolled up, hours that are stale, and days that do not begin at midnight."""
    await migrate(url)
    async with await connect(url) as connection:
        await set_candle_day(connection, "America/New_York", time(17), "monday")
        dice = random.Random(7)
        await insert(connection, [minute(dice, MONDAY + timedelta(minutes=n)) for n in range(0, 3_000, 7)])
        await connection.execute(b"SELECT refresh_candles()")
        await insert(connection, [minute(dice, MONDAY + timedelta(minutes=n)) for n in range(3, 400, 70)])
        assert await stale_hours(connection) > 2


def program(name: str, *arguments: str | Path) -> None:
    """Run a program of the server's own version: an older pg_dump refuses it."""
    command = [server_binaries() / name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr


def test_data_of_pg_dump_comes_back(databases: tuple[str, str], tmp_path: Path) -> None:
    first, second = databases
    asyncio.run(history(first))
    asyncio.run(migrate(second))

    program("pg_dump", "--data-only", "--file", tmp_path / "data.sql", first)
    program(
        "psql", "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--output", os.devnull,
        "--file", tmp_path / "data.sql", second,
    )  # fmt: skip

    assert contents(second) == contents(first)
