"""Rights of the sink's role that somebody revokes: the sink says in one line which, and so does `tickpipe doctor`."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from prometheus_client import CollectorRegistry
from psycopg import sql
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr
from typer.testing import CliRunner

from marketdata.errors import DatabaseForbids
from runtime.settings import Settings, load_settings
from runtime.topics import ensure_topics
from sink.db.connection import Connection, Database
from sink.db.schema import migrate, missing_rights, relation_names
from sink.db.session import SQL, database_conninfo, open_session
from sink.metrics import Metrics
from sink.progress import Span, advance
from sink.writer import LogEnds, Writer
from tests.services import Service, environment
from tests.unit.sink.candles import MINUTE, bar_of_minute, candle
from tests.waiting import wait_until
from tickpipe.cli import app

SCHEMA = "desk"

#: The right that is not about a table.
USAGE = f"USAGE on the schema {SCHEMA}"


@pytest.fixture
async def role(settings: Settings) -> AsyncIterator[str]:
    """A role with the rights that docs/deploy/database.md gives the sink, on a migrated schema."""
    name = f"writer_{uuid.uuid4().hex[:8]}"
    url = settings.database_url.get_secret_value()
    await migrate(make_conninfo(url, options=f"-c search_path={SCHEMA}"))
    with psycopg.connect(url, autocommit=True) as owner:
        words = {"role": sql.Identifier(name), "database": sql.Identifier(owner.info.dbname)}
        grants = (
            "CREATE ROLE {role} LOGIN PASSWORD 'writer'; GRANT USAGE ON SCHEMA desk TO {role};"
            "REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC;"
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA desk TO {role}"
        )
        owner.execute(sql.SQL(grants).format(**words))
        yield name
        owner.execute(sql.SQL("DROP OWNED BY {role}; DROP ROLE {role}").format(**words))


@pytest.fixture
def own(settings: Settings, role: str) -> Settings:
    url = make_conninfo(settings.database_url.get_secret_value(), user=role, password="writer")  # noqa: S106 - made up
    return settings.model_copy(update={"database_url": SecretStr(url), "database_schema": SCHEMA})


@pytest.fixture
def url(own: Settings) -> str:
    return database_conninfo(own)


class Owner:
    """Who may revoke and grant."""

    def __init__(self, settings: Settings, role: str) -> None:
        self._url = settings.database_url.get_secret_value()
        self._role = role

    @contextmanager
    def without(self, right: str) -> Iterator[None]:
        """The role lacks a right, such as `INSERT on market_data`."""
        privilege, _, on = right.partition(" on ")
        named = on.removeprefix("the ") if on.startswith("the ") else f"TABLE {SCHEMA}.{on}"
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(f"REVOKE {privilege} ON {named} FROM {self._role}, PUBLIC".encode())
            yield
            connection.execute(f"GRANT {privilege} ON {named} TO {self._role}".encode())


@pytest.fixture
def owner(settings: Settings, role: str) -> Owner:
    return Owner(settings, role)


async def test_every_right_that_is_missing_is_named(owner: Owner, url: str) -> None:
    rights = [f"{p} on {t}" for t in relation_names("TABLE") for p in ("SELECT", "INSERT", "UPDATE", "DELETE")]
    rights += [f"SELECT on {name}" for name in (*relation_names("VIEW"), "tickpipe_migrations")]
    assert "DELETE on pending_refolds" in rights
    async with await open_session(url, "test") as connection:
        assert await missing_rights(connection, SCHEMA) == []
        for right in (*rights, USAGE):
            with owner.without(right):
                assert await missing_rights(connection, SCHEMA) == [right]


async def test_work_that_is_forbidden_says_which_right_is_missing(owner: Owner, role: str, url: str) -> None:
    writer = Writer(LogEnds(load_settings(), "log"), Metrics(CollectorRegistry()))
    database = Database(url, asyncio.Event())

    async def store(connection: Connection) -> None:
        await writer.write(connection, [candle(ts=MINUTE, log="log")], [bar_of_minute(MINUTE)])
        await advance(connection, [Span("log", 0, 0, 1)])

    async def begin(connection: Connection) -> None:
        await connection.execute(SQL["set_progress"], {"log": "log", "partition": 0, "next": 0})

    await database.run(begin)
    await database.run(store)
    for right in (
        "SELECT on market_data", "INSERT on market_data", "UPDATE on market_data", "INSERT on broker_bars",
        "UPDATE on sink_progress",
    ):  # fmt: skip
        with owner.without(right), pytest.raises(DatabaseForbids, match=rf"the role {role} what .*: {right}; grant it"):
            await database.run(store)
    await database.run(store)
    await database.close()


async def test_a_sink_that_may_not_begin_says_why_in_one_line(
    owner: Owner, own: Settings, url: str, tmp_path: Path
) -> None:
    for right in (USAGE, "SELECT on tickpipe_migrations"):
        with owner.without(right), pytest.raises(DatabaseForbids, match=right):
            await migrate(url)
    await ensure_topics(own)
    missing = "SELECT on tickpipe_migrations"
    with owner.without(missing):
        sink = Service("sink", own, log=tmp_path / "log").start()
        try:
            await asyncio.to_thread(wait_until, lambda: sink.returncode is not None, what="the end of the sink")
        finally:
            sink.close()
    assert sink.returncode == 1
    (line,) = [line for line in sink.said().splitlines() if "PostgreSQL does not allow" in line]
    assert missing in line
    assert "Traceback" not in sink.said()


def test_doctor_names_what_is_missing(owner: Owner, own: Settings, role: str) -> None:
    for right in (USAGE, "SELECT on tickpipe_migrations", "DELETE on stale_hours"):
        with owner.without(right):
            result = CliRunner().invoke(app, ["doctor", "--json"], env=environment(own))
        (line,) = [each for each in json.loads(result.stdout) if each["part"] == "rights in the database"]
        assert (line["level"], f"the role {role} lacks {right}, " in line["found"]) == ("red", True), line
