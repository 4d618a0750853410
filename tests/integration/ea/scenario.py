"""What the EA's tests have in common: a morning, ticks, an attached EA, and what a server has of it."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from marketdata.resends import Passes
from marketdata.tick import Frame, Tick, same
from tests.integration.ea.terminal import Terminal
from tests.lying import LyingServer
from tests.scripted import Request, ScriptedServer

#: A Monday morning; ticks begin ten seconds later.
NOW_MS = 1_549_238_400_000
FIRST_MSC = NOW_MS + 10_000

#: The server took the request, but its answer was lost on the way: a gateway's time-out.
TAKEN_UNHEARD = 504


def tick(after_ms: int, bid: float = 1.1, **more: float) -> Tick:
    return Tick(FIRST_MSC + after_ms, bid, bid + 0.0001, more.get("last", 0.0), more.get("volume", 0.0), 6)


def sent(server: ScriptedServer, symbol: str = "EURUSD") -> list[Tick]:
    """The ticks of a symbol that the server has, in the order of arrival.

    A request that came again counts once: a busy machine may answer the first too late for the EA.
    """
    bodies = {(request.headers["X-Trace-Id"], str(request.items)): request.items for request in _confirmed(server)}
    return _ticks_in(bodies.values(), symbol)


def taken(server: ScriptedServer, symbol: str) -> list[Tick]:
    """The same of every request, also of those that are alike."""
    return _ticks_in((request.items for request in _confirmed(server)), symbol)


def _confirmed(server: ScriptedServer) -> Iterator[Request]:
    return (request for request in server.requests if request.path == "/ingest/tick" and request.status < 300)


def _ticks_in(bodies: Iterable[list[dict[str, Any]]], symbol: str) -> list[Tick]:
    return [posted(item) for items in bodies for item in items if item["symbol"] == symbol]


def held(server: ScriptedServer, symbol: str = "EURUSD") -> Counter[Tick]:
    """The ticks of a symbol that the server counts: the most that any pass holds of each."""
    passes, by_pass = Passes(), dict[int, Counter[Tick]]()
    for number, request in enumerate(server.requests):
        if request.path != "/ingest/tick" or not (request.status < 300 or request.status == TAKEN_UNHEARD):
            continue
        ticks = [posted(item) for item in request.items if item["symbol"] == symbol]
        if ticks:
            times = [tick.time_msc for tick in ticks]
            frame = Frame(
                v=1, source="source", symbol=symbol, mode="bid", point=1e-5,
                request=request.headers.get("X-Trace-Id", str(number)), received=0, ticks=ticks,
            )  # fmt: skip
            passes.enter(frame, min(times), max(times))
            by_pass.setdefault(passes.number, Counter()).update(map(same, ticks))
    most: Counter[Tick] = Counter()
    for counted in by_pass.values():
        most |= counted
    return most


def posted(item: dict[str, Any]) -> Tick:
    """The tick in an item as the EA posts it."""
    return Tick(
        item["time_msc"], item["bid"], item["ask"], item["last"], item["volume_real"], item["flags"]
    )  # fmt: skip


def begin(terminal: Terminal, server: ScriptedServer | LyingServer, **inputs: object) -> None:
    terminal("allow", server.url)
    terminal.inputs(**{"RelayUrl": server.url, "SendBars": False} | inputs)
    terminal.start(NOW_MS)
    # One turn: a symbol begins at the newest quote that the EA sees.
    terminal.run(0.25)
