"""The sink under a role that writes rows and owns nothing, on every edition."""

import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import psycopg
import pytest
from prometheus_client import CollectorRegistry
from psycopg import sql
from psycopg.conninfo import make_conninfo

from marketdata.errors import NotMigrated
from sink.db.connection import Connection
from sink.db.schema import migrate, migration_files, set_compression, storage
from sink.maintenance import Materialiser, Retainer, Retention
from sink.metrics import Metrics
from sink.writer import Writer
from tests.integration.sink.db.editions import database_on, every_edition
from tests.integration.sink.db.history import insert, refresh, some_minutes
from tests.integration.sink.db.test_retention import OneConnection
from tests.integration.sink.flow import value
from tests.servers import EmbeddedServers
from tests.unit.sink.candles import MINUTE, candle


@pytest.fixture
async def roles(connection: Connection) -> AsyncIterator[None]:
    """The roles `of_writer` and `of_reader`, with the rights that the deployment gives them."""
    await connection.execute(
        b"CREATE ROLE of_writer; CREATE ROLE of_reader; GRANT SELECT ON ALL TABLES IN SCHEMA public TO of_reader;"
        b"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO of_writer"
    )
    try:
        yield
    finally:
        await connection.execute(b"SET SESSION AUTHORIZATION postgres")
        await connection.execute(b"DROP OWNED BY of_writer, of_reader; DROP ROLE of_writer, of_reader")


@every_edition
@pytest.mark.usefixtures("roles")
async def test_a_role_that_writes_rows_does_all_that_the_sink_does(connection: Connection, writer: Writer) -> None:
    # A few are enough, on both sides of the cut: they are in chunks of their own.
    await insert(connection, sorted(some_minutes(random.Random(5), "EURUSD", "S"), key=lambda bar: bar.ts)[::40])
    await refresh(connection)
    before = await storage(connection)
    now = datetime(2019, 6, 1, tzinfo=UTC)
    retention = Retention(now - datetime(2018, 10, 30, tzinfo=UTC), None, None)
    await connection.execute(b"SET SESSION AUTHORIZATION of_writer")

    actions = await writer.write(connection, [candle(((10, 19),), ts=MINUTE)])
    await set_compression(connection, 30)
    database = OneConnection(connection)
    deleted = await Retainer(database, retention, now=lambda: now).step()
    await Materialiser(database, Metrics(CollectorRegistry())).step()

    assert actions["inserted"] == 1
    assert deleted is not None
    assert await value(connection, "SELECT count(*) FROM market_data WHERE ts < '2018-10-01'") == 0
    after = await storage(connection)
    assert after.policies == []
    if before.chunks:
        assert (after.chunks or 0) < before.chunks


@pytest.mark.usefixtures("roles")
async def test_a_role_that_reads_cannot_drop_minutes(connection: Connection) -> None:
    await connection.execute(b"SET SESSION AUTHORIZATION of_reader")

    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="may not delete rows of market_data"):
        await connection.execute(b"SELECT drop_minutes('2030-01-01')")


async def test_migrations_wait_for_the_owner(servers: EmbeddedServers) -> None:
    with database_on(servers.database_url) as url, psycopg.connect(url, autocommit=True) as owner:
        role = sql.Identifier(f"writer_of_{owner.info.dbname}")
        owner.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'writer'").format(role))
        owner.execute(sql.SQL("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {}").format(role))
        writer_url = make_conninfo(url, user=f"writer_of_{owner.info.dbname}", password="writer")  # noqa: S106 - made up
        try:
            with pytest.raises(NotMigrated, match=r"may not apply the migration 0001.*`tickpipe db migrate`") as raised:
                await migrate(writer_url)
            assert raised.value.retriable

            assert await migrate(url) == list(migration_files())

            assert await migrate(writer_url) == []
        finally:
            owner.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(role))
