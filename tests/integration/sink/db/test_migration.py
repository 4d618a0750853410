import asyncio
import random
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest

from marketdata.errors import SchemaTaken
from runtime.settings import load_settings
from sink.db.connection import connect
from sink.db.schema import migrate
from sink.db.session import database_conninfo
from tests.integration.sink.db.editions import GIVEN_SERVER, MOST_EDITIONS, database_on, install_pglite, pglite_database
from tests.integration.sink.db.history import assert_exact, insert, materialise_step, refresh, some_minutes
from tests.integration.sink.db.oracle import Day
from tests.integration.sink.flow import value
from tests.servers import EmbeddedServers

MATERIALISED = ("H1", "H4", "D1", "W1", "MN1")


@pytest.fixture(params=MOST_EDITIONS, scope="module")
def fresh_database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The libpq URL of a database of each edition that was empty when it was migrated, just now."""
    with ExitStack() as stack:
        if request.param == "pglite":
            install_pglite()
            url = stack.enter_context(pglite_database())
        else:
            servers: EmbeddedServers = request.getfixturevalue("servers")
            server = GIVEN_SERVER if GIVEN_SERVER and request.param == "given" else servers.database_url
            url = stack.enter_context(database_on(server))
        asyncio.run(migrate(url))
        yield url


async def test_a_database_without_rows_has_nothing_to_catch_up(fresh_database: str) -> None:
    async with await connect(fresh_database) as connection:
        assert await value(connection, "SELECT materialised_from::text FROM candle_settings") == "-infinity"


async def test_what_is_not_materialised_is_read_at_once_and_materialised_step_by_step(fresh_database: str) -> None:
    # Arrange: a history of which no hour is materialised
    dice = random.Random(3)
    stored = [bar for source in ("S", "T") for bar in some_minutes(dice, "EURUSD", source)]
    async with await connect(fresh_database) as connection:
        await connection.execute(b"DEALLOCATE ALL")
        await insert(connection, stored)
        await connection.execute(b"DELETE FROM stale_hours")
        await connection.execute(b"UPDATE candle_settings SET materialised_from = 'infinity'")

        # Act and Assert
        await assert_exact(connection, stored, Day(), ("H1", "D1", "MN1"), dice)
        assert await refresh(connection) == 0
        steps = 1
        while await materialise_step(connection, days=3) != "-infinity":
            steps += 1
        assert steps > 5
        assert await value(connection, "SELECT count(*) FROM stale_hours") == 0
        assert await value(connection, "SELECT count(*) FROM candle_hours") > 1_000
        await assert_exact(connection, stored, Day(), MATERIALISED, dice)


async def test_a_schema_of_our_own_though_the_extension_is_in_another(fresh_database: str) -> None:
    own = database_conninfo(load_settings(database_schema="tickpipe"), fresh_database)

    await migrate(own)

    async with await connect(own) as connection:
        assert await value(connection, "SELECT 'market_data'::regclass = 'tickpipe.market_data'::regclass")
        assert await value(connection, "SELECT 'public.market_data'::regclass <> 'market_data'::regclass")
        assert await value(connection, "SELECT count(*) FROM market_data") == 0


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE tickpipe_migrations SET sha256 = 'of before' WHERE name LIKE '0001%'",
        "ALTER TABLE tickpipe_migrations DROP COLUMN sha256",
    ],
    ids=["another", "unknown"],
)
def test_a_schema_of_another_version_is_refused_with_the_way_on(servers: EmbeddedServers, change: str) -> None:
    with database_on(servers.database_url) as url:
        assert asyncio.run(migrate(url))
        assert asyncio.run(migrate(url)) == []
        with psycopg.connect(url) as connection:
            connection.execute(change.encode())

        with pytest.raises(SchemaTaken, match=r"made the tables in the schema public .*0001_market_data.sql.*SCHEMA="):
            asyncio.run(migrate(url))
