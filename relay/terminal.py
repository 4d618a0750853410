"""The MetaTrader 5 terminal of this PC through the official `MetaTrader5` package, which exists for Windows alone.

::

    TickpipeError
    ├── TerminalAway    the terminal does not run, does not answer, or is not logged in (retriable)
    └── NoTicks         it gives no whole answer for one symbol (retriable)
"""

import hashlib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Any, Final, NamedTuple

from marketdata.errors import SettingsError, TickpipeError
from marketdata.tick import MINUTE_MS, Tick

#: MT5: `last_error()` after a call that succeeded, RES_S_OK.
_OK: Final = 1

#: MT5: SYMBOL_CHART_MODE_LAST.
_CHART_MODE_LAST: Final = 1

#: Digits of the account's hash, as the EA sends it: enough to tell accounts apart.
_ACCOUNT_DIGITS: Final = 12


class TerminalAway(TickpipeError):
    """The terminal does not run, does not answer, or is not logged in; it is asked again."""

    retriable = True


class NoTicks(TickpipeError):
    """The terminal gives no whole answer for one symbol; it is asked again."""

    retriable = True


class Account(NamedTuple):
    """Where the terminal is logged in."""

    #: The broker's server, which is the source of the ticks.
    server: str
    #: Hashed: the number itself stays on this PC.
    name: str


class SymbolFacts(NamedTuple):
    """What goes with each tick of a symbol."""

    digits: int
    point: float
    mode: str


def official_package() -> Any:
    """The package.

    Raises:
        SettingsError: it is not installed, as everywhere but on Windows.
    """
    try:
        return import_module("MetaTrader5")
    except ImportError as exc:
        raise SettingsError(
            "the package MetaTrader5 is not installed; it exists for 64-bit Windows alone, where the kit for the"
            " trading PC installs it (docs/windows.md). Elsewhere let the EA collect (docs/ea.md)"
        ) from exc


class Terminal:
    """One terminal; all calls come from one thread, and wait until it answers."""

    def __init__(self, package: Any, path: str = "") -> None:
        """`path` names the terminal's program where the PC has several."""
        self._package, self._path = package, path

    def connect(self) -> None:
        """Connect to the terminal, which is started where it does not run.

        Raises:
            TerminalAway: in vain.
        """
        if not self._package.initialize(*filter(None, [self._path])):
            raise TerminalAway(f"The terminal cannot be reached ({self._error()}); is it installed, does it start?")

    def close(self) -> None:
        """End the connection; the terminal runs on."""
        self._package.shutdown()

    def account(self) -> Account:
        """The account that it is logged in to.

        Raises:
            TerminalAway: it does not answer, or has no connection to a broker.
        """
        info, account = self._package.terminal_info(), self._package.account_info()
        if info is None:
            raise TerminalAway(f"The terminal does not answer ({self._error()}).")
        if account is None or not account.server or not info.connected:
            raise TerminalAway("The terminal is not connected to a broker; log in there.")
        hashed = hashlib.sha256(f"{account.server} {account.login}".encode()).hexdigest()
        return Account(account.server, hashed[:_ACCOUNT_DIGITS])

    def symbols(self, wanted: Sequence[str]) -> list[str]:
        """The names of the symbols that match one of the wildcards, or without any those that the Market Watch shows.

        Raises:
            TerminalAway: it does not answer.
        """
        known = self._package.symbols_get()
        if known is None:
            raise TerminalAway(f"The terminal does not name its symbols ({self._error()}).")
        if not wanted:
            # The terminal also selects what it needs to compute margins; a custom symbol is made on this PC.
            return [symbol.name for symbol in known if symbol.visible and not symbol.custom]
        return [symbol.name for symbol in known if any(fnmatchcase(symbol.name, pattern) for pattern in wanted)]

    def facts(self, symbol: str) -> SymbolFacts:
        """Digits, point and chart mode; the symbol is selected, without which it gets no ticks.

        Raises:
            NoTicks: the broker does not know it, or it cannot be selected.
        """
        info = self._package.symbol_info(symbol)
        if info is None or not (info.select or self._package.symbol_select(symbol, True)):
            raise NoTicks(self._error())
        return SymbolFacts(info.digits, info.point, "last" if info.chart_mode == _CHART_MODE_LAST else "bid")

    def newest_msc(self, symbol: str) -> int:
        """The time of the symbol's newest quote (the broker's clock, ms); 0 before its first.

        Raises:
            NoTicks: the terminal does not say.
        """
        quote = self._package.symbol_info_tick(symbol)
        if quote is None:
            raise NoTicks(self._error())
        return int(quote.time_msc)

    def ticks_from(self, symbol: str, msc: int, count: int) -> list[Tick]:
        """The first `count` ticks from the second of a time on (the broker's clock, ms).

        Raises:
            NoTicks: the answer is not whole.
        """
        answer = self._package.copy_ticks_from(symbol, msc // 1000, count, self._package.COPY_TICKS_ALL)
        return self._ticks(answer)

    def ticks_between(self, symbol: str, from_msc: int, end_msc: int) -> list[Tick]:
        """The ticks from a time up to, without, another (the broker's clock, ms).

        Raises:
            NoTicks: the answer is not whole.
        """
        answer = self._package.copy_ticks_range(
            symbol, from_msc // 1000, -(-end_msc // 1000), self._package.COPY_TICKS_ALL
        )
        return [tick for tick in self._ticks(answer) if from_msc <= tick.time_msc < end_msc]

    def bars_between(self, symbol: str, from_msc: int, end_msc: int) -> dict[int, int]:
        """How many ticks the M1 bars of these whole minutes count, by the minute's begin (the broker's clock, ms).

        Raises:
            NoTicks: the terminal does not say.
        """
        minutes = (end_msc - from_msc) // MINUTE_MS
        # So many back from the end: a time without any bar is no error then.
        answer = self._package.copy_rates_from(
            symbol, self._package.TIMEFRAME_M1, (end_msc - MINUTE_MS) // 1000, minutes
        )
        if answer is None or self._package.last_error()[0] != _OK:
            raise NoTicks(self._error())
        bars = zip(answer["time"].tolist(), answer["tick_volume"].tolist(), strict=True)
        return {time * 1000: volume for time, volume in bars if from_msc <= time * 1000 < end_msc}

    def _ticks(self, answer: Any) -> list[Tick]:
        # While the terminal fetches history it may give what it has with an error; that may have a hole.
        if answer is None or self._package.last_error()[0] != _OK:
            raise NoTicks(self._error())
        return sorted(_read(answer), key=lambda tick: tick.time_msc)

    def _error(self) -> str:
        code, text = self._package.last_error()
        return f"{code}: {text}"


def _read(answer: Any) -> Iterator[Tick]:
    """The ticks in the package's array, without numpy's types."""
    names = ("time_msc", "bid", "ask", "last", "volume", "volume_real", "flags")
    for msc, bid, ask, last, volume, volume_real, flags in zip(*(answer[n].tolist() for n in names), strict=True):
        yield Tick(msc, bid, ask, last, volume_real if volume_real > 0 else float(volume), flags)
