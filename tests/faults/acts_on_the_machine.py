"""What operators do to processes and their data folders."""

import asyncio
import shutil
import signal
from collections.abc import Collection
from contextlib import suppress
from functools import partial

from tests.faults.acts import act
from tests.faults.operator_at_work import Operator
from tests.integration.stack import Stack
from tickpipe.embedded.stack import stop_stack
from tickpipe.replay.engine import wait_until_empty


@act("services restarted, the sink first")
async def _(op: Operator) -> None:
    for name in (*op.named("sink"), *op.named("stream"), "producer"):
        await op.stop(name)
        await op.start(name)


@act("workers and sink started while they stop, as by Ctrl-C in a replay")
async def _(op: Operator) -> None:
    names = [*op.named("stream"), *op.named("sink")]
    stopping = [asyncio.create_task(op.stop(name)) for name in names]
    await asyncio.sleep(0.3)
    await op.start(*names)
    await asyncio.gather(*stopping)
    # No other member is left in the group that only `kill` would end.
    await op.stop(*op.named("stream"))
    await wait_until_empty(op.settings, lambda members, waited: None)
    await op.start(*op.named("stream"))


@act("Kafka restarted under all")
async def _(op: Operator) -> None:
    await op.stop("kafka")
    await asyncio.sleep(2)
    await op.start("kafka")


async def _restart_ten_times(op: Operator, name: str) -> None:
    for _ in range(10):
        await op.stop(name)
        await op.start(name)


for _server in ("kafka", "postgres"):
    act(f"{_server} restarted ten times in a row")(partial(_restart_ten_times, name=_server))


@act("Kafka away while workers and sink are restarted")
async def _(op: Operator) -> None:
    await op.stop("kafka", *op.named("sink"), *op.named("stream"))
    starting = [asyncio.create_task(op.start(name)) for name in (*op.named("sink"), *op.named("stream"))]
    await asyncio.sleep(3)
    await op.start("kafka")
    await asyncio.gather(*starting)


@act("PostgreSQL away while the sink is restarted")
async def _(op: Operator) -> None:
    await op.stop("postgres", *op.named("sink"))
    starting = [asyncio.create_task(op.start(name)) for name in op.named("sink")]
    await asyncio.sleep(3)
    await op.start("postgres")
    await asyncio.gather(*starting)


@act("kill -9 of both servers at once")
async def _(op: Operator) -> None:
    await asyncio.to_thread(op.stack.kill, "kafka", "postgres")


@act("the sink stopped with SIGSTOP for 15 s")
async def _(op: Operator) -> None:
    for name in op.named("sink"):
        await op.signal(name, signal.SIGSTOP)
    await asyncio.sleep(15)
    for name in op.named("sink"):
        await op.signal(name, signal.SIGCONT)


@act("a worker stopped with SIGSTOP for 15 s")
async def _(op: Operator) -> None:
    name = op.named("stream")[0]
    await op.signal(name, signal.SIGSTOP)
    await asyncio.sleep(15)
    with suppress(ProcessLookupError):
        await op.signal(name, signal.SIGCONT)


async def _put_back(op: Operator, name: str) -> None:
    """Put a server's data folder back to a copy of eight seconds before, while it is stopped."""
    folder, copy = op.data_dir / name, op.data_dir.parent / f"copy-of-{name}"
    await op.stop(name)
    await op.copy(folder, copy)
    await op.start(name)
    # What is stored meanwhile the copy does not have, and how far it was stored neither.
    await asyncio.sleep(8)
    await op.stop(name)
    shutil.rmtree(folder)
    copy.rename(folder)
    await op.start(name)


act("PostgreSQL's data folder put back to a copy of before")(partial(_put_back, name="postgres"))


async def _freeze(op: Operator, names: Collection[str]) -> None:
    for name in names:
        await op.signal(name, signal.SIGSTOP)
    try:
        await asyncio.sleep(120)
    finally:
        for name in names:
            with suppress(ProcessLookupError):
                await op.signal(name, signal.SIGCONT)


for _service in ("kafka", "postgres", "producer"):
    act(f"{_service} stopped with SIGSTOP for two minutes")(partial(_freeze, names=[_service]))


@act("the sink stopped with SIGSTOP for two minutes")
async def _(op: Operator) -> None:
    await _freeze(op, op.named("sink"))


@act("all workers stopped with SIGSTOP for two minutes")
async def _(op: Operator) -> None:
    await _freeze(op, op.named("stream"))


@act("everything stopped with SIGSTOP for two minutes")
async def _(op: Operator) -> None:
    await _freeze(op, [service.name for service in op.stack.found().services])


@act("a second sink and a second worker by hand, under the names of the first")
async def _(op: Operator) -> None:
    for name, module in (("sink", "sink"), ("stream", "stream_app")):
        code, said = await op.run_again(name, module)
        assert (code, "Traceback" in said) == (1, False), said


@act("a second stack on the same machine")
async def _(op: Operator) -> None:
    other = Stack(op.data_dir.parent / "other")
    try:
        await asyncio.to_thread(other.up)
    finally:
        await asyncio.to_thread(stop_stack, other.data_dir)


@act("`tickpipe up` once more on the same data directory")
async def _(op: Operator) -> None:
    again = Stack(op.data_dir)
    await asyncio.to_thread(lambda: again.run("up", "--detach", "--producer-port", "0", expect=2))
