"""POST /fills: what became of ranges of which ticks were wanted, and when a broker quotes its symbols.

A range is of whole minutes, in UTC epoch milliseconds, its end not included. Reports name symbols only: the source is
that of the request.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from marketdata.contract.body import OFFSET, utc_offset_in
from marketdata.contract.fields import MAX_SYMBOL, symbol_of
from marketdata.contract.http import Detail, Unusable
from marketdata.errors import InvalidItem
from marketdata.tick import DAY_MS, MINUTE_MS

#: What one answer asks for (ranges).
MAX_WANTED: Final = 8

#: A report is of at most a day (milliseconds): a sender may read more at once than it was asked for.
_MAX_RANGE_MS: Final = DAY_MS

#: The clock of a sender may be so far ahead of ours (milliseconds).
_MAX_AHEAD_MS: Final = 60_000

#: A report takes some 100 bytes, and no terminal has as many symbols as this has sessions (bytes; items).
MAX_FILLS_BYTES: Final = 4 * 1024 * 1024
_MAX_ITEMS: Final = 100_000

#: What is stored of an error (characters).
MAX_ERROR: Final = 200

_DAY_MINUTES: Final = 1440

#: The times of a day in which a symbol is quoted: (day, from, to), see `PostedSession`.
Session = tuple[int, int, int]


class PostedFill(Struct, gc=False):
    """A range that was read whole and whose ticks are confirmed; with `error`, one that could not be read."""

    symbol: Annotated[str, Meta(min_length=1, max_length=MAX_SYMBOL)]
    from_ms: Annotated[int, Meta(description="UTC epoch milliseconds, a whole minute")] = field(name="from")
    to_ms: Annotated[int, Meta(description="the end, not included")] = field(name="to")
    ticks: Annotated[int, Meta(ge=0, le=2**53, description="how many it has; 0: the broker has none")] | UnsetType = (
        UNSET
    )
    error: Annotated[str, Meta(description=f"at most {MAX_ERROR} characters are stored")] | UnsetType = UNSET


class PostedSession(Struct, gc=False):
    """When a symbol is quoted (MT5: SymbolInfoSessionQuote); the body's `utc_offset_s` tells the broker's clock."""

    symbol: Annotated[str, Meta(min_length=1, max_length=MAX_SYMBOL)]
    day: Annotated[int, Meta(ge=0, le=6, description="0 is Sunday")]
    from_minute: Annotated[int, Meta(ge=0, le=_DAY_MINUTES, description="minute of the broker's day")] = field(
        name="from"
    )
    to_minute: Annotated[int, Meta(ge=0, le=_DAY_MINUTES, description="the end, not included")] = field(name="to")


class FillsTaken(Struct, gc=False):
    """Every valid item is in Kafka."""

    ok: bool
    received: int
    details: list[Detail] | UnsetType = UNSET


class Reports(Struct, gc=False):
    """What a body of /fills holds."""

    fills: list[PostedFill]
    #: By symbol, only of symbols all of whose sessions are valid: with one missing it would seem closed.
    sessions: dict[str, list[Session]]
    #: Offset of the broker's clock from UTC (seconds), if the sender states it.
    utc_offset_seconds: int | None
    received: int
    details: list[Detail]

    @property
    def symbols(self) -> set[str]:
        """The symbols that they are about."""
        return {fill.symbol for fill in self.fills} | self.sessions.keys()


class _Body(Struct, gc=False):
    fills: list[Any] = []
    sessions: list[Any] = []
    utc_offset_s: Any = None


_decoder: Final = msgspec.json.Decoder(_Body)


def read_reports(body: bytes, received_ms: int) -> Reports:
    """What a body of /fills says; `received_ms` is its receipt (UTC epoch milliseconds).

    Items are numbered from 0 through `fills`, then `sessions`.

    Raises:
        Unusable: when it is no JSON object, holds nothing, or more than anybody has to say.
    """
    try:
        posted = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise Unusable(f"the body is no object with `fills` or `sessions`: {exc}") from None
    received = len(posted.fills) + len(posted.sessions)
    if not 0 < received <= _MAX_ITEMS:
        raise Unusable(f"the body must hold 1 to {_MAX_ITEMS:,} `fills` and `sessions`")
    found = Reports([], {}, utc_offset_in([(OFFSET, posted.utc_offset_s)]), received, [])
    for index, item in enumerate(posted.fills):
        try:
            found.fills.append(_fill(item, received_ms))
        except InvalidItem as exc:
            found.details.append(Detail(index, exc.field, exc.message))
    broken = set()
    for index, item in enumerate(posted.sessions, len(posted.fills)):
        try:
            session = _session(item)
        except InvalidItem as exc:
            found.details.append(Detail(index, exc.field, exc.message))
            if isinstance(item, Mapping):
                broken.add(item.get("symbol") if isinstance(item.get("symbol"), str) else None)
        else:
            of_day = (session.day, session.from_minute, session.to_minute)
            found.sessions.setdefault(session.symbol, []).append(of_day)
    for symbol in broken:
        found.sessions.pop(symbol or "", None)
    return found


def _fill(item: Any, received_ms: int) -> PostedFill:
    fill = _converted(item, PostedFill)
    for name, moment_ms in (("from", fill.from_ms), ("to", fill.to_ms)):
        if moment_ms % MINUTE_MS:
            raise InvalidItem(name, "must be a whole minute, in UTC epoch milliseconds")
    if not 0 < fill.to_ms - fill.from_ms <= _MAX_RANGE_MS:
        raise InvalidItem("to", "must be after `from`, by at most a day")
    if fill.to_ms > received_ms + _MAX_AHEAD_MS:
        raise InvalidItem("to", "the range is not over yet; times are UTC")
    if (fill.ticks is UNSET) == (fill.error is UNSET):
        raise InvalidItem("ticks", "write either `ticks`, how many there are, or `error`")
    if fill.error is not UNSET:
        fill.error = "".join(filter(str.isprintable, fill.error))[:MAX_ERROR] or "no reason given"
    return fill


def _session(item: Any) -> PostedSession:
    session = _converted(item, PostedSession)
    if session.from_minute >= session.to_minute:
        raise InvalidItem("to", "must be after `from`; a session ends with its day, at 1440")
    return session


Posted = TypeVar("Posted", PostedFill, PostedSession)


def _converted(item: Any, of: type[Posted]) -> Posted:
    try:
        posted = msgspec.convert(item, of)
    except msgspec.ValidationError as exc:
        message, _, path = str(exc).partition(" - at `$.")
        raise InvalidItem(path.rstrip("`"), message) from None
    posted.symbol = symbol_of(posted.symbol)
    return posted
