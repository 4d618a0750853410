"""What `tickpipe status` shows: services, ends of the topics, lag of the groups, newest candles.

Kafka and PostgreSQL are asked at the same time and each within a few seconds; what does not answer becomes a sentence
in `problems`, never an error, for a status is wanted most when something is down.
"""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import psycopg

from marketdata.errors import TickpipeError
from runtime.kafka import Ends, admin_client, committed_offsets, lag_of, new_consumer, topic_ends
from runtime.kafka_errors import kafka_errors
from runtime.settings import Settings
from runtime.topics import topics
from sink.queries import newest_candles
from tickpipe.connection import open_database
from tickpipe.console import iso_utc

T = TypeVar("T")

#: How long Kafka and PostgreSQL are waited for (seconds).
_PATIENCE_SECONDS: Final = 5


@dataclass
class PipelineStatus:
    """The pipeline apart from its processes; empty where `problems` says that something is down."""

    topics: dict[str, dict[str, int]] = field(default_factory=dict)
    #: Records that a group has not committed yet; a partition without a commit counts from the start of the log.
    lag: dict[str, int | None] = field(default_factory=lambda: {"stream": None, "sink": None})
    newest: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


async def pipeline_status(settings: Settings) -> PipelineStatus:
    """Ask Kafka and PostgreSQL."""
    status = PipelineStatus()
    await asyncio.gather(
        _noting(status, "Kafka", _ask_kafka(settings, status)),
        _noting(status, "PostgreSQL", _ask_database(settings, status)),
    )
    return status


async def _noting(status: PipelineStatus, who: str, asking: Awaitable[None]) -> None:
    try:
        await asyncio.wait_for(asking, _PATIENCE_SECONDS)
    except TimeoutError:
        status.problems.append(f"{who} does not answer within {_PATIENCE_SECONDS} s")
    except (TickpipeError, psycopg.Error, OSError) as exc:
        status.problems.append(f"{who}: {' '.join(str(exc).split()).partition(' Is the server running')[0]}")


async def _ask_kafka(settings: Settings, status: PipelineStatus) -> None:
    found = await present_ends(settings)
    status.topics = {
        name: {
            "partitions": len(ends),
            "end_offset": sum(end for _, end in ends.values()),
            "records": sum(end - first for first, end in ends.values()),
        }
        for name, ends in found.items()
    }
    async with admin_client(settings) as client:
        for name, group, read in (
            ("stream", settings.stream_group, (settings.ticks_topic,)),
            ("sink", settings.sink_group, (settings.candles_topic, settings.broker_candles_topic)),
        ):
            with kafka_errors(settings, group=group):
                committed = await committed_offsets(client, group)
            status.lag[name] = lag_of({topic: found[topic] for topic in read}, committed)


async def present_ends(settings: Settings) -> dict[str, Ends]:
    """First and next offset of each partition of the project's topics; a topic that does not exist has none.

    Raises:
        KafkaUnavailable: when no broker answers.
    """
    names = [topic.name for topic in topics(settings)]
    consumer = new_consumer(settings)
    try:
        async with admin_client(settings) as client:
            with kafka_errors(settings):
                # Asking about a topic that is missing could create it.
                present = set(await client.list_topics())
                await consumer.start()
                ends = await topic_ends(client, consumer, [name for name in names if name in present])
    finally:
        with suppress(TickpipeError), kafka_errors(settings):
            await consumer.stop()
    return {name: ends.get(name, {}) for name in names}


async def _ask_database(settings: Settings, status: PipelineStatus) -> None:
    async with await open_database(settings, timeout_seconds=_PATIENCE_SECONDS) as connection:
        status.newest = [
            {
                "source": candle.source,
                "symbol": candle.symbol,
                "ts": iso_utc(candle.ts),
                "last_tick": iso_utc(candle.last_tick) if candle.last_tick is not None else None,
                "closed": candle.closed,
            }
            for candle in await newest_candles(connection)
        ]
