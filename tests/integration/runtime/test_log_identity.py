"""A log is named after the id of its topic, so that another topic of the same name is another log."""

import asyncio
import re
import subprocess

import pytest

from marketdata.errors import KafkaUnavailable
from runtime.logreader import own_log, wait_for_log
from runtime.settings import Settings
from runtime.topics import ensure_topics
from sink.writer import LogEnds
from tests.kafka_log import delete_ticks_topic
from tests.kafka_tool import tool_command
from tests.waiting import PATIENCE_SECONDS


@pytest.mark.contract
async def test_the_id_is_the_one_that_kafkas_own_tool_shows(settings: Settings) -> None:
    name = await wait_for_log(settings)
    command = tool_command(
        "org.apache.kafka.tools.TopicCommand",
        "--bootstrap-server", settings.kafka_bootstrap, "--describe", "--topic", settings.ticks_topic,
    )  # fmt: skip
    shown = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True
    )
    found = re.search(r"TopicId: (\S+)", shown.stdout)
    assert found is not None
    assert name.split("/")[1:] == [settings.ticks_topic, found[1]]


async def test_a_topic_that_is_recreated_is_another_log(settings: Settings) -> None:
    before = await wait_for_log(settings)
    ends = LogEnds(settings, before)
    assert await own_log(settings) == before

    await delete_ticks_topic(settings)
    with pytest.raises(KafkaUnavailable, match=r"is not there"):
        await own_log(settings)
    await ensure_topics(settings)

    now = await own_log(settings)
    assert now != before
    # The sink learns of it by the first candle that names it, and takes nobody else's log for its own.
    await ends.meet("somebody else's")
    assert ends.own_log == now
    await ends.meet(before)
    await ends.meet(now)
    assert ends.own_log == now
