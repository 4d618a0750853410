"""The body of a request to the local API: read within its limit, unpacked, taken apart into items."""

import json
import re
import zlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

#: Items of one body: 5 MB hold about 20,000 honest ticks.
MAX_ITEMS: Final = 100_000

#: MT5's clock is never further from UTC (seconds).
_MAX_OFFSET_SECONDS: Final = 18 * 3600

#: zlib: 16 for the gzip header, 15 for the largest window.
_GZIP_WINDOW_BITS: Final = 31

#: A double has 309 digits at most.
_MAX_DIGITS: Final = 309

#: How C, and so MQL5, prints what is no number. A string is matched first, as a whole, and stays as it is.
_NO_NUMBERS: Final = re.compile(r'"(?:[^"\\]|\\.)*+"|(?<![\w.])[+-]?(?:nan(?:\([a-z]*\))?|inf(?:inity)?)(?!\w)', re.I)


class Refusal(Exception):
    """The request is answered with this status and nothing of it is stored."""

    def __init__(self, status: int, code: str, message: str, *, retry_after_seconds: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_seconds = retry_after_seconds


class Body(msgspec.Struct, gc=False):
    """What a body holds, item by item as it came."""

    items: list[Any]
    #: Offset of the sender's clock from UTC (seconds), when the sender says it.
    utc_offset_seconds: int | None


def unusable(message: str) -> Refusal:
    """400: sending the same again will not help."""
    return Refusal(400, "VALIDATION_ERROR", message)


def too_large(message: str) -> Refusal:
    """413: the sender should split the body."""
    return Refusal(413, "PAYLOAD_TOO_LARGE", message)


def unpacked(body: bytes, headers: Mapping[bytes, bytes], limit_bytes: int) -> bytes:
    """The body without `Content-Encoding: gzip`.

    Raises:
        Refusal: 400 when it is no gzip, 413 when it is longer than the limit, 415 for other encodings.
    """
    encoding = headers.get(b"content-encoding", b"").strip().lower()
    if encoding in (b"", b"identity"):
        return body
    if encoding not in (b"gzip", b"x-gzip"):
        raise Refusal(415, "UNSUPPORTED_ENCODING", "the body may be plain or `Content-Encoding: gzip`")
    unpacker = zlib.decompressobj(_GZIP_WINDOW_BITS)
    try:
        plain = unpacker.decompress(body, limit_bytes + 1)
    except zlib.error:
        raise unusable("Content-Encoding says gzip, but the body is not") from None
    if len(plain) > limit_bytes:
        raise too_large(f"the body is longer than {limit_bytes} bytes; split it and send the parts")
    if not unpacker.eof or unpacker.unused_data:
        raise unusable("the gzip body is incomplete, or something follows it")
    return plain


def decode(body: bytes) -> Body:
    """The items of `{"ticks":[…]}`, `{"items":[…]}`, an array or a single item.

    NaN, Infinity and the NUL that MQL5 appends to a string are let pass: what they spoil is one item, not the body.

    Raises:
        Refusal: 400 when it is no JSON that holds items, 413 when it holds more than MAX_ITEMS.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        value = _decode_tolerantly(body, exc)
    utc_offset_seconds = None
    if isinstance(value, dict):
        utc_offset_seconds = _utc_offset(value.get("utc_offset_s"))
        key = next((key for key in ("ticks", "items") if key in value), None)
        items = [value] if key is None else value[key]
    else:
        items = value
    if not isinstance(items, list):
        raise unusable("the body must be an object, an array, or have an array as `ticks` or `items`")
    if len(items) > MAX_ITEMS:
        raise too_large(f"the body holds more than {MAX_ITEMS} items; split it and send the parts")
    return Body(items, utc_offset_seconds)


def _decode_tolerantly(body: bytes, strict: Exception) -> Any:
    trimmed = body.removeprefix(b"\xef\xbb\xbf").strip(b"\x00 \t\r\n")
    if not trimmed:
        raise unusable("the body is empty")
    try:
        text = trimmed.decode()
        return json.loads(_NO_NUMBERS.sub(_as_python_writes_it, text), parse_int=_integer)
    except UnicodeDecodeError as exc:
        raise unusable(f"the body is not UTF-8: byte {exc.start}") from None
    except RecursionError:
        raise unusable("the JSON is nested too deeply") from None
    except json.JSONDecodeError:
        raise unusable(f"the body is not JSON: {strict}") from None


def _integer(digits: str) -> int | float:
    # Python refuses to convert thousands of digits; as a float they are infinite, which spoils one item only.
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def _as_python_writes_it(match: re.Match[str]) -> str:
    token = match.group()
    if token.startswith('"'):
        return token
    if token.lstrip("+-")[0].lower() == "n":
        return "NaN"
    return "-Infinity" if token.startswith("-") else "Infinity"


def _utc_offset(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _MAX_OFFSET_SECONDS:
        raise unusable(f"`utc_offset_s` must be whole seconds, at most {_MAX_OFFSET_SECONDS} either way")
    return value
