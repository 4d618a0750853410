"""Symbols: which names are taken, and which price draws their chart."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from marketdata.contract.numbers import quoted
from marketdata.errors import InvalidItem
from marketdata.tick import ChartMode

#: What brokers put into names beside letters and digits, such as `EURUSD.r`, `#AAPL`, `BRN-OCT25`, `US 500`.
_NAME: Final = re.compile(r"(?! )[A-Za-z0-9._#+\-&!/$%@^~=:()\[\]' ]{1,32}(?<! )")

#: No broker has as many symbols; beyond it senders invent names, and memory must not follow (entries).
_MAX_KNOWN: Final = 20_000


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


def mode_in(item: dict[str, Any]) -> ChartMode | None:
    """The chart mode that the sender says; other senders may mean something else by `mode`, which says nothing."""
    for field in ("mode", "chart_mode"):
        if item.get(field) == "bid":
            return "bid"
        if item.get(field) == "last":
            return "last"
    return None


class ChartModes:
    """The chart mode of each symbol by the settings; `patterns` are those charted by last price."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns
        self._known: dict[str, ChartMode] = {}

    def __getitem__(self, symbol: str) -> ChartMode:
        mode = self._known.get(symbol)
        if mode is None:
            mode = "last" if any(fnmatchcase(symbol, pattern) for pattern in self._patterns) else "bid"
            if len(self._known) < _MAX_KNOWN:
                self._known[symbol] = mode
        return mode
