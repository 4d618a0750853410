"""Reads the fields of items that anybody may have written: names, and real numbers, finite and within bounds.

Also tells a tick from a bar.
"""

import re
from functools import lru_cache
from math import isfinite
from typing import Any, Final

from marketdata.errors import InvalidItem
from marketdata.tick import MAX_PRICE, ChartMode
from marketdata.timeframes import TIMEFRAMES

#: Longest names (characters). Brokers write `EURUSD.£`, `[SP500]`, `Volatility 75 (1s) Index`, `Газпром`.
MAX_SYMBOL: Final = 32
MAX_SOURCE: Final = 64

#: Maximum number of cached names; a sender has a few hundred symbols.
_CACHED_NAMES: Final = 4_096

#: MQL: how EnumToString writes a timeframe.
_MQL_PREFIX: Final = "PERIOD_"

#: Timeframes as numbers: MQL4 counts minutes, MQL5 has numbers of its own from H1 on.
_NUMBERED: Final = {
    str(number): timeframe.name
    for timeframe in TIMEFRAMES.values()
    for number in (timeframe.minutes, timeframe.mql5_number)
}

#: So many letters beyond ASCII in a row are no UTF-8, and of a Cyrillic, Greek or Asian encoding: words of Windows-1252
#: have two at most. Read as that, a symbol would have another name.
FOREIGN_LETTERS: Final = re.compile(rb"[\xc0-\xff]{3,}")

#: What senders leave around a text: MQL a NUL, files the end of the line, spreadsheets and web pages other blanks.
AROUND: Final = " \t\r\n\0\u00a0\u202f\ufeff"


def is_bar(item: object) -> bool:
    """Whether an item is a bar rather than a tick, judged by its fields; the route does not matter.

    A tick says so in `timeframe` or `kind`, or has a price of a tick. An open price makes a bar of it when a timeframe
    stands beside it, or no price of a tick.
    """
    if not isinstance(item, dict):
        return False
    item = with_names(item)
    timeframe = item.get("timeframe")
    for said in (timeframe, item.get("kind")):
        if isinstance(said, str) and said.lower() == "tick":
            return False
    is_named, has_open = is_said(timeframe), is_said(item.get("open"))
    if is_said(item.get("bid")) or is_said(item.get("ask")) or is_said(item.get("last")):
        return is_named and has_open
    return is_named or has_open


def with_names(item: dict[str, Any]) -> dict[str, Any]:
    """The item with the names of its fields as they are read: `Symbol`, `Bid` and so on mean the same.

    A field in lower case goes before the same in another. An item that has symbol, bid, ask and a time in lower case is
    a tick as it is: to look at the names of all fields would cost every tick more than it costs to read it.
    """
    if (item.keys() >= _TICK_NAMES and any(map(item.get, _TIME_NAMES))) or all(map(str.islower, item)):
        return item
    return {name.lower(): value for name, value in item.items()} | {
        name: value for name, value in item.items() if name.islower()
    }


#: What makes a tick of an item, however its other fields are spelled: the producer reads such items all at once.
_TICK_NAMES: Final = {"symbol", "bid", "ask"}
_TIME_NAMES: Final = ("time_msc", "ts_msc", "ts", "time", "timestamp")


@lru_cache(_CACHED_NAMES)
def is_name(value: str, most: int) -> bool:
    """Whether it has 1 to `most` printable characters, with no space at either end."""
    # U+FFFD stands for a byte that could not be read.
    return 0 < len(value) <= most and value.isprintable() and value == value.strip() and "\ufffd" not in value


@lru_cache(_CACHED_NAMES)
def name_of(given: bytes, most: int) -> str | None:
    """The name of at most `most` characters that is written in UTF-8 or Windows-1252; None when it is no name."""
    try:
        name = given.decode()
    except UnicodeDecodeError:
        name = given.decode("cp1252", "replace")
    return name if len(name) <= most and is_name(name, most) else None


def symbol_of(value: object) -> str:
    """`value`, when it is a symbol's name.

    Raises:
        InvalidItem: when it is not.
    """
    if value is None:
        raise InvalidItem("symbol", "missing")
    name = value[: 2 * MAX_SYMBOL].strip(AROUND) if isinstance(value, str) else ""
    if "\ufffd" in name:
        raise InvalidItem("symbol", f"its letters are of another encoding, send UTF-8 (CP_UTF8): {quoted(value)}")
    if len(name) > MAX_SYMBOL or not is_name(name, MAX_SYMBOL):
        raise InvalidItem("symbol", f"1 to {MAX_SYMBOL} printable characters are expected, not {quoted(value)}")
    return name


def chart_mode_of(*said: object) -> ChartMode | None:
    """The first of a sender's fields that names a chart mode; others may mean something else by `mode`."""
    for value in said:
        name = value.lower() if isinstance(value, str) else ""
        if name == "bid":
            return "bid"
        if name == "last":
            return "last"
    return None


def timeframe_of(value: object) -> str:
    """The name of a timeframe of MetaTrader, given in any case, `M1` or `PERIOD_M1`, or as MetaTrader numbers it.

    Raises:
        InvalidItem: when it is none.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 2**16
    said = f"{value:g}" if is_number else value
    said = said[:_MAX_TEXT].strip(AROUND) if isinstance(said, str) else said
    if isinstance(said, str) and len(said) <= len(_MQL_PREFIX) + 3:
        name = said.upper().removeprefix(_MQL_PREFIX)
        name = _NUMBERED.get(name, name)
        if name in TIMEFRAMES:
            return name
    raise InvalidItem("timeframe", f"one of {' '.join(TIMEFRAMES)} is expected, not {quoted(value)}")


#: A number from here on stands for none: it is MQL's EMPTY_VALUE, the largest double, or what rounding left of it.
NOTHING_FROM: Final = 1e300

#: Longest echo of a sender's value in a message (characters).
_MAX_ECHO: Final = 80

#: Beyond this an integer is shown as what it is; Python refuses to print very long ones (bits).
_MAX_SHOWN_BITS: Final = 128

#: Longer texts are no numbers (characters). EMPTY_VALUE written out has 309 digits before the point.
_MAX_TEXT: Final = 330

_DECIMAL: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
#: How C, Python and MQL write what is no number: nan, -nan(ind), inf, 1.#INF, and in fewer places 1.#J, 1.#R, 1.$.
NO_NUMBER: Final = r"[+-]?(?:nan(?:\([a-z]{0,16}\))?|inf(?:inity)?|1\.(?:\#\w{0,12}|\$))"
_NO_NUMBER: Final = re.compile(NO_NUMBER, re.IGNORECASE)
_DECIMAL_COMMA: Final = re.compile(r"[+-]?[0-9]+,[0-9]+")


def finite(value: object, field: str) -> float:
    """`value` as a finite number; the text `"1.5"` is one as well.

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


def is_said(value: object) -> bool:
    """Whether a field says anything; for one that is not needed.

    What is missing pandas writes as `nan`, PHP as an empty text; what could not be computed is `inf` in C, and DBL_MAX
    in MQL (EMPTY_VALUE).
    """
    if isinstance(value, (int, float)):
        return -NOTHING_FROM < value < NOTHING_FROM
    if isinstance(value, str) and len(value) <= _MAX_TEXT:
        text = value.strip(AROUND)
        if _DECIMAL.fullmatch(text):
            return is_said(float(text))
        return text != "" and _NO_NUMBER.fullmatch(text) is None
    return value is not None


def price(value: object, field: str) -> float:
    """A number that can be a price, which may be negative.

    Raises:
        InvalidItem: for anything else.
    """
    converted = finite(value, field)
    if not -MAX_PRICE <= converted <= MAX_PRICE:
        raise InvalidItem(field, "no price is so large")
    return converted


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
    stripped = text[: _MAX_TEXT + 1].strip(AROUND)
    if len(text) <= _MAX_TEXT and _DECIMAL.fullmatch(stripped):
        try:
            return int(stripped)
        except ValueError:
            return float(stripped)
    if _DECIMAL_COMMA.fullmatch(stripped):
        raise InvalidItem(field, f"a decimal comma: write {stripped.replace(',', '.')}, not {quoted(text)}")
    raise InvalidItem(field, f"a number is expected, not {quoted(text)}")


def quoted(value: object) -> str:
    """`value` as quoted in a message: printable, on one line, and shortened."""
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
