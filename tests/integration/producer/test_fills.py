"""What is wanted, from the topic `wanted` to an answer; what senders report, from POST /fills to the topic `fills`."""

from pathlib import Path

from aiokafka.admin import NewTopic

from marketdata.wire import Fill, decode_report, encode, frame_key
from runtime.kafka import admin_client
from runtime.settings import Settings
from runtime.topics import ensure_topics
from tests.integration.producer.service import logging_producer
from tests.kafka_log import KafkaLog, read_records
from tests.services import Service
from tests.waiting import eventually

#: 2025-10-20 02:20:00 UTC.
T = 1_760_926_800_000
HOUR = 3_600_000

TICK = {"ts_msc": T + 417, "symbol": "EURUSD", "bid": 1.1, "ask": 1.2, "flags": 6}
RANGE = {"symbol": "EURUSD", "from": T, "to": T + HOUR}


async def test_a_sender_is_asked_until_it_reports_or_the_topic_says_otherwise(
    settings: Settings, kafka: KafkaLog, service: Service
) -> None:
    key = frame_key("Broker-Demo", "EURUSD")

    def wanted() -> object:
        return service.post({"ticks": [TICK]}, X_Can_Fill="ticks").json().get("wanted")

    async def is_asked(range_: dict[str, object]) -> bool:
        return wanted() == [range_]

    async def is_not_asked() -> bool:
        return wanted() is None

    await kafka.producer.send_and_wait(settings.wanted_topic, b"no ranges", key=key)
    await kafka.producer.send_and_wait(settings.wanted_topic, encode([(T, T + HOUR)]), key=key)
    await eventually(lambda: is_asked(RANGE), what="the range that is wanted")
    answer = service.post({"fills": [RANGE | {"ticks": 0}]}, "/fills")
    assert (answer.status_code, answer.json(), wanted()) == (200, {"ok": True, "received": 1}, None)
    [record] = await read_records(settings, settings.fills_topic)
    report = decode_report(record.value)
    assert isinstance(report, Fill)
    assert (record.key, report.ticks) == (key, 0)

    # What was just reported is held back, however: the sink may not know the report yet.
    wider = RANGE | {"from": T + HOUR, "to": T + 2 * HOUR}
    await kafka.producer.send_and_wait(settings.wanted_topic, encode([(T, T + 2 * HOUR)]), key=key)
    await eventually(lambda: is_asked(wider), what="a range that is wanted as well")
    await kafka.producer.send_and_wait(settings.wanted_topic, None, key=key)
    await eventually(is_not_asked, what="nothing that is wanted")


async def test_a_topic_of_reports_that_takes_nothing_harms_no_tick(settings: Settings, tmp_path: Path) -> None:
    async with admin_client(settings) as client:
        small = {"max.message.bytes": "10"}
        await client.create_topics([NewTopic(settings.fills_topic, 1, 1, topic_configs=small)])
    await ensure_topics(settings)
    with logging_producer(settings, tmp_path / "producer.log") as service:
        service.wait_ready()
        refused = service.post({"fills": [RANGE | {"ticks": 1}]}, "/fills")
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
        assert service.post({"ticks": [TICK]}, X_Can_Fill="ticks").status_code == 200
