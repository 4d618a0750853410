"""The forms of a body: `{"ticks": […]}`, `{"items": […]}`, an array, a single item; also what is nearly JSON."""

import json
import re
from typing import Any, Final

import msgspec

from marketdata.contract.fields import FOREIGN_LETTERS, NO_NUMBER
from marketdata.contract.http import TooLarge, Unusable

#: 64 MB hold about as many of the shortest ticks; more items are not ticks and would only burden the process.
MAX_ITEMS: Final = 1_000_000

#: Commas and opening brackets: each makes one more value. 64 MB of DataCollectorPRO's ticks have 4 million.
MAX_VALUES: Final = 6_000_000

#: What is only nearly JSON costs 20 to 50 times as much as JSON, in one go; a longer body is read in pieces (bytes
#: without spaces).
_MAX_MENDED_BYTES: Final = 512 * 1024

#: No zone is further from UTC (seconds).
MAX_OFFSET_SECONDS: Final = 18 * 3600

#: An offset as text, as some senders write all their numbers.
_OFFSET_TEXT: Final = re.compile(r"[+-]?[0-9]{1,5}")

#: A double has 309 at most.
_MAX_DIGITS: Final = 309

#: The fields of a body that hold its items, and the one that holds the offset of the sender's clock.
WRAPPERS: Final = ("ticks", "items")
OFFSET: Final = "utc_offset_s"

#: What some senders put before the JSON, and behind it.
UTF8_MARK: Final = b"\xef\xbb\xbf"
PADDING: Final = b"\x00 \t\r\n"

UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")

_HOW_TO_POST: Final = 'post the JSON itself as the body: {"ticks":[{"symbol":"EURUSD","time_msc":…,"bid":…,"ask":…}]}'

#: What Python makes of a byte that is no UTF-8 (PEP 383), to the character that it is in Windows-1252.
_STRAY: Final = {0xDC00 + byte: bytes([byte]).decode("cp1252", "replace") for byte in range(0x80, 0x100)}

#: U+FFFD, and the first letter beyond ASCII of FOREIGN_LETTERS.
_UNREADABLE: Final = "\ufffd".encode()
_FIRST_LETTER: Final = 0xC0

#: What JSON writes otherwise, or not at all: nan and 1.#INF, `None`, `True`, `+1.1`, `.5`, `5.`, `01.5`, a missing
#: value, a comma too many. A string is matched first, as a whole and even when it does not end: nothing
#: is looked at more than a few times. Ordinary fields are matched at one go, as many as follow one another: each match
#: is a call of a function.
_MENDED: Final = re.compile(
    rf"""
    (?:
        "[^"\\]*+"
        (?: \s*+:\s*+ (?: "[^"\\]*+" | -?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?=\s*+[,}}]) ) )?+
        (?:\s*+,\s*+(?="))?+
    )++
    | "(?:[^"\\]|\\.?)*+"?
    | ,(?=\s*+[\]}},]) | (?<=[\[{{]),
    | :(?=\s*+[,}}])
    | (?<![\w.])(?:
        {NO_NUMBER}(?!\w) | (?:none|null|undefined|true|false)(?!\w)
        | [+-]?(?:\.[0-9] | [0-9]++\.(?![0-9#$])) | [+-]?0+(?=[0-9]) | \+(?=[0-9])
      )
    """,
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)

_WRITTEN: Final = {
    ",": "", ":": ":null", "none": "null", "null": "null", "undefined": "null", "true": "true",
    "false": "false",
}  # fmt: skip

#: A backslash in a string and what it escapes: a path of Windows has others than JSON knows.
_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|[^u])?", re.DOTALL)
_ESCAPED: Final = frozenset('"\\/bfnrt')

#: What is said of the body of an HTML form.
FORM_DATA: Final = f"the body is form data; {_HOW_TO_POST}"

#: `data=…`, the same without a name but encoded as for one, and the form that uploads files.
_FORM_DATA: Final = re.compile(rb"[A-Za-z_][\w.-]{0,63}=|%(?:7b|5b)|--[\w-]{1,70}\r?\n", re.IGNORECASE)

_DECIMAL_COMMA: Final = re.compile(r":\s?-?\d{1,9},\d{1,12}\s?[,}]")


#: The fields of an object in their order, also those that are written twice.
Fields = list[tuple[str, Any]]


class FieldName:
    """The name of a field beside the items. Two that are spelled alike are not equal, so that a decoder that makes a
    `dict[FieldName, …]` of an object returns all of its fields, in order, also those that are written twice.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


def field_name(_: type, name: str) -> FieldName:
    """The `dec_hook` of decoders that use FieldName."""
    return FieldName(name)


_decoder: Final = msgspec.json.Decoder(dict[FieldName, Any] | list[Any], dec_hook=field_name)


class Body(msgspec.Struct, gc=False):
    """The items of a body as they were sent."""

    items: list[Any]
    #: Offset of the sender's clock from UTC (seconds), if the sender states it.
    utc_offset_seconds: int | None


def decode(body: bytes, *, mends: bool = True) -> Body:
    """The items of a body.

    NaN and Infinity, which JSON lacks, bytes of Windows-1252, and the NUL that MQL5 appends to a string are accepted
    here, where it `mends`: they spoil one item, not the body.

    Raises:
        Unusable: when it is no JSON, or JSON that can hold no items.
        TooLarge: when it holds more than MAX_ITEMS, or more values than so many ticks have.
    """
    if len(body) > MAX_VALUES:
        check_values(body)
    try:
        decoded = _decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        if not mends:
            raise Unusable("the body is not JSON") from None
        found = _decode_tolerantly(body, exc)
    else:
        found = Body(decoded, None) if isinstance(decoded, list) else _unwrapped(fields_of(decoded))
    check_count(len(found.items))
    return found


def fields_of(decoded: dict[FieldName, Any]) -> Fields:
    """The fields of an object, in order."""
    return [(field.name, value) for field, value in decoded.items()]


def check_values(body: bytes, begin: int = 0, end: int | None = None, before: int = 0) -> int:
    """How many values a body may hold; refuse one that would take far more memory decoded, such as `[[],[],…]`.

    Args:
        begin, end: where to count, for a long body is counted in parts.
        before: values of the parts before.

    Raises:
        TooLarge: when it may hold more than MAX_VALUES.
    """
    end = len(body) if end is None else end
    values = before + sum(body.count(byte, begin, end) for byte in (b",", b"[", b"{"))
    if values > MAX_VALUES:
        raise TooLarge("the body holds more values than ticks have; split it and send the parts")
    return values


def _decode_tolerantly(body: bytes, strict: Exception) -> Body:
    if isinstance(strict, RecursionError):
        raise Unusable("the JSON is nested too deeply") from None
    trimmed = body.removeprefix(UTF8_MARK).strip(PADDING)
    if body.startswith(UTF16_MARKS):
        trimmed = body.decode("utf-16", "replace").strip("\0 \t\r\n").encode()
    if not trimmed:
        raise Unusable(f"the body is empty; {_HOW_TO_POST}")
    if is_form_data(trimmed):
        raise Unusable(FORM_DATA)
    if len(trimmed) - sum(map(trimmed.count, PADDING)) > _MAX_MENDED_BYTES:
        raise Unusable(f"the body is not JSON: {strict}; so long a body must be JSON, or one array of small items")
    text = text_of(trimmed)
    outermost: Fields = []

    def note(fields: Fields) -> dict[str, Any]:
        # An object is complete after all that are in it, so the outermost is the last.
        nonlocal outermost
        outermost = fields
        return dict(fields)

    try:
        value = json.loads(readable(text), parse_int=_integer, strict=False, object_pairs_hook=note)
    except RecursionError:
        raise Unusable("the JSON is nested too deeply") from None
    except json.JSONDecodeError as exc:
        # msgspec's message has the position in the body as it came.
        raise Unusable(f"the body is not JSON: {strict}{_cure(text, exc, str(strict))}") from None
    if isinstance(value, dict):
        return _unwrapped(outermost)
    if not isinstance(value, list):
        raise Unusable("the body must be an object or an array")
    return Body(value, None)


def _cure(text: str, exc: json.JSONDecodeError, strict: str) -> str:
    """What a sender whose body is no JSON most likely has to do; empty where nothing tells."""
    if has_decimal_comma(text, exc.pos):
        return "; a number has a decimal comma: write 1.16512"
    if text[1:2] == "\0":
        return "; it is UTF-16 without its mark: post UTF-8"
    if "truncated" in strict:
        return "; it ends early: a length that counts characters instead of bytes is the usual cause"
    if exc.msg == "Extra data":
        behind = exc.doc[exc.pos :]
        if behind[0] == "\0":
            return "; bytes follow the NUL that ends it: post no more of the array than the text has"
        if behind[0] in "{[":
            return "; several texts follow one another: put their items into one array"
    return ""


def _integer(digits: str) -> int | float:
    # Python refuses to convert thousands of digits; as a float they are infinite, which spoils only one item.
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def _unwrapped(fields: Fields) -> Body:
    arrays = arrays_in(fields)
    # Without a wrapper the object is itself the item.
    items = [dict(fields)] if arrays is None else [item for array in arrays for item in array]
    return Body(items, utc_offset_in(fields))


def arrays_in(fields: Fields) -> list[list[Any]] | None:
    """The arrays of items of a body, in its order; None when it has none of the names that stand for items.

    Some senders write `ticks` and `items`, one of them empty, or one name twice. All are taken: choosing one
    would lose the items of the others.

    Raises:
        Unusable: when what should be an array is not, and may hold something.
    """
    wrapped = [(name, value) for name, value in fields if name.lower() in WRAPPERS]
    arrays = [value for _, value in wrapped if isinstance(value, list)]
    for name, value in wrapped:
        # Beside an array a null, or a number of items, holds none.
        if not isinstance(value, list) and (not arrays or isinstance(value, dict)):
            raise Unusable(f"`{name}` must be an array")
    return arrays if wrapped else None


def check_count(items: int) -> None:
    """Refuse more items than a body may have.

    Raises:
        TooLarge: when there are more than MAX_ITEMS.
    """
    if items > MAX_ITEMS:
        raise TooLarge(f"the body holds more than {MAX_ITEMS} items; split it and send the parts")


def utc_offset_in(fields: Fields) -> int | None:
    """Offset of the sender's clock from UTC (seconds), as stated in a body.

    Raises:
        Unusable: when it is no offset, or the body names two.
    """
    offsets = {_utc_offset_of(value) for name, value in fields if name.lower() == OFFSET}
    if len(offsets) > 1:
        raise Unusable(f"`{OFFSET}` is written twice, with different values; write one")
    return offsets.pop() if offsets else None


def _utc_offset_of(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, str) and _OFFSET_TEXT.fullmatch(value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MAX_OFFSET_SECONDS:
        raise Unusable(f"`{OFFSET}` must be whole seconds, at most {MAX_OFFSET_SECONDS} either way")
    return int(value)


def text_of(body: bytes) -> str:
    """The text of a body: UTF-8, and as Windows-1252 what is not; a byte that is neither becomes U+FFFD."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        readable = FOREIGN_LETTERS.sub(lambda match: _UNREADABLE * len(match[0]), body)
        return readable.decode("utf-8", "surrogateescape").translate(_STRAY)


def stray_character(error: UnicodeError) -> tuple[str, int]:
    """A handler of errors for `codecs`: what is no UTF-8 becomes what `text_of` makes of it."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    if error.encoding != "utf-8":
        return "\ufffd", error.end
    stray, start = error.object, error.start
    if FOREIGN_LETTERS.search(stray, max(0, start - 2), start + 3) and stray[start] >= _FIRST_LETTER:
        return "\ufffd" * (error.end - start), error.end
    return "".join(_STRAY[0xDC00 + byte] for byte in error.object[error.start : error.end]), error.end


def readable(text: str) -> str:
    """The text with NaN and Infinity as Python's reader knows them, without commas behind a last element, and with
    backslashes that escape nothing written as such.
    """
    return _MENDED.sub(_as_python_writes_it, text)


def is_form_data(body: bytes) -> bool:
    """Whether the body is that of an HTML form."""
    return _FORM_DATA.match(body) is not None


def has_decimal_comma(text: str, position: int) -> bool:
    """Whether a number with a decimal comma stands at, or just before, the place where the JSON became unreadable."""
    return _DECIMAL_COMMA.search(text, max(0, position - 64), position + 64) is not None


def _as_python_writes_it(match: re.Match[str]) -> str:
    found = match.group()
    if found.startswith('"'):
        return _ESCAPE.sub(_as_json_escapes, found) if "\\" in found else found
    name = found.lstrip("+").lower()
    if name in _WRITTEN:
        return _WRITTEN[name]
    if not name.strip("-0"):
        return name.rstrip("0")
    if name.lstrip("-").startswith("."):
        return name.replace(".", "0.", 1)
    if name[-1] == "." and "#" not in name:
        return f"{name}0"
    sign = "-" if found.startswith("-") else ""
    return f"{sign}Infinity" if "inf" in name else "NaN"


def _as_json_escapes(match: re.Match[str]) -> str:
    escaped = match[1] or ""
    return match[0] if escaped in _ESCAPED or len(escaped) == 5 else f"\\\\{escaped}"
