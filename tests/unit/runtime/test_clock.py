"""There is one way to ask for the time, and one to give way to others."""

import asyncio
import time
from pathlib import Path

from runtime.clock import Pauses, now_ms

ROOT = Path(__file__).parents[3]


def test_now_is_in_epoch_milliseconds() -> None:
    assert abs(now_ms() - time.time() * 1000) < 1000


def test_nobody_else_makes_milliseconds_of_the_clock() -> None:
    asking = {
        module.relative_to(ROOT).as_posix()
        for folder in ("benchmarks", "dashboard", "producer", "runtime", "sink", "stream_app", "tests", "tickpipe")
        for module in (ROOT / folder).rglob("*.py")
        if "time_ns() // 1_000_000" in module.read_text() and module != Path(__file__)
    }
    assert asking == {"runtime/clock.py"}


async def test_a_server_that_needs_several_steps_is_answered_within_one_pause() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1")
    pieces = 0

    async def ask() -> int:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for _ in range(5):
            writer.write(b"and?\n")
            await reader.readline()
        writer.close()
        return pieces

    asking = asyncio.create_task(ask())
    pauses = Pauses()
    while not asking.done():
        end = time.perf_counter() + 0.1
        while time.perf_counter() < end:
            pass
        pieces += 1
        await pauses.rest()

    # With sleep(0) about twenty.
    assert asking.result() <= 5
    server.close()
