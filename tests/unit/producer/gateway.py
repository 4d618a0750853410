"""A gateway without Kafka, for tests of everything in front of it."""

import asyncio
from collections.abc import Sequence

from marketdata.errors import KafkaUnavailable
from runtime.batches import Record


class InMemoryGateway:
    """Keeps the records in a list; `is_open = False` plays a Kafka that is away."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.is_open = True

    async def publish(self, records: Sequence[Record]) -> None:
        """See `Gateway.publish`."""
        if not self.is_open:
            raise KafkaUnavailable("the test has closed the gateway")
        self.records.extend(records)

    async def run(self) -> None:
        """See `Gateway.run`."""
        await asyncio.Event().wait()
