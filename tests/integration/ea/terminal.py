"""MetaTrader as a test scripts it: the EA's own code in a process that is told what the broker does (shim/)."""

import re
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Self

from marketdata.tick import Tick
from tests.waiting import PATIENCE_SECONDS

#: The timer of the EA (ms), as its default.
STEP_MS = 250

#: What OnInit answers.
INIT_SUCCEEDED, INIT_PARAMETERS_INCORRECT = 0, 32767

#: Errors of the terminal (MQL5: "Codes of Runtime Errors").
UNKNOWN_SYMBOL, NOT_SELECTED, HISTORY_NOT_FOUND, HISTORY_TIMEOUT = 4301, 4302, 4401, 4403

_COUNTS = re.compile(r"(\d+) ticks and (\d+) bars sent, (\d+) requests wait")


def _word(symbol: str) -> str:
    """A symbol as one word of a command."""
    return symbol.replace(" ", "\x1f")


def _tick_command(command: str, name: str, tick: Tick, known_ms: int) -> str:
    numbers = f"{tick.time_msc} {tick.bid!r} {tick.ask!r} {tick.last!r} {tick.volume!r} {tick.flags} {known_ms}"
    return f"{command} {name} {numbers}\n"


def tick_commands(symbol: str, ticks: Iterable[Tick]) -> str:
    """What `Terminal.ticks` gives, to be made once for many terminals."""
    name = _word(symbol)
    return "".join(_tick_command("tick", name, tick, -1) for tick in ticks)


class Terminal:
    """One terminal. Its files outlive it, as MQL5\\Files does, and so does the folder that all terminals share."""

    def __init__(self, binary: Path, files: Path, *, broker: str = "Broker-Demo") -> None:
        self.files = files
        self.common = files.parent / "Common"
        #: The lines of the Experts log and the alerts.
        self.log: list[str] = []
        self._process = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self("files", files)
        self("common", self.common)
        self("server", broker)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def __call__(self, command: str, *arguments: object) -> str:
        """Give a command (shim/driver.cpp); its answer."""
        self._write(command, *arguments)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            kind, _, text = line.rstrip("\n").partition(" ")
            if kind == "ok":
                return text
            self.log.append(text)
        raise EOFError(f"the terminal ended with {self._process.wait(PATIENCE_SECONDS)}")

    def _write(self, *words: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")

    def inputs(self, **values: object) -> None:
        for name, value in values.items():
            assert self("input", name, value if not isinstance(value, bool) else str(value).lower()) == ""

    def symbol(self, name: str, *, digits: int = 5, point: float = 1e-5, mode: str = "bid") -> None:
        self("symbol", _word(name), digits, point, mode)

    def state(self, symbol: str, **states: int) -> None:
        """What the terminal knows of a symbol: exists, selected, visible, custom, bars, expires."""
        for name, value in states.items():
            assert self("state", _word(symbol), name, int(value)) == ""

    def fault(
        self, symbol: str, error: int, *, calls: int = 1, most: int = -1, from_msc: int = 0, wait_ms: int = 0
    ) -> None:
        """Let the next calls for ticks fail, or give too little: `most` ticks from `from_msc` on, -1 for none."""
        self("fault", _word(symbol), calls, error, most, from_msc, wait_ms)

    def waits_for_history(self, symbol: str, *, calls: int = 1, from_msc: int | None = None) -> None:
        """Let the next calls wait for 45 s each and give nothing, or what is there from `from_msc` on."""
        most = -1 if from_msc is None else 1_000_000_000
        self.fault(symbol, HISTORY_TIMEOUT, calls=calls, most=most, from_msc=from_msc or 0, wait_ms=45_000)

    def ticks(self, symbol: str, ticks: Iterable[Tick], *, known_ms: int = -1, late: bool = False) -> None:
        """What the broker sends: each becomes known at its own time, or at `known_ms` (UTC).

        They are appended to the terminal's list; `late` ones are inserted by their time.
        """
        self.load(symbol, ((tick, known_ms) for tick in ticks), command="late" if late else "tick")

    def load(self, symbol: str, quoted: Iterable[tuple[Tick, int]], *, command: str = "tick") -> None:
        """Ticks, each with the time when it becomes known."""
        name = _word(symbol)
        self.give("".join(_tick_command(command, name, tick, known_ms) for tick, known_ms in quoted))

    def give(self, commands: str) -> None:
        """Give commands that are not answered: those of `tick_commands`."""
        assert self._process.stdin is not None
        self._process.stdin.write(commands)

    def start(self, now_ms: int) -> None:
        """Attach the EA at a time (UTC)."""
        self("now", now_ms)
        assert int(self("init")) == INIT_SUCCEEDED, self.log

    def run(self, seconds: float, *, step_ms: int = STEP_MS) -> int:
        """Let time pass; the longest that one OnTimer really took (ms)."""
        return int(self("timer", int(seconds * 1000) // step_ms, step_ms))

    def run_until_sent(self, ticks: int, *, most_seconds: int = 600) -> None:
        """Let time pass until a server has confirmed so many ticks."""
        for _ in range(most_seconds):
            self.run(1)
            if self.sent >= ticks:
                return
        raise AssertionError(f"{self.status()} after {most_seconds} s of terminal time; log: {self.log[-5:]}")

    def run_until_time(self, now_ms: int, *, step_ms: int = STEP_MS) -> None:
        """Let turns pass until the clock shows a time (UTC): calls that wait move it as well."""
        while int(self("clock-shows")) < now_ms:
            self("timer", 1, step_ms)

    def status(self) -> str:
        """The chart's comment."""
        return self("status")

    def _counts(self) -> tuple[int, int, int]:
        found = _COUNTS.search(self.status())
        assert found is not None, self.status()
        return int(found[1]), int(found[2]), int(found[3])

    @property
    def sent(self) -> int:
        """Ticks that a server confirmed."""
        return self._counts()[0]

    @property
    def waiting(self) -> int:
        """Requests that wait in the ring."""
        return self._counts()[2]

    def die_in_request(self, number: int, seconds: float = 60) -> None:
        """End without warning while the given request from now on waits for its answer."""
        self("die", number)
        try:
            self.run(seconds)
        except EOFError:
            return
        raise AssertionError("no such request was made")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_SECONDS)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
