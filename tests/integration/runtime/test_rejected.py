"""The writer of rejected records on a real Kafka, when its own connection fails."""

import pytest

from marketdata.errors import KafkaUnavailable
from runtime.rejected import HTTP, RejectedWriter, Stored, Which, headers_of
from runtime.settings import Settings
from tests.kafka_log import KafkaLog
from tests.rejected import rejected_records


def item(number: int) -> Stored:
    return Stored(b"key", b"value", headers_of("odd", HTTP, -1, number))


async def test_a_producer_that_failed_is_replaced_and_no_record_is_lost(settings: Settings, kafka: KafkaLog) -> None:
    async with RejectedWriter(settings, Which.TICKS) as writer:
        await writer.write_items([item(0)])
        failed = writer._producer
        assert failed is not None
        await failed.stop()

        with pytest.raises(KafkaUnavailable, match="ProducerClosed"):
            await writer.write_items([item(1)])
        await writer.write_items([item(1), item(2)])

    assert sorted(one.index for one in await rejected_records(settings, Which.TICKS)) == [0, 1, 2]


async def test_nothing_to_keep_needs_no_kafka(settings: Settings) -> None:
    nowhere = settings.model_copy(update={"kafka_bootstrap": "127.0.0.1:1"})
    async with RejectedWriter(nowhere, Which.CANDLES) as writer:
        await writer.write([])
        with pytest.raises(KafkaUnavailable, match="is it running"):
            await writer.write_items([item(0)])
