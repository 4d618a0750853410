"""The local API without a network: whatever a body holds, there is an answer, and never a 500."""

import asyncio
import json
import sqlite3
import threading
from collections import Counter
from collections.abc import MutableMapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.api import Api
from relay.counts import Counts, RowCounter
from relay.forwarder import Forwarder
from relay.pending import Pending
from relay.server import Server
from relay.store import Store
from runtime.settings import load_settings
from tests.scripted import ScriptedServer
from tests.unit.relay.rows import BASE, tick
from tests.waiting import PATIENCE_SECONDS


def call(
    api: Api, body: bytes = b"", path: str = "/ingest/tick", method: str = "POST", **headers: str
) -> tuple[int, dict[str, Any], dict[bytes, bytes]]:
    """Status, answer and headers."""
    return asyncio.run(call_api(api, body, path, method, **headers))


async def call_api(
    api: Api, body: bytes = b"", path: str = "/ingest/tick", method: str = "POST", **headers: str
) -> tuple[int, dict[str, Any], dict[bytes, bytes]]:
    """The same on a running loop."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "path": path, "method": method, "headers": named}
    await api(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"]), dict(sent[0]["headers"])


@pytest.fixture
def api(store: Store) -> Api:
    return Api(store, load_settings())


def test_what_eas_post_does_not_wait_behind_those_who_look(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look at ten million rows takes half a minute; an EA gives up after five seconds, and sends again."""
    begun, is_counted = threading.Event(), threading.Event()

    def counts(self: RowCounter, connection: sqlite3.Connection) -> Counts:
        begun.set()
        is_counted.wait(PATIENCE_SECONDS)
        return Counts(0, 0, Counter(), {})

    monkeypatch.setattr(RowCounter, "counts", counts)
    api = Api(store, load_settings())

    async def post_meanwhile() -> tuple[list[int], list[int]]:
        # As many as Python's own threads are, which store what is refused.
        paths = ("/health", "/stats", "/") * 20
        looks = [asyncio.create_task(look(api, path)) for path in paths]
        await asyncio.to_thread(begun.wait, PATIENCE_SECONDS)
        body = json.dumps({"ticks": [tick(0), tick(1, symbol="")]}).encode()
        try:
            answer = await asyncio.wait_for(call_api(api, body), 5)
        finally:
            is_counted.set()
        return [answer[0]], await asyncio.gather(*looks)

    posted, looked = asyncio.run(post_meanwhile())
    assert posted == [207]
    assert set(looked) == {200}


async def look(api: Api, path: str) -> int:
    """The status of a page or of numbers."""
    statuses: list[int] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        statuses.append(message.get("status", 0))

    scope = {"type": "http", "path": path, "method": "GET", "headers": []}
    await api(scope, lambda: asyncio.sleep(0, {"type": "http.request"}), send)
    return statuses[0]


async def test_a_look_that_takes_long_ends_with_the_relay(store: Store) -> None:
    api = Api(store, load_settings())
    begun = threading.Event()

    def count_for_ever() -> None:
        begun.set()
        query = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        store.connection.execute(query).fetchone()

    looking = asyncio.get_running_loop().run_in_executor(api._looks, count_for_ever)
    await asyncio.to_thread(begun.wait, PATIENCE_SECONDS)
    store.end_reading()
    await asyncio.wait_for(asyncio.to_thread(api.close), PATIENCE_SECONDS)
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        await looking


FIELDS = [
    "ticks",
    "items",
    "symbol",
    "ts",
    "ts_msc",
    "time",
    "bid",
    "ask",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "timeframe",
    "kind",
    "meta",
    "utc_offset_s",
]

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["EURUSD", BASE, 10**400, "M1", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, inner))
    ),
    max_leaves=12,
)


@given(json_values, st.sampled_from(["/ingest", "/ingest/tick"]))
def test_no_body_is_answered_500(api: Api, value: Any, path: str) -> None:
    status, answer, _ = call(api, json.dumps(value).encode(), path)
    assert status in (200, 207, 400), answer


@given(st.binary(max_size=60))
def test_no_bytes_are_answered_500(api: Api, body: bytes) -> None:
    assert call(api, body)[0] in (200, 207, 400)


def test_a_key_is_asked_for_when_there_is_one(store: Store) -> None:
    api = Api(store, load_settings(), key="open-sesame")
    body = msgspec.json.encode(tick(0))
    assert call(api, body)[0] == 401
    assert call(api, body, x_api_key="wrong")[0] == 401
    assert call(api, body, x_api_key="open-sesame")[0] == 200
    assert call(api, body, authorization="Bearer open-sesame")[0] == 200
    assert call(api, path="/health", method="GET")[1] == {
        "ok": True, "total_ticks": 2, "count": 2, "queue": 2, "db": str(store.path),
    }  # fmt: skip


def test_a_full_disk_asks_the_ea_to_send_again(api: Api, store: Store) -> None:
    (pages,) = store.connection.execute("PRAGMA page_count").fetchone()
    store.run(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}"))
    status, answer, headers = call(api, msgspec.json.encode([tick(n) for n in range(1_000)]))
    assert (status, answer["code"], headers[b"retry-after"]) == (503, "STORE_UNAVAILABLE", b"10")
    assert call(api, path="/health", method="GET")[1]["total_ticks"] == 0


def test_what_is_refused_is_kept(api: Api, store: Store) -> None:
    call(api, json.dumps([tick(0), *({"n": n} for n in range(300))]).encode())
    call(api, b"data=%7B%7D")
    rows = store.connection.execute("SELECT id, reason, meta FROM rejected ORDER BY id DESC").fetchall()
    assert [meta for _, _, meta in rows] == [*(f'{{"n":{n}}}' for n in range(300)), "data=%7B%7D"]
    assert {reason.partition(":")[0] for _, reason, _ in rows[:-1]} == {"symbol"}
    assert all(id_ < 0 for id_, _, _ in rows)  # those of rows that the server refuses are above


def test_the_server_and_the_account_that_an_ea_names_are_told_on(
    api: Api, store: Store, server: ScriptedServer
) -> None:
    agent = "DataCollectorPRO/PDC/1.65 (Account:1; Server:XM.COM-Real 2; Build:3850)"
    call(api, json.dumps(tick(0)).encode(), user_agent=agent)
    call(api, json.dumps(tick(1, meta={"srv": "Broker-Demo"})).encode())
    call(api, json.dumps(tick(2)).encode())
    with Server(server.url, "secret-key") as receiver:
        forwarder = Forwarder(store, receiver, Pending(store, limit=100))
        while forwarder.step():
            pass
    assert [request.headers["User-Agent"] for request in server.requests] == [
        "tickpipe-relay (Server:XM.COM-Real 2; Account:1)", "tickpipe-relay (Server:Broker-Demo)", "tickpipe-relay",
    ]  # fmt: skip
    assert all("X-Source" not in request.headers for request in server.requests)


def test_a_dry_run_stores_nothing(api: Api, store: Store) -> None:
    body = json.dumps([tick(0), {"n": 1}]).encode()
    status, answer, _ = call(api, body, x_dry_run="1", x_source="Demo")
    assert (status, answer["dry_run"], answer["source"], answer["errors"]) == (207, True, "Demo", 1)
    assert "queued" not in answer
    assert call(api, b"data=1", x_dry_run="1")[0] == 400
    assert store.counts().by_symbol.total() == 0
    assert store.connection.execute("SELECT count(*) FROM rejected").fetchone() == (0,)
