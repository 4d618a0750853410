"""What each sender sends: counted and written to the topic `reference`, and watched for what looks wrong.

It is written over a connection of its own: whatever fails there does no harm to ticks. A zone that does not fit the
clock of a source, and two senders under one name, are logged and are metrics.
"""

import asyncio
import secrets
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from marketdata.contract.http import NOBODY, Sender
from marketdata.contract.times import Clock, Instant
from marketdata.errors import TickpipeError
from marketdata.wire import Instrument, Reference, SenderCount, encode, reference_key
from producer.records import Origin
from runtime import clock as wall
from runtime.kafka import SideWriter
from runtime.settings import Settings

#: A sender, and an instrument, is written at most this often (milliseconds).
_PAUSE_MS: Final = 10_000

#: Senders that are counted at once: whoever has a key may invent names (entries).
_MAX_SENDERS: Final = 1_000

#: Instruments whose point is remembered (entries).
_MAX_INSTRUMENTS: Final = 50_000


class _Count:
    """The count of one sender."""

    __slots__ = ("bars", "counter", "due_ms", "first_ms", "is_changed", "last_ms", "late_ticks", "ticks")

    def __init__(self, first_ms: int) -> None:
        #: Unlike that of any other count, so that the database can add them up.
        self.counter: Final = secrets.token_hex(8)
        self.first_ms: Final = first_ms
        self.last_ms = first_ms
        self.ticks = 0
        self.bars = 0
        self.late_ticks = 0
        #: Whether there is more than Kafka has confirmed, and from when on it is written (UTC epoch milliseconds).
        self.is_changed = True
        self.due_ms = 0


_Key = tuple[str, Sender, str]


class ReferenceData:
    """What one producer knows of its senders and their instruments."""

    def __init__(self) -> None:
        #: By source, sender and address.
        self._counts: dict[_Key, _Count] = {}
        self._points: dict[tuple[str, str], float] = {}
        #: Instruments that are not confirmed by Kafka yet.
        self._unwritten: dict[tuple[str, str], Instrument] = {}

    def count(self, origin: Origin, ticks: int, bars: int, late_ticks: int = 0) -> None:
        """Count what a request brought; `late_ticks` are among its ticks."""
        key = (origin.source, origin.sender, origin.address)
        count = self._counts.get(key)
        if count is None:
            if len(self._counts) >= _MAX_SENDERS:
                # What the one that has been silent for longest brought since it was written last is lost.
                del self._counts[min(self._counts, key=lambda known: self._counts[known].last_ms)]
            count = self._counts[key] = _Count(origin.received_ms)
        count.last_ms = origin.received_ms
        count.ticks += ticks
        count.bars += bars
        count.late_ticks += late_ticks
        count.is_changed = True

    def quoted(self, source: str, symbol: str, point: float, received_ms: int) -> None:
        """Note the size of a point that a sender says."""
        key = (source, symbol)
        known = self._points.get(key)
        if known == point or (known is None and len(self._points) >= _MAX_INSTRUMENTS):
            return
        self._points[key] = point
        self._unwritten[key] = Instrument(source=source, symbol=symbol, point=point, received=received_ms)

    def changed(self, now_ms: int | None = None) -> list[Reference]:
        """What is due at `now_ms` (UTC epoch milliseconds); without it, everything that is not written yet."""
        return [
            *(
                _record(key, count)
                for key, count in self._counts.items()
                if count.is_changed and (now_ms is None or now_ms >= count.due_ms)
            ),
            *self._unwritten.values(),
        ]

    def confirmed(self, records: Iterable[Reference], now_ms: int) -> None:
        """Kafka has these records of `changed`."""
        for record in records:
            if isinstance(record, Instrument):
                instrument = (record.source, record.symbol)
                if self._unwritten.get(instrument) is record:
                    del self._unwritten[instrument]
                continue
            sender = Sender(record.server, record.account, record.build, record.ea, record.version)
            key = (record.source, sender, record.address)
            count = self._counts.get(key)
            if count is not None and count.counter == record.counter:
                count.is_changed = _record(key, count) != record
                count.due_ms = now_ms + _PAUSE_MS


def _record(key: _Key, count: _Count) -> SenderCount:
    source, sender, address = key
    return SenderCount(
        source=source, **sender._asdict(), address=address, counter=count.counter,
        first_seen=count.first_ms, last_seen=count.last_ms, ticks=count.ticks, bars=count.bars,
        late_ticks=count.late_ticks,
    )  # fmt: skip


log = structlog.get_logger(__name__)

#: A sender that was never seen before shows within about so long (seconds).
_LOOK_SECONDS: Final = 1.0

#: Kafka confirms in milliseconds; what it does not confirm in time is written again (seconds).
_CONFIRM_SECONDS: Final = 5.0

#: The pause while Kafka is away, and after any other failure (seconds).
_RETRY_SECONDS: Final = 10.0
_FAILED_SECONDS: Final = 60.0

#: What was counted last is written at the end of the process, unless Kafka is away (seconds).
_LAST_WRITE_SECONDS: Final = 2.0


class ReferenceWriter:
    """Writes what changed, every second, until cancelled."""

    def __init__(self, settings: Settings, data: ReferenceData) -> None:
        self._settings = settings
        self._data = data
        self._writer = SideWriter(settings, confirm_seconds=_CONFIRM_SECONDS)

    async def run(self) -> None:
        """Write until cancelled; then write once more, and close the connection."""
        try:
            while True:
                pause_seconds = _LOOK_SECONDS
                try:
                    await self._write(wall.now_ms(), _CONFIRM_SECONDS)
                except Exception as exc:  # whatever it is, the producer can do its work without
                    pause_seconds = _pause_after(exc)
                await asyncio.sleep(pause_seconds)
        finally:
            with suppress(Exception):
                await self._write(None, _LAST_WRITE_SECONDS)
            await self._writer.stop()

    async def _write(self, due_ms: int | None, timeout_seconds: float) -> None:
        records = self._data.changed(due_ms)
        if not records:
            return
        await self._writer.write(
            self._settings.reference_topic,
            [(reference_key(record), encode(record)) for record in records],
            timeout_seconds=timeout_seconds,
        )
        self._data.confirmed(records, wall.now_ms())


def _pause_after(exc: Exception) -> float:
    """Log the failure; how long to wait before the next try (seconds)."""
    if isinstance(exc, TickpipeError) and exc.retriable:
        # While Kafka is away the publisher says so.
        log.debug("Reference data is not written yet.", action="reference_wait", error=str(exc))
        return _RETRY_SECONDS
    log.warning(
        "Who sends cannot be written; ticks are taken all the same.",
        action="reference_failed", error=str(exc) or type(exc).__name__, exc_info=not isinstance(exc, TickpipeError),
    )  # fmt: skip
    return _FAILED_SECONDS


#: Sources that are watched; senders may invent names (entries).
_MAX_SOURCES: Final = 100

#: Servers or accounts of one source that are remembered (entries).
_MAX_NAMES: Final = 20

#: Clocks differ by whole half hours; India's is one of those that have a half (milliseconds).
_STEP_MS: Final = 1_800_000

#: The newest tick of a live request is so much older than its receipt, or younger by the error of two clocks
#: (milliseconds): a sender may collect for a minute.
_LATE_MS: Final = 65_000
_EARLY_MS: Final = 5_000

#: No two clocks are further apart (milliseconds).
_FURTHEST_MS: Final = 26 * 3_600_000

#: Ticks stay so far behind, or ahead, for so long and in so many requests before it is called constant: history that is
#: sent from a file runs through the hours faster (milliseconds; requests).
_CONSTANT_MS: Final = 300_000
_CONSTANT_REQUESTS: Final = 5

#: How often the time of a server or an account is noted (milliseconds).
_NOTE_MS: Final = 1_000

#: What was not seen for so long is over (milliseconds); and how often a warning is repeated.
_FORGET_MS: Final = 3_600_000

#: What most MetaTrader brokers run: New York's time plus seven hours.
_USUAL_ZONE: Final = "America/New_York+07:00"
_NEW_YORK: Final = ZoneInfo("America/New_York")
_AHEAD_OF_NEW_YORK_MS: Final = 7 * 3_600_000


class _Source:
    """What was seen of one source."""

    def __init__(self) -> None:
        #: How far its ticks are behind their receipt, in whole half hours (milliseconds); negative when ahead.
        self.behind_ms = 0
        self.since_ms = 0
        self.requests = 0
        self.seen_ms = 0
        self.warned_ms = 0
        #: The zone that would fit.
        self.fits = ""
        #: Servers and accounts, each with the time of its last request (UTC epoch milliseconds).
        self.names: dict[str, dict[str, int]] = {"server": {}, "account": {}}
        #: The sender of the last request, and when it was noted (UTC epoch milliseconds).
        self.sender = NOBODY
        self.noted_ms = 0

    def is_off(self) -> bool:
        lasted_ms = self.seen_ms - self.since_ms
        return self.behind_ms != 0 and lasted_ms >= _CONSTANT_MS and self.requests >= _CONSTANT_REQUESTS


class SourceWatch(Collector):
    """Watches the requests of each source; a Prometheus collector of what it noticed.

    Args:
        prefix: of its metrics' names.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._sources: dict[str, _Source] = {}

    def ticks(self, source: str, clock: Clock, newest_ms: int, received_ms: int) -> None:
        """Note a request of ticks: the time of its newest one, and its receipt (UTC epoch milliseconds)."""
        behind_ms = _half_hours(received_ms - newest_ms)
        # A backlog or history: it tells nothing of the zone.
        if behind_ms is None or (seen := self._source(source)) is None:
            return
        if behind_ms != seen.behind_ms or received_ms - seen.seen_ms > _FORGET_MS:
            seen.behind_ms, seen.since_ms, seen.requests = behind_ms, received_ms, 0
        seen.seen_ms = received_ms
        seen.requests += 1
        if not seen.is_off():
            return
        seen.fits = _fitting_zone(clock, received_ms, seen.behind_ms)
        if received_ms - seen.warned_ms >= _FORGET_MS:
            seen.warned_ms = received_ms
            hours = abs(seen.behind_ms) / 3_600_000
            log.warning(
                f"The ticks of {source} are constantly {hours:g} h {'behind' if seen.behind_ms > 0 else 'ahead'}: its "
                f"clock runs at {seen.fits}. Set TICKPIPE_SOURCE_ZONES, or mend the clock of its PC.",
                action="zone_wrong", source=source, hours_ahead=-seen.behind_ms / 3_600_000, fits=seen.fits,
            )  # fmt: skip

    def sender(self, source: str, sender: Sender, received_ms: int) -> None:
        """Note who sent a request (UTC epoch milliseconds), as far as it says so."""
        seen = self._source(source)
        if seen is None or (sender is seen.sender and 0 <= received_ms - seen.noted_ms < _NOTE_MS):
            return
        seen.sender, seen.noted_ms = sender, received_ms
        for kind, name in (("server", sender.server), ("account", sender.account)):
            if not name:
                continue
            names = seen.names[kind]
            since_ms = received_ms - names.get(name, 0)
            if 0 <= since_ms < _NOTE_MS:
                continue
            is_new = since_ms > _FORGET_MS
            if name in names or len(names) < _MAX_NAMES:
                names[name] = received_ms
            if is_new and len(recent := _recent(names, received_ms)) > 1:
                log.warning(
                    f"Two {kind}s send under the source {source}: {' and '.join(recent[:2])}. Their ticks become one "
                    "candle; give each a source of its own.",
                    action="source_shared", source=source, kind=kind, names=recent,
                )  # fmt: skip

    def collect(self) -> Iterable[Metric]:
        """See `Collector`."""
        zones = GaugeMetricFamily(
            f"{self._prefix}_zone_error_hours",
            "How far the ticks of a source are constantly ahead of their receipt (negative: behind), and the zone that "
            "would fit; only of sources whose zone does not.",
            labels=["source", "fits"],
        )
        senders = GaugeMetricFamily(
            f"{self._prefix}_source_senders",
            "Servers and accounts that sent under a source within an hour.",
            labels=["source", "kind"],
        )
        now_ms = wall.now_ms()
        for source, seen in list(self._sources.items()):
            if seen.is_off() and now_ms - seen.seen_ms <= _FORGET_MS:
                zones.add_metric([source, seen.fits], -seen.behind_ms / 3_600_000)
            for kind, names in seen.names.items():
                senders.add_metric([source, kind], len(_recent(names, now_ms)))
        yield zones
        yield senders

    def _source(self, name: str) -> _Source | None:
        seen = self._sources.get(name)
        if seen is None and len(self._sources) < _MAX_SOURCES:
            seen = self._sources[name] = _Source()
        return seen


def _half_hours(behind_ms: int) -> int | None:
    """The whole half hours that ticks are behind (milliseconds), or None when they are behind by anything else."""
    nearest_ms = (behind_ms + _EARLY_MS) // _STEP_MS * _STEP_MS
    is_near = -_EARLY_MS <= behind_ms - nearest_ms <= _LATE_MS
    return nearest_ms if is_near and abs(behind_ms) <= _FURTHEST_MS else None


def _fitting_zone(clock: Clock, received_ms: int, behind_ms: int) -> str:
    """The zone whose clock shows what the sender's did, as TICKPIPE_SOURCE_ZONES takes it."""
    fitting_ms = clock.wall_ms(Instant(received_ms, coarse=False)) - received_ms - behind_ms
    new_york = datetime.fromtimestamp(received_ms / 1000, UTC).astimezone(_NEW_YORK).utcoffset()
    if new_york is not None and new_york.total_seconds() * 1000 + _AHEAD_OF_NEW_YORK_MS == fitting_ms:
        return _USUAL_ZONE
    minutes = abs(fitting_ms) // 60_000
    return f"{'-' if fitting_ms < 0 else '+'}{minutes // 60:02d}:{minutes % 60:02d}"


def _recent(names: dict[str, int], now_ms: int) -> list[str]:
    return [name for name, seen_ms in names.items() if now_ms - seen_ms <= _FORGET_MS]
