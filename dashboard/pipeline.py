"""The state of the pipeline as the page shows it: lag, ticks a second, latency, newest ticks, rejected records.

All of it comes from Kafka, the database and the live candles; no service has to be reached for it.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

import psycopg
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupAuthorizationFailedError

from dashboard.answers import Refusal, encode
from dashboard.catalogue import NEWEST, Catalogue
from dashboard.database import SQL, Database, database_url
from dashboard.hub import Hub
from dashboard.metrics import Gauges, Metrics
from marketdata.errors import TickpipeError
from runtime.kafka import Ends, new_consumer, topic_ends
from runtime.kafka_access import client_options
from runtime.kafka_errors import kafka_errors
from runtime.kafka_groups import committed_offsets, lag_of
from runtime.settings import Settings
from runtime.topics import sink_topics
from sink.progress import with_sink_group

log = structlog.get_logger(__name__)

_VERSION: Final = version("tickpipe")

#: Kafka and the database are polled this often while a stream is open, and this often otherwise (seconds): a killed
#: worker has to show within five seconds.
_ASK_SECONDS: Final = 1.0
_ASK_UNSEEN_SECONDS: Final = 4.0
#: How often streams are sent the state (seconds); a change of health is sent at once.
_SEND_SECONDS: Final = 2.0
#: A stage whose input had no effect for this long has stopped (seconds).
_STOPPED_SECONDS: Final = 2.0
#: Rejected records count as recent for this long (milliseconds).
_RECENT_MS: Final = 600_000
#: The longest wait for Kafka, and for the list of feeds (seconds).
_PATIENCE_SECONDS: Final = 5.0
#: The longest wait for the database to tell the name of the sinks' group (seconds).
_GROUP_SECONDS: Final = 2.0


class Pipeline:
    """Polls Kafka and the database, and sends the state of the pipeline to every stream."""

    def __init__(
        self,
        settings: Settings,
        *,
        metrics: Metrics,
        hub: Hub,
        gauges: Gauges,
        database: Database,
        catalogue: Catalogue,
    ) -> None:
        self._metrics = metrics
        self._hub = hub
        self._gauges = gauges
        self._database = database
        self._catalogue = catalogue
        self._kafka = KafkaCounts(settings)
        self._asking = asyncio.Lock()
        self._asked_at = -_ASK_UNSEEN_SECONDS
        self._sent_at = 0.0
        self._sent_health: object = None
        self._counts: dict[str, Any] | None = None
        self._database_answers = False

    @property
    def kafka_answers(self) -> bool:
        """Whether Kafka answered when it was asked last."""
        return self._counts is not None

    async def run(self) -> None:
        """Poll and send until cancelled."""
        try:
            while True:
                await self._ask()
                await self._send()
                await asyncio.sleep(_ASK_SECONDS)
        finally:
            await self._kafka.close()

    async def _send(self) -> None:
        counts = self._counts or {}
        health = (self.kafka_answers, self._database_answers, counts.get("folding"), counts.get("storing"))
        now = time.monotonic()
        if len(self._hub) and (health != self._sent_health or now - self._sent_at >= _SEND_SECONDS):
            self._hub.broadcast(encode(await self.state()))
            self._sent_at, self._sent_health = now, health

    async def state(self) -> dict[str, Any]:
        """The current state; null where Kafka or the database do not answer. `day` is the clock of trading days."""
        await self._ask()
        counts = self._counts or dict.fromkeys(("lag", "rejected", "rejected_lately", "folding", "storing"))
        return {
            "at": datetime.now(UTC).replace(microsecond=0),
            "version": _VERSION,
            "kafka": self._counts is not None,
            "database": self._database_answers,
            **counts,
            "ticks_per_second": round(self._gauges.ticks_per_second(), 1),
            "latency_ms": self._gauges.latency_ms(),
            "feeds": await self._feeds(),
            "day": self._catalogue.day and self._catalogue.day._asdict(),
        }

    async def _ask(self) -> None:
        async with self._asking:
            pause = _ASK_SECONDS if len(self._hub) else _ASK_UNSEEN_SECONDS
            # A loop that sleeps for this long may wake a little early.
            if time.monotonic() - self._asked_at >= 0.9 * pause:
                self._counts, self._database_answers = await asyncio.gather(
                    self._kafka.counts(), self._database.answers()
                )
                await self._time_storing()
                self._asked_at = time.monotonic()
                self._metrics.kafka_up.set(self.kafka_answers)

    async def _time_storing(self) -> None:
        """Ask the database when the open minutes that moved last were stored, as far as they were."""
        if not self._database_answers:
            return
        moving = sorted(self._hub.newest().values(), key=lambda candle: candle.received, reverse=True)[:NEWEST]
        # Only what moved since the last question, so that each state counts once.
        since_ms = (time.time() - (time.monotonic() - self._asked_at)) * 1000
        keys = [(c.symbol, c.source, c.ts / 1000) for c in moving if c.received >= since_ms and not c.closed]
        if not keys:
            return
        symbols, sources, minutes = (list(column) for column in zip(*keys, strict=True))
        about = {"symbols": symbols, "sources": sources, "minutes": minutes}
        with suppress(Refusal):
            await self._database.within(_ASK_SECONDS, self._read_storing(about))

    async def _read_storing(self, about: dict[str, Any]) -> None:
        async with self._database.reading() as connection:
            for (latency_ms,) in await (await connection.execute(SQL["storing"], about)).fetchall():
                self._gauges.time({"stored": latency_ms})

    async def _feeds(self) -> list[dict[str, Any]]:
        try:
            if self._database_answers:
                listings = await self._database.within(_PATIENCE_SECONDS, self._catalogue.listings())
            else:
                listings = self._catalogue.known
        except Refusal:
            # The database was lost meanwhile.
            listings = self._catalogue.known
        # Of too many, those that ticked last; in an order that does not jump.
        return [
            {
                "symbol": feed.symbol,
                "source": feed.source,
                "previous_close": feed.previous_close,
                "last_tick": feed.last_tick,
                "close": feed.close,
                "digits": feed.digits,
            }
            for feed in listings.newest()
        ]


class KafkaCounts:
    """Progress of the groups and rejected records, over two connections that stay open."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin: AIOKafkaAdminClient | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._folding = Progress(_STOPPED_SECONDS)
        self._storing = Progress(_STOPPED_SECONDS)

    async def counts(self) -> dict[str, Any] | None:
        """`lag` of `stream` and `sink`, whether they work, and `rejected` records in all and recently.

        None when Kafka does not answer.
        """
        try:
            with kafka_errors(self._settings):
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    return await self._ask()
        except TickpipeError as exc:
            log.debug("Kafka does not answer how far the groups are.", action="counts_failed", error=str(exc))
            await self.close()
            return None

    async def close(self) -> None:
        """Close the connections."""
        admin, consumer, self._admin, self._consumer = self._admin, self._consumer, None, None
        with suppress(TickpipeError), kafka_errors(self._settings):
            if admin is not None:
                await admin.close()
        with suppress(TickpipeError), kafka_errors(self._settings):
            if consumer is not None:
                await consumer.stop()

    async def _ask(self) -> dict[str, Any]:
        admin, consumer = await self._connected()
        await self._learn_sink_group()
        settings = self._settings
        groups = {
            "stream": (settings.stream_group, {settings.ticks_topic}),
            "sink": (settings.sink_group, set(sink_topics(settings))),
        }
        rejected = {"ticks": settings.ticks_rejected_topic, "candles": settings.candles_rejected_topic}
        wanted = {*rejected.values(), *(name for _, names in groups.values() for name in names)}
        ends = await topic_ends(admin, wanted)
        committed = {name: await _committed(admin, group) for name, (group, _) in groups.items()}
        lag = {
            name: None
            if (offsets := committed[name]) is None
            else lag_of({topic: ends[topic] for topic in read}, offsets)
            for name, (_, read) in groups.items()
        }
        records = {topic: sum(end for _, end in partitions.values()) for topic, partitions in ends.items()}
        # A worker that finds nothing to fold commits all the same.
        folded = (records[settings.candles_topic], records[settings.ticks_rejected_topic], committed["stream"])
        stored = (records[settings.candles_rejected_topic], committed["sink"])
        return {
            "lag": lag,
            "folding": self._folding.note(records[settings.ticks_topic], folded),
            "storing": None
            if committed["sink"] is None
            else self._storing.note(records[settings.candles_topic], stored),
            "rejected": {
                name: sum(end - first for first, end in ends[topic].values()) for name, topic in rejected.items()
            },
            "rejected_lately": {name: await _recent(consumer, topic, ends[topic]) for name, topic in rejected.items()},
        }

    async def _learn_sink_group(self) -> None:
        # Kafka's numbers are to be seen while the database is away as well, then without the sinks'.
        with suppress(psycopg.Error, TimeoutError):
            async with asyncio.timeout(_GROUP_SECONDS):
                self._settings = await with_sink_group(self._settings, database_url(self._settings))

    async def _connected(self) -> tuple[AIOKafkaAdminClient, AIOKafkaConsumer]:
        if self._admin is None or self._consumer is None:
            await self.close()
            self._admin = AIOKafkaAdminClient(**client_options(self._settings))
            await self._admin.start()
            self._consumer = new_consumer(self._settings)
            await self._consumer.start()
        return self._admin, self._consumer


async def _committed(client: AIOKafkaAdminClient, group: str) -> dict[TopicPartition, int] | None:
    """What the group has committed; None when its name is not known, or this user may not ask about it."""
    if not group:
        return None
    try:
        return await committed_offsets(client, group)
    except GroupAuthorizationFailedError:
        log.warning(
            "Kafka does not allow DESCRIBE on a group, so its lag is not known.", action="lag_hidden", group=group
        )
        return None


class Progress:
    """Detects a stopped stage from outside: its input grows, and for a while nothing shows of its work.

    `patience_seconds`: a worker emits every 0.2 s and a sink commits every batch, so with less than 2 s a pause
    of the garbage collector would count as a stop; more delays the news that it was killed.
    """

    def __init__(self, patience_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._input: int | None = None
        self._done: object = None
        self._owed_since: float | None = None

    def note(self, input_end: int, done: object) -> bool:
        """Note the end of the input and anything that changes with the work; returns whether the stage works."""
        now = self._clock()
        if done != self._done or self._input is None:
            self._owed_since = None
        elif input_end != self._input and self._owed_since is None:
            self._owed_since = now
        self._input, self._done = input_end, done
        return self._owed_since is None or now - self._owed_since < self._patience_seconds


async def _recent(consumer: AIOKafkaConsumer, topic: str, ends: Ends) -> int:
    """How many records of the topic are recent."""
    if all(first == end for first, end in ends.values()):
        return 0
    since_ms = round(time.time() * 1000) - _RECENT_MS
    found = await consumer.offsets_for_times({TopicPartition(topic, partition): since_ms for partition in ends})
    return sum(ends[tp.partition][1] - at.offset for tp, at in found.items() if at is not None)
