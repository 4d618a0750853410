"""What holds for every item of a body: the names in it, and whether it is a tick or a bar."""

from functools import lru_cache
from typing import Final

from marketdata.contract.numbers import quoted
from marketdata.errors import InvalidItem
from marketdata.tick import ChartMode
from marketdata.timeframes import TIMEFRAMES

#: Longest names (characters). Brokers write `EURUSD.£`, `[SP500]`, `Volatility 75 (1s) Index`, `Газпром`.
MAX_SYMBOL: Final = 32
MAX_SOURCE: Final = 64

#: Names that are looked at only once; a sender has a few hundred symbols.
_CACHED_NAMES: Final = 4_096

#: MQL: how EnumToString writes a timeframe.
_MQL_PREFIX: Final = "PERIOD_"


def is_bar(item: object) -> bool:
    """Whether an item is a bar rather than a tick, by what it has; the route does not matter.

    A tick says so in `timeframe` or `kind`, or has a price of a tick. An open price makes a bar of it when a timeframe
    stands beside it, or no price of a tick.
    """
    if not isinstance(item, dict):
        return False
    timeframe = item.get("timeframe")
    for said in (timeframe, item.get("kind")):
        if isinstance(said, str) and said.lower() == "tick":
            return False
    is_named = timeframe is not None
    has_open = item.get("open") is not None
    if item.get("bid") is not None or item.get("ask") is not None or item.get("last") is not None:
        return is_named and has_open
    return is_named or has_open


@lru_cache(_CACHED_NAMES)
def is_name(value: str, most: int) -> bool:
    """Whether it is 1 to `most` printable characters, of which the first and the last is no space."""
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
    if not isinstance(value, str) or len(value) > MAX_SYMBOL or not is_name(value, MAX_SYMBOL):
        raise InvalidItem("symbol", f"1 to {MAX_SYMBOL} printable characters are expected, not {quoted(value)}")
    return value


def chart_mode_of(*said: object) -> ChartMode | None:
    """The first of a sender's fields that names a chart mode; others may mean something else by `mode`."""
    for value in said:
        if value == "bid":
            return "bid"
        if value == "last":
            return "last"
    return None


def timeframe_of(value: object) -> str:
    """The name of a timeframe of MetaTrader, given in any case, `M1` or `PERIOD_M1`.

    Raises:
        InvalidItem: when it is none.
    """
    if isinstance(value, str) and len(value) <= len(_MQL_PREFIX) + 3:
        name = value.upper().removeprefix(_MQL_PREFIX)
        if name in TIMEFRAMES:
            return name
    raise InvalidItem("timeframe", f"one of {' '.join(TIMEFRAMES)} is expected, not {quoted(value)}")
