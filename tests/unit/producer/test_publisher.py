"""The gateway to Kafka when Kafka does not answer; the rest is tested with a real one."""

import asyncio

import pytest
from aiokafka.errors import KafkaConnectionError

from marketdata.errors import KafkaUnavailable
from producer.connection import GroupCommit
from producer.metrics import Metrics
from producer.publisher import Publisher
from runtime.batches import Record
from tests.unit.producer.conftest import new_settings

RECORD = Record("ticks", b"k", b"v", None, [])


class SilentProducer:
    """Takes batches and never confirms them, or refuses them all."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def partitions_for(self, _topic: str) -> set[int]:
        return {0}

    async def send_batch(self, _batch: object, _topic: str, *, partition: int) -> asyncio.Future[None]:
        confirmation: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.error is not None:
            confirmation.set_exception(self.error)
        return confirmation


class SlowProducer(SilentProducer):
    """Confirms after twice the time that a small request has."""

    async def send_batch(self, batch: object, topic: str, *, partition: int) -> asyncio.Future[None]:
        confirmation = await super().send_batch(batch, topic, partition=partition)
        asyncio.get_running_loop().call_later(0.1, confirmation.set_result, None)
        return confirmation


def publisher_with(producer: SilentProducer) -> Publisher:
    publisher = Publisher(new_settings(confirm_timeout_seconds=0.05), Metrics())
    publisher._commit = GroupCommit(producer)
    return publisher


@pytest.mark.parametrize("error", [None, KafkaConnectionError("gone")])
async def test_all_that_wait_hear_of_a_failure_and_nobody_waits_after_it(
    error: Exception | None,
) -> None:
    publisher = publisher_with(SilentProducer(error))

    # Many run out of time in the same turn of the loop.
    outcomes = await asyncio.gather(*(publisher.publish([RECORD]) for _ in range(50)), return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} == {KafkaUnavailable}
    assert not publisher.is_open
    async with asyncio.timeout(0.01):
        with pytest.raises(KafkaUnavailable):
            await publisher.publish([RECORD])


async def test_a_later_request_does_not_wait_longer_than_the_first_that_failed() -> None:
    publisher = publisher_with(SilentProducer())
    ended: list[float] = []

    first = asyncio.create_task(publisher.publish([RECORD]))
    await asyncio.sleep(0.03)
    second = asyncio.create_task(publisher.publish([RECORD]))
    for task in (first, second):
        task.add_done_callback(lambda _: ended.append(asyncio.get_running_loop().time()))
    await asyncio.gather(first, second, return_exceptions=True)

    assert ended[1] - ended[0] < 0.02  # alone the second would give up 0.03 s later


async def test_what_is_large_gets_more_time_and_so_does_what_waits_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would come again as large, and never be taken."""
    monkeypatch.setattr("producer.publisher._LEAST_BYTES_PER_SECOND", 10)
    producer = SlowProducer()
    publisher = publisher_with(producer)  # its time is 0.05 s, and 0.1 s for each byte

    large = asyncio.create_task(publisher.publish([RECORD._replace(value=b"large")]))
    await asyncio.sleep(0)
    await asyncio.gather(large, publisher.publish([RECORD]))

    assert publisher.is_open
