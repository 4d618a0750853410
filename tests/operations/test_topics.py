"""Topics that somebody else configured: what would delete acknowledged ticks is refused at start, and can be cured."""

import asyncio
from pathlib import Path

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from typer.testing import CliRunner, Result

from marketdata.errors import TopicUnsafe
from marketdata.tick import DAY_MS
from runtime.kafka import admin_client
from runtime.settings import Settings
from runtime.topics import check_topics, ensure_topics, topics
from tests.services import Service, environment, running
from tests.waiting import eventually, wait_until
from tickpipe.cli import app

pytestmark = pytest.mark.long(25)


async def configured(settings: Settings, topic: str, **config: str) -> None:
    """A topic with this configuration and no other of its own."""
    async with admin_client(settings) as client:
        (answer,) = await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, config)])
        assert [code for code, *_ in answer.resources] == [0]

    async def applied() -> bool:
        # The controller answers before the broker has heard of it.
        return config.items() <= (await config_of(settings, topic)).items()

    await eventually(applied, what=f"the configuration of {topic}")


async def config_of(settings: Settings, topic: str) -> dict[str, str]:
    async with admin_client(settings) as client:
        (answer,) = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    [(_, _, _, _, entries)] = answer.resources
    return {name: value for name, value, *_ in entries}


@pytest.fixture(autouse=True)
def _commands_find_the_pipeline(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(ensure_topics(settings))
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)


def fix(*options: str) -> Result:
    return CliRunner().invoke(app, ["topics", "fix", *options])


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("retention.ms", "604800000"),
        pytest.param("retention.bytes", "1000000000", marks=pytest.mark.full),
        pytest.param("cleanup.policy", "compact", marks=pytest.mark.full),
        ("cleanup.policy", "compact,delete"),
    ],
)  # fmt: skip
def test_no_service_starts_on_ticks_that_are_deleted_and_fix_cures_it(
    settings: Settings, tmp_path: Path, setting: str, value: str
) -> None:
    # Arrange: what else the topic has of its own is left to it
    others = {"segment.bytes": "20000000", "retention.ms": "-1"}
    asyncio.run(configured(settings, settings.ticks_topic, **others | {setting: value}))

    # Act and assert
    for module in ("stream_app", "sink"):
        service = Service(module, settings, log=tmp_path / f"{module}.log").start()
        try:
            assert service.wait() == 1
        finally:
            service.close()
        (line,) = [line for line in service.said().splitlines() if "_refused" in line]
        assert f"{settings.ticks_topic} has {setting}={value}" in line
        assert "tickpipe topics fix --yes" in line
        assert "Traceback" not in service.said()
    producer = Service("producer", settings, log=tmp_path / "producer.log").start()
    try:
        wait_until(lambda: f"{setting}={value}" in producer.said(), what="the refusal")
        assert producer.get("/ready").status_code == 503
        assert producer.post({"symbol": "S", "ts_msc": 1_549_238_400_000, "bid": 1, "ask": 1}).status_code == 503

        shown = fix()
        assert shown.exit_code == 1
        assert f"{settings.ticks_topic} has {setting}={value} and needs" in shown.stdout
        assert asyncio.run(config_of(settings, settings.ticks_topic))[setting] == value
        changed = fix("--yes")
        assert changed.exit_code == 0, changed.output
        assert "(changed)" in changed.stdout

        producer.wait_ready()
    finally:
        producer.close()
    config = asyncio.run(config_of(settings, settings.ticks_topic))
    assert config["segment.bytes"] == "20000000"
    assert (config["retention.ms"], config["retention.bytes"], config["cleanup.policy"]) == ("-1", "-1", "delete")
    again = fix()
    assert again.exit_code == 0
    assert "as it needs" in again.stdout


def test_what_harms_no_tick_is_said_and_does_not_stop_a_service(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def arrange() -> None:
        wanted = {topic.name: topic.config for topic in topics(settings)}
        for topic, config in (
            (settings.ticks_topic, {"message.timestamp.type": "LogAppendTime", "max.message.bytes": "1000000"}),
            (settings.candles_topic, {"retention.ms": "3600000", "compression.type": "gzip"}),
            (settings.broker_candles_topic, {"cleanup.policy": "delete"}),
        ):
            await configured(settings, topic, **wanted[topic] | config)

    asyncio.run(arrange())
    with running(settings, "sink"):
        pass
    differing = [line for line in capfd.readouterr().err.splitlines() if "action=topic_differs" in line]
    assert len(differing) == 5

    # A lone broker has no second replica to offer, and no setting makes one.
    monkeypatch.setenv("TICKPIPE_KAFKA_REPLICATION", "3")
    changed = fix("--yes")
    assert changed.exit_code == 1
    assert changed.stdout.count("(changed)") == 5
    count = len(topics(settings))
    assert changed.stdout.count("has replicas=1 and needs 3") == changed.stdout.count("(left)") == count


def test_longer_retention_than_is_needed_is_no_difference(settings: Settings) -> None:
    async def arrange() -> None:
        wanted = {topic.name: topic.config for topic in topics(settings)}[settings.candles_topic]
        await configured(settings, settings.candles_topic, **wanted | {"retention.ms": "-1"})

    asyncio.run(arrange())
    assert fix().exit_code == 0


def test_retention_that_was_chosen_is_accepted(settings: Settings) -> None:
    async def check(days: int) -> None:
        chosen = settings.model_copy(update={"ticks_retention_days": days})
        await configured(settings, settings.ticks_topic, **{"retention.ms": str(30 * DAY_MS)})
        await check_topics(chosen)

    asyncio.run(check(30))
    for days in (0, 31):
        with pytest.raises(TopicUnsafe, match=r"retention\.ms=2592000000"):
            asyncio.run(check(days))
