"""A schema of our own beside what others have in the database: every part follows it, and touches nothing else."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from dashboard.database import Database
from runtime.logreader import wait_for_log
from runtime.settings import Settings
from sink.db.schema import migrate
from sink.db.session import database_conninfo, open_session
from sink.progress import with_sink_group
from tests.integration.sink.db.editions import database_on
from tests.integration.sink.flow import Flow, RunningSink
from tests.servers import EmbeddedServers
from tests.services import environment
from tests.unit.sink.candles import MINUTE, frame
from tests.waiting import eventually
from tickpipe.backup.archive import ArchiveReader
from tickpipe.backup.engine import Restore, take_backup
from tickpipe.cli import app

#: Names that ours are hidden behind where a part forgets the schema.
_OTHERS = """
CREATE TABLE public.market_data (price real);
CREATE TABLE public.schema_migrations (version text);
CREATE TABLE public.tickpipe_migrations (name text);
CREATE TABLE public.timeframes (name text);
CREATE FUNCTION public.candles(text, text, timestamptz, timestamptz, text) RETURNS integer LANGUAGE sql RETURN 1;
"""

_PUBLIC = """
SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
ORDER BY 1
"""


class Silent:
    """No progress bar."""

    def begin(self, description: str, total: float | None) -> None:
        """Show nothing."""

    def update(self, completed: float, detail: str = "") -> None:
        """Show nothing."""


@pytest.fixture
async def flow(settings: Settings) -> AsyncIterator[Flow]:
    async with Flow(settings, await wait_for_log(settings)) as opened:
        yield opened


@pytest.fixture
def own(settings: Settings) -> Settings:
    """Settings of a schema of our own in a database that is not empty."""
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        connection.execute(_OTHERS.encode())
    return settings.model_copy(update={"database_schema": "tickpipe"})


@pytest.fixture
async def stored(own: Settings, flow: Flow) -> Settings:
    """Three minutes that a sink has stored."""
    logged = await flow.log_frames([frame(MINUTE + n * 60_000, 1.1, count=3) for n in range(3)])
    await flow.send_candles(flow.candles(logged))
    async with RunningSink(own):

        async def are_there() -> bool:
            # No such schema yet at first.
            try:
                return bool(rows(own, "SELECT count(*) FROM tickpipe.market_data") == [(3,)])
            except psycopg.errors.UndefinedTable:
                return False

        await eventually(are_there, what="three candles in the schema")
    return own


def rows(settings: Settings, query: str) -> list[Any]:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        return connection.execute(query.encode()).fetchall()


async def command(*arguments: str) -> Result:
    """In a thread, for a command has an event loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, app, arguments)


async def test_every_part_follows_the_schema(stored: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, setting in environment(stored).items():
        monkeypatch.setenv(name, setting)
    monkeypatch.setenv("TICKPIPE_DATA_DIR", str(tmp_path))

    # Act
    database = Database(stored)
    await database.open()
    async with database.reading(patience_seconds=20) as connection:
        read = await (
            await connection.execute(b"SELECT count(*) FROM candles('EURUSD', 'H1', '2019-02-04', '2019-02-05', 'S')")
        ).fetchall()
    await database.close()
    status = await command("db", "status", "--json")
    query = await command("candles", "--symbol", "EURUSD", "--from", "2019-02-04", "--format", "csv")
    groups = [(await with_sink_group(each.model_copy(update={"sink_group": ""}))).sink_group
              for each in (stored, stored.model_copy(update={"database_schema": "public"}))]  # fmt: skip

    # Assert
    assert read == [(1,)]
    assert (status.exit_code, '"rows": 3' in status.stdout) == (0, True), status.stdout
    assert (query.exit_code, query.stdout.count("EURUSD")) == (0, 3), query.stdout
    assert groups[0] != groups[1]
    assert rows(stored, _PUBLIC) == [
        ("candles",), ("market_data",), ("schema_migrations",), ("tickpipe_migrations",), ("timeframes",),
    ]  # fmt: skip
    assert rows(stored, "SELECT count(*) FROM public.market_data") == [(0,)]


@pytest.fixture
def elsewhere(own: Settings, servers: EmbeddedServers) -> Iterator[Settings]:
    with database_on(servers.database_url) as url:
        yield own.model_copy(update={"database_url": SecretStr(url), "database_schema": "another"})


async def test_a_backup_moves_between_schemas_with_a_column_of_the_users_own(
    stored: Settings, elsewhere: Settings, tmp_path: Path
) -> None:
    rows_of = "SELECT ts, volume, tick_volume, {} FROM {}.market_data ORDER BY ts"
    async with await open_session(database_conninfo(stored), "test") as connection:
        await connection.execute(b'ALTER TABLE market_data ADD COLUMN "my note" varchar(20)')
        await connection.execute(b"UPDATE market_data SET \"my note\" = 'look' WHERE ts = '2019-02-04 00:01Z'")

    await take_backup(stored, tmp_path / "backup.zip", Silent(), with_topics=False)
    with ArchiveReader(tmp_path / "backup.zip") as archive:
        restore = Restore(elsewhere, archive, database_only=True)
        await restore.prepare(replace=False)
        outcome = await restore.run(Silent())

    assert outcome.candles == 3
    there = rows(elsewhere, rows_of.format('"my note"', "another"))
    assert there == rows(stored, rows_of.format('"my note"', "tickpipe"))
    assert [note for *_, note in there] == [None, "look", None]
    assert rows(elsewhere, _PUBLIC) == []


async def test_a_role_that_may_not_create_schemas_uses_one_that_is_there(own: Settings) -> None:
    with psycopg.connect(own.database_url.get_secret_value(), autocommit=True) as connection:
        role = sql.Identifier(f"role_of_{connection.info.dbname}")
        connection.execute(sql.SQL("CREATE ROLE {}").format(role))
        try:
            connection.execute(sql.SQL("CREATE SCHEMA tickpipe AUTHORIZATION {}").format(role))
            url = make_conninfo(
                own.database_url.get_secret_value(), options=f"-c role=role_of_{connection.info.dbname}"
            )
            await migrate(database_conninfo(own, url))
            assert rows(own, "SELECT count(*) FROM tickpipe.market_data") == [(0,)]
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}").format(role))
