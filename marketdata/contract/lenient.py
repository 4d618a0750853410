"""Bytes that are nearly JSON to text that Python's reader takes, in time linear in their number whatever they are."""

import re
from typing import Final

#: What Python makes of a byte that is no UTF-8 (PEP 383), to the character that it is in Windows-1252.
_STRAY: Final = {0xDC00 + byte: bytes([byte]).decode("cp1252", "replace") for byte in range(0x80, 0x100)}

#: How C, and so MQL, prints what is no number: nan, -nan(ind), inf, 1.#INF, -1.#IND00, 1.#QNAN.
#: A string is matched first, as a whole and even when it does not end, so that nothing is looked at twice. Beside it
#: the comma that a loop leaves behind the last element.
_MENDED: Final = re.compile(
    r"""
    "(?:[^"\\]|\\.?)*+"?
    | ,(?=\s*+[\]}])
    | (?<![\w.])[+-]?(?:
        nan(?:\([a-z]{0,16}\))? | inf(?:inity)? | 1\.\#(?:inf|ind|qnan|snan)\d{0,8}
      )(?!\w)
    """,
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)

#: A backslash in a string and what it escapes: a path of Windows has others than JSON knows.
_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|[^u])?", re.DOTALL)
_ESCAPED: Final = frozenset('"\\/bfnrt')

_FORM_DATA: Final = re.compile(rb"[A-Za-z_][\w.-]{0,63}=")

_DECIMAL_COMMA: Final = re.compile(r":\s?-?\d{1,9},\d{1,12}\s?[,}]")


def text_of(body: bytes) -> str:
    """The text of a body: UTF-8, and as Windows-1252 what is not; a byte that is neither becomes U+FFFD."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body.decode("utf-8", "surrogateescape").translate(_STRAY)


def readable(text: str) -> str:
    """The text with NaN and Infinity as Python's reader knows them, without commas behind a last element, and with
    backslashes that escape nothing written as such.
    """
    return _MENDED.sub(_as_python_writes_it, text)


def is_form_data(body: bytes) -> bool:
    """Whether the body is that of an HTML form, `data=…`."""
    return _FORM_DATA.match(body) is not None


def has_decimal_comma(text: str, position: int) -> bool:
    """Whether a number with a decimal comma stands where, or shortly before, JSON ceased to be readable."""
    return _DECIMAL_COMMA.search(text, max(0, position - 64), position + 64) is not None


def _as_python_writes_it(match: re.Match[str]) -> str:
    found = match.group()
    if found.startswith('"'):
        return _ESCAPE.sub(_as_json_escapes, found) if "\\" in found else found
    if found == ",":
        return ""
    name = found.lstrip("+-").lower()
    if name.startswith("n") or "#ind" in name or "nan" in name:
        return "NaN"
    return "-Infinity" if found.startswith("-") else "Infinity"


def _as_json_escapes(match: re.Match[str]) -> str:
    escaped = match[1] or ""
    return match[0] if escaped in _ESCAPED or len(escaped) == 5 else f"\\\\{escaped}"
