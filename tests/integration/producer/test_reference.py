"""Who sends, and how instruments are quoted, in the topic `reference`."""

from pathlib import Path

from aiokafka.admin import NewTopic

from marketdata.wire import Instrument, Reference, SenderCount, decode_reference, reference_key
from runtime.kafka import admin_client
from runtime.settings import Settings
from runtime.topics import ensure_topics
from tests.integration.producer.service import logging_producer
from tests.kafka_log import read_records
from tests.services import Service
from tests.waiting import eventually

TICK = {"ts_msc": 1_760_926_800_417, "symbol": "EURUSD", "bid": 1.1, "ask": 1.2, "flags": 6, "digits": 5}
AGENT = "DataCollectorPRO/PDC/1.65 (Account:12345; Server:Broker-Demo; Build:3850; Symbols:28; trace_id:0f3a9c)"


async def written(settings: Settings) -> list[Reference]:
    records = await read_records(settings, settings.reference_topic)
    decoded = [decode_reference(record.value) for record in records]
    assert [record.key for record in records] == [reference_key(each) for each in decoded]
    return decoded


async def test_a_sender_is_written_within_seconds_and_once_more_at_the_end(
    settings: Settings, service: Service
) -> None:
    assert service.post({"ticks": [TICK]}, User_Agent=AGENT).status_code == 200

    async def is_written() -> bool:
        return len(await written(settings)) == 2

    await eventually(is_written, what="the sender and its instrument")
    for _ in range(3):
        assert service.post({"ticks": [TICK]}, User_Agent=AGENT).status_code == 200
    service.stop()

    records = await written(settings)
    [instrument] = [record for record in records if isinstance(record, Instrument)]
    assert (instrument.symbol, instrument.point) == ("EURUSD", 0.00001)
    first, last = sorted((r for r in records if isinstance(r, SenderCount)), key=lambda r: r.ticks)
    assert (first.ticks, last.ticks) == (1, 4)
    assert (last.server, last.account, last.address) == ("Broker-Demo", "12345", "127.0.0.1")
    assert first.counter == last.counter


async def test_a_topic_that_takes_nothing_harms_no_tick(settings: Settings, tmp_path: Path) -> None:
    async with admin_client(settings) as client:
        small = {"max.message.bytes": "10"}
        await client.create_topics([NewTopic(settings.reference_topic, 1, 1, topic_configs=small)])
    await ensure_topics(settings)
    with logging_producer(settings, tmp_path / "producer.log") as service:
        service.wait_ready()

        async def has_failed() -> bool:
            assert service.post({"ticks": [TICK]}).status_code == 200
            return "action=reference_failed" in service.said()

        await eventually(has_failed, what="a reference that is not written")
        assert service.post({"ticks": [TICK]}).status_code == 200
        assert service.metric("tickpipe_producer_kafka_up") == 1
        service.stop()
        assert "action=reference_failed" in service.said()
    assert await written(settings) == []
