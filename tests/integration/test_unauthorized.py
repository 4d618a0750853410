"""A Kafka that forbids this user the topics of rejected records: poison is logged and lost, everything else goes on."""

import asyncio
from collections.abc import Iterator

import pytest
from aiokafka.protocol.admin import CreateAclsRequest
from typer.testing import CliRunner, Result

from marketdata.errors import NotAuthorized, UnknownTopic
from marketdata.wire import candle_key, encode, frame_key
from runtime.aiokafka_internals import send_request
from runtime.kafka import admin_client
from runtime.logreader import LogReader
from runtime.settings import Settings
from tests import plainhttp
from tests.conftest import API_KEY, NewDataDir
from tests.days import eurusd_ticks
from tests.kafka_log import KafkaLog, delete_topic, frames_of, group_lag, send_empty
from tests.servers import EmbeddedServers
from tests.services import environment, running
from tests.unit.sink.candles import MINUTE, candle
from tests.waiting import eventually
from tickpipe.cli import app
from tickpipe.embedded import kafka as embedded_kafka

# A broker of its own; operations/test_secured.py has what services say that lack a right.
pytestmark = [pytest.mark.full, pytest.mark.long(27)]

#: Of Kafka's protocol (org.apache.kafka.common.acl and resource).
TOPIC, LITERAL, DESCRIBE, WRITE, DENY, ALLOW = 2, 3, 8, 4, 2, 3


@pytest.fixture(scope="module")
def servers(new_data_dir: NewDataDir) -> Iterator[EmbeddedServers]:
    """Servers of their own, whose Kafka asks who may do what."""
    authorizer = (
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n"
        "allow.everyone.if.no.acl.found=true\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded_kafka, "_SERVER_PROPERTIES", embedded_kafka._SERVER_PROPERTIES + authorizer)
        with EmbeddedServers(new_data_dir("authorizing")) as servers:
            yield servers


async def forbid(settings: Settings, topic: str, *, visible: bool) -> None:
    """Let nobody write to the topic, or not even see it."""
    async with admin_client(settings) as client:
        for operation, permission in ((WRITE, DENY), *([(DESCRIBE, ALLOW)] if visible else [])):
            request = CreateAclsRequest(TOPIC, topic, LITERAL, "User:ANONYMOUS", "*", operation, permission)
            answer = await send_request(client, request)
            assert [code for code, _ in answer.creation_responses] == [0]


@pytest.mark.parametrize("visible", [True, False])
async def test_the_stream_worker_goes_on(
    settings: Settings, kafka: KafkaLog, capfd: pytest.CaptureFixture[str], visible: bool
) -> None:
    good = frames_of(eurusd_ticks()[:400], 100)
    await forbid(settings, settings.ticks_rejected_topic, visible=visible)
    with running(settings, "stream_app") as [worker]:
        await kafka.send(*good[:2])
        sent = await kafka.producer.send_and_wait(settings.ticks_topic, b"no frame", key=frame_key("s", "EURUSD"))
        await kafka.send(*good[2:])

        async def caught_up() -> bool:
            assert worker.returncode is None
            return await kafka.lag() == 0

        await eventually(caught_up, what="no lag")
        assert worker.metric("tickpipe_rejects_lost_total") == 1

    assert sum(candle.volume for candle in (await kafka.candles()).values()) == 400
    [line] = [line for line in capfd.readouterr().err.splitlines() if "action=reject_lost" in line]
    assert f"offset={sent.offset}" in line
    assert "kafka-acls" in line


async def test_the_sink_goes_on(settings: Settings, kafka: KafkaLog, capfd: pytest.CaptureFixture[str]) -> None:
    await forbid(settings, settings.candles_rejected_topic, visible=True)
    candles = [candle(ts=MINUTE + i * 60_000, log="another") for i in range(4)]
    with running(settings, "sink") as [sink]:
        for one in candles[:2]:
            await kafka.producer.send_and_wait(settings.candles_topic, encode(one), key=candle_key(one))
        await kafka.producer.send_and_wait(settings.candles_topic, b"no candle", key=b"key")
        await send_empty(kafka.producer, settings.candles_topic)
        for one in candles[2:]:
            await kafka.producer.send_and_wait(settings.candles_topic, encode(one), key=candle_key(one))

        async def caught_up() -> bool:
            assert sink.returncode is None
            return await group_lag(settings, settings.sink_group, settings.candles_topic) == 0

        await eventually(caught_up, what="no lag")
        assert sink.metric("tickpipe_sink_rows_total", action="inserted") == 4
        assert sink.metric("tickpipe_rejects_lost_total") == 2

    assert capfd.readouterr().err.count("action=reject_lost") == 2


async def test_a_reader_is_told_what_it_may_not_read(settings: Settings, kafka: KafkaLog) -> None:
    await forbid(settings, settings.ticks_topic, visible=False)

    async def told() -> str:
        # A broker hears of the rule a moment after the controller has confirmed it.
        try:
            async with LogReader(settings) as reader:
                await reader.ends(settings.ticks_topic, 0)
        except (NotAuthorized, UnknownTopic) as exc:
            return str(exc)
        return ""

    assert settings.ticks_topic in await eventually(told, what="a refusal")


async def test_the_producer_goes_on(settings: Settings, kafka: KafkaLog, capfd: pytest.CaptureFixture[str]) -> None:
    await forbid(settings, settings.ticks_rejected_topic, visible=False)
    tick = {"ts_msc": MINUTE, "symbol": "EURUSD", "bid": 1.1, "ask": 1.2}
    with running(settings, "producer") as [producer]:
        answers = [
            plainhttp.post(
                f"{producer.url}/ingest/tick", json={"ticks": ticks},
                headers={"X-API-Key": API_KEY, "X-Source": "Broker-Demo"},
            ).status_code
            for ticks in ([tick, tick | {"bid": "odd"}], [tick])
        ]  # fmt: skip
        assert producer.metric("tickpipe_rejects_lost_total") == 1

    assert answers == [207, 200]
    assert len(await kafka.read(settings.ticks_topic)) == 2
    assert capfd.readouterr().err.count("action=reject_lost") == 1


async def test_the_list_tells_topics_that_cannot_be_seen_from_those_that_are_missing(
    settings: Settings, kafka: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await forbid(settings, settings.ticks_rejected_topic, visible=False)
    await delete_topic(settings, settings.candles_rejected_topic)
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)

    async def told() -> Result | None:
        # A broker hears of the rule a moment after the controller has confirmed it.
        result = await asyncio.to_thread(CliRunner().invoke, app, ["topics", "list"])
        return result if "Not allowed" in result.stderr else None

    result = await eventually(told, what="a topic that cannot be seen")
    assert result is not None
    assert f"Missing: {settings.candles_rejected_topic};" in result.stderr
    assert f"Not allowed to see: {settings.ticks_rejected_topic};" in result.stderr
    assert result.exit_code == 1
