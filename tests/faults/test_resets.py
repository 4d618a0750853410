"""The stream group is set back to random points, by `tickpipe replay`'s own code and by Kafka's tool; rows get lost."""

import asyncio
import random
import subprocess

import psycopg
import pytest

from runtime.kafka import log_ends
from runtime.kafka_groups import group_offsets
from runtime.settings import Settings
from tests.days import eurusd_ticks
from tests.faults.stage import Stage
from tests.kafka_log import KafkaLog, frames_of
from tests.kafka_tool import tool_command
from tests.servers import EmbeddedServers
from tickpipe.replay.engine import PartitionPlan, reset, wait_until_empty

pytestmark = [pytest.mark.fault, pytest.mark.full, pytest.mark.long(300), pytest.mark.timeout(1800)]

#: Points of each way: the beginning, and random ones.
POINTS = 10

SYMBOLS = ("EURUSD", "GBPUSD", "USDJPY")
TICKS = 6_000


async def lose_rows_behind(stage: Stage, point: int) -> int:
    """Delete about half of the rows that lie wholly behind the point; how many."""
    url = stage.settings.database_url.get_secret_value()
    async with await psycopg.AsyncConnection.connect(url) as connection:
        query = (
            "DELETE FROM market_data WHERE position_offset(lower(offsets)) >= %s"
            " AND abs(hashtext(symbol || ts::text)) %% 2 = %s"
        )
        return (await connection.execute(query, (point, stage.rng.randrange(2)))).rowcount


async def reset_by_replay(settings: Settings, point: int) -> None:
    ends = await log_ends(settings, settings.ticks_topic)
    committed = await group_offsets(settings, settings.stream_group, settings.ticks_topic)
    plans = [PartitionPlan(p, committed.get(p), min(point, end), end) for p, (_, end) in ends.items()]
    await reset(settings, plans)


async def reset_by_tool(settings: Settings, point: int) -> None:
    goal = ("--to-offset", str(point)) if point else ("--to-earliest",)
    command = tool_command(
        "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        "--bootstrap-server", settings.kafka_bootstrap, "--group", settings.stream_group,
        "--reset-offsets", *goal, "--topic", settings.ticks_topic, "--execute",
    )  # fmt: skip
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert settings.ticks_topic in done.stdout


WAYS = {"by replay": reset_by_replay, "by Kafka's tool": reset_by_tool}


@pytest.mark.parametrize("way", WAYS)
async def test_resets_to_random_points_leave_the_table_as_the_log_proves(
    settings: Settings, servers: EmbeddedServers, kafka: KafkaLog, seed: int, way: str
) -> None:
    points = random.Random(f"{seed} {way}")
    # Without lasting names a stopped worker leaves its group at once.
    brief = settings.model_copy(update={"stream_instance": ""})
    case = f"offsets reset {way}"
    async with Stage(brief, servers, case=case, seed=seed, modules=("stream_app", "sink")) as stage:
        for symbol in SYMBOLS:
            await kafka.send(*frames_of(eurusd_ticks()[:TICKS], 10, symbol))
        await stage.settle_and_compare(is_over=False)
        for number in range(POINTS):
            worker = stage["stream_app"]
            assert await stage.remove_worker(worker) == 0
            await wait_until_empty(brief, lambda members, waited: None)
            point = points.randrange(TICKS // 10) if number else 0
            lost = await lose_rows_behind(stage, point)
            print(f"point {number}: offset {point}, {lost} rows lost")
            await WAYS[way](brief, point)
            stage.services.append(worker.start())
            await asyncio.to_thread(worker.wait_ready)
            stage.rounds += 1
            await stage.settle_and_compare(is_over=number == POINTS - 1)
