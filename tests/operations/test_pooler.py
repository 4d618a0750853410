"""Through PgBouncer in transaction mode everything works, and no session is left other than it was."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from msgspec import structs
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from runtime.logreader import wait_for_log
from runtime.settings import Settings
from sink.db.connection import Database, connect
from sink.db.schema import migrate, migration_files
from sink.db.session import PoolerUnusable, open_session
from sink.metrics import Metrics
from sink.verify import verify
from sink.writer import LogEnds, Writer
from tests.integration.sink.flow import Flow, RunningSink, day_frames, value
from tests.integration.tickpipe.test_operations import commands
from tests.pooler import SESSIONS, pooler, through
from tests.servers import EmbeddedServers
from tests.unit.sink.candles import MINUTE, bar_of_minute, candle
from tests.waiting import PATIENCE_SECONDS, eventually

#: What a transaction leaves in the session that it ran in: tables, prepared statements, locks and settings.
LEFT_BEHIND = """
SELECT
    (SELECT count(*) FROM pg_class WHERE relpersistence = 't'), (SELECT count(*) FROM pg_prepared_statements),
    -- Of this database: others of the server are other tests'.
    (SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
     WHERE l.locktype = 'advisory' AND d.datname = current_database()),
    (SELECT count(*) FROM pg_settings WHERE source = 'session' AND name <> 'application_name')
"""


@pytest.fixture(scope="module")
def port(servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with pooler(servers.database_url, tmp_path_factory.mktemp("pooler")) as running:
        yield running


@pytest.fixture
def settings(settings: Settings, port: int) -> Settings:
    url = through(settings.database_url.get_secret_value(), port)
    return settings.model_copy(update={"database_url": SecretStr(url), "sink_port": 0, "sink_instance": ""})


@pytest.fixture
def url(settings: Settings) -> str:
    return settings.database_url.get_secret_value()


async def test_services_that_migrate_at_once_apply_each_migration_once(url: str) -> None:
    applied = await asyncio.gather(*(migrate(url) for _ in range(4)))
    assert sorted(name for names in applied for name in names) == list(migration_files())


async def test_the_command_of_the_page_about_operations_works(url: str) -> None:
    await migrate(url)
    (block,) = commands(of=["Poolers"])
    shell = f'tickpipe() {{ "{sys.executable}" -m tickpipe "$@"; }}\n{block}'
    done = await asyncio.to_thread(
        subprocess.run, ["bash", "-euc", shell], capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS,
        env=os.environ | {"POOLER_URL": url},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "applied_migrations" in done.stdout


async def test_many_clients_share_two_sessions_and_leave_nothing_in_them(settings: Settings, url: str) -> None:
    # Arrange
    await migrate(url)
    log_ends = LogEnds(settings, await wait_for_log(settings))
    sessions: set[int] = set()

    async def store(client: int) -> None:
        database = Database(url, asyncio.Event(), name=str(client))
        writer = Writer(log_ends, Metrics(CollectorRegistry()))
        symbol = f"S{client}"
        for minute in range(20):
            ts = MINUTE + minute * 60_000
            await database.run(
                lambda connection, ts=ts: writer.write(  # type: ignore[misc]  # mypy infers no type of such a default
                    connection,
                    [candle(ts=ts, symbol=symbol, log=log_ends.own_log)],
                    [structs.replace(bar_of_minute(ts), symbol=symbol)],
                )
            )
            connection = await database.connection()
            sessions.add(await value(connection, "SELECT pg_backend_pid()"))
            assert await value(connection, "SHOW search_path") == "public"
        await database.close()

    # Act
    await asyncio.gather(*(store(client) for client in range(12)))

    # Assert
    async with await open_session(url, "test") as connection:
        assert await value(connection, "SELECT count(*) FROM market_data") == 12 * 20
        assert await value(connection, "SELECT count(*) FROM broker_bars") == 12 * 20
    assert 1 < len(sessions) <= SESSIONS
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as plain:
        assert plain.execute(LEFT_BEHIND).fetchone() == (0, 0, 0, 0)


async def test_a_minute_is_refolded_and_verified(settings: Settings, url: str) -> None:
    # Arrange: two folds of which neither contains the other
    async with Flow(settings, await wait_for_log(settings)) as flow:
        logged = await flow.log_frames(day_frames()[:40])
        await flow.send_candles([*flow.candles(logged[:25]), *flow.candles(logged[15:])])
        expected = len(flow.candles(logged))

    # Act
    async with RunningSink(settings):

        async def are_refolded() -> bool:
            try:
                async with await open_session(url, "test") as connection:
                    rows = await value(connection, "SELECT count(*) FROM market_data WHERE origin = 'ticks'")
                    pending = await value(connection, "SELECT count(*) FROM pending_refolds")
                    return (rows, pending) == (expected, 0)
            except psycopg.errors.UndefinedTable:
                return False

        await eventually(are_refolded)

    # Assert
    report = await verify(settings)
    assert (report.checked, report.equal, report.pending) == (expected, expected, [])


async def test_a_lost_batch_leaves_nothing_behind(url: str) -> None:
    """A transaction that fails is rolled back, and the next one is set up as it was."""
    await migrate(url)
    async with await connect(url) as connection:
        with pytest.raises(psycopg.errors.UndefinedTable):
            await connection.execute("SELECT * FROM missing")
        assert await value(connection, "SHOW timezone") == "UTC"
        assert await value(connection, "SHOW statement_timeout") == "30s"


async def test_a_pooler_in_statement_mode_is_refused_with_the_cure(servers: EmbeddedServers, tmp_path: Path) -> None:
    with (
        pooler(servers.database_url, tmp_path, pool_mode="statement") as port,
        pytest.raises(PoolerUnusable, match="pool_mode"),
    ):
        await open_session(through(servers.database_url, port), "test")
