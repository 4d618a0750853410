"""The forms of a body: `{"ticks": […]}`, `{"items": […]}`, an array, a single item; also what is nearly JSON."""

import json
from typing import Any, Final

import msgspec

from marketdata.contract.lenient import has_decimal_comma, is_form_data, readable, text_of
from marketdata.contract.refusals import TooLarge, Unusable

#: 64 MB hold about as many of the shortest ticks; more items are not ticks and would only keep the process busy.
MAX_ITEMS: Final = 1_000_000

#: Commas and opening brackets: each makes one more value to keep. 64 MB of DataCollectorPRO's ticks have 4 million.
_MAX_VALUES: Final = 6_000_000

#: No zone is further from UTC (seconds).
MAX_OFFSET_SECONDS: Final = 18 * 3600

#: A double has 309 at most.
_MAX_DIGITS: Final = 309

_WRAPPERS: Final = ("ticks", "items")

_UTF8_MARK: Final = b"\xef\xbb\xbf"

_HOW_TO_POST: Final = 'post the JSON itself as the body: {"ticks":[{"symbol":"EURUSD","time_msc":…,"bid":…,"ask":…}]}'


class Body(msgspec.Struct, gc=False):
    """What a body holds, item by item as it came."""

    items: list[Any]
    #: Offset of the sender's clock from UTC (seconds), when the sender says it.
    utc_offset_seconds: int | None


def decode(body: bytes) -> Body:
    """The items of a body.

    NaN and Infinity, which JSON does not have, bytes of Windows-1252, and the NUL that MQL5 appends to a string are let
    pass here: what they spoil is one item, not the body.

    Raises:
        Unusable: when it is no JSON, or JSON that can hold no items.
        TooLarge: when it holds more than MAX_ITEMS, or more values than so many ticks have.
    """
    check_values(body)
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        value = _decode_tolerantly(body, exc)
    return _unwrapped(value)


def check_values(body: bytes) -> None:
    """Refuse a body that would take far more memory decoded than its bytes do, such as `[[],[],…]`.

    Raises:
        TooLarge: when it may hold more than _MAX_VALUES.
    """
    if len(body) > _MAX_VALUES and sum(map(body.count, (b",", b"[", b"{"))) > _MAX_VALUES:
        raise TooLarge("the body holds more values than ticks have; split it and send the parts")


def _decode_tolerantly(body: bytes, strict: Exception) -> Any:
    if isinstance(strict, RecursionError):
        raise Unusable("the JSON is nested too deeply") from None
    trimmed = body.removeprefix(_UTF8_MARK).strip(b"\x00 \t\r\n")
    if not trimmed:
        raise Unusable(f"the body is empty; {_HOW_TO_POST}")
    if is_form_data(trimmed):
        raise Unusable(f"the body is form data; {_HOW_TO_POST}")
    text = text_of(trimmed)
    try:
        return json.loads(readable(text), parse_int=_integer, strict=False)
    except RecursionError:
        raise Unusable("the JSON is nested too deeply") from None
    except json.JSONDecodeError as exc:
        cure = "; a number has a decimal comma: write 1.16512" if has_decimal_comma(text, exc.pos) else ""
        # msgspec's message has the position in the body as it came.
        raise Unusable(f"the body is not JSON: {strict}{cure}") from None


def _integer(digits: str) -> int | float:
    # Python refuses to convert thousands of digits; as a float they are infinite, which spoils one item only.
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def _unwrapped(value: Any) -> Body:
    utc_offset_seconds = None
    if isinstance(value, dict):
        utc_offset_seconds = _utc_offset(value.get("utc_offset_s"))
        key = next((key for key in _WRAPPERS if key in value), None)
        items = [value] if key is None else value[key]
        if not isinstance(items, list):
            raise Unusable(f"`{key}` must be an array")
    elif isinstance(value, list):
        items = value
    else:
        raise Unusable("the body must be an object or an array")
    if len(items) > MAX_ITEMS:
        raise TooLarge(f"the body holds more than {MAX_ITEMS} items; split it and send the parts")
    return Body(items, utc_offset_seconds)


def _utc_offset(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MAX_OFFSET_SECONDS:
        raise Unusable(f"`utc_offset_s` must be whole seconds, at most {MAX_OFFSET_SECONDS} either way")
    return int(value)
