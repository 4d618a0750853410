"""Settings of the database and of the role, however hostile, change no byte of what is stored, shown and exported.

Nor does a pooler, whose sessions have them again in every transaction.
"""

import asyncio
import csv
import zipfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import nullcontext
from io import StringIO
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr
from typer.testing import CliRunner

from runtime.log_identity import wait_for_log
from runtime.settings import Settings
from sink.db.schema import migrate
from tests import plainhttp
from tests.conftest import own_settings
from tests.integration.sink.flow import Flow, RunningSink, day_frames
from tests.integration.tickpipe.backups import Silent, restored
from tests.pooler import pooler, through
from tests.servers import EmbeddedServers
from tests.services import running
from tests.waiting import eventually
from tickpipe.backup.archive import ArchiveReader
from tickpipe.backup.engine import take_backup
from tickpipe.cli import app

pytestmark = pytest.mark.long(40)

#: Each one legal, and none what a statement of ours expects.
HOSTILE = {
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "extra_float_digits": "-15",
    "timezone": "Asia/Kolkata",
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "search_path": "hostile, pg_catalog",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "20ms",
    "idle_session_timeout": "200ms",
    "synchronous_commit": "off",
    "session_replication_role": "replica",
    # Shorter than a migration; to lift it takes as long as a busy machine takes for a statement.
    "statement_timeout": "100ms",
}

#: What would end a pooler's session, or a transaction before it can say what it relies on.
ENDS_SESSIONS = {"idle_in_transaction_session_timeout", "idle_session_timeout", "statement_timeout"}

#: What a search_path that is inherited finds first.
SHADOWS = b"""
CREATE SCHEMA hostile;
CREATE TABLE hostile.market_data (ts text);
CREATE TABLE hostile.candle_settings (ts text);
CREATE TABLE hostile.tickpipe_migrations (name text);
CREATE FUNCTION hostile.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS 'SELECT $2';
CREATE FUNCTION hostile.now() RETURNS timestamptz LANGUAGE sql AS $$SELECT timestamptz '1999-01-01'$$;
CREATE FUNCTION hostile.candles(text, text, timestamptz, timestamptz, text) RETURNS text LANGUAGE sql AS 'SELECT $1';
"""

COMMANDS = [
    "candles -s EURUSD --format csv",
    "candles -s EURUSD --timeframe H1 --format json",
    "query 2 --format csv",
    "gaps --from 2019-02-04 --to 2019-02-04T02:00 --least 30 --closed --format csv",
    "fidelity --format csv",
    "db day-zone",
]

PAGES = ["/candles?symbol=EURUSD&limit=500", "/candles?symbol=EURUSD&timeframe=H1", "/symbols"]

#: The only column that two sinks on one log fill differently.
_STORED_AT = "stored_at"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Without lasting names: two sinks are one after the other."""
    return settings.model_copy(update={"sink_instance": "", "stream_instance": ""})


@pytest.fixture
async def candles(settings: Settings) -> AsyncIterator[int]:
    """Some hours of candles in the log; their number."""
    async with Flow(settings, await wait_for_log(settings)) as flow:
        found = flow.candles(await flow.log_frames(day_frames()[:160]))
        await flow.send_candles(found)
        yield len(found)


@pytest.fixture
def hostile(
    servers: EmbeddedServers, settings: Settings, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Settings]:
    """The same log, for another sink, whose database or role says what nobody expects, to a pooler or directly."""
    name = f"hostile{settings.sink_group.rpartition('-')[2]}"
    other = own_settings(servers, name)
    database = sql.Identifier(f"test_{name}")
    who = sql.SQL("ROLE postgres IN DATABASE {}" if request.param == "role" else "DATABASE {}")
    is_pooled = request.param == "pooler"
    with psycopg.connect(other.database_url.get_secret_value(), autocommit=True) as connection:
        connection.execute(SHADOWS)
        for setting in HOSTILE.keys() - (ENDS_SESSIONS if is_pooled else set()):
            words = sql.SQL(", ").join(map(sql.Literal, HOSTILE[setting].split(", ")))
            connection.execute(
                sql.SQL("ALTER {} SET {} = {}").format(who.format(database), sql.Identifier(setting), words)
            )
    url = other.database_url.get_secret_value()
    with pooler(url, tmp_path) if is_pooled else nullcontext() as port:
        yield settings.model_copy(
            update={
                "database_url": SecretStr(through(url, port) if port else url), "sink_group": name,
                "dashboard_port": other.dashboard_port,
            }
        )  # fmt: skip
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(database))


def without_stored_at(rows: Iterable[list[str]], columns: Iterable[str]) -> list[list[str]]:
    place = list(columns).index(_STORED_AT)
    return [row[:place] + row[place + 1 :] for row in rows]


async def all_that_is_said(settings: Settings, candles: int, directory: Path) -> dict[str, object]:
    """What sink, dashboard, commands, export and backup make of the log."""
    said: dict[str, object] = {}
    await migrate(settings.database_url.get_secret_value())
    with running(settings, "dashboard") as (dashboard,):
        async with RunningSink(settings):

            async def are_stored() -> bool:
                # Not in this loop: the sink in it may hold the pooler's last session.
                answer = await asyncio.to_thread(dashboard.get, PAGES[0])
                return len(answer.json().get("candles", [])) == candles

            await eventually(are_stored, what=f"{candles} candles")
        for page in PAGES:
            said[page] = plainhttp.get(dashboard.url + page).text
    environment = {
        "TICKPIPE_DATABASE_URL": settings.database_url.get_secret_value(),
        "TICKPIPE_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "TICKPIPE_DATA_DIR": str(directory / "none"),
    }

    def command(text: str) -> str:
        result = CliRunner().invoke(app, text.split(), env=environment)
        assert result.exit_code == 0, result.output
        return result.stdout

    for text in COMMANDS:
        said[text] = await asyncio.to_thread(command, text)
    await asyncio.to_thread(command, f"export --format csv {directory / 'export'}")
    (file,) = (directory / "export").rglob("*.csv")
    rows = list(csv.reader(StringIO(file.read_text())))
    said["export"] = without_stored_at(rows, rows[0])
    archive = directory / "backup.zip"
    await take_backup(settings, archive, Silent(), with_topics=False)
    with ArchiveReader(archive) as reader, zipfile.ZipFile(archive) as members:
        (table,) = (table for table in reader.manifest.database.tables if table.name == "market_data")
        lines = members.read("database/market_data.copy").decode().splitlines()
        said["backup"] = without_stored_at([line.split("\t") for line in lines], table.columns)
    before = said["candles -s EURUSD --format csv"]
    await restored(settings, archive, replace=True, database_only=True)
    assert await asyncio.to_thread(command, COMMANDS[0]) == before
    return said


@pytest.mark.parametrize(
    "hostile",
    ["database", pytest.param("role", marks=pytest.mark.full), pytest.param("pooler", marks=pytest.mark.full)],
    indirect=True,
)
async def test_what_database_and_role_say_changes_nothing(
    settings: Settings, hostile: Settings, candles: int, tmp_path: Path
) -> None:
    for name in ("plain", "hostile"):
        (tmp_path / name).mkdir()
    expected = await all_that_is_said(settings, candles, tmp_path / "plain")
    found = await all_that_is_said(hostile, candles, tmp_path / "hostile")
    assert found == expected
