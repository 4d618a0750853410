"""docs/architecture.md against the code: one tick goes through the four services, whose calls are recorded.

The page's numbered steps name functions. Each of them has to be called for the tick, in the page's order, and what the
tick passes through of the services has to be named. What a service called before the tick came (its start, its loops)
says nothing about the tick; of such functions only the order is checked, not that the tick was the cause.
"""

import asyncio
import re
import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from runtime import clock
from runtime.settings import Settings
from tests.architecture import PAGE, ROOT, names, sections, steps
from tests.conftest import API_KEY
from tests.recorded_calls import Call, read_calls
from tests.services import Service
from tests.waiting import PATIENCE_SECONDS, eventually

SERVICES = ("producer", "stream_app", "sink", "dashboard")

#: Longer than the pauses of the tasks that run every five seconds, so that each ran before the tick came.
IDLE_SECONDS = 6.0


class RecordedService(Service):
    """A service whose calls are recorded in a file."""

    def __init__(self, module: str, settings: Settings, folder: Path) -> None:
        self._calls = folder / f"{module}.calls"
        super().__init__(module, settings, command=["tests.recorded_calls", str(self._calls), module])

    def calls(self) -> list[Call]:
        return read_calls(self._calls)


class Passage:
    """The functions that a service called once the tick was there, and those that it had called before."""

    def __init__(self, calls: Sequence[Call], began_ns: int) -> None:
        self.before = {call.function for call in calls if call.time_ns < began_ns}
        self.functions = [call.function for call in calls if call.time_ns >= began_ns]

    def faults(self, named: Sequence[str]) -> list[str]:
        """What is wrong with a page that names these functions in this order."""
        faults, at = [], -1
        for function in named:
            # Any call that follows: who sent the tick is a record of its own, which may pass through the sink first.
            found = _index(self.functions, function, at + 1)
            if found is not None:
                at = found
            elif function in self.functions:
                faults.append(f"{function} is called before {self.functions[at]}")
            else:
                faults.append(f"{function} is not called")
        return faults

    def modules(self, last: str) -> set[str]:
        """The services' modules that the tick passed through, up to the first call of the function `last`."""
        end = self.functions.index(last) + 1
        mine = {function for function in self.functions[:end] if function not in self.before}
        return {module for function in mine if (module := module_of(function)).partition(".")[0] in SERVICES}


def _index(functions: Sequence[str], function: str, start: int) -> int | None:
    try:
        return functions.index(function, start)
    except ValueError:
        return None


def module_of(function: str) -> str:
    """`sink.writer` of `sink.writer.Writer.store`."""
    path = function.split(".")
    length = len(path) - 1
    while length and not ROOT.joinpath(*path[:length]).with_suffix(".py").exists():
        length -= 1
    return ".".join(path[:length])


def unnamed(modules: Collection[str], page: str) -> set[str]:
    """Those of the modules that the page does not name, as `sink.writer` or `sink/writer.py`."""
    return {
        module for module in modules
        if not re.search(rf"`{re.escape(module)}[.`]|`{re.escape(module.replace('.', '/'))}\.py`", page)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("named", "faults"),
    [
        (["a.f", "a.loop", "a.g"], []),
        (["a.g", "a.f"], ["a.f is called before a.g"]),
        (["a.f", "a.h"], ["a.h is not called"]),
        # It was called before the tick came, and again.
        (["a.loop", "a.g", "a.loop"], []),
        (["a.g", "a.loop", "a.f"], ["a.f is called before a.loop"]),
        (["a.start"], ["a.start is not called"]),
    ],
)
def test_order_and_absence_are_found(named: list[str], faults: list[str]) -> None:
    calls = [
        Call(1, "a.start"),
        Call(2, "a.loop"),
        Call(3, "a.f"),
        Call(4, "a.loop"),
        Call(5, "a.g"),
        Call(6, "a.loop"),
    ]
    assert Passage(calls, 3).faults(named) == faults


def test_a_module_that_the_page_does_not_name_is_found() -> None:
    calls = [
        Call(1, "sink.commits.Revocations.on_partitions_assigned"), Call(2, "sink.batch.Store.store"),
        Call(3, "runtime.clock.now_ms"), Call(4, "sink.writer.Writer.store"), Call(5, "sink.refolds.proven_candle"),
    ]  # fmt: skip
    passed = Passage(calls, 2).modules("sink.writer.Writer.store")
    assert passed == {"sink.batch", "sink.writer"}
    assert unnamed(passed, "`sink.batch.Store.store`, then `sink/writer.py`") == set()
    assert unnamed(passed, "`sink.batch.Store.store`, then `sink/writer_of.py`") == {"sink.writer"}


async def test_one_tick_takes_the_way_that_the_page_tells(settings: Settings, tmp_path: Path) -> None:
    page = PAGE.read_text()
    named = {service: names(steps(text)) for service, text in sections(page).items()}
    assert tuple(named) == SERVICES
    services = {service: RecordedService(service, settings, tmp_path) for service in SERVICES}
    with ExitStack() as stack:
        for service in services.values():
            stack.callback(service.start().close)
        for service in services.values():
            await asyncio.to_thread(service.wait_ready)
        began_ns = await _send_one_tick(services["producer"].url, services["dashboard"].url)

        async def passed_all() -> bool:
            return not _faults(services, named, began_ns)

        try:
            await eventually(passed_all, what="every function of the page")
        except AssertionError:
            assert _faults(services, named, began_ns) == []
        passed = set[str]()
        for module, recorded in services.items():
            passed |= Passage(recorded.calls(), began_ns).modules(named[module][-1])
    assert unnamed(passed, page) == set()
    assert len(passed) >= 20, passed


def _faults(services: dict[str, RecordedService], named: dict[str, list[str]], began_ns: int) -> list[str]:
    passages = {module: Passage(service.calls(), began_ns) for module, service in services.items()}
    return [fault for module, passage in passages.items() for fault in passage.faults(named[module])]


async def _send_one_tick(producer: str, dashboard: str) -> int:
    """Post a tick and wait until a stream shows its candle; the time just before (monotonic, nanoseconds)."""
    async with (
        httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client,
        client.stream("GET", f"{dashboard}/stream?symbol=EURUSD") as stream,
    ):
        lines = stream.aiter_lines()
        assert await anext(lines) == "retry: 1000"
        await asyncio.sleep(IDLE_SECONDS)
        began_ns = time.monotonic_ns()
        tick = {"ts_msc": clock.now_ms(), "symbol": "EURUSD", "bid": 1.1, "ask": 1.2, "flags": 6, "point": 0.00001}
        answer = await client.post(f"{producer}/ingest/tick", headers={"X-API-Key": API_KEY}, json={"ticks": [tick]})
        assert answer.json()["inserted"] == 1
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for line in lines:
                if line == "event: candle":
                    return began_ns
    raise AssertionError("the stream ended")
