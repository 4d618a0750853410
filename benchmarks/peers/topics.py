"""Topics of one partition."""

from collections.abc import Mapping

from aiokafka.admin import NewTopic

from marketdata.errors import StackError
from runtime.kafka import admin_client
from runtime.settings import Settings

#: The broker notes when it stored a record: the one clock for all contenders.
STORED_AT = {"message.timestamp.type": "LogAppendTime"}


async def create_topic(settings: Settings, name: str, config: Mapping[str, str] | None = None) -> None:
    """Create a topic that keeps its records whatever their timestamps are.

    Raises:
        StackError: when the broker refuses.
    """
    topic = NewTopic(name, 1, 1, topic_configs={"retention.ms": "-1", **(config or {})})
    async with admin_client(settings) as client:
        response = await client.create_topics([topic])
    for _, code, *rest in response.topic_errors:
        if code:
            raise StackError(f"Kafka refused to create the topic {name}: error {code} {rest}")
