"""Heavy requests work few at a time, and clients in turn."""

import asyncio
from contextlib import nullcontext

import httpx
import pytest

from dashboard.access import Turns
from dashboard.answers import Refusal
from dashboard.app import Parts, create_app
from dashboard.candles import Request
from runtime.settings import load_settings
from tests.waiting import PATIENCE_SECONDS


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
    async with asyncio.timeout(PATIENCE_SECONDS), turns.turn("b"):
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
    await asyncio.wait_for(stays, PATIENCE_SECONDS)
    # The one that is cancelled when its turn has just come hands it on.
    async with turns.turn("a"):
        gone, stays = asyncio.ensure_future(wait("b")), asyncio.ensure_future(wait("c"))
        await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait_for(stays, PATIENCE_SECONDS)
    await asyncio.wait_for(wait("d"), PATIENCE_SECONDS)


async def test_small_pages_go_past_heavy_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four pages of 20,000 candles are asked for; two are read, and a small one is answered meanwhile."""
    parts = Parts(load_settings())
    two_read, may_end = asyncio.Event(), asyncio.Event()
    reading = 0

    async def read(_connection: object, asked: Request) -> list[object]:
        nonlocal reading
        if asked.limit > 2_000:
            reading += 1
            if reading == 2:
                two_read.set()
            await may_end.wait()
        return []

    monkeypatch.setattr("dashboard.routes.read_candles", read)
    monkeypatch.setattr(parts.database, "reading", nullcontext)
    transport = httpx.ASGITransport(create_app(parts))
    async with httpx.AsyncClient(transport=transport, base_url="http://dashboard") as client:
        heavy = [asyncio.ensure_future(client.get("/candles?symbol=A&limit=20000&format=csv")) for _ in range(4)]
        async with asyncio.timeout(PATIENCE_SECONDS):
            await two_read.wait()
            for _ in range(20):
                assert (await client.get("/candles?symbol=A&limit=10")).status_code == 200
        assert reading == 2
        may_end.set()
        assert {answer.status_code for answer in await asyncio.gather(*heavy)} == {200}
    assert reading == 4
