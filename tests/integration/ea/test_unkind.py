"""Random scripts of an unkind terminal: whatever happens, the server ends with what the terminal's history holds.

Ticks come late anywhere in the terminal's list, calls fail with every documented error or give too little, symbols are
hidden or vanish, the PC's clock is wrong, the disk is full and says so or not, other programs have its files, answers
are lost, terminals are killed, stopped and started beside each other. Meanwhile the server asks for minutes of before
and of just now.
"""

import fcntl
import random
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from marketdata.tick import Tick
from tests.conftest import FULL
from tests.integration.ea.scenario import NOW_MS, TAKEN_UNHEARD, held
from tests.integration.ea.terminal import Terminal
from tests.scripted import Answer, ScriptedServer, scripted_server

SYMBOLS = ("EURUSD", "PETR4", "BTCUSD")

#: What CopyTicks may say (MQL5: "Codes of Runtime Errors"): internal, parameter, memory, stopped; unknown, not
#: selected, select; not found, time-out, load errors, too small a buffer.
ERRORS = (4001, 4003, 4004, 4022, 4301, 4302, 4305, 4401, 4403, 4405, 4407)

#: How long the market is open, and how much later its last ticks become known (ms).
OPEN_MS = 600_000
LATEST_MS = 1_200_000


#: Afterwards symbols are quoted every three minutes, until all was read again and asked again (ms).
QUIET_MS, QUIET_STEP_MS = 6_000_000, 180_000

#: The history from before the first quote that the EA sees begins and ends so long before the start; a fill sends it.
OLD_MS = 10_800_000
FIRST_QUOTE_MS = 3_600_000

MINUTE_MS = 60_000

#: Most calls in a row that give too little and say nothing of it: the EA believes it in the end, as the broker may have
#: taken ticks back.
MOST_SHORT = 8

#: A tick, and when the terminal gets it (UTC, ms).
Quoted = tuple[Tick, int]


def quote(ms: int, bid: float = 1.1) -> Tick:
    return Tick(ms, bid, bid + 0.1, 0.0, 0.0, 6)


def old_market(chance: random.Random) -> list[Quoted]:
    """What the broker has from before the EA begins: some minutes have ticks, most have none."""
    quoted: list[Quoted] = []
    for minute in sorted(chance.sample(range((OLD_MS - FIRST_QUOTE_MS) // MINUTE_MS - 1), chance.randrange(8))):
        times = (chance.randrange(MINUTE_MS) for _ in range(chance.randrange(1, 12)))
        begin = NOW_MS - OLD_MS + minute * MINUTE_MS
        quoted += [(quote(begin + ms), 0) for ms in sorted(times) for _ in range(chance.choice([1, 1, 3]))]
    return quoted


def market(chance: random.Random, offline: list[tuple[int, int]]) -> list[Quoted]:
    """The history of a symbol: bursts and pauses, equal ticks in one millisecond, and some that come late."""
    quoted = [(quote(NOW_MS - FIRST_QUOTE_MS), NOW_MS - FIRST_QUOTE_MS)]
    late = chance.choice([0.0, 0.02, 0.3])
    ms = NOW_MS + 3_000
    while ms < NOW_MS + OPEN_MS:
        ms += chance.choice([0, 1, 3, 250, 1_500, 9_000, 9_000, 40_000])
        for _ in range(chance.choice([1, 1, 2, 5])):
            known_ms = ms + (chance.randrange(LATEST_MS) if chance.random() < late else 0)
            for begin, end in offline:
                if begin <= ms < end:
                    known_ms = max(known_ms, end + chance.choice([0, 0, 700, 5_000, 60_000]))
            quoted.append((quote(ms, chance.choice([1.1, 1.2])), known_ms))
    quiet = range(NOW_MS + OPEN_MS + LATEST_MS, NOW_MS + OPEN_MS + LATEST_MS + QUIET_MS, QUIET_STEP_MS)
    return quoted + [(quote(ms), ms) for ms in quiet]


#: Symbol, begin and end of what is asked for (UTC, ms).
Range = tuple[str, int, int]


def within(quoted: Iterable[Quoted], asked: Range, until_ms: int) -> Counter[Tick]:
    """The ticks of a range that the terminal had at a time."""
    return Counter(tick for tick, known_ms in quoted if known_ms <= until_ms and asked[1] <= tick.time_msc < asked[2])


class Asking:
    """What the server asks for, and whether what it is told of that is true when it is told."""

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server
        self._answer = server.answer
        self.history: dict[str, list[Quoted]] = {}
        #: When each range was asked for first (UTC, ms), those that are said to be whole, and those with an error.
        self.asked: dict[Range, int] = {}
        self.whole: dict[Range, int] = {}
        self.failed: set[Range] = set()
        self.lies: list[str] = []
        server.answer = self.answer  # type: ignore[method-assign]

    def ask(self, ranges: Iterable[Range], now_ms: int) -> None:
        for asked in ranges:
            self.asked.setdefault(asked, now_ms)
        self._tell()

    def ask_again(self) -> None:
        """Some hours later: what could not be read is wanted again."""
        self.failed.clear()
        self._tell()

    def _tell(self) -> None:
        left = sorted(self.asked.keys() - self.whole.keys() - self.failed, key=lambda asked: -asked[1])
        self._server.wanted = [{"symbol": name, "from": begin, "to": end} for name, begin, end in left]

    def answer(self, path: str, items: list[Any]) -> Answer:
        answer = self._answer(path, items)
        if path == "/fills" and (answer.status < 300 or answer.status == TAKEN_UNHEARD):
            for item in items:
                self._hear((item["symbol"], item["from"], item["to"]), item)
            self._tell()
        return answer

    def _hear(self, asked: Range, item: dict[str, Any]) -> None:
        if "error" in item:
            self.failed.add(asked)
            return
        self.whole[asked] = item["ticks"]
        # Those from before the EA's begin come by fills alone; of the others the newest may still be on their way.
        has = within(self.history[asked[0]], asked, self.asked[asked])
        old = Counter({tick: count for tick, count in has.items() if tick.time_msc < NOW_MS})
        lacking = old - held(self._server, asked[0])
        if lacking or item["ticks"] < has.total():
            self.lies.append(f"{item} of {has.total()}, {lacking.total()} not sent")


@dataclass
class Script:
    """One script: a PC, its terminals and their broker."""

    binary: Path
    folder: Path
    server: ScriptedServer
    chance: random.Random
    stack: ExitStack
    asking: Asking
    now_ms: int = NOW_MS
    offline: list[tuple[int, int]] = field(default_factory=list)
    history: dict[str, list[Quoted]] = field(default_factory=dict)
    terminals: list[Terminal] = field(default_factory=list)
    started: int = 0
    held: ExitStack = field(default_factory=ExitStack)

    def prepare(self) -> None:
        if self.chance.random() < 0.5:
            begin = NOW_MS + self.chance.randrange(OPEN_MS)
            self.offline.append((begin, begin + self.chance.randrange(1_000, 200_000)))
        names = SYMBOLS[: self.chance.choice([1, 2, 3])]
        self.history = {name: old_market(self.chance) + market(self.chance, self.offline) for name in names}
        self.asking.history = self.history

    def start(self) -> None:
        """Start another terminal of this PC."""
        self.started += 1
        terminal = self.stack.enter_context(Terminal(self.binary, self.folder / f"Files{self.started}"))
        for name, quoted in self.history.items():
            terminal.symbol(name)
            terminal.load(name, quoted)
        terminal("allow", self.server.url)
        # A busy machine does not change what happens.
        terminal("answer-takes", 5)
        terminal.inputs(
            RelayUrl=self.server.url,
            SendBars=self.chance.random() < 0.3,
            MaxTicks=self.chance.choice([1, 10, 2_000]),
            RingMegabytes=1,
        )
        terminal.start(self.now_ms)
        self.terminals.append(terminal)

    def kill(self) -> None:
        self.terminals.pop(self.chance.randrange(len(self.terminals))).kill()
        if not self.terminals:
            self.start()

    def run(self, seconds: int, step_ms: int) -> None:
        """Let time pass in every terminal."""
        self.now_ms += seconds * 1_000
        is_online = not any(begin <= self.now_ms < end for begin, end in self.offline)
        for terminal in self.terminals:
            terminal.run(seconds, step_ms=step_ms)
            terminal("connected", int(is_online))
            # Waiting for history and for answers moves its clock as well.
            terminal("now", self.now_ms)

    def ask(self) -> None:
        """The server finds that it lacks minutes: of before the EA began, or of just now."""
        chance = self.chance
        ranges = []
        for _ in range(chance.randrange(4)):
            age = chance.choice([OLD_MS, OLD_MS, self.now_ms - NOW_MS])
            begin = self.now_ms // MINUTE_MS - chance.randrange(age // MINUTE_MS + 1)
            end = min(begin + chance.choice([1, 1, 2, 10, 60]), self.now_ms // MINUTE_MS)
            if begin < end:
                ranges.append((chance.choice(list(self.history)), begin * MINUTE_MS, end * MINUTE_MS))
        self.asking.ask(ranges, self.now_ms)

    def misfortune(self) -> None:
        """Something goes wrong, or right again."""
        chance = self.chance
        terminal, symbol = chance.choice(self.terminals), chance.choice(list(self.history))
        happens: list[Callable[[], object]] = [
            lambda: terminal.fault(
                symbol,
                chance.choice(ERRORS),
                calls=chance.randrange(1, 6),
                most=chance.choice([-1, 0, 1, 7, 10_000]),
                from_msc=chance.choice([0, self.now_ms - 5_000]),
                wait_ms=chance.choice([0, 0, 45_000]),
            ),
            lambda: terminal.fault(symbol, 0, calls=chance.randrange(1, MOST_SHORT + 1), most=chance.choice([0, 1, 3])),
            lambda: terminal(
                "bar-fault", symbol, chance.randrange(1, 4), chance.choice(ERRORS), chance.choice([-1, 3])
            ),
            lambda: self.shorten_history(terminal, symbol),
            lambda: terminal.state(symbol, selected=chance.randrange(2)),
            lambda: terminal.state(symbol, exists=chance.randrange(2)),
            lambda: terminal("clock", chance.choice([0, -400_000, 3_600_000])),
            lambda: terminal("disk", chance.choice([0, 900, 20_000]), chance.choice(["", "late"])),
            lambda: terminal("disk", -1),
            self.hold_file,
            self.lose_answers,
            self.kill,
            self.start if len(self.terminals) < 2 else self.kill,
            lambda: self.stop(terminal),
        ]
        chance.choice(happens)()

    def hold_file(self) -> None:
        """A backup or a scanner opens a file of the ring, and lets go of the one before."""
        self.held.close()
        if files := sorted((self.folder / "Common").rglob("*.ring")):
            held = self.held.enter_context(self.chance.choice(files).open("rb"))
            with suppress(BlockingIOError):  # the terminal writes it
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def lose_answers(self) -> None:
        bad = [Answer(503), Answer(500), Answer(429, {}, {"Retry-After": "3"}), Answer(408), Answer(TAKEN_UNHEARD)]
        self.server.answers += [self.chance.choice(bad) for _ in range(self.chance.randrange(6))]
        # A millisecond that is larger than a server takes cannot travel as a whole.
        self.server.most_items = self.chance.choice([60, 1_000_000])

        self.server.answers_to_fills += [
            self.chance.choice([*bad, Answer(404)]) for _ in range(self.chance.randrange(4))
        ]

    def shorten_history(self, terminal: Terminal, symbol: str) -> None:
        """The terminal does not have, or not yet, what is older; it says so, or its bars do."""
        begin = NOW_MS - self.chance.randrange(FIRST_QUOTE_MS + MINUTE_MS, OLD_MS) // MINUTE_MS * MINUTE_MS
        terminal("history", symbol, begin, self.chance.choice([0, 4401, 4403]), self.chance.choice([0, 45_000]))

    def stop(self, terminal: Terminal) -> None:
        """The user removes the program in the middle of a turn, and attaches it again."""
        terminal("stop", self.chance.randrange(30))
        terminal.run(1)
        terminal("deinit")
        terminal("stop", -1)
        terminal("init")

    def recover(self) -> None:
        """All is well again, and stays so until every minute was read again for the last time."""
        self.held.close()
        self.server.answers.clear()
        self.server.answers_to_fills.clear()
        self.server.most_items = 1_000_000
        for terminal in self.terminals:
            terminal("disk", -1)
            terminal("clock", 0)
            for name in self.history:
                terminal.state(name, exists=1, selected=1)
                terminal.fault(name, 0, calls=0)
                terminal("bar-fault", name, 0, 0, 0)
                terminal("history", name, 0, 0, 0)
        for _, end in self.offline:
            if end >= self.now_ms:
                self.run((end - self.now_ms) // 1_000 + 1, 1_000)
        left_s = max(0, NOW_MS + OPEN_MS + LATEST_MS - self.now_ms) // 1_000
        self.run(left_s, 10_000)
        self.asking.ask_again()
        self.run(QUIET_MS // 1_000 - MINUTE_MS // 2_000, 10_000)


def play(binary: Path, seed: int) -> None:
    """One script from begin to end, and what came of it."""
    with TemporaryDirectory() as folder, scripted_server() as server, ExitStack() as stack:
        chance = random.Random(seed)
        script = Script(binary, Path(folder), server, chance, stack, Asking(server))
        script.prepare()
        script.start()
        while script.now_ms < NOW_MS + OPEN_MS:
            script.run(chance.randrange(1, 40), chance.choice([250, 500, 1_000]))
            script.misfortune()
            script.ask()
        script.recover()
        judge(script, seed)


def judge(script: Script, seed: int) -> None:
    """Every tick since the EA began, and of before those that were asked for, each once; and every report was true."""
    asking = script.asking
    assert not asking.lies, f"seed {seed}: {asking.lies}"
    assert not asking.asked.keys() - asking.whole.keys(), f"seed {seed}: {asking.asked.keys() - asking.whole.keys()}"
    for name, quoted in script.history.items():
        asked = [(begin, end) for symbol, begin, end in asking.asked if symbol == name]
        first = quote(NOW_MS - FIRST_QUOTE_MS)
        has = Counter(
            tick
            for tick, _ in quoted
            if tick.time_msc > first.time_msc or any(begin <= tick.time_msc < end for begin, end in asked)
        )
        counts = held(script.server, name)
        counts.pop(first, None)
        has.pop(first, None)
        assert has == counts, (
            f"seed {seed}, {name}: lost {sorted((has - counts).elements(), key=lambda t: t.time_msc)}, "
            f"doubled {sorted((counts - has).elements(), key=lambda t: t.time_msc)}"
        )


# A smaller seed is no smaller script.
@settings(max_examples=1_000 if FULL else 5, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@example(seed=8840)  # a range that begins before the EA and ends while the disk is full
@pytest.mark.timeout(6_000 if FULL else 600)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_server_ends_with_what_the_history_holds(ea_binary: Path, seed: int) -> None:
    play(ea_binary, seed)
