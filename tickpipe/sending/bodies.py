"""Takes the bodies of requests out of what they were archived in, with their items as they were written.

A text in which all items are ticks, as EAs write them, is decoded once, to make sure of that and to count them. The
items of others are decoded one by one.
"""

import json
from collections.abc import Iterator, Mapping
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
from tickpipe.sending.document import Written

#: Requests in requests: a relay that archives what another one queued.
_DEEPEST: Final = 4


class _Usual(Struct, gc=False):
    """What makes a tick of an item for sure, whatever its other fields are; see `fields.is_bar` and `_inner`."""

    symbol: str
    bid: float
    ask: float
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
    payload: None = None
    ticks: None = None
    items: None = None


_decode_item: Final = msgspec.json.Decoder(_Usual).decode
_decode_list: Final = msgspec.json.Decoder(list[_Usual]).decode
_decode_body: Final = msgspec.json.Decoder(_UsualBody).decode
_decode_line: Final = msgspec.json.Decoder(_UsualLine).decode

_fields_decoder: Final = msgspec.json.Decoder(dict[FieldName, Raw] | list[Raw], dec_hook=field_name)
_field_decoder: Final = msgspec.json.Decoder(list[Raw] | dict[str, Raw] | str | float | int | bool | None)

#: What msgspec raises where a text is not JSON, or not of the form that is asked for.
_OTHERWISE: Final = (msgspec.MsgspecError, ValueError, RecursionError)


class Body(NamedTuple):
    """A body taken out of what it was archived in."""

    written: Written
    #: The same decoded; None where all are usual ticks of the wanted symbol.
    items: list[Any] | None
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
    if (usual := _usual(text, symbol)) is not None:
        written, offset = usual
        if written:
            yield Body(written, None, source, agent, offset)
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
        yield Body(plain, plain_items, source, agent, offset)


def _usual(text: bytes, symbol: str | None) -> tuple[Written, int | None] | None:
    """The ticks of a text that holds nothing else, and the offset of the clock; None for any other.

    Its only array is that of the ticks, so the brackets tell where they begin and end.
    """
    begin, end = text.find(b"["), text.rfind(b"]")
    offset = None
    try:
        if begin < 0:
            ticks = [_decode_item(text)]
            items = text
        elif text.find(b"[", begin + 1) >= 0 or text.find(b"]", begin) != end:
            return None
        else:
            before, items = text[:begin], text[begin + 1 : end]
            if not before.strip():
                ticks = _decode_list(text)
            else:
                body = _decode_line(text).body if b'"body"' in before else _decode_body(text)
                ticks, offset = body.ticks, body.utc_offset_seconds
                if before.count(OFFSET.encode()) + text.count(OFFSET.encode(), end) > 1:
                    return None
    except _OTHERWISE:
        return None
    # Where no time is said, another spelling of the names is looked for.
    if not all(tick.time_msc or tick.ts_msc or tick.time or tick.ts for tick in ticks):
        return None
    if symbol is not None and any(tick.symbol != symbol for tick in ticks):
        return None
    check_count(len(ticks))
    written = Written()
    if ticks:
        written.add(items, len(ticks))
    return written, offset


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
