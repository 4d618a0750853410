"""Records as a consumer hands them out once it was asked for bare ones."""

from aiokafka import ConsumerRecord, TopicPartition

from marketdata.kafka import hand_out_bare_records, new_consumer
from marketdata.settings import Settings
from tests.kafka_log import KafkaLog


async def test_bare_records_are_the_same_records(settings: Settings, kafka: KafkaLog) -> None:
    topic = settings.ticks_topic
    for value in (b"a", None, b"c"):
        await kafka.producer.send_and_wait(topic, value, key=b"k", partition=0, timestamp_ms=1_549_238_401_003)
    consumer = new_consumer(settings)
    await consumer.start()
    try:
        hand_out_bare_records(consumer)
        tp = TopicPartition(topic, 0)
        consumer.assign([tp])
        await consumer.seek_to_beginning(tp)

        two = (await consumer.getmany(tp, timeout_ms=10_000, max_records=2))[tp]
        rest = (await consumer.getmany(tp, timeout_ms=10_000))[tp]
    finally:
        await consumer.stop()

    assert not any(isinstance(record, ConsumerRecord) for record in [*two, *rest])
    assert [(r.offset, r.timestamp, r.key, r.value) for r in [*two, *rest]] == [
        (offset, 1_549_238_401_003, b"k", value) for offset, value in enumerate((b"a", None, b"c"))
    ]
