"""A real Kafka and a real PostgreSQL for the tests of the sink; each test has topics and a database of its own."""

import os
from collections.abc import AsyncIterator, Iterator
from itertools import count

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from runtime.log_identity import wait_for_log
from runtime.settings import Settings, load_settings
from sink.db.connection import Connection, connect
from sink.db.schema import migrate
from tests.finished_topics import finish_topics
from tests.integration.sink.flow import Flow
from tests.servers import EmbeddedServers

_numbers = count(1)


@pytest.fixture
def server_url(servers: EmbeddedServers) -> str:
    """The database server: the embedded one, or the one that TEST_DATABASE_URL names (with `-m "not fault"`)."""
    return os.environ.get("TEST_DATABASE_URL", servers.database_url)


@pytest.fixture
def settings(servers: EmbeddedServers, server_url: str) -> Iterator[Settings]:
    """Settings with an empty database and topics that nobody used before; the topics are not created yet."""
    name = f"sink_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    made = load_settings(
        kafka_bootstrap=servers.kafka_bootstrap,
        kafka_partitions=1,
        ticks_topic=f"{name}.ticks",
        candles_topic=f"{name}.candles.m1",
        broker_candles_topic=f"{name}.candles.broker",
        reference_topic=f"{name}.reference",
        ticks_rejected_topic=f"{name}.ticks.rejected",
        candles_rejected_topic=f"{name}.candles.rejected",
        sink_group=name,
        sink_port=0,
        database_url=SecretStr(psycopg.conninfo.make_conninfo(server_url, dbname=name)),
    )
    yield made
    finish_topics(made)


@pytest.fixture
async def url(settings: Settings) -> str:
    """A database with the schema."""
    conninfo = settings.database_url.get_secret_value()
    await migrate(conninfo)
    return conninfo


@pytest.fixture
async def connection(url: str) -> AsyncIterator[Connection]:
    async with await connect(url) as opened:
        yield opened


@pytest.fixture
async def flow(settings: Settings) -> AsyncIterator[Flow]:
    """The topics, and the producer and stream app that the test plays itself."""
    async with Flow(settings, await wait_for_log(settings)) as opened:
        yield opened
