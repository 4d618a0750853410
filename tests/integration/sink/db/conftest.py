"""A database of each edition, with the schema and empty; see editions.py."""

from collections.abc import AsyncIterator, Iterator

import pytest

from sink.db.connection import Connection, connect
from sink.db.schema import migrate, set_compression
from sink.writer import Writer
from tests.integration.sink.db.editions import GIVEN_SERVER, MOST_EDITIONS, database_on, install_pglite, pglite_database
from tests.integration.sink.fixed import new_writer
from tests.servers import EmbeddedServers, schema_template


@pytest.fixture(scope="session")
def pglite() -> Iterator[str]:
    """TimescaleDB's community edition, started once: it has one database."""
    install_pglite()
    with pglite_database() as url:
        yield url


@pytest.fixture(params=MOST_EDITIONS)
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The libpq URL of a database of each edition: plain PostgreSQL, TimescaleDB's community edition, a given one."""
    if request.param == "pglite":
        url: str = request.getfixturevalue("pglite")
        yield url
        return
    if request.param == "given":
        assert GIVEN_SERVER is not None
        server, template = GIVEN_SERVER, None
    else:
        servers: EmbeddedServers = request.getfixturevalue("servers")
        server, template = servers.database_url, schema_template(servers.database_url)
    with database_on(server, template) as url:
        yield url


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Connection]:
    """The one connection that every edition allows, to empty tables."""
    await migrate(database)
    opened = await connect(database)
    try:
        # PGlite's one backend remembers what the connection before prepared.
        await opened.execute(b"DEALLOCATE ALL")
        await opened.execute(b"TRUNCATE market_data, broker_bars, pending_refolds")
        await opened.execute(b"SELECT set_candle_day('UTC', '00:00', 'sunday')")
        await set_compression(opened, 0)
        yield opened
    finally:
        # Leaving a block of its own would wait for its statement: for ever, if that is where the test ran out of time.
        await opened.close()


@pytest.fixture
async def writer(connection: Connection) -> Writer:
    """The sink's writer; PGlite, which emcc compiled, does not survive COPY."""
    row = await (await connection.execute(b"SELECT version()")).fetchone()
    assert row is not None
    return new_writer(appends="emcc" not in row[0])
