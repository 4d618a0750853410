"""Reading numbers out of JSON that anybody may have written: only real numbers, finite, within bounds."""

import re
from math import isfinite
from typing import Final

from marketdata.errors import InvalidItem

#: Longest echo of a sender's value in a message (characters).
_MAX_ECHO: Final = 80

#: Beyond this an integer is shown as what it is; Python refuses to print very long ones (bits).
_MAX_SHOWN_BITS: Final = 128

#: Longer texts are no numbers (characters).
_MAX_TEXT: Final = 64

_DECIMAL: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
#: How C, Python and MQL write what is no number: nan, -nan(ind), inf, 1.#INF, and in fewer places 1.#J, 1.#R, 1.$.
NO_NUMBER: Final = r"[+-]?(?:nan(?:\([a-z]{0,16}\))?|inf(?:inity)?|1\.(?:\#\w{0,12}|\$))"
_NO_NUMBER: Final = re.compile(NO_NUMBER, re.IGNORECASE)
_DECIMAL_COMMA: Final = re.compile(r"[+-]?[0-9]+,[0-9]+")


def finite(value: object, field: str) -> float:
    """A finite number; `"1.5"` is one as well.

    Raises:
        InvalidItem: for anything else; booleans are none.
    """
    if type(value) is float and isfinite(value):
        return value
    if isinstance(value, str):
        value = _from_text(value, field)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidItem(field, f"a number is expected, not {quoted(value)}")
    try:
        converted = float(value)
    except OverflowError:
        raise InvalidItem(field, "the number is too large") from None
    if not isfinite(converted):
        raise InvalidItem(field, f"a finite number is expected, not {quoted(value)}")
    return converted


def is_computed(value: object) -> bool:
    """Whether a field says anything but that it could not be computed (`nan`, `inf`); for one that is not needed."""
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, str) and len(value) <= _MAX_TEXT:
        return _NO_NUMBER.fullmatch(value.strip()) is None and value != ""
    return value is not None


def number(value: object, field: str) -> float:
    """A finite number that is not negative.

    Raises:
        InvalidItem: for anything else.
    """
    converted = finite(value, field)
    if converted < 0:
        raise InvalidItem(field, f"must not be negative: {quoted(value)}")
    return converted


def whole(value: object, field: str, most: int) -> int:
    """A whole number from 0 to `most`; `6.0` and `"6"` are one as well.

    Raises:
        InvalidItem: for anything else.
    """
    given = value
    if isinstance(value, str):
        value = _from_text(value, field)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidItem(field, f"a whole number is expected, not {quoted(given)}")
    if not 0 <= value <= most:
        raise InvalidItem(field, f"must be from 0 to {most}, not {quoted(given)}")
    return value


def _from_text(text: str, field: str) -> int | float:
    stripped = text[: _MAX_TEXT + 1].strip()
    if len(text) <= _MAX_TEXT and _DECIMAL.fullmatch(stripped):
        try:
            return int(stripped)
        except ValueError:
            return float(stripped)
    if _DECIMAL_COMMA.fullmatch(stripped):
        raise InvalidItem(field, f"a decimal comma: write {stripped.replace(',', '.')}, not {quoted(text)}")
    raise InvalidItem(field, f"a number is expected, not {quoted(text)}")


def quoted(value: object) -> str:
    """`value` for a message: printable, on one line, and short however long it is."""
    if isinstance(value, str):
        text = ascii(value[:_MAX_ECHO])
    elif isinstance(value, dict):
        return "an object"
    elif isinstance(value, list):
        return "an array"
    elif isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    elif isinstance(value, int) and value.bit_length() > _MAX_SHOWN_BITS:
        return "a huge number"
    else:
        text = repr(value)
    return text if len(text) <= _MAX_ECHO else f"{text[:_MAX_ECHO]}…"
