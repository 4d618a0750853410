"""Sending what waits: every answer of a server, and every crash in between."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import pytest

from relay.forwarder import BATCH, Forwarder
from relay.pending import Pending, count_pending
from relay.server import Server
from relay.store import Store
from runtime.posting import ServerRefused, ServerUnavailable
from tests.scripted import Answer, ScriptedServer
from tests.unit.relay.rows import BASE, put, tick
from tests.waiting import PATIENCE_SECONDS

NewForwarder = Callable[..., Forwarder]


@pytest.fixture
def forwarder(store: Store, server: ScriptedServer) -> Iterator[NewForwarder]:
    """Makes forwarders as a process that starts does: they know what the database knows."""
    with ExitStack() as stack:

        def make(limit: int = 100, page: int | None = None, url: str = server.url, **more: Any) -> Forwarder:
            receiver = stack.enter_context(Server(url, "secret-key"))
            more.setdefault("patience_seconds", 20.0)
            return Forwarder(store, receiver, Pending(store, limit=limit, page=page), **more)

        yield make


def drain(sender: Forwarder) -> None:
    while sender.step():
        pass


def times(server: ScriptedServer) -> list[int]:
    return [item["ts_msc"] - BASE for item in server.taken]


async def test_the_original_ticks_arrive_in_order_over_one_connection(
    store: Store, server: ScriptedServer, forwarder: NewForwarder
) -> None:
    items = [tick(n, meta={"ea": "PDC"}, odd="kept") for n in range(250)]
    for item in items:
        await put(store, item)
    drain(forwarder())
    assert server.taken == items
    # The last request of a page waits for the next page: it may go on there.
    assert [len(request.items) for request in server.requests] == [99, 100, 51]
    assert {request.path for request in server.requests} == {"/ingest/tick"}
    assert len({request.port for request in server.requests}) == 1
    assert server.requests[0].headers["X-API-Key"] == "secret-key"
    assert count_pending(store.connection) == 0


@pytest.mark.parametrize(
    ("fields", "sizes"),
    [
        ({}, [3]),
        ({"last": 27.5}, [2, 1]),
        ({"mode": "last"}, [2, 1]),
        ({"mode": "bid", "last": 27.5}, [3]),
        ({"mode": 3, "chart_mode": "last"}, [2, 1]),
    ],
    ids=str,
)
async def test_the_newest_request_of_a_symbol_charted_by_last_stays_alone(
    store: Store, server: ScriptedServer, forwarder: NewForwarder, fields: dict[str, Any], sizes: list[int]
) -> None:
    """So that the fold knows it when the EA, which got no answer in time, sends it to the server too."""
    for after in range(3):
        await put(store, tick(after, **fields))
    drain(forwarder())
    assert [len(request.items) for request in server.requests] == sizes


async def test_bars_sources_and_clocks_have_requests_of_their_own(
    store: Store, server: ScriptedServer, forwarder: NewForwarder
) -> None:
    bar = {"symbol": "EURUSD", "ts": BASE, "timeframe": "M1", "open": 1, "high": 3, "low": 1, "close": 2, "volume": 9}
    await put(store, tick(0), bar)
    await put(store, tick(1), source="Other", utc_offset_seconds=7200)
    drain(forwarder())
    assert [(r.path, r.headers.get("X-Source"), r.body.get("utc_offset_s")) for r in server.requests] == [
        ("/ingest/tick", None, None), ("/ingest", None, None), ("/ingest/tick", "Other", 7200),
    ]  # fmt: skip
    assert server.taken[1] == bar


async def test_a_senders_own_fields_are_not_taken_for_the_relays(
    store: Store, server: ScriptedServer, forwarder: NewForwarder
) -> None:
    item = tick(0, x_source="Elsewhere", utc_offset_s=3600, source="Elsewhere")
    await put(store, item)
    drain(forwarder())
    (request,) = server.requests
    assert (request.headers.get("X-Source"), request.body) == (None, {"ticks": [item]})


async def test_a_source_that_the_key_may_not_speak_for_stops_no_other(
    store: Store, server: ScriptedServer, forwarder: NewForwarder
) -> None:
    await put(store, tick(0), source="XM.COM-Real 2")
    await put(store, tick(1), source="Счёт-MT5")
    await put(store, tick(2))
    server.answers = [Answer(403, {"error": "another source", "code": "FORBIDDEN"})]
    sender = forwarder()
    drain(sender)
    assert times(server) == [1, 2]
    assert [request.headers.get("X-Source", "").encode("latin-1").decode() for request in server.requests] == [
        "XM.COM-Real 2", "Счёт-MT5", "",
    ]  # fmt: skip
    assert (sender.totals.forwarded, sender.totals.rejected) == (2, 1)
    rejected = store.connection.execute("SELECT symbol, ts_ms, reason FROM rejected").fetchall()
    assert [(symbol, ts_ms) for symbol, ts_ms, _ in rejected] == [("EURUSD", BASE)]
    assert "another source" in rejected[0][2]


async def test_what_was_taken_before_the_source_was_refused_is_not_rejected(
    store: Store, server: ScriptedServer, forwarder: NewForwarder
) -> None:
    await put(store, *(tick(n) for n in range(8)))
    too_large = Answer(413, {"error": "too large", "code": "PAYLOAD_TOO_LARGE"})
    server.answers = [too_large, Answer(200), Answer(403, {"error": "another source", "code": "FORBIDDEN"})]
    sender = forwarder()
    drain(sender)
    assert times(server) == [0, 1, 2, 3]
    rejected = store.connection.execute("SELECT ts_ms - ? FROM rejected ORDER BY id", [BASE]).fetchall()
    assert [after for (after,) in rejected] == [4, 5, 6, 7]
    assert (sender.totals.forwarded, sender.totals.rejected) == (4, 4)


async def test_a_row_of_an_old_file_goes_as_the_exporter_sends_it(
    store: Store, server: ScriptedServer, forwarder: NewForwarder
) -> None:
    store.run(
        lambda connection: connection.execute(
            "INSERT INTO ticks (symbol, ts_ms, timeframe, open, high, low, close, volume, kind, meta)"
            " VALUES ('EURUSD', 1549238400000, 'tick', 1.5, 1.6, 1.5, 0, 0, 'tick', '{\"flags\": 6}')"
        )
    )
    drain(forwarder())
    assert server.taken == [
        {"symbol": "EURUSD", "ts": BASE, "timeframe": "tick", "open": 1.5, "high": 1.6, "low": 1.5, "close": 0.0,
         "volume": 0.0, "kind": "tick", "meta": {"flags": 6}},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("column", "value", "is_sent"),
    [
        ("ts_ms", "'2019.02.04 00:00'", False),
        ("ts_ms", "NULL", False),
        ("symbol", "x'4555'", False),
        ("meta", "5", True),  # sqlite makes a text of it
        ("meta", "x'00'", False),
        ("close", "NULL", True),
        ("close", "'x'", False),
        ("symbol", "CAST(x'455552a3' AS TEXT)", True),  # Windows-1252
        ("meta", "replace(printf('%.200000c', '['), ' ', '')", True),
    ],
)
async def test_one_odd_row_of_an_old_file_does_not_stop_the_rest(
    store: Store, server: ScriptedServer, forwarder: NewForwarder, *, column: str, value: str, is_sent: bool
) -> None:
    def fill(connection: sqlite3.Connection) -> None:
        # A table as another program made it, without NOT NULL.
        connection.execute("DROP TABLE ticks")
        connection.execute(
            "CREATE TABLE ticks (id INTEGER PRIMARY KEY AUTOINCREMENT, symbol TEXT, ts_ms INTEGER, timeframe TEXT,"
            " open REAL, high REAL, low REAL, close REAL, volume REAL, kind TEXT, meta TEXT, created_at TEXT,"
            " facts TEXT)"
        )
        for n in range(3):
            connection.execute(
                "INSERT INTO ticks (symbol, ts_ms, timeframe, open, high, low, close, volume, kind)"
                " VALUES ('EURUSD', ?, 'tick', 1.5, 1.6, 1.5, 0, 0, 'tick')",
                [BASE + n],
            )
        connection.execute(f"UPDATE ticks SET {column} = {value} WHERE id = 2")  # noqa: S608  # from the table above

    store.run(fill)
    drain(forwarder())

    assert len(server.taken) == (3 if is_sent else 2)
    assert [item["ts"] for item in server.taken if item["symbol"] == "EURUSD"][-1] == BASE + 2
    rejected = store.connection.execute("SELECT id FROM rejected").fetchall()
    assert rejected == ([] if is_sent else [(2,)])


@pytest.mark.parametrize("status", [429, 503, 500])
async def test_a_server_that_cannot_now_is_asked_again_when_it_says(
    store: Store, server: ScriptedServer, forwarder: NewForwarder, status: int
) -> None:
    await put(store, tick(0))
    server.answers = [Answer(status, {"error": "later"}, {"Retry-After": "1"})]
    waits: list[float] = []
    drain(forwarder(on_wait=lambda why, seconds: waits.append(seconds)))
    assert times(server) == [0]
    assert len(waits) == 1
    assert waits[0] >= 1.0


async def test_a_body_that_is_too_large_is_split_between_times(
    store: Store, server: ScriptedServer, forwarder: NewForwarder
) -> None:
    server.most_items = 5
    await put(store, *(tick(n // 4) for n in range(24)))
    await put(store, *(tick(n) for n in range(100, 130)))
    sender = forwarder()
    drain(sender)
    assert times(server) == [n // 4 for n in range(24)] + list(range(100, 130))
    taken = [request for request in server.requests if request.status == 200]
    assert {len(request.items) for request in taken[:6]} == {4}
    for before, after in pairwise(taken):
        assert {item["ts_msc"] for item in before.items}.isdisjoint(item["ts_msc"] for item in after.items)
    # It learns: the last requests fit at once.
    assert server.requests[-1].status == 200


@pytest.mark.parametrize("status", [401, 403, 404, 405])
async def test_refusals_in_a_row_end_a_run_and_lose_nothing(
    store: Store, server: ScriptedServer, forwarder: NewForwarder, status: int
) -> None:
    await put(store, tick(0))
    server.answers = [Answer(status, {"error": "no", "code": "NO"}) for _ in range(3)]
    with pytest.raises(ServerRefused, match=r"KEY|address"):
        drain(forwarder())
    assert len(server.requests) == 3
    assert count_pending(store.connection) == 1
    drain(forwarder())
    assert times(server) == [0]


@pytest.mark.parametrize("status", [401, 403, 404, 405])
async def test_the_relay_never_gives_up_and_says_what_is_wrong_meanwhile(
    store: Store, server: ScriptedServer, forwarder: NewForwarder, status: int
) -> None:
    await put(store, tick(0))
    # One more than end a run that has limited patience.
    server.answers = [Answer(status, {"error": "no", "code": "NO"}) for _ in range(4)]
    said: list[tuple[str, str]] = []

    def wait(*_: object) -> None:
        said.append((sender.totals.cause, sender.totals.trouble))

    sender: Forwarder = forwarder(patience_seconds=None, on_wait=wait)
    drain(sender)
    assert times(server) == [0]
    assert {cause for cause, _ in said} == {{401: "key", 403: "key", 404: "no_endpoint", 405: "refused"}[status]}
    assert all(str(status) in trouble for _, trouble in said)
    assert (sender.totals.cause, sender.totals.trouble) == ("", "")


@pytest.mark.parametrize("status", [207, 400])
async def test_refused_items_are_stored_and_not_sent_again(
    store: Store, server: ScriptedServer, forwarder: NewForwarder, status: int
) -> None:
    await put(store, tick(0), tick(1))
    details = [{"index": 1, "field": "bid", "message": "odd"}]
    refusal = {"error": "odd", "code": "VALIDATION_ERROR", "details": details}
    server.answers = [Answer(status, {"errors": 1, "details": details} if status == 207 else refusal)]
    drain(forwarder())
    rejected = store.connection.execute("SELECT ts_ms, reason FROM rejected ORDER BY id").fetchall()
    assert rejected[-1] == (BASE + 1, "bid: odd")
    assert len(rejected) == (1 if status == 207 else 2)
    assert len(server.requests) == 1
    assert count_pending(store.connection) == 0


async def test_an_item_that_spoils_its_request_is_found(
    store: Store, server: ScriptedServer, forwarder: NewForwarder
) -> None:
    def answer(_: str, items: list[Any]) -> Answer:
        refusal = Answer(400, {"error": "odd", "code": "VALIDATION_ERROR"})
        return refusal if any(item.get("bad") for item in items) else Answer(200)

    server.answer = answer  # type: ignore[method-assign, assignment]
    await put(store, *(tick(n, bad=n == 5) for n in range(16)))
    drain(forwarder())
    assert times(server) == [n for n in range(16) if n != 5]
    assert store.connection.execute("SELECT ts_ms - ?, reason FROM rejected", [BASE]).fetchall() == [(5, "odd")]


async def test_a_crash_resends_the_last_request_at_most(
    store: Store, server: ScriptedServer, forwarder: NewForwarder
) -> None:
    for n in range(50):
        await put(store, tick(n, "EURUSD"), tick(n, "USDJPY"))
    pending = Pending(store, limit=30, page=40)
    first = pending.next_request()
    pending.confirm()
    second = pending.next_request()  # sent, and the process dies before it is confirmed
    sent = [row.id for part in first for row in part]

    drain(forwarder(limit=30, page=40))

    assert len(sent) == 30
    assert {row.id for part in second for row in part}.isdisjoint(sent)
    for symbol in ("EURUSD", "USDJPY"):
        done = sum(len(part) for part in first if part[0].symbol == symbol)
        arrived = [item["ts_msc"] - BASE for item in server.taken if item["symbol"] == symbol]
        assert arrived == list(range(done, 50))


async def test_a_server_that_is_away_for_too_long_is_told(store: Store, forwarder: NewForwarder) -> None:
    await put(store, tick(0))
    sender = forwarder(url="http://127.0.0.1:9", patience_seconds=0.1)
    with pytest.raises(ServerUnavailable, match="does not answer"):
        sender.step()
    assert count_pending(store.connection) == 1


async def test_stop_ends_the_waiting(store: Store, forwarder: NewForwarder) -> None:
    await put(store, tick(0))
    stop = threading.Event()
    sender = forwarder(url="http://127.0.0.1:9", patience_seconds=None, stop=stop)
    running = asyncio.create_task(asyncio.to_thread(sender.run))
    await asyncio.sleep(0.3)
    stop.set()
    sender.wake.set()
    await asyncio.wait_for(running, PATIENCE_SECONDS)


async def test_halves_that_are_too_large_lower_the_size_of_requests_once(store: Store, server: ScriptedServer) -> None:
    await put(store, *(tick(n // 8) for n in range(800)))
    server.most_items = 60
    pending = Pending(store, limit=BATCH)
    with Server(server.url, "key") as receiver:
        forwarder = Forwarder(store, receiver, pending)
        while forwarder.step():
            pass
        assert pending.limit >= 30
        await put(store, *(tick(1_000 + n // 8) for n in range(80)))
        while forwarder.step():
            pass
    taken = [request.items for request in server.requests if request.status == 200]
    # None of the equal ticks of a millisecond travelled alone, which the server would take for a resend.
    parted = [ms for items in taken for ms in {item["ts_msc"] for item in items}]
    assert len(parted) == len(set(parted))
