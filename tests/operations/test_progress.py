"""The database and Kafka's committed offsets differ: the sink stores every candle all the same."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

import psycopg
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.protocol.admin import DeleteGroupsRequest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from marketdata.candle import Candle
from marketdata.errors import ProgressLost
from marketdata.wire import candle_key, encode
from runtime.aiokafka_internals import send_request
from runtime.kafka import admin_client, log_ends
from runtime.kafka_groups import committed_offsets
from runtime.logreader import wait_for_log
from runtime.settings import Settings
from sink.db.connection import connect
from sink.db.schema import migrate
from sink.progress import Span, advance, with_sink_group
from sink.service import Sink
from tests.integration.sink.flow import Flow, RunningSink, rejected_records, value
from tests.kafka_log import group_lag
from tests.servers import EmbeddedServers
from tests.unit.sink.candles import MINUTE, candle
from tests.waiting import eventually
from tickpipe.replay.engine import set_offsets

#: Candles of one round; they go to every partition.
ROUND = 40


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Without lasting names: partitions of a sink that has stopped would wait ten seconds for it to come back."""
    return settings.model_copy(update={"sink_instance": ""})


@pytest.fixture
async def flow(settings: Settings) -> AsyncIterator[Flow]:
    async with Flow(settings, await wait_for_log(settings)) as opened:
        yield opened


@pytest.fixture
def databases(servers: EmbeddedServers) -> "Iterator[Databases]":
    made = Databases(servers.database_url)
    yield made
    made.drop()


class Databases:
    """Copies of a database, as a restore makes them."""

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url
        self._made: list[str] = []

    def execute(self, statement: str, *names: str) -> None:
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def create(self, settings: Settings, suffix: str) -> Settings:
        """Settings with an empty database."""
        name = f"{name_of(settings)}_{suffix}"
        self.execute("CREATE DATABASE {}", name)
        self._made.append(name)
        return with_database(settings, name)

    def copy(self, settings: Settings, suffix: str) -> Settings:
        """Settings with a database that is as this one is now; nobody may be connected to it."""
        name = f"{name_of(settings)}_{suffix}"
        self.execute("CREATE DATABASE {} TEMPLATE {}", name, name_of(settings))
        self._made.append(name)
        return with_database(settings, name)

    def put_in_place(self, older: Settings, settings: Settings) -> None:
        """The older database takes the name of the other, which is dropped; connections are cut."""
        self.execute("DROP DATABASE {} WITH (FORCE)", name_of(settings))
        self.execute("ALTER DATABASE {} RENAME TO {}", name_of(older), name_of(settings))

    def drop(self) -> None:
        for name in self._made:
            self.execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)


def name_of(settings: Settings) -> str:
    return str(conninfo_to_dict(settings.database_url.get_secret_value())["dbname"])


def with_database(settings: Settings, name: str) -> Settings:
    url = make_conninfo(settings.database_url.get_secret_value(), dbname=name)
    return settings.model_copy(update={"database_url": SecretStr(url), "sink_port": 0})


async def send_round(flow: Flow, number: int) -> None:
    """Send candles of forty minutes that were not sent before, as many to each partition."""
    candles: Sequence[Candle] = [
        candle(ts=MINUTE + (number * ROUND + i) * 60_000, log=flow.own_log) for i in range(ROUND)
    ]
    topic, partitions = flow.settings.candles_topic, flow.settings.kafka_partitions
    sent = [
        await flow.producer.send(topic, encode(one), key=candle_key(one), partition=i % partitions)
        for i, one in enumerate(candles)
    ]
    for one in sent:
        await one


def holds(settings: Settings, rounds: int) -> Callable[[], Awaitable[bool]]:
    return lambda: _has_rows(settings, rounds * ROUND)


async def rows(settings: Settings) -> int:
    async with await psycopg.AsyncConnection.connect(settings.database_url.get_secret_value()) as connection:
        return int(await value(connection, "SELECT count(*) FROM market_data"))


async def _has_rows(settings: Settings, expected: int) -> bool:
    try:
        return await rows(settings) == expected
    except psycopg.Error:
        return False


def counted(sink: Sink, name: str, **labels: str) -> float:
    return sink.metrics.registry.get_sample_value(name, labels) or 0.0


async def store_round(settings: Settings, flow: Flow, number: int) -> None:
    """Send a round and have it stored and committed by a sink that stops then."""
    await send_round(flow, number)
    async with RunningSink(settings):
        await eventually(holds(settings, number + 1))


async def test_a_sink_of_another_database_under_the_same_group_takes_nothing(
    settings: Settings, flow: Flow, databases: Databases
) -> None:
    # Arrange: production runs, and a staging sink with a database of its own joins its group and gets partitions
    staging = databases.create(settings, "staging")
    await store_round(settings, flow, 0)
    rounds = 1
    async with RunningSink(settings):
        async with RunningSink(staging) as sink:
            await eventually(lambda: _reports_lag(sink, settings.candles_topic))
            for _ in range(2):
                await send_round(flow, rounds)
                rounds += 1

            async def is_committed() -> bool:
                return await group_lag(settings, settings.sink_group, settings.candles_topic) == 0

            await eventually(is_committed)
            assert await rows(staging) > 0

        # Act: it leaves
        await send_round(flow, rounds)

        # Assert
        await eventually(holds(settings, rounds + 1))


async def _reports_lag(sink: Sink, topic: str) -> bool:
    # As it does of partitions that it was assigned.
    return any(sample.labels["topic"] == topic for metric in sink.metrics.lag.collect() for sample in metric.samples)


async def test_an_older_state_of_the_database_is_filled_up(
    settings: Settings, flow: Flow, databases: Databases
) -> None:
    await store_round(settings, flow, 0)
    older = databases.copy(settings, "older")
    await store_round(settings, flow, 1)

    async with RunningSink(older) as sink:
        await eventually(holds(older, 2))
        # What the older state held is not read once more.
        assert counted(sink, "tickpipe_sink_rows_total", action="inserted") == ROUND
        assert counted(sink, "tickpipe_sink_rows_total", action="ignored") == 0


async def test_a_database_that_goes_back_under_a_running_sink_is_filled_up(
    settings: Settings, flow: Flow, databases: Databases
) -> None:
    await store_round(settings, flow, 0)
    older = databases.copy(settings, "older")
    async with RunningSink(settings):
        await send_round(flow, 1)
        await eventually(holds(settings, 2))
        databases.put_in_place(older, settings)
        await send_round(flow, 2)
        await eventually(holds(settings, 3))


async def test_a_database_that_goes_back_is_filled_up_although_no_candle_comes(
    settings: Settings, flow: Flow, databases: Databases
) -> None:
    # The check of the newest days would find the minutes by other means, some time later.
    settings = settings.model_copy(update={"check_days": 0})
    await store_round(settings, flow, 0)
    older = databases.copy(settings, "older")
    async with RunningSink(settings):
        await send_round(flow, 1)
        await eventually(holds(settings, 2))

        async def is_committed() -> bool:
            return await group_lag(settings, settings.sink_group, settings.candles_topic) == 0

        await eventually(is_committed)
        databases.put_in_place(older, settings)
        await eventually(holds(settings, 2))


async def test_a_group_whose_offsets_were_deleted_goes_on_where_the_database_ends(
    settings: Settings, flow: Flow
) -> None:
    await store_round(settings, flow, 0)
    async with admin_client(settings) as client:

        async def is_deleted() -> bool:
            await send_request(client, DeleteGroupsRequest([settings.sink_group]))
            return not await committed_offsets(client, settings.sink_group)

        await eventually(is_deleted)
    await send_round(flow, 1)

    async with RunningSink(settings) as sink:
        await eventually(holds(settings, 2))
        assert counted(sink, "tickpipe_sink_rows_total", action="ignored") == 0


async def test_offsets_that_were_moved_forward_skip_nothing(settings: Settings, flow: Flow) -> None:
    await store_round(settings, flow, 0)
    await send_round(flow, 1)
    ends = await log_ends(settings, settings.candles_topic)
    moved = {TopicPartition(settings.candles_topic, partition): end for partition, (_, end) in ends.items()}
    await set_offsets(settings, settings.sink_group, moved)

    async with RunningSink(settings):
        await eventually(holds(settings, 2))


async def test_a_database_that_never_heard_of_the_topic_begins_with_the_first_record(
    settings: Settings, flow: Flow, databases: Databases
) -> None:
    await store_round(settings, flow, 0)
    empty = databases.create(settings, "empty")
    async with RunningSink(empty):
        await eventually(holds(empty, 1))


async def test_records_that_were_deleted_before_they_were_stored_are_counted(settings: Settings, flow: Flow) -> None:
    await store_round(settings, flow, 0)
    await send_round(flow, 1)
    tp = TopicPartition(settings.candles_topic, 0)
    async with admin_client(settings) as client:
        await client.delete_records({tp: RecordsToDelete(before_offset=ROUND // settings.kafka_partitions + 7)})

    async with RunningSink(settings) as sink:
        await eventually(lambda: _has_rows(settings, 2 * ROUND - 7))
        assert counted(sink, "tickpipe_sink_unseen_records_total", topic=tp.topic) == 7
    async with RunningSink(settings) as sink:
        await send_round(flow, 2)
        await eventually(lambda: _has_rows(settings, 3 * ROUND - 7))
        # Once is enough.
        assert counted(sink, "tickpipe_sink_unseen_records_total", topic=tp.topic) == 0


async def test_rejected_records_do_not_hold_the_progress(settings: Settings, flow: Flow) -> None:
    """A batch with a row that the database refuses is stored in halves, and its progress moves when all is safe."""
    too_wide = candle(ts=MINUTE, symbol="GBPUSD", spread=2**40, log=flow.own_log)
    good = [candle(ts=MINUTE + i * 60_000, log=flow.own_log) for i in range(5)]
    await flow.send_candles([*good, too_wide, *good[:1]])
    async with RunningSink(settings):
        await rejected_records(settings, 1)
        await eventually(lambda: _has_rows(settings, 5))
    async with await connect(settings.database_url.get_secret_value()) as connection:
        query = "SELECT sum(next_offset) FROM sink_progress"
        assert await value(connection, query) == 7


async def test_progress_moves_only_over_what_follows_and_never_back(settings: Settings) -> None:
    url = settings.database_url.get_secret_value()
    await migrate(url)
    async with await connect(url) as connection:
        await connection.execute("INSERT INTO sink_progress VALUES ('log', 0, 10), ('log', 1, 10)")

        async def progress() -> list[int]:
            found = await connection.execute("SELECT next_offset FROM sink_progress ORDER BY partition")
            return [offset for (offset,) in await found.fetchall()]

        await advance(connection, [Span("log", 0, 8, 15), Span("log", 1, 0, 5)])
        assert await progress() == [15, 10]
        with pytest.raises(ProgressLost, match="log partition 1"):
            async with connection.transaction():
                await advance(connection, [Span("log", 0, 15, 20), Span("log", 1, 11, 12)])
        assert await progress() == [15, 10]
        with pytest.raises(ProgressLost):
            await advance(connection, [Span("other", 0, 0, 1)])


async def test_each_database_has_a_group_of_its_own(settings: Settings, databases: Databases) -> None:
    """Also for a role that may do nothing but connect, and a name that the user chose stays as it is."""
    assert await with_sink_group(settings) == settings
    unnamed = settings.model_copy(update={"sink_group": ""})
    name = (await with_sink_group(unnamed)).sink_group
    assert name.startswith("tickpipe-sink-")
    assert (await with_sink_group(databases.copy(unnamed, "copy"))).sink_group != name
    role = f"{name_of(settings)}_role"
    databases.execute("CREATE ROLE {}", role)
    try:
        url = make_conninfo(settings.database_url.get_secret_value(), options=f"-c role={role}")
        assert (await with_sink_group(unnamed, url)).sink_group == name
    finally:
        databases.execute("DROP ROLE {}", role)
