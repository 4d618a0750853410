"""The status page and /debug/recent: what they show, in which language, and to whom."""

import asyncio
import json
import re
from collections.abc import MutableMapping
from html import unescape
from typing import Any

import pytest

from relay.api import Api
from relay.database import StoreUnavailable
from relay.forwarder import Totals
from relay.store import Store
from runtime.asgi import OwnNames
from runtime.request_body import Application
from runtime.settings import load_settings
from tests.unit.relay.rows import BASE, put, tick

URL = "https://ticks.example.com"


def get(app: Application, path: str, query: str = "", **headers: str) -> tuple[int, str, dict[bytes, bytes]]:
    """Status, text and headers of an answer."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "path": path, "method": "GET", "headers": named, "query_string": query.encode()}

    async def run() -> None:
        await app(scope, receive, send)

    asyncio.run(run())
    return sent[0]["status"], sent[1]["body"].decode(), dict(sent[0]["headers"])


def words(html: str) -> str:
    """The text of a page."""
    return unescape(re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.S)))


@pytest.fixture
def totals() -> Totals:
    return Totals(forwarded=1_234)


@pytest.fixture
def api(store: Store, totals: Totals) -> Api:
    return Api(store, load_settings(), totals=totals, server_url=URL)


def fill(store: Store) -> None:
    async def run() -> None:
        await put(store, tick(0), tick(1_500, bid=1.25, ask=1.26), tick(0, "XAU<b>"))
        bar = {
            "symbol": "EURUSD",
            "ts": BASE,
            "timeframe": "M1",
            "open": 9,
            "high": 9,
            "low": 9,
            "close": 9,
            "volume": 3,
        }
        await put(store, bar)

    asyncio.run(run())


def test_the_page_shows_ticks_backlog_server_and_each_symbols_newest_tick(api: Api, store: Store) -> None:
    fill(store)
    status, html, headers = get(api, "/")
    assert (status, headers[b"content-type"]) == (200, b"text/html; charset=utf-8")
    text = words(html)
    assert "Ticks are stored and forwarded." in text
    for part in (
        "Ticks and bars in the file 4 ",
        "Waiting for the server 4 (the oldest for 0 s) ",
        "Forwarded since the start 1,234 ",
        f"Server {URL} ",
        "Last error since the start none ",
        str(store.path),
        # The bar is newer, but it is no tick.
        "EURUSD 3 1.25 1.26 2019-02-04 00:00:01.500 0 s ago",
        "XAU<b> 1 1.5 1.6 2019-02-04 00:00:00.000 0 s ago",
    ):
        assert part in text, part
    # It runs nothing, and what a symbol says is text.
    assert "<b>" not in html
    assert "<script" not in html
    assert b"default-src 'none'" in headers[b"content-security-policy"]


def test_newer_ticks_are_found_after_a_first_look_and_after_old_rows_went(api: Api, store: Store) -> None:
    fill(store)
    get(api, "/")
    asyncio.run(put(store, tick(9_000, bid=1.75, ask=1.76)))
    assert "EURUSD 4 1.75 1.76" in words(get(api, "/")[1])
    store.run(lambda connection: connection.execute("DELETE FROM ticks WHERE id <= 2"))
    assert "EURUSD 2 1.75 1.76" in words(get(api, "/")[1])


def test_what_keeps_ticks_from_the_server_is_said_and_remembered(api: Api, totals: Totals) -> None:
    totals.fail("https://ticks.example.com refuses the key <1>", "key")
    text = words(get(api, "/")[1])
    assert "cannot be forwarded now. The server does not know the key." in text
    assert "refuses the key <1>" in text
    totals.trouble = totals.cause = ""
    text = words(get(api, "/")[1])
    assert "Ticks are stored and forwarded." in text
    assert re.search(r"Last error since the start \d{4}-\d\d-\d\d [\d:]{8} UTC: https.* refuses the key <1>", text)


def test_a_full_disk_shows_until_there_is_space_and_stays_the_last_error(api: Api, store: Store) -> None:
    (pages,) = store.connection.execute("PRAGMA page_count").fetchone()
    store.run(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}"))
    with pytest.raises(StoreUnavailable, match="disk is full"):
        asyncio.run(put(store, *(tick(n) for n in range(2_000))))
    text = words(get(api, "/")[1])
    assert "Ticks cannot be stored now" in text
    assert "UTC: The disk is full" in text
    store.run(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages + 1_000}"))
    fill(store)
    text = words(get(api, "/")[1])
    assert "Ticks are stored and forwarded." in text
    assert "UTC: The disk is full" in text


@pytest.mark.parametrize(
    ("query", "accepted", "expected"),
    [
        ("", "", "en"),
        ("", "pt-BR,pt;q=0.9,en;q=0.8", "pt-BR"),
        ("", "de-DE,en;q=0.5,pt;q=0.7", "pt-BR"),
        ("", "ptx,en", "en"),
        ("", "pt;q=0,en", "en"),
        ("lang=en", "pt", "en"),
        ("lang=pt", "en", "pt-BR"),
    ],
)
def test_the_page_speaks_the_readers_language(api: Api, query: str, accepted: str, expected: str) -> None:
    html = get(api, "/", query, accept_language=accepted)[1]
    assert f'<html lang="{expected}">' in html
    assert ("gravados e encaminhados" in html) == (expected == "pt-BR")
    assert "Nenhum tick chegou" in html or expected == "en"


def test_recent_rows_are_shown_newest_first(api: Api, store: Store) -> None:
    fill(store)
    status, body, _ = get(api, "/debug/recent")
    rows = json.loads(body)["rows"]
    assert (status, [row["id"] for row in rows]) == (200, [4, 3, 2, 1])
    assert (rows[0]["kind"], json.loads(rows[0]["item"])["timeframe"]) == ("bar", "M1")
    assert (rows[2]["symbol"], rows[2]["ts_ms"], rows[2]["open"]) == ("EURUSD", BASE + 1_500, 1.25)
    chosen = json.loads(get(api, "/debug/recent", "symbol=EURUSD&limit=2")[1])["rows"]
    assert [row["id"] for row in chosen] == [4, 2]
    assert get(api, "/debug/recent", "limit=0")[0] == 400
    assert get(api, "/debug/recent", "limit=x")[0] == 400


@pytest.mark.parametrize("path", ["/", "/debug/recent"])
def test_no_web_page_reads_it_through_a_browser_of_this_pc(api: Api, path: str) -> None:
    app = OwnNames(api, ())
    assert get(app, path, host="127.0.0.1:18000")[0] == 200
    assert get(app, path, host="rebound.example.com")[0] == 421


@pytest.mark.parametrize("path", ["/", "/debug/recent"])
def test_a_relay_with_a_key_shows_prices_to_who_has_it(store: Store, path: str) -> None:
    api = Api(store, load_settings(), key="open-sesame")
    status, _, headers = get(api, path)
    assert (status, headers[b"www-authenticate"][:5]) == (401, b"Basic")
    assert get(api, path, authorization="Basic eDp3cm9uZw==")[0] == 401  # x:wrong
    assert get(api, path, authorization="Basic eDpvcGVuLXNlc2FtZQ==")[0] == 200  # x:open-sesame
    assert get(api, path, x_api_key="open-sesame")[0] == 200
