"""Finds the records at the end of the log that may hold ticks which no row of the table names yet (decision 14)."""

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from marketdata.coverage import Coverage
from marketdata.errors import UnknownTopic
from marketdata.offsets import Ranges, union
from marketdata.refold import bridged
from marketdata.timeframes import M1
from runtime.kafka import Ends, topic_ends
from runtime.kafka_errors import kafka_errors
from runtime.kafka_groups import committed_offsets
from runtime.logreader import log_name, own_log
from runtime.settings import Settings
from runtime.ticklog import TickLog
from sink.db.session import SQL
from sink.progress import reached_offsets, wait_until_stored
from sink.times import utc

if TYPE_CHECKING:
    from sink.ticks import Reading, TickRange

#: Published candles reach the table within this time, or the sink is not running (seconds).
_STORE_SECONDS: Final = 2.0

#: Without candles, reading begins at least this long before the range asked for (milliseconds: an hour).
_MARGIN_MS: Final = 3_600_000


class LogState(NamedTuple):
    """What Kafka tells of the logs of ticks and of candles."""

    #: Their names, see `runtime.logreader.log_name`.
    ticks_log: str
    candles_log: str
    #: What the workers have committed, and how far both topics reached after that.
    folded: dict[TopicPartition, int]
    ticks: Ends
    candles: Ends


async def log_state(settings: Settings, client: AIOKafkaAdminClient) -> LogState:
    """What Kafka tells now.

    Raises:
        KafkaUnavailable: when no broker answers.
        UnknownTopic: when one of the topics is not there at the moment.
    """
    with kafka_errors(settings, group=settings.stream_group, right="DESCRIBE"):
        own, candles, folded = await asyncio.gather(
            own_log(settings, client),
            log_name(settings, settings.candles_topic, client),
            committed_offsets(client, settings.stream_group),
        )
        ends = await topic_ends(client, [settings.ticks_topic, settings.candles_topic])
    if missing := [topic for topic, of_topic in ends.items() if not of_topic]:
        raise UnknownTopic(missing[0])
    return LogState(own, candles, folded, ends[settings.ticks_topic], ends[settings.candles_topic])


async def find_unstored(
    settings: Settings, reading: "Reading", tick_log: TickLog, wanted: "TickRange", state: LogState
) -> dict[int, Ranges]:
    """The minutes touched by records that the table may not know yet, and the offsets of these records.

    Raises: as `TickLog.read`, and what `reading` raises.
    """
    touched: dict[int, Ranges] = {}
    for partition, (first, end) in (await _unfolded(settings, reading, tick_log, wanted, state)).items():
        coverage = Coverage(M1.base_width_ms)
        async for chunk in tick_log.read(partition, first, end - 1):
            own = [one for one in chunk if (one[1].source, one[1].symbol) == (wanted.source, wanted.symbol)]
            if own:
                coverage.feed(own)
            await asyncio.sleep(0)
        for (_, _, ts), ranges in coverage.rest().items():
            if wanted.holds(ts):
                touched[ts] = union(touched.get(ts, ()), bridged(ranges))
    return touched


async def _unfolded(
    settings: Settings, reading: "Reading", tick_log: TickLog, wanted: "TickRange", state: LogState
) -> Ends:
    """The part of each partition that may hold ticks of which no candle is stored.

    What the workers have committed is in published candles, which are stored once the sink has read that far. Where
    that is unknown, the whole part of the log that may hold ticks of the range is read.
    """
    is_known = await _is_stored(reading, wanted, state)
    unfolded: Ends = {}
    for partition, (first, end) in (await tick_log.extended(state.ticks)).items():
        begin = state.folded.get(TopicPartition(settings.ticks_topic, partition))
        if begin is None or not is_known:
            reaching = await tick_log.first_reaching(partition, (first, end), wanted.first_ms, margin_ms=_MARGIN_MS)
            begin = reaching if begin is None else min(begin, reaching)
        if (begin := max(begin, first)) < end:
            unfolded[partition] = (begin, end)
    return unfolded


async def _is_stored(reading: "Reading", wanted: "TickRange", state: LogState) -> bool:
    """Whether the table has every minute that was published so far and is asked for."""

    row: Any = None

    async def ask() -> dict[int, int]:
        nonlocal row
        async with reading() as connection:
            reached = await reached_offsets(connection, state.candles_log)
            row = await (await connection.execute(SQL["minutes_from"])).fetchone()
        return reached

    if not await wait_until_stored(ask, state.candles, timeout_seconds=_STORE_SECONDS):
        return False
    # Minutes before it were deleted from the table, not from the log.
    return row is None or row[0] is None or bool(row[0] <= utc(wanted.first_ms))
