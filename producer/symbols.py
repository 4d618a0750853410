"""Symbols: which price draws their chart."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final

from marketdata.tick import ChartMode

#: No broker has as many symbols; beyond it senders invent names, and memory must not follow (entries).
_MAX_KNOWN: Final = 20_000


class ChartModes:
    """The chart mode of each symbol by the settings; `patterns` are those charted by last price."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns
        self._known: dict[str, ChartMode] = {}

    def __getitem__(self, symbol: str) -> ChartMode:
        mode = self._known.get(symbol)
        if mode is None:
            # A name may hold what means something in a pattern: `[SP500]`.
            is_named = symbol in self._patterns or any(fnmatchcase(symbol, pattern) for pattern in self._patterns)
            mode = "last" if is_named else "bid"
            if len(self._known) < _MAX_KNOWN:
                self._known[symbol] = mode
        return mode
