"""What holds for every item of a body: the names in it, and whether it is a tick or a bar."""

import re
from typing import Final

from marketdata.contract.numbers import quoted
from marketdata.errors import InvalidItem
from marketdata.tick import ChartMode
from marketdata.timeframes import TIMEFRAMES

#: What brokers put into names beside letters and digits, such as `EURUSD.r`, `#AAPL`, `BRN-OCT25`, `US 500`.
_NAME: Final = re.compile(r"(?! )[A-Za-z0-9._#+\-&!/$%@^~=:()\[\]' ]{1,32}(?<! )")


def is_tick(item: object) -> bool:
    """Whether an item of `/ingest` is a tick rather than a bar."""
    if not isinstance(item, dict):
        return False
    for field in ("timeframe", "kind"):
        value = item.get(field)
        if isinstance(value, str) and value.lower() == "tick":
            return True
    return "bid" in item and "open" not in item


def symbol_of(value: object) -> str:
    """`value`, when it is a symbol's name.

    Raises:
        InvalidItem: when it is not.
    """
    if value is None:
        raise InvalidItem("symbol", "missing")
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidItem(
            "symbol", f"1 to 32 of the characters A-Z a-z 0-9 . _ # + - & ! / and the like, not {quoted(value)}"
        )
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
    """The name of a timeframe of MetaTrader, given in any case.

    Raises:
        InvalidItem: when it is not.
    """
    if isinstance(value, str) and len(value) <= 3 and (name := value.upper()) in TIMEFRAMES:
        return name
    raise InvalidItem("timeframe", f"one of {' '.join(TIMEFRAMES)} is expected, not {quoted(value)}")
