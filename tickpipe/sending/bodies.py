"""Takes the bodies of requests out of what they were archived in, with their items as they were written.

A text in which all items are ticks, as EAs write them, is decoded once, to make sure of that and to count them. The
items of others are decoded one by one.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta, Raw, Struct

from marketdata.contract.body import (
    MAX_OFFSET_SECONDS,
    MAX_VALUES,
    OFFSET,
    WRAPPERS,
    FieldName,
    arrays_in,
    check_count,
    check_values,
    decode,
    field_name,
    fields_of,
    utc_offset_in,
)
from marketdata.contract.fields import with_names
from tickpipe.sending.document import Written

#: Requests in requests: a relay that archives what another one queued.
_DEEPEST: Final = 4


class _Usual(Struct, gc=False):
    """What makes a tick of an item for sure, whatever its other fields are; see `fields.is_bar` and `_inner`."""

    symbol: str
    bid: float
    ask: float
    last: float = 0.0
    time_msc: int = 0
    ts_msc: int = 0
    time: str = ""
    ts: str = ""
    open: None = None
    payload: None = None
    body: None = None


class _UsualBody(Struct, forbid_unknown_fields=True, gc=False):
    """A body as EAs post it."""

    ticks: list[_Usual]
    utc_offset_seconds: Annotated[int, Meta(ge=-MAX_OFFSET_SECONDS, le=MAX_OFFSET_SECONDS)] | None = msgspec.field(
        default=None, name=OFFSET
    )


class _UsualLine(Struct, gc=False):
    """Such a body as an EA archives it."""

    body: _UsualBody
    headers: None = None
    payload: None = None
    ticks: None = None
    items: None = None


class _Array(Struct, gc=False):
    """The array of a body as it is written."""

    ticks: Raw


class _ArrayOfLine(Struct, gc=False):
    """The same in a line of an archive."""

    body: _Array


class _Form(NamedTuple):
    """A text that may hold nothing but usual ticks: how it, and many of it, are decoded, and where its ticks are."""

    decode: Callable[[bytes], Any]
    decode_many: Callable[[bytes], list[Any]]
    read: Callable[[Any], tuple[list[_Usual], int | None]]
    array: Callable[[bytes], Raw]


_decode_array: Final = msgspec.json.Decoder(_Array).decode
_decode_array_of_line: Final = msgspec.json.Decoder(_ArrayOfLine).decode

_ITEM: Final = _Form(
    msgspec.json.Decoder(_Usual).decode,
    msgspec.json.Decoder(list[_Usual]).decode,
    lambda tick: ([tick], None),
    lambda text: Raw(b"[%b]" % text.strip()),
)
_LIST: Final = _Form(
    msgspec.json.Decoder(list[_Usual]).decode,
    msgspec.json.Decoder(list[list[_Usual]]).decode,
    lambda ticks: (ticks, None),
    lambda text: Raw(text.strip()),
)
_BODY: Final = _Form(
    msgspec.json.Decoder(_UsualBody).decode,
    msgspec.json.Decoder(list[_UsualBody]).decode,
    lambda body: (body.ticks, body.utc_offset_seconds),
    lambda text: _decode_array(text).ticks,
)
_LINE: Final = _Form(
    msgspec.json.Decoder(_UsualLine).decode,
    msgspec.json.Decoder(list[_UsualLine]).decode,
    lambda line: (line.body.ticks, line.body.utc_offset_seconds),
    lambda text: _decode_array_of_line(text).body.ticks,
)

_OFFSET: Final = OFFSET.encode()

_fields_decoder: Final = msgspec.json.Decoder(dict[FieldName, Raw] | list[Raw], dec_hook=field_name)
_field_decoder: Final = msgspec.json.Decoder(list[Raw] | dict[str, Raw] | str | float | int | bool | None)

#: For each symbol the times of the first and the last tick (milliseconds). None where a request must stay one: the fold
#: tells a resend of ticks in whole seconds, and of deals, by whole requests.
Times = dict[str, tuple[int, int]] | None

#: What msgspec raises where a text is not JSON, or not of the form that is asked for.
_OTHERWISE: Final = (msgspec.MsgspecError, ValueError, RecursionError)


class Body(NamedTuple):
    """A body taken out of what it was archived in."""

    written: Written
    #: The same decoded; None where all are usual ticks of the wanted symbol.
    items: list[Any] | None
    times: Times
    source: str | None
    agent: str | None
    utc_offset_seconds: int | None


def bodies_in(
    text: bytes, symbol: str | None, source: str | None = None, agent: str | None = None, depth: int = 0
) -> Iterator[Body]:
    """The bodies that hold items, taken out of what they were archived in.

    Args:
        symbol: the one that is wanted.

    Raises:
        Unusable, TooLarge: when the text, or what is archived in it, is no body.
    """
    if (usual := usual_in((text,), symbol)) is not None:
        written, times, offset = usual
        if written:
            yield Body(written, None, times, source, agent, offset)
        return
    try:
        items, decoded, offset = _strictly(text)
    except _OTHERWISE:
        body = decode(text)
        decoded, offset = body.items, body.utc_offset_seconds
        # Not the encoder of ours: it writes null for a NaN, which the server tells from a missing field.
        items = [json.dumps(item).encode() for item in decoded]
    plain, plain_items = Written(), []
    for item, value in zip(items, decoded, strict=True):
        inner = _inner(value) if depth < _DEEPEST else None
        if inner is None:
            plain.add(item)
            plain_items.append(value)
            continue
        headers = value.get("headers")
        named = {str(name).lower(): str(said) for name, said in headers.items()} if isinstance(headers, dict) else {}
        yield from bodies_in(
            inner, symbol, named.get("x-source") or source, named.get("user-agent") or agent, depth + 1
        )
    if plain:
        yield Body(plain, plain_items, times_of(map(_time_of, plain_items)), source, agent, offset)


def times_of(ticks: Iterable[tuple[str, int] | None]) -> Times:
    """The times of a request's ticks, given the symbol and the time of each; None for one that must not be joined."""
    times: dict[str, tuple[int, int]] = {}
    for tick in ticks:
        if tick is None:
            return None
        symbol, time_ms = tick
        first, last = times.get(symbol, (time_ms, time_ms))
        times[symbol] = (min(first, time_ms), max(last, time_ms))
    return times


def join(times: Times, following: Times) -> bool:
    """Whether a request may be joined to those of `times`, which then count it.

    Only when it begins later than they end: a resend has to stay a frame of its own, or its ticks would count twice (as
    in relay/lanes.py).
    """
    if (
        times is None
        or following is None
        or any(symbol in times and first <= times[symbol][1] for symbol, (first, _) in following.items())
    ):
        return False
    times |= following
    return True


def _time_of(item: Any) -> tuple[str, int] | None:
    if not isinstance(item, dict):
        return None
    named = with_names(item)
    time_ms = named.get("time_msc") or named.get("ts_msc")
    return None if named.get("last") or type(time_ms) is not int else (str(named.get("symbol")), time_ms)


def _usual_time(tick: _Usual) -> tuple[str, int] | None:
    time_ms = tick.time_msc or tick.ts_msc
    return (tick.symbol, time_ms) if time_ms and not tick.last else None


def usual_in(texts: Sequence[bytes], symbol: str | None) -> tuple[Written, Times, int | None] | None:
    """The ticks of texts that hold nothing else, their times, and the one offset of the clock; None for any others.

    Several texts are those of requests that may be joined.

    Args:
        texts: one body each.
        symbol: the only one that is wanted; None for all.

    Raises:
        TooLarge: when they are too many for a body.
    """
    text = texts[0] if len(texts) == 1 else b"[%b]" % b",".join(texts)
    form = _form_of(texts[0])
    try:
        decoded = [form.decode(text)] if len(texts) == 1 else form.decode_many(text)
    except _OTHERWISE:
        return None
    found = list(map(form.read, decoded))
    offset = found[0][1]
    if len(found) != len(texts) or any(other != offset for _, other in found):
        return None
    ticks = [tick for of_one, _ in found for tick in of_one]
    # Where no time is said, another spelling of the names is looked for.
    if not all(tick.time_msc or tick.ts_msc or tick.time or tick.ts for tick in ticks) or (
        symbol is not None and any(tick.symbol != symbol for tick in ticks)
    ):
        return None
    check_count(len(ticks))
    times, *others = (times_of(map(_usual_time, of_one)) for of_one, _ in found)
    if not all(join(times, other) for other in others):
        return None
    items = _arrays_of(texts, text, form)
    if items is None or text.count(_OFFSET) > (0 if offset is None else len(texts)):
        return None
    written = Written()
    if ticks:
        written.add(items, len(ticks))
    return written, times, offset


def _form_of(text: bytes) -> _Form:
    begin = text.find(b"[")
    if begin < 0:
        return _ITEM
    before = text[:begin]
    return _LIST if not before.strip() else _LINE if b'"body"' in before else _BODY


def _arrays_of(texts: Sequence[bytes], text: bytes, form: _Form) -> bytes | None:
    """What stands between the brackets of each array of ticks; None where one may have several."""
    if form is _ITEM:
        return text[1:-1] if len(texts) > 1 else text.strip()
    # Where there are no more arrays than texts, the brackets tell.
    brackets = len(texts) + (len(texts) > 1)
    if text.count(b"[") == text.count(b"]") == brackets:
        arrays = [one[one.index(b"[") + 1 : one.rindex(b"]")] for one in texts]
    elif form is _LIST or text.count(b'"ticks"') == len(texts):
        arrays = [bytes(form.array(one))[1:-1] for one in texts]
    else:
        return None
    return b",".join([array for array in arrays if array.strip()])


def _strictly(text: bytes) -> tuple[list[bytes | Raw], list[Any], int | None]:
    """The items of a text that is JSON, as they are written and decoded, and the offset of the clock.

    Raises:
        MsgspecError, ValueError, RecursionError: when it is not.
        Unusable, TooLarge: as `decode`.
    """
    if len(text) > MAX_VALUES:
        check_values(text)
    decoded = _fields_decoder.decode(text)
    offset = None
    items: list[bytes | Raw]
    if isinstance(decoded, list):
        items = [*decoded]
    else:
        fields = [
            (name, _field_decoder.decode(value) if name.lower() in (*WRAPPERS, OFFSET) else value)
            for name, value in fields_of(decoded)
        ]
        arrays, offset = arrays_in(fields), utc_offset_in(fields)
        if arrays is None:
            if (envelope := _envelope(dict(fields))) is not None:
                return [text], [envelope], offset
            items = [text]
        else:
            items = [*chain.from_iterable(arrays)]
    check_count(len(items))
    return items, [msgspec.json.decode(item) for item in items], offset


def _envelope(fields: Mapping[str, Raw]) -> dict[str, Any] | None:
    """What an archive or a queue wrote around a body, which is left as it is; None for an item."""
    said = fields.get("payload", fields.get("body"))
    if said is None or bytes(said)[:1] not in (b"{", b"[", b'"'):
        return None
    body = said if bytes(said)[:1] != b'"' else msgspec.json.decode(said)
    return {"payload": body, "headers": msgspec.json.decode(fields.get("headers", b"null"))}


def _inner(item: Any) -> bytes | None:
    """The body in the envelope of an archive or a queue; None for an item."""
    said = item.get("payload", item.get("body")) if isinstance(item, dict) else None
    if isinstance(said, Raw):
        return bytes(said)
    if isinstance(said, str):
        # A surrogate alone is no character; of what is only nearly JSON, Python's reader makes one.
        return said.encode("utf-8", "replace")
    return json.dumps(said).encode() if isinstance(said, (dict, list)) else None
