"""What answers in the server's place confirms nothing, ends nothing and holds up nothing for good."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from relay.forwarder import Forwarder
from relay.pending import Pending, count_pending
from relay.server import Server
from relay.store import Store
from tests.lying import DRIP, DRIPPING_HEAD, ENDLESS, ENDLESS_CONTINUE, LIES, PORTAL, LyingServer, lying_server
from tests.unit.relay.rows import put, tick
from tests.waiting import PATIENCE_SECONDS, wait_until


@pytest.fixture
def lying() -> Iterator[LyingServer]:
    with lying_server() as server:
        yield server


@pytest.mark.parametrize("lie", LIES, ids=str)
async def test_a_lie_confirms_no_tick_and_the_truth_comes_through(store: Store, lying: LyingServer, lie: str) -> None:
    await put(store, tick(0))
    lying.lies = [LIES[lie], LIES[lie]]
    heard: list[tuple[str, int, int]] = []
    with Server(lying.url, "secret-key", answer_seconds=0.5) as server:

        def wait(why: str, _seconds: float) -> None:
            heard.append((why, sender.totals.forwarded, count_pending(store.connection)))

        sender = Forwarder(store, server, Pending(store, limit=100), on_wait=wait)
        began = time.monotonic()
        assert sender.step() == 1
    assert time.monotonic() - began < 30
    assert [(forwarded, pending) for _, forwarded, pending in heard] == [(0, 1), (0, 1)]
    assert (sender.totals.forwarded, sender.totals.rejected, count_pending(store.connection)) == (1, 0, 0)
    assert [item["ts_msc"] for item in lying.taken] == [tick(0)["ts_msc"]]
    assert store.connection.execute("SELECT count(*) FROM rejected").fetchone() == (0,)


@pytest.mark.parametrize("lie", [DRIP, DRIPPING_HEAD, ENDLESS_CONTINUE], ids=["body", "head", "100"])
async def test_an_answer_without_an_end_is_cut_in_time(store: Store, lying: LyingServer, lie: object) -> None:
    await put(store, tick(0))
    lying.lies = [lie]  # type: ignore[list-item]
    began = time.monotonic()
    why: list[str] = []
    with Server(lying.url, "secret-key", answer_seconds=1.0) as server:
        Forwarder(store, server, Pending(store, limit=1), on_wait=lambda text, _: why.append(text)).step()
    assert 0.9 < time.monotonic() - began < 30
    assert "did not come to the end" in why[0]


async def test_a_long_answer_is_not_read(store: Store, lying: LyingServer) -> None:
    await put(store, tick(0))
    lying.lies = [ENDLESS]
    with Server(lying.url, "secret-key") as server:
        Forwarder(store, server, Pending(store, limit=1), on_wait=lambda *_: None).step()
    # What is read, and what the sockets of both ends hold.
    assert lying.longest < 16_000_000


def test_a_portal_that_stays_shows_and_deletes_nothing(store: Store, lying: LyingServer) -> None:
    asyncio.run(put(store, *(tick(n) for n in range(50))))
    lying.lies = [PORTAL] * 1_000
    stop = threading.Event()
    with Server(lying.url, "secret-key") as server:
        sender = Forwarder(store, server, Pending(store, limit=10), stop=stop)
        thread = threading.Thread(target=sender.run)
        thread.start()
        wait_until(lambda: lying.requests >= 3, what="three requests")
        assert (sender.totals.cause, sender.totals.forwarded) == ("foreign_answer", 0)
        assert "login page" in sender.totals.trouble
        assert "Hotel Wi-Fi" in sender.totals.trouble
        assert count_pending(store.connection) == 50
        lying.lies.clear()
        wait_until(lambda: not count_pending(store.connection), what="no backlog")
        stop.set()
        sender.wake.set()
        thread.join(PATIENCE_SECONDS)
    assert len(lying.taken) == 50
    assert sender.totals.trouble == ""
