"""Counts what each sender sent and remembers how its instruments are quoted, for the topic `reference`."""

import secrets
from collections.abc import Iterable
from typing import Final

from marketdata.contract.request import Sender
from marketdata.reference import Instrument, Reference, SenderCount
from producer.records import Origin

#: A sender, and an instrument, is written at most this often (milliseconds).
_PAUSE_MS: Final = 10_000

#: Senders that are counted at once: whoever has a key may invent names (entries).
_MAX_SENDERS: Final = 1_000

#: Instruments whose point is remembered (entries).
_MAX_INSTRUMENTS: Final = 50_000


class _Count:
    """The count of one sender."""

    __slots__ = ("bars", "counter", "due_ms", "first_ms", "is_changed", "last_ms", "ticks")

    def __init__(self, first_ms: int) -> None:
        #: Unlike that of any other count, so that the database can add them up.
        self.counter: Final = secrets.token_hex(8)
        self.first_ms: Final = first_ms
        self.last_ms = first_ms
        self.ticks = 0
        self.bars = 0
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

    def count(self, origin: Origin, ticks: int, bars: int) -> None:
        """Count what a request brought."""
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
    )  # fmt: skip
