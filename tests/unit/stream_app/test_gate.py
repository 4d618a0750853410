"""When the next fetch may be sent."""

import asyncio
import threading

import pytest

from stream_app.gate import FetchGate


async def passes(gate: FetchGate) -> bool:
    """Whether a fetch does not wait, or no longer."""
    waiting = asyncio.create_task(gate.pass_through())
    try:
        await asyncio.wait([waiting], timeout=0.02)
        return waiting.done()
    finally:
        waiting.cancel()


async def test_fetches_wait_only_after_records_and_until_the_gate_is_opened() -> None:
    gate = FetchGate()
    gate.is_live = True
    assert await passes(gate)

    gate.shut()
    assert not await passes(gate)

    gate.open()
    assert await passes(gate)


async def test_the_worker_opens_it_from_another_thread() -> None:
    gate = FetchGate()
    gate.is_live = True
    gate.shut()
    waiting = asyncio.create_task(gate.pass_through())
    await asyncio.sleep(0)

    worker = threading.Thread(target=gate.open)
    worker.start()
    worker.join()
    # Without a thread-safe wake-up the loop would go on sleeping.
    await asyncio.wait_for(waiting, 0.02)


async def test_fetches_of_a_backlog_do_not_wait() -> None:
    gate = FetchGate()
    gate.shut()
    assert await passes(gate)


async def test_rounds_that_are_held_up_do_not_hold_up_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_app.gate._MOST_SECONDS", 0.01)
    gate = FetchGate()
    gate.is_live = True
    gate.shut()
    await asyncio.wait_for(gate.pass_through(), 1)


def test_a_consumer_that_has_ended_is_no_failure_of_the_worker() -> None:
    gate = FetchGate()
    gate.is_live = True

    async def consumer() -> None:
        gate.shut()

    asyncio.run(consumer())
    gate.open()
