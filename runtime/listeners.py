"""Tells a Kafka that is away from one that answers and names addresses for its brokers that cannot be reached."""

import asyncio
from typing import Final

from aiokafka.client import AIOKafkaClient

from runtime.kafka_errors import KAFKA_ERRORS
from runtime.settings import Settings

#: The longest wait for an answer and for each connection: a reachable one takes milliseconds (seconds).
_PATIENCE_SECONDS: Final = 2.0


async def unreachable_listeners(settings: Settings) -> list[str]:
    """host:port of the brokers that Kafka names and nothing answers on; empty when Kafka itself does not answer."""
    client = AIOKafkaClient(
        bootstrap_servers=settings.kafka_bootstrap, request_timeout_ms=round(_PATIENCE_SECONDS * 1000)
    )
    try:
        await client.bootstrap()
        brokers = sorted({(broker.host, broker.port) for broker in client.cluster.brokers()})
    except KAFKA_ERRORS:
        return []
    finally:
        await client.close()
    reachable = await asyncio.gather(*(_is_reachable(host, port) for host, port in brokers))
    return [f"{host}:{port}" for (host, port), answers in zip(brokers, reachable, strict=True) if not answers]


async def _is_reachable(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except OSError:  # of which TimeoutError is one
        return False
    writer.close()
    return True
