"""Heavy requests work few at a time, and clients in turn."""

import asyncio

import pytest

from dashboard.answers import Refusal
from dashboard.turns import Turns


async def test_clients_take_turns_and_few_work_at_once() -> None:
    turns = Turns(2, "work", patience_seconds=60)
    order: list[str] = []
    working = most = 0

    async def work(client: str) -> None:
        nonlocal working, most
        async with turns.turn(client):
            working += 1
            most = max(most, working)
            order.append(client)
            await asyncio.sleep(0.001)
            working -= 1

    # One client asks for forty, and another for two a moment later.
    tasks = [asyncio.ensure_future(work("greedy")) for _ in range(40)]
    await asyncio.sleep(0)
    tasks += [asyncio.ensure_future(work("other")) for _ in range(2)]
    await asyncio.gather(*tasks)

    assert most == 2
    assert len(order) == 42
    assert order[:6].count("other") == 2


async def test_who_waits_too_long_is_refused_and_leaves_no_place_taken() -> None:
    turns = Turns(1, "read", patience_seconds=0.01)
    async with turns.turn("a"):
        with pytest.raises(Refusal, match="1 requests read already") as refused:
            async with turns.turn("b"):
                pass
        assert refused.value.status == 429
    async with asyncio.timeout(5), turns.turn("b"):
        pass


async def test_a_request_that_goes_away_while_it_waits_takes_no_turn() -> None:
    turns = Turns(1, "read", patience_seconds=60)

    async def wait(client: str) -> None:
        async with turns.turn(client):
            pass

    async with turns.turn("a"):
        gone, stays = asyncio.ensure_future(wait("b")), asyncio.ensure_future(wait("c"))
        await asyncio.sleep(0)
        gone.cancel()
    await asyncio.wait_for(stays, 5)
    # The one that is cancelled when its turn has just come hands it on.
    async with turns.turn("a"):
        gone, stays = asyncio.ensure_future(wait("b")), asyncio.ensure_future(wait("c"))
        await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait_for(stays, 5)
    await asyncio.wait_for(wait("d"), 5)
