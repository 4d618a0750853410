"""Records of Kafka's topics as JSON, and their keys: frames, candles, bars, and the rest, which is defined here."""

from collections.abc import Sequence
from functools import lru_cache
from math import isfinite
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from marketdata.candle import BrokerBar, Candle
from marketdata.errors import InvalidCandle, InvalidFrame, InvalidReference, InvalidReport, TickpipeError
from marketdata.tick import Columns, Frame, RecordColumns, Tick, Ticks, TickValues, TimeMsc

_Name = Annotated[str, Meta(max_length=64)]
_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]

#: Frames of so many ticks are written as columns. Fewer ticks take as many bytes, and fold as fast one by one.
MIN_TICKS: Final = 8

#: Senders compute the size of a point, so its last digits may be noise (significant digits).
_POINT_DIGITS: Final = 9

#: More decimals than any price has.
MAX_DECIMALS: Final = 18


class SenderCount(Struct, frozen=True, gc=False, kw_only=True, tag_field="kind", tag="sender"):
    """How much one producer has accepted from one sender; a later record replaces an earlier one."""

    source: Annotated[str, Meta(min_length=1, max_length=64)]
    #: As in `marketdata.contract.http`; empty where the sender does not say.
    server: _Name
    account: _Name
    build: _Name
    ea: _Name
    version: _Name
    #: The address that the requests came from.
    address: _Name
    #: Tells this count from those of other producers, and from earlier ones of the same; the sum of all is the total.
    counter: Annotated[str, Meta(min_length=1, max_length=64)]
    #: Receipt of the first and of the newest request (UTC epoch milliseconds).
    first_seen: TimeMsc
    last_seen: TimeMsc
    #: Ticks and broker's bars that Kafka confirmed.
    ticks: _Count
    bars: _Count
    #: Those of the ticks that came into the terminal's list behind later ones, as the sender says.
    late_ticks: _Count = 0


class Instrument(Struct, frozen=True, gc=False, kw_only=True, tag_field="kind", tag="instrument"):
    """How a source quotes a symbol; a later record replaces an earlier one."""

    source: Annotated[str, Meta(min_length=1, max_length=64)]
    symbol: Annotated[str, Meta(min_length=1, max_length=32)]
    #: Size of a point in price units (MT5: SYMBOL_POINT).
    point: Annotated[float, Meta(gt=0)]
    #: When the producer received it (UTC epoch milliseconds).
    received: TimeMsc


Reference = SenderCount | Instrument


class Fill(Struct, frozen=True, gc=False, kw_only=True, tag_field="kind", tag="fill"):
    """A sender has sent all ticks that its terminal has of a range, or says why it cannot."""

    source: Annotated[str, Meta(min_length=1, max_length=64)]
    symbol: Annotated[str, Meta(min_length=1, max_length=32)]
    #: Whole minutes, the end not included (UTC epoch milliseconds).
    from_ms: TimeMsc = field(name="from")
    to_ms: TimeMsc = field(name="to")
    #: How many there are, 0 where the broker has none; None after an error.
    ticks: _Count | None = None
    error: Annotated[str, Meta(max_length=200)] = ""
    #: When the producer received it (UTC epoch milliseconds).
    received: TimeMsc


_Minute = Annotated[int, Meta(ge=0, le=1440)]


class QuoteSessions(Struct, frozen=True, kw_only=True, tag_field="kind", tag="sessions"):
    """When the broker quotes a symbol, by its own clock; a later record replaces an earlier one."""

    source: Annotated[str, Meta(min_length=1, max_length=64)]
    symbol: Annotated[str, Meta(min_length=1, max_length=32)]
    #: Offset of the broker's clock from UTC (seconds); None: by the zone of the source.
    utc_offset_s: Annotated[int, Meta(ge=-64_800, le=64_800)] | None
    #: Day of the week, 0 is Sunday, and minutes of that day, the end not included.
    sessions: list[tuple[Annotated[int, Meta(ge=0, le=6)], _Minute, _Minute]]
    received: TimeMsc


#: What senders report, in the topic `fills`; its key is `frame_key`.
Report = Fill | QuoteSessions

#: Minutes of which ticks are wanted, the newest first: first and end, not included (UTC epoch milliseconds).
WantedRanges = list[tuple[int, int]]


def decimals_of(point: float) -> int:
    """Decimals of a price whose smallest step is `point`: 5 for 0.00001, 0 for 1 and for 10, 2 for 0.25."""
    if not isfinite(point) or point <= 0:
        return 0
    mantissa, _, exponent = f"{point:.{_POINT_DIGITS - 1}e}".partition("e")
    significant = len(mantissa.rstrip("0").partition(".")[2])
    return min(MAX_DECIMALS, max(0, significant - int(exponent)))


T = TypeVar("T")

_encoder: Final = msgspec.json.Encoder()
_frame: Final = msgspec.json.Decoder(Frame)
_frames: Final = msgspec.json.Decoder(list[Frame])
_candles: Final = msgspec.json.Decoder(list[Candle])
_candle: Final = msgspec.json.Decoder(Candle)
_bar: Final = msgspec.json.Decoder(BrokerBar)
_reference: Final[msgspec.json.Decoder[Reference]] = msgspec.json.Decoder(Reference)
_report: Final[msgspec.json.Decoder[Report]] = msgspec.json.Decoder(Report)
_wanted: Final = msgspec.json.Decoder(WantedRanges)

#: What msgspec raises on bytes it cannot use: no JSON, wrong types, no UTF-8, too deep.
_UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


# The same names come again with every candle. With fewer places than symbols none would be found again.
@lru_cache(maxsize=32_768)
def record_key(*names: str) -> bytes:
    """The names with slashes between them; `%` and `/` in a name are percent-encoded, so no two keys are alike."""
    return "/".join(name.replace("%", "%25").replace("/", "%2F") for name in names).encode()


def names_in(key: bytes) -> tuple[str, ...]:
    """The names that `record_key` joined."""
    return tuple(name.replace("%2F", "/").replace("%25", "%") for name in key.decode().split("/"))


def frame_key(source: str, symbol: str) -> bytes:
    """Key of a record of `ticks`, `fills` and `wanted`: one source and symbol always goes to one partition."""
    return record_key(source, symbol)


def candle_key(candle: Candle) -> bytes:
    """Key of a record of `candles.m1`."""
    return record_key(candle.source, candle.symbol, candle.timeframe) + b"/%d" % candle.ts


def bar_key(bar: BrokerBar) -> bytes:
    """Key of a record of `candles.broker`, which is compacted."""
    return record_key(bar.source, bar.symbol, bar.timeframe) + b"/%d" % bar.ts


def reference_key(record: Reference) -> bytes:
    """Key of a record of `reference`, which is compacted."""
    if isinstance(record, SenderCount):
        return record_key(
            "sender", record.source, record.server, record.account, record.build, record.ea, record.version,
            record.address, record.counter,
        )  # fmt: skip
    return record_key("instrument", record.source, record.symbol)


def frame_ticks(values: TickValues) -> tuple[Literal[1, 2], Ticks]:
    """Version and ticks of a frame, from the values of each field: as `encode` writes them."""
    return (1, list(map(Tick, *values))) if len(values[0]) < MIN_TICKS else (2, Columns.of_values(values))


def encode(value: Frame | Candle | BrokerBar | Reference | Report | WantedRanges) -> bytes:
    """One record's value; a frame of MIN_TICKS or more has them as columns, which is version 2."""
    if isinstance(value, Frame) and len(value.ticks) >= MIN_TICKS and isinstance(value.ticks, list):
        value = msgspec.structs.replace(value, v=2, ticks=Columns.of(value.ticks))
    return _encoder.encode(value)


def decode_frame(value: bytes | None) -> Frame:
    """The frame in one record of `ticks`.

    Raises:
        InvalidFrame: when it is a tombstone, no JSON, another version or breaks a limit.
    """
    return _decode_one(_frame, value, InvalidFrame, "a frame")


def decode_frames(values: Sequence[bytes | None]) -> list[Frame] | None:
    """The frames of a whole poll; None when at least one value is no frame, `decode_frame` then tells which."""
    frames = decode_all(_frames, values)
    # A poll of single ticks is not looked through: without its record a frame's ticks are kept in another way.
    if frames and isinstance(frames[0].ticks, RecordColumns):
        for frame, value in zip(frames, values, strict=True):
            if isinstance(frame.ticks, RecordColumns) and value is not None:
                frame.ticks.came_as(value)
    return frames


def numbered_frames(records: Sequence[tuple[int, bytes | None]]) -> list[tuple[int, Frame]]:
    """The numbers that records were given, and the frames, of those that are frames."""
    offsets, values = zip(*records, strict=True) if records else ((), ())
    frames = decode_frames(values)
    if frames is not None:
        return list(zip(offsets, frames, strict=True))
    found = []
    for offset, value in records:
        try:
            found.append((offset, decode_frame(value)))
        except InvalidFrame:
            continue
    return found


def decode_candles(values: Sequence[bytes | None]) -> list[Candle] | None:
    """The candles of a whole poll; None when at least one value is no candle, `decode_candle` then tells which."""
    return decode_all(_candles, values)


def decode_all(
    decoder: msgspec.json.Decoder[list[T]], values: Sequence[bytes | None], opening: bytes = b""
) -> list[T] | None:
    """What the decoder makes of each value with `opening` before it; None when it cannot be made of every one."""
    # As one JSON array, which takes a fifth of the time of one by one.
    try:
        decoded = decoder.decode(
            b"[" + opening + (b"," + opening).join(values) + b"]"  # type: ignore[arg-type]  # None raises TypeError
        )
    except (*_UNDECODABLE, TypeError):
        return None
    # One value that is `frame,frame` would shift all that follow.
    return decoded if len(decoded) == len(values) else None


def decode_candle(value: bytes | None) -> Candle:
    """The candle in one record of `candles.m1`.

    Raises:
        InvalidCandle: when it is none.
    """
    return _decode_one(_candle, value, InvalidCandle, "a candle")


def decode_bar(value: bytes | None) -> BrokerBar:
    """The broker's bar in one record of `candles.broker`.

    Raises:
        InvalidCandle: when it is none.
    """
    return _decode_one(_bar, value, InvalidCandle, "a bar")


def decode_reference(value: bytes | None) -> Reference:
    """The reference data in one record of `reference`.

    Raises:
        InvalidReference: when it is none.
    """
    return _decode_one(_reference, value, InvalidReference, "reference data")


def decode_report(value: bytes | None) -> Report:
    """The report in one record of `fills`.

    Raises:
        InvalidReport: when it is none.
    """
    return _decode_one(_report, value, InvalidReport, "a report")


def decode_wanted(value: bytes) -> WantedRanges:
    """The ranges in one record of `wanted`.

    Raises:
        InvalidReport: when it holds none.
    """
    return _decode_one(_wanted, value, InvalidReport, "ranges that are wanted")


def _decode_one(decoder: msgspec.json.Decoder[T], value: bytes | None, error: type[TickpipeError], what: str) -> T:
    if value is None:
        raise error(f"a tombstone, not {what}")
    try:
        return decoder.decode(value)
    except _UNDECODABLE as exc:
        raise error(str(exc)) from exc
