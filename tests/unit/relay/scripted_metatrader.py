"""The functions of the official `MetaTrader5` package as documented, of a terminal that a test scripts, unkindly."""

from collections import Counter, deque
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from marketdata.tick import Tick

#: last_error() (MetaTrader 5: "last_error"): success; failure, time-out, no IPC.
OK, FAIL, TIMED_OUT, NO_IPC = 1, -1, -10005, -10004

_DTYPE = [
    ("time", "<i8"), ("bid", "<f8"), ("ask", "<f8"), ("last", "<f8"), ("volume", "<u8"), ("time_msc", "<i8"),
    ("flags", "<u4"), ("volume_real", "<f8"),
]  # fmt: skip

#: A tick, and when the terminal gets it (UTC, ms).
Quoted = tuple[Tick, int]


@dataclass
class Fault:
    """What a call for ticks answers in the place of the truth: nothing, or at most so many ticks."""

    error: int = OK
    most: int | None = None


@dataclass
class ScriptedPackage:
    """The module, with one terminal behind it."""

    COPY_TICKS_ALL = -1
    TIMEFRAME_M1 = 1

    now_ms: int
    server: str = "Broker-Demo"
    runs: bool = True
    is_connected: bool = True
    history: dict[str, list[Quoted]] = field(default_factory=dict)
    #: Symbols that the Market Watch does not show, and those that are gone for now.
    hidden: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    faults: deque[Fault] = field(default_factory=deque)
    #: Ticks of before are not in its history, of which there are bars (the broker's clock, ms); whether it has those.
    history_from_msc: int = 0
    has_bars: bool = True
    calls: int = 0
    _error: int = OK

    def initialize(self, *_: str) -> bool:
        self._error = OK if self.runs else NO_IPC
        return self.runs

    def shutdown(self) -> None:
        pass

    def last_error(self) -> tuple[int, str]:
        return self._error, {OK: "Success", NO_IPC: "No IPC connection"}.get(self._error, "error")

    def terminal_info(self) -> Any:
        return self._answer(SimpleNamespace(connected=self.is_connected))

    def account_info(self) -> Any:
        return self._answer(SimpleNamespace(server=self.server, login=1234567))

    def symbols_get(self) -> Any:
        names = [name for name in self.history if name not in self.gone]
        return self._answer(tuple(self._info(name) for name in names))

    def symbol_info(self, symbol: str) -> Any:
        return self._answer(self._info(symbol) if symbol in self.history and symbol not in self.gone else None)

    def symbol_select(self, symbol: str, enable: bool) -> bool:
        self._error = OK
        return symbol in self.history and enable

    def symbol_info_tick(self, symbol: str) -> Any:
        known = self._known(symbol)
        newest = max(known, key=lambda tick: tick.time_msc, default=Tick(0, 0, 0, 0, 0, 0))
        return self._answer(None if symbol in self.gone else SimpleNamespace(time_msc=newest.time_msc))

    def copy_ticks_from(self, symbol: str, date_from: int, count: int, flags: int) -> Any:
        assert flags == self.COPY_TICKS_ALL
        return self._copied(symbol, [t for t in self._known(symbol) if t.time_msc >= date_from * 1000][:count])

    def copy_ticks_range(self, symbol: str, date_from: int, date_to: int, flags: int) -> Any:
        assert flags == self.COPY_TICKS_ALL
        date_from = max(date_from, -(-self.history_from_msc // 1000))
        between = [t for t in self._known(symbol) if date_from * 1000 <= t.time_msc <= date_to * 1000]
        return self._copied(symbol, between)

    def copy_rates_from(self, symbol: str, timeframe: int, date_from: int, count: int) -> Any:
        assert timeframe == self.TIMEFRAME_M1
        minutes = Counter(t.time_msc // 60_000 * 60 for t in self._known(symbol))
        rows = [(time, ticks) for time, ticks in sorted(minutes.items()) if time <= date_from][-count:]
        bars = np.array(rows, dtype=[("time", "<i8"), ("tick_volume", "<u8")])
        return self._answer(bars if self.has_bars else None)

    def _answer(self, value: Any) -> Any:
        self._error = OK if self.runs and value is not None else NO_IPC if not self.runs else FAIL
        return value if self.runs else None

    def _info(self, name: str) -> Any:
        is_visible = name not in self.hidden
        return SimpleNamespace(
            name=name, visible=is_visible, select=is_visible, custom=False, digits=5, point=1e-5, chart_mode=0
        )

    def _known(self, symbol: str) -> list[Tick]:
        known = [tick for tick, known_ms in self.history.get(symbol, ()) if known_ms <= self.now_ms]
        return sorted(known, key=lambda tick: tick.time_msc)

    def _copied(self, symbol: str, ticks: list[Tick]) -> Any:
        self.calls += 1
        fault = self.faults.popleft() if self.faults else Fault()
        if not self.runs or symbol in self.gone:
            fault = Fault(NO_IPC if not self.runs else FAIL)
        self._error = fault.error
        if fault.error != OK and fault.most is None:
            return None
        rows = [
            (t.time_msc // 1000, t.bid, t.ask, t.last, int(t.volume), t.time_msc, t.flags, t.volume)
            for t in ticks[: fault.most]
        ]
        return np.array(rows, dtype=_DTYPE)
