"""A real Kafka and a real PostgreSQL for the tests of the sink; each test has topics and a database of its own."""

import os
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from runtime.logreader import wait_for_log
from runtime.settings import Settings
from sink.db.connection import Connection, connect
from sink.db.schema import migrate
from tests.conftest import passing_settings
from tests.integration.sink.flow import Flow
from tests.servers import EmbeddedServers, schema_template


@pytest.fixture
def server_url(servers: EmbeddedServers) -> str:
    """The database server: the embedded one, or the one that TEST_DATABASE_URL names (with `-m "not fault"`)."""
    return os.environ.get("TEST_DATABASE_URL", servers.database_url)


@pytest.fixture
def settings(request: pytest.FixtureRequest, servers: EmbeddedServers, server_url: str) -> Iterator[Settings]:
    """Settings with a database and topics that nobody used before; the topics are not created yet.

    The database is empty, unless the test asks for one with the schema by `url`.
    """
    has_copy = "url" in request.fixturenames and server_url == servers.database_url
    with passing_settings(
        servers, uuid.uuid4().hex[:12], server_url=server_url, kafka_partitions=1, sink_port=0, check_days=2,
        template=schema_template(server_url) if has_copy else "template1",
    ) as made:  # fmt: skip
        yield made


@pytest.fixture
async def url(settings: Settings) -> str:
    """A database with the schema."""
    conninfo = settings.database_url.get_secret_value()
    await migrate(conninfo)  # what a given server needs, and a copy has
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
