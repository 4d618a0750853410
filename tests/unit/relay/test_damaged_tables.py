"""Damage outside the rows: the relay's own tables, the newest page, a file that is gone, a second failure in a row."""

import asyncio
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from relay import database, service
from relay.api import Api
from relay.back_channel import Reports, add_reports
from relay.collector import Collector
from relay.database import StoreUnavailable, forwarding_alone, storing_alone
from relay.forwarder import Forwarder
from relay.item import Facts
from relay.lanes import Part
from relay.pending import Pending, count_pending, store_refused
from relay.server import Server
from relay.service import _forward
from relay.store import Store
from relay.terminal import Terminal
from runtime.posting import Result
from runtime.settings import load_settings
from tests.scripted import ScriptedServer
from tests.unit.relay.rows import BASE, put, tick
from tests.unit.relay.scripted_metatrader import ScriptedPackage
from tests.unit.relay.test_api import call
from tests.waiting import wait_until

_PAGE_BYTES = 4_096
_REQUESTS, _ROWS = 10, 50


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_AFTER_FAILURE_SECONDS", 0.1)


@pytest.fixture
async def file(tmp_path: Path, server: ScriptedServer) -> Path:
    """A file of which half of the rows are sent, with something in each of its tables."""
    path = tmp_path / "ea.db"
    with Store(path) as store, Server(server.url, "key") as receiver:
        for n in range(_REQUESTS):
            await put(store, *(tick(_ROWS * n + k) for k in range(_ROWS)))
        store_refused(store, [("x" * 600, "why")] * 30)
        for _ in range(30):
            store.run(lambda connection: add_reports(connection, b'{"fills":[{"p":"%b"}]}' % (b"x" * 500), Facts()))
        sender = Forwarder(store, receiver, Pending(store, limit=_ROWS))
        for _ in range(_REQUESTS // 2):
            sender.step()
    return path


def _pages(path: Path, table: str) -> list[int]:
    """The pages of a table, its root first."""
    with Store(path) as store:
        (root,) = store.connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", [table]).fetchone()
    content = path.read_bytes()
    page = content[(root - 1) * _PAGE_BYTES : root * _PAGE_BYTES]
    if page[0] not in (2, 5):  # a leaf
        return [root]
    cells = (int.from_bytes(page[12 + 2 * n : 14 + 2 * n], "big") for n in range(int.from_bytes(page[3:5], "big")))
    children = [int.from_bytes(page[cell : cell + 4], "big") for cell in cells]
    return [root, *children, int.from_bytes(page[8:12], "big")]


def _damage(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek((page - 1) * _PAGE_BYTES)
        file.write(b"\xff" * _PAGE_BYTES)


@contextmanager
def _forwarding(store: Store, server: ScriptedServer) -> Iterator[Forwarder]:
    """A forwarder in its thread, as `serve` has it."""
    stop = threading.Event()
    with Server(server.url, "key") as receiver:
        sender = Forwarder(store, receiver, Pending(store, limit=_ROWS), stop=stop, reports=Reports(store))
        thread = threading.Thread(target=_forward, args=(sender, store, stop))
        thread.start()
        try:
            yield sender
        finally:
            stop.set()
            sender.wake.set()
            thread.join()


def _times(server: ScriptedServer) -> set[int]:
    return {item["ts_msc"] - BASE for item in server.taken}


@pytest.mark.parametrize("table", ["forward_cursor", "confirmed", "rejected", "reports"])
@pytest.mark.parametrize("place", [0, -1], ids=["root", "last"])
async def test_a_damaged_table_of_the_relays_own_holds_no_tick_up(
    file: Path, server: ScriptedServer, table: str, place: int
) -> None:
    _damage(file, _pages(file, table)[place])
    with capture_logs() as logs, Store(file) as store:
        with _forwarding(store, server):
            await put(store, tick(_ROWS * _REQUESTS))
            store_refused(store, [("y", "why")])
            wanted = set(range(_ROWS * _REQUESTS + 1))
            await asyncio.to_thread(wait_until, lambda: _times(server) == wanted, what="every tick")
            await asyncio.to_thread(wait_until, lambda: count_pending(store.connection) == 0, what="its confirmation")
        assert store.connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [f"{table}_damaged_1"]).fetchone()
    assert [line["action"] for line in logs if line["log_level"] == "error"] == ["store_mended"]
    with capture_logs() as logs, Store(file):
        pass
    assert not logs


@pytest.mark.parametrize("table", ["rejected", "reports"])
async def test_a_table_that_is_damaged_while_the_relay_runs_is_begun_anew(
    file: Path, server: ScriptedServer, table: str
) -> None:
    last = _pages(file, table)[-1]
    with Store(file) as store, _forwarding(store, server):
        # Behind the relay's back, as a disk does it; what it had read of the page it reads again.
        store.run(lambda connection: connection.execute("PRAGMA cache_size = 0"))
        _damage(file, last)
        store_refused(store, [("y" * 9_000, "why")])
        await put(store, tick(_ROWS * _REQUESTS))
        wanted = set(range(_ROWS * _REQUESTS + 1))
        await asyncio.to_thread(wait_until, lambda: _times(server) == wanted, what="every tick")


async def test_a_collector_begins_anew_where_its_memory_is_damaged(file: Path) -> None:
    with Store(file) as store:
        Collector(store, Terminal(ScriptedPackage(BASE)))
    _damage(file, _pages(file, "collected")[0])
    with capture_logs() as logs, Store(file) as store:
        Collector(store, Terminal(ScriptedPackage(BASE)))
        assert store.connection.execute("SELECT count(*) FROM collected").fetchone() == (0,)
    assert [line["action"] for line in logs] == ["store_mended"]


async def test_a_relay_whose_newest_rows_are_damaged_starts_and_forwards_the_others(
    file: Path, server: ScriptedServer
) -> None:
    _damage(file, _pages(file, "ticks")[-1])
    with Store(file) as store:
        with pytest.raises(StoreUnavailable, match=r"is damaged .* move the file"):
            await put(store, tick(_ROWS * _REQUESTS))
        with _forwarding(store, server):
            await asyncio.to_thread(
                wait_until, lambda: count_pending(store.connection) == 0, what="the end of the file"
            )
    assert _ROWS * _REQUESTS - 25 < len(_times(server)) < _ROWS * _REQUESTS


async def test_a_file_that_cannot_be_prepared_for_damage_is_named_with_the_cure(file: Path) -> None:
    newest = _pages(file, "ticks")[-1]
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE UNIQUE INDEX one ON ticks (symbol, ts_ms)")
    _damage(file, newest)
    with pytest.raises(StoreUnavailable, match=r"is damaged .* \.recover"):
        Store(file)


@pytest.mark.parametrize("is_replaced", [False, True], ids=["deleted", "replaced"])
async def test_nothing_is_taken_into_a_file_that_is_gone_and_what_it_had_is_forwarded(
    file: Path, server: ScriptedServer, is_replaced: bool
) -> None:
    shutil.copy(file, file.with_name("copy"))
    with capture_logs() as logs, Store(file) as store:
        api = Api(store, load_settings())
        os.unlink(file)
        if is_replaced:
            os.rename(file.with_name("copy"), file)
        status, answer, _ = await asyncio.to_thread(
            call, api, b'{"ticks":[{"symbol":"EURUSD","time_msc":1760926800417,"bid":1.1,"ask":1.2}]}'
        )
        assert (status, answer["code"]) == (503, "STORE_UNAVAILABLE")
        assert "was deleted or replaced while the relay runs" in answer["error"]
        assert "Start the relay again" in answer["error"]
        assert store.is_failing
    assert [line["action"] for line in logs] == ["store_failing"]
    assert os.access(file, os.F_OK) == is_replaced


async def test_a_second_failure_in_a_row_leaves_out_no_row(
    file: Path, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Arrange: a request fails in a way that nobody thought of, and then the file cannot be read for a moment
    failures = iter([MemoryError("no memory")])
    send = Server.send

    def send_or_fail(self: Server, parts: Sequence[Part]) -> Result:
        if (failure := next(failures, None)) is not None:
            raise failure
        return send(self, parts)

    outages = iter([OSError("the disk is away")])

    def pending_or_fail(store: Store, **options: Any) -> Pending:
        if (outage := next(outages, None)) is not None:
            raise outage
        return Pending(store, **options)

    monkeypatch.setattr(Server, "send", send_or_fail)
    monkeypatch.setattr(service, "Pending", pending_or_fail)
    with Store(file) as store, _forwarding(store, server):
        await asyncio.to_thread(
            wait_until, lambda: _times(server) == set(range(_ROWS * _REQUESTS)), what="every tick, also those in hand"
        )


def test_one_file_has_one_lock_whatever_name_it_is_opened_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_TAKEOVER_SECONDS", 0.1)
    path = tmp_path / "ea.db"
    path.touch()
    (link := tmp_path / "link.db").symlink_to(path)
    for alone in (storing_alone, forwarding_alone):
        with alone(path), pytest.raises(StoreUnavailable, match="already"), alone(link):
            pass
