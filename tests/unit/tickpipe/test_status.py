"""The arithmetic of lag, and a status of servers that are not there."""

import socket

import pytest
from aiokafka import TopicPartition

from runtime.kafka import Ends
from runtime.kafka_groups import lag_of
from runtime.settings import load_settings
from tickpipe.status import pipeline_status


@pytest.mark.parametrize(
    ("ends", "committed", "lag"),
    [
        ({"ticks": {}}, {}, 0),
        ({"ticks": {0: (0, 10), 1: (0, 5)}}, {("ticks", 0): 7, ("ticks", 1): 5}, 3),
        ({"ticks": {0: (0, 10), 1: (0, 5)}}, {("ticks", 0): 7}, 3 + 5),  # no commit: from the start
        ({"ticks": {0: (4, 10)}}, {}, 6),  # retention moved the start
        ({"ticks": {0: (4, 10)}}, {("ticks", 0): 2}, 6),  # the commit lies before what is left
        ({"ticks": {0: (0, 3)}}, {("ticks", 0): 9}, 0),  # the topic was re-created
        ({"a": {0: (0, 2)}, "b": {0: (0, 3)}}, {("a", 0): 1}, 1 + 3),
    ],
)
def test_lag_is_what_was_not_committed(ends: dict[str, Ends], committed: dict[tuple[str, int], int], lag: int) -> None:
    assert lag_of(ends, {TopicPartition(*tp): offset for tp, offset in committed.items()}) == lag


async def test_servers_that_are_down_are_problems_not_errors() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        settings = load_settings(kafka_bootstrap=address, database_url=f"postgresql://nobody@{address}/none")

        status = await pipeline_status(settings)

    assert [problem.partition(":")[0] for problem in sorted(status.problems)] == ["Kafka", "PostgreSQL"]
    assert (status.topics, status.newest, status.lag) == ({}, [], {"stream": None, "sink": None})
