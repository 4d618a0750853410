"""Kafka clients that read, write and administer, and where logs end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, Final, cast

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition, errors
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import TopicAuthorizationFailedError
from aiokafka.protocol.offset import OffsetRequest, OffsetResetStrategy
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential

from marketdata.errors import KafkaRefused, KafkaUnavailable, NotAuthorized, UnknownTopic
from runtime.aiokafka_internals import discard_producer, end_fetches, send_request
from runtime.kafka_access import client_options, why_unavailable
from runtime.kafka_errors import KAFKA_ERRORS, kafka_errors, mapped
from runtime.rights import hidden_topics
from runtime.settings import Settings

log = structlog.get_logger(__name__)

#: A body of 5 MB makes a frame of less; the limit is per record batch (bytes).
MAX_RECORD_BYTES = 8 * 1024 * 1024

#: Answer to one request of an administration or metadata call (milliseconds); smaller fails on a broker that starts.
_REQUEST_TIMEOUT_MS = 10_000


@asynccontextmanager
async def admin_client(
    settings: Settings, shared: AIOKafkaAdminClient | None = None
) -> AsyncIterator[AIOKafkaAdminClient]:
    """A connected administration client: `shared`, which stays connected, or one for this block.

    Raises:
        KafkaUnavailable: when no broker answers.
        KafkaRefused: when one answers and accepts neither this user nor the encryption, or the other way round.
    """
    if shared is not None:
        yield shared
        return
    async with aclosing(SharedAdmin(settings)) as own, own.client() as client:
        yield client


class SharedAdmin:
    """The administration client of a service's tasks, one after the other: each login costs both sides milliseconds.

    It is connected when it is first used, and again after an error.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: AIOKafkaAdminClient | None = None
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[AIOKafkaAdminClient]:
        """The connected client, for this block alone.

        Raises:
            KafkaUnavailable, KafkaRefused: see `admin_client`.
        """
        async with self._turn:
            try:
                if self._client is None:
                    self._client = AIOKafkaAdminClient(
                        **client_options(self._settings), request_timeout_ms=_REQUEST_TIMEOUT_MS
                    )
                    with kafka_errors(self._settings):
                        await self._client.start()
                yield self._client
            except KafkaUnavailable as exc:
                await self.aclose()
                # Also of what is done with it: the first request goes to the bootstrap address, the next to the
                # broker's own.
                reason = await why_unavailable(self._settings)
                if reason is None:
                    raise
                raise reason from exc
            except BaseException:
                await self.aclose()
                raise

    async def aclose(self) -> None:
        """Disconnect; the next use connects again."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


#: A member that joins its group while the broker still starts sees no partitions and gets none, until it asks again for
#: the metadata: by default after five minutes. A producer does not know of partitions that were added (milliseconds).
METADATA_MAX_AGE_MS = 10_000


def new_producer(settings: Settings, **options: Any) -> AIOKafkaProducer:
    """A producer whose confirmation means that the record is in the log, once: `acks=all` and idempotent."""
    defaults = {
        "acks": "all",
        "enable_idempotence": True,
        "max_request_size": MAX_RECORD_BYTES,
        "metadata_max_age_ms": METADATA_MAX_AGE_MS,
    }
    return AIOKafkaProducer(**{**client_options(settings), **defaults, **options})


class SideWriter:
    """Writes what ticks do not depend on, over a connection of its own: whatever fails there does no harm to ticks.

    Args:
        confirm_seconds: Kafka confirms in milliseconds; later means that it is away.
    """

    def __init__(self, settings: Settings, *, confirm_seconds: float = 5.0) -> None:
        self._settings = settings
        self._confirm_seconds = confirm_seconds
        self._producer: AIOKafkaProducer | None = None
        #: One write at a time, for one that fails gives up the connection.
        self._writing = asyncio.Lock()

    async def write(
        self,
        topic: str,
        records: Iterable[tuple[bytes, bytes | None]],
        *,
        headers: Sequence[tuple[str, bytes]] = (),
        timeout_seconds: float | None = None,
    ) -> None:
        """Return when Kafka has confirmed every record, a key and a value.

        Raises:
            KafkaUnavailable: when it did not within the time, by default `confirm_seconds`; some may be in the log.
            KafkaRefused: when the broker refuses one of them for good.
        """
        try:
            with kafka_errors(self._settings, topic=topic, right="WRITE"):
                async with (
                    asyncio.timeout(self._confirm_seconds if timeout_seconds is None else timeout_seconds),
                    self._writing,
                ):
                    producer = await self._connected()
                    sending = (
                        producer.send_and_wait(topic, value, key=key, headers=list(headers)) for key, value in records
                    )
                    # All of them end before the connection is given up: what waits on it then waits for ever.
                    for outcome in await asyncio.gather(*sending, return_exceptions=True):
                        if isinstance(outcome, BaseException):
                            raise outcome
        except BaseException:
            await self.stop()
            raise

    async def _connected(self) -> AIOKafkaProducer:
        if self._producer is None:
            # A failed batch of an idempotent producer blocks its partition for good; a record may be written twice.
            self._producer = new_producer(
                self._settings, enable_idempotence=False, request_timeout_ms=int(self._confirm_seconds * 1000)
            )
            await self._producer.start()
        return self._producer

    async def stop(self) -> None:
        """Close the connection; the next write opens another."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(*KAFKA_ERRORS):  # it is thrown away anyhow
                await discard_producer(producer)


class Consumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka ships no types
    """An `AIOKafkaConsumer` that can be stopped while the broker is away."""

    async def stop(self) -> None:
        """Leave the group, if there is one, and close every connection."""
        try:
            await end_fetches(self)
        finally:
            await super().stop()


def new_consumer(settings: Settings, *topic_names: str, **options: Any) -> Consumer:
    """A consumer that commits nothing by itself; without `group_id` it belongs to no group."""
    return Consumer(
        *topic_names,
        **client_options(settings),
        enable_auto_commit=False,
        max_partition_fetch_bytes=MAX_RECORD_BYTES,
        metadata_max_age_ms=METADATA_MAX_AGE_MS,
        **options,
    )


#: First and next offset of each partition of a topic.
Ends = dict[int, tuple[int, int]]


async def log_ends(settings: Settings, topic: str, shared: AIOKafkaAdminClient | None = None) -> Ends:
    """First and next offset of each partition of `topic`; asked over `shared`, if it is given.

    Raises:
        KafkaUnavailable: when no broker answers.
        UnknownTopic: when there is no such topic at the moment.
    """
    async with admin_client(settings, shared) as client:
        with kafka_errors(settings, topic=topic, right="DESCRIBE"):
            ends = (await topic_ends(client, [topic]))[topic]
        if not ends:
            raise await why_missing(settings, topic, client)
    return ends


async def why_missing(settings: Settings, topic: str, shared: AIOKafkaAdminClient | None = None) -> KafkaRefused:
    """The error for a topic that Kafka does not list: it does not exist, or this user may not see it.

    Raises:
        KafkaUnavailable: when no broker answers.
    """
    async with admin_client(settings, shared) as client:
        with kafka_errors(settings):
            hidden = await hidden_topics(client, [topic])
    return not_seen(settings, hidden) if hidden else UnknownTopic(topic)


def not_seen(settings: Settings, hidden: Collection[str]) -> NotAuthorized:
    """The error for topics that this user may not see."""
    error = mapped(TopicAuthorizationFailedError(set(hidden)), settings, right="DESCRIBE")
    assert isinstance(error, NotAuthorized)  # noqa: S101 - what that error becomes
    return error


#: A partition has no leader for a moment after it was created or its broker died; longer, and it is away (seconds).
_LEADER_SECONDS: Final = 10.0

#: Kafka's protocol: what the time of the wanted offset is for the first and for the next one.
_FIRST, _NEXT = OffsetResetStrategy.EARLIEST, OffsetResetStrategy.LATEST


async def topic_ends(client: AIOKafkaAdminClient, names: Collection[str]) -> dict[str, Ends]:
    """First and next offset of each partition by topic; of a topic that is not there none.

    Called inside `kafka_errors`.
    """
    return cast(
        dict[str, Ends],
        await until_known(
            (errors.NotLeaderForPartitionError, errors.LeaderNotAvailableError, errors.UnknownTopicOrPartitionError),
            _LEADER_SECONDS,
            lambda: _ask_leaders(client, names),
        ),
    )


async def _ask_leaders(client: AIOKafkaAdminClient, names: Collection[str]) -> dict[str, Ends]:
    led: dict[int, dict[str, list[int]]] = {}
    # Asked about none, an old broker would tell of all.
    for topic in await client.describe_topics(sorted(names)) if names else ():
        for described in topic["partitions"]:
            if described["leader"] < 0:
                raise errors.LeaderNotAvailableError
            led.setdefault(described["leader"], {}).setdefault(topic["topic"], []).append(described["partition"])
    asked = [(leader, moment) for leader in led for moment in (_FIRST, _NEXT)]
    # A request may name each partition once.
    answers = await asyncio.gather(*(
        send_request(
            client,
            OffsetRequest(-1, 0, [(topic, [(n, moment) for n in numbers]) for topic, numbers in led[leader].items()]),
            leader,
        )
        for leader, moment in asked
    ))  # fmt: skip
    found: dict[int, dict[TopicPartition, int]] = {_FIRST: {}, _NEXT: {}}
    for (_, moment), answer in zip(asked, answers, strict=True):
        for name, partitions in answer.topics:
            for number, code, _, offset, *_ in partitions:
                if code:
                    error = errors.for_code(code)
                    raise error(name) if error is TopicAuthorizationFailedError else error()
                found[moment][TopicPartition(name, number)] = offset
    ends: dict[str, Ends] = {name: {} for name in names}
    for tp, end in sorted(found[_NEXT].items()):
        ends[tp.topic][tp.partition] = (found[_FIRST][tp], end)
    return ends


async def until_known(passing: tuple[type[Exception], ...], seconds: float, ask: Callable[[], Awaitable[Any]]) -> Any:
    """The answer, asked for again after errors that pass when brokers have agreed on who answers."""
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(passing), wait=wait_exponential(0.1, max=1), stop=stop_after_delay(seconds),
        reraise=True,
    ):  # fmt: skip
        with attempt:
            return await ask()
    raise AssertionError("unreachable: tenacity returns or raises")
