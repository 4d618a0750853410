"""The read API over a real database: a day in every form, pages, errors, access."""

import csv
import io
import math
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from dashboard.answers import Refusal
from dashboard.candles import BarStarts
from dashboard.catalogue import Catalogue
from dashboard.database import Database
from dashboard.hub import Hub
from marketdata.timeframes import TIMEFRAMES
from tests import plainhttp
from tests.days import EURUSD_COUNT, eurusd_bars
from tests.integration.dashboard.market import DAY_SOURCE, Market, day_candles
from tests.ports import free_port
from tests.services import Service, running

#: As docs/dashboard.md has them.
READ_TABLES = (
    "market_data",
    "candle_settings",
    "candle_hours",
    "candle_days",
    "stale_hours",
    "candle_series",
    "candles_m1",
    "senders",
    "instruments",
    "pending_refolds",
    "sink_progress",
    "broker_bars",
    "minute_ledger",
    "quote_sessions",
)

DAY = "symbol=EURUSD&source=S"


def _epoch_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def _pages(market: Market, query: str) -> list[list[dict[str, Any]]]:
    pages = []
    path = f"candles?{query}"
    while path:
        page = market.get(f"/{path}").json()
        pages.append(page["candles"])
        path = page["next"]
        assert len(pages) < 100
    return pages


def test_the_day_comes_out_as_its_bars(market: Market) -> None:
    answer = market.get(f"/candles?{DAY}&from=2019-02-04&to=2019-02-05&limit=2000").json()
    found = {_epoch_ms(c["ts"]): (c["open"], c["high"], c["low"], c["close"]) for c in answer["candles"]}
    assert found == eurusd_bars()
    assert sum(c["volume"] for c in answer["candles"]) == EURUSD_COUNT
    assert answer["next"] is None
    assert (answer["symbol"], answer["timeframe"], answer["candles"][0]["source"]) == ("EURUSD", "M1", DAY_SOURCE)


@pytest.mark.parametrize(("timeframe", "minutes"), [("M5", 5), ("M15", 15), ("M30", 30), ("H1", 60), ("H4", 240)])
def test_higher_timeframes_are_folds_of_minutes(market: Market, timeframe: str, minutes: int) -> None:
    expected: dict[int, tuple[float, float, float, float]] = {}
    for ts, (open_, high, low, close) in sorted(eurusd_bars().items()):
        start = ts - ts % (minutes * 60_000)
        so_far = expected.get(start, (open_, high, low, close))
        expected[start] = (so_far[0], max(so_far[1], high), min(so_far[2], low), close)

    found = market.get(f"/candles?{DAY}&timeframe={timeframe}&limit=2000").json()["candles"]

    assert {_epoch_ms(c["ts"]): (c["open"], c["high"], c["low"], c["close"]) for c in found} == expected


@pytest.mark.parametrize(("timeframe", "starts"), [("D1", "2019-02-04"), ("W1", "2019-02-03"), ("MN1", "2019-02-01")])
def test_a_day_is_one_bar_of_the_long_timeframes(market: Market, timeframe: str, starts: str) -> None:
    (bar,) = market.get(f"/candles?{DAY}&timeframe={timeframe}").json()["candles"]
    assert (bar["ts"], bar["volume"], bar["closed"]) == (f"{starts}T00:00:00Z", EURUSD_COUNT, True)


@pytest.mark.parametrize("timeframe", ["M1", "M5", "H1"])
@pytest.mark.parametrize("direction", ["&from=1970-01-01", ""])
def test_pages_join_without_gap_or_overlap(market: Market, timeframe: str, direction: str) -> None:
    whole = market.get(f"/candles?{DAY}&timeframe={timeframe}&limit=2000").json()["candles"]

    pages = _pages(market, f"{DAY}&timeframe={timeframe}&limit={len(whole) // 7 + 1}{direction}")

    assert len(pages) >= 7
    ordered = pages if direction else pages[::-1]
    assert [candle for page in ordered for candle in page] == whole
    assert all(a["ts"] < b["ts"] for a, b in pairwise(whole))


def test_stretch_of_time_is_half_open(market: Market) -> None:
    query = f"/candles?{DAY}&timeframe=M5&from=2019-02-04T10:02&to=2019-02-04T10:15"
    # Bars that begin in it: 10:00 began before, 10:15 is not included.
    assert [c["ts"][11:16] for c in market.get(query).json()["candles"]] == ["10:05", "10:10"]


def test_csv_and_arrow_say_the_same_as_json(market: Market) -> None:
    import pyarrow as pa  # noqa: PLC0415 - slow to load

    query = f"/candles?{DAY}&timeframe=H1"
    candles = market.get(query).json()["candles"]
    text = market.get(f"{query}&format=csv").text
    arrow = market.get(query, accept="application/vnd.apache.arrow.stream")
    table = pa.ipc.open_stream(io.BytesIO(arrow.content)).read_all()

    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(r["ts"], float(r["close"]), int(r["volume"]), r["closed"]) for r in rows] == [
        (c["ts"], c["close"], c["volume"], "true") for c in candles
    ]
    assert {row["timeframe"] for row in rows} == {"H1"}
    assert arrow.headers["content-type"] == "application/vnd.apache.arrow.stream"
    assert [row["ts"] for row in table.to_pylist()] == [datetime.fromisoformat(c["ts"]) for c in candles]
    assert table.column("close").to_pylist() == [c["close"] for c in candles]
    assert table.schema.metadata == {b"symbol": b"EURUSD", b"timeframe": b"H1"}


@pytest.mark.parametrize("direction", ["&from=1970-01-01", ""])
def test_minutes_come_with_their_proof(market: Market, direction: str) -> None:
    whole = market.get(f"/candles?{DAY}&limit=2000").json()["candles"]
    # The offsets that the candles were published with.
    folded = {candle.ts: candle for candle in day_candles(market.flow.own_log)}

    pages = _pages(market, f"{DAY}&proof=true&limit=400{direction}")

    proven = [candle for page in (pages if direction else pages[::-1]) for candle in page]
    assert [(_epoch_ms(c["ts"]), c["log"], c["offsets"]) for c in proven] == [
        (ts, candle.log, [list(each) for each in candle.offsets]) for ts, candle in sorted(folded.items())
    ]
    assert [{name: c[name] for name in whole[0]} for c in proven] == whole


def test_nothing_is_an_answer_too(market: Market) -> None:
    import pyarrow as pa  # noqa: PLC0415 - slow to load

    assert market.get("/candles?symbol=NONE").json()["candles"] == []
    assert market.get("/candles?symbol=NONE&timeframe=M5&from=2019-01-01").json()["next"] is None
    assert len(market.get("/candles?symbol=NONE&format=csv").text.splitlines()) == 1
    arrow = market.get("/candles?symbol=NONE&format=arrow").content
    assert pa.ipc.open_stream(io.BytesIO(arrow)).read_all().num_rows == 0


def test_symbols_are_listed_with_their_stretch_of_time(market: Market) -> None:
    listing = next(s for s in market.get("/symbols").json()["symbols"] if s["symbol"] == "EURUSD")
    close = eurusd_bars()[max(eurusd_bars())][3]
    assert (listing["source"], listing["close"], listing["last_tick"][:16]) == (DAY_SOURCE, close, "2019-02-04T23:59")
    assert (listing["first"], listing["last"]) == ("2019-02-04T00:00:00Z", "2019-02-04T23:59:00Z")


@pytest.mark.parametrize(
    ("path", "status", "code", "cure"),
    [
        ("/candles", 400, "INVALID_PARAMETER", "symbol: Field required"),
        ("/candles?symbol=EURUSD&timeframe=M2", 400, "INVALID_PARAMETER", "use one of M1, M5"),
        ("/candles?symbol=EURUSD&from=soon", 400, "INVALID_PARAMETER", "use 2019-02-04"),
        ("/candles?symbol=EURUSD&limit=many", 400, "INVALID_PARAMETER", "limit"),
        ("/candles?symbol=EURUSD&limit=20001", 400, "INVALID_PARAMETER", "limit"),
        ("/candles?symbol=EURUSD&format=xml", 400, "INVALID_PARAMETER", "json, csv, arrow"),
        ("/candles?symbol=EURUSD&proof=true&timeframe=H1", 400, "INVALID_PARAMETER", "only M1 is folded from the log"),
        ("/candles?symbol=EURUSD&proof=true&format=csv", 400, "INVALID_PARAMETER", "use format=json"),
        ("/candles?symbol=EURUSD&form=2019-02-04", 400, "INVALID_PARAMETER", "form: no such parameter; use before, "),
        ("/candles?symbol=EURUSD&symbol=GBPUSD", 400, "INVALID_PARAMETER", "symbol: given more than once"),
        ("/symbols?source=S", 400, "INVALID_PARAMETER", "source: no such parameter; use after, limit, search"),
        ("/stream?symbol=EURUSD&since=1&since=2", 400, "INVALID_PARAMETER", "since: given more than once"),
        ("/stream?symbol=", 400, "INVALID_PARAMETER", "at least 1 character"),
        ("/stream?timeframe=M2", 400, "INVALID_PARAMETER", "use one of M1, M5"),
        ("/candles/noon/proof?symbol=EURUSD", 400, "INVALID_PARAMETER", "ts: 'noon' is no time"),
        ("/candles/2001-01-01/proof?symbol=EURUSD", 404, "NO_CANDLE", "no M1 of EURUSD at 2001-01-01 00:00 UTC"),
        ("/candles/2019-02-04/proof?symbol=EURUSD&timeframe=W1&verify=1", 400, "INVALID_PARAMETER", "at most a day"),
        ("/compared?symbol=EURUSD", 400, "INVALID_PARAMETER", "from: say from when on"),
        ("/nothing", 404, "NOT_FOUND", "Not Found"),
    ],
)
def test_error_tells_the_cure(market: Market, path: str, status: int, code: str, cure: str) -> None:
    answer = market.get(path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert cure in answer.json()["error"]


def test_nothing_can_be_written(market: Market) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert httpx.request(method, f"{market.url}/candles?symbol=EURUSD").status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        f"/candles?{DAY}&limit=5",
        "/symbols",
        "/senders",
        "/gaps?symbol=EURUSD&from=2019-02-04&to=2019-02-05",
        "/pipeline",
        "/health",
        "/ready",
        "/metrics",
        "/openapi.json",
        "/vendor/lightweight-charts.js",
        "/js/main.js",
    ],
)
def test_head_answers_as_get_without_the_content(market: Market, path: str) -> None:
    got, head = market.get(path), plainhttp.head(market.url + path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    if "etag" in got.headers and path != "/symbols":
        assert head.headers["etag"] == got.headers["etag"]


def test_head_of_a_stream_is_an_answer_without_a_stream(market: Market) -> None:
    head = plainhttp.head(f"{market.url}/stream?symbol=EURUSD")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"].startswith("text/event-stream")
    assert plainhttp.head(f"{market.url}/stream?timeframe=M2").status_code == 400


def test_what_the_client_has_is_not_sent_again(market: Market) -> None:
    for path in (f"/candles?{DAY}", "/js/main.js", "/vendor/lightweight-charts.js"):
        first = market.get(path)
        again = market.get(path, if_none_match=first.headers["etag"])
        assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
    assert market.get(f"/candles?{DAY}&limit=9", if_none_match=first.headers["etag"]).status_code == 200


@pytest.mark.parametrize("path", [f"/candles?{DAY}", "/vendor/lightweight-charts.js", "/js/main.js"])
def test_weak_and_strong_tags_name_the_same_content(market: Market, path: str) -> None:
    """RFC 9110 compares those of If-None-Match weakly; proxies weaken tags, and some clients cut the W/."""
    tag = market.get(path).headers["etag"].removeprefix("W/")
    for held in (tag, f"W/{tag}", f'"other", W/{tag}', "*"):
        assert market.get(path, if_none_match=held).status_code == 304
    assert market.get(path, if_none_match='"other"').status_code == 200


def test_answers_are_compressed_for_those_who_take_it(market: Market) -> None:
    query = f"/candles?{DAY}&limit=1440"
    assert market.get(query, accept_encoding="gzip").headers["content-encoding"] == "gzip"
    assert "content-encoding" not in market.get(query, accept_encoding="identity").headers


def test_page_may_load_nothing_from_elsewhere(market: Market) -> None:
    for path in ("/", "/candles?symbol=EURUSD", "/nothing"):
        policy = market.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert market.get(path).headers["x-content-type-options"] == "nosniff"


def test_api_is_documented(market: Market) -> None:
    document = market.get("/openapi.json").json()
    assert {"/candles", "/symbols", "/stream", "/pipeline", "/health", "/ready", "/metrics"} <= set(document["paths"])
    assert "422" not in str(document)
    assert all(set(operations) == {"get"} for operations in document["paths"].values())
    assert set(document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]) == {"text/plain"}
    names = {parameter["name"] for parameter in document["paths"]["/candles"]["get"]["parameters"]}
    assert names == {"symbol", "timeframe", "source", "from", "to", "before", "limit", "proof", "format"}


def test_what_is_done_is_counted(market: Market) -> None:
    before = market.dashboard.metric("tickpipe_dashboard_query_seconds_count")
    market.get(f"/candles?{DAY}")
    assert market.dashboard.metric("tickpipe_dashboard_query_seconds_count") == before + 1
    assert market.dashboard.metric("tickpipe_dashboard_kafka_up") == 1


def test_password_guards_everything_but_the_probes(market: Market) -> None:
    guarded = market.settings.model_copy(
        update={"dashboard_password": SecretStr("pass: wörd"), "dashboard_port": free_port()}
    )
    with running(guarded, "dashboard") as (dashboard,):
        for path in ("/", "/candles?symbol=EURUSD", "/symbols", "/stream", "/openapi.json", "/js/main.js"):
            refused = plainhttp.get(dashboard.url + path)
            assert (refused.status_code, refused.json()["code"]) == (401, "UNAUTHORIZED")
            assert refused.headers["www-authenticate"].startswith("Basic")
        for wrong in ("pass", "", "pass: word"):
            assert plainhttp.get(dashboard.url, auth=("any", wrong)).status_code == 401
        assert plainhttp.get(dashboard.url, headers={"Authorization": "Basic !"}).status_code == 401
        assert plainhttp.get(dashboard.url, auth=("anybody", "pass: wörd")).status_code == 200
        for path in ("/health", "/ready", "/metrics"):
            assert plainhttp.get(dashboard.url + path).status_code == 200


def test_without_a_database_it_lives_and_says_so(market: Market) -> None:
    away = f"postgresql://postgres@127.0.0.1:{free_port()}/none"
    lost = market.settings.model_copy(update={"dashboard_database_url": SecretStr(away), "dashboard_port": free_port()})
    service = Service("dashboard", lost).start()
    try:
        service.wait_alive()
        answer = plainhttp.get(f"{service.url}/candles?symbol=EURUSD")
        assert (answer.status_code, answer.json()["code"]) == (503, "DATABASE_UNAVAILABLE")
        assert "TICKPIPE_DASHBOARD_DATABASE_URL" in answer.json()["error"]
        assert plainhttp.get(f"{service.url}/ready").json()["checks"]["database"] is False
        assert plainhttp.get(f"{service.url}/").status_code == 200
    finally:
        service.kill()


def test_database_that_was_not_prepared_is_named(market: Market) -> None:
    empty = market.settings.database_url.get_secret_value().rpartition("/")[0] + "/template1"
    service = Service(
        "dashboard",
        market.settings.model_copy(update={"dashboard_database_url": SecretStr(empty), "dashboard_port": free_port()}),
    ).start()
    try:
        service.wait_alive()
        answer = plainhttp.get(f"{service.url}/candles?symbol=EURUSD")
        assert (answer.status_code, answer.json()["code"]) == (503, "DATABASE_NOT_PREPARED")
        assert "tickpipe db migrate" in answer.json()["error"]
    finally:
        service.kill()


async def test_sessions_are_read_only_whatever_the_role_may_do(market: Market) -> None:
    database = Database(market.settings)
    await database.open()
    try:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            async with database.reading() as connection:
                await connection.execute("DELETE FROM market_data")
    finally:
        await database.close()


async def test_database_whose_connections_are_all_in_use_is_busy_and_not_away(market: Market) -> None:
    database = Database(market.settings)
    await database.open()
    try:
        async with AsyncExitStack() as stack:
            for _ in range(8):
                await stack.enter_async_context(database.reading(20))
            with pytest.raises(Refusal) as refused:
                async with database.reading(0.2):
                    pass
            assert (refused.value.status, refused.value.code) == (503, "DATABASE_BUSY")
            assert await database.answers() is True
        assert await database.answers() is True
    finally:
        await database.close()


async def count_impatiently(database: Database) -> None:
    """Read the table of candles, and wait 0.1 s for a lock on it."""
    async with database.reading() as connection:
        await connection.execute("SET LOCAL lock_timeout = '100ms'")
        await connection.execute("SELECT count(*) FROM market_data")


async def test_locked_table_is_busy_and_not_away(market: Market) -> None:
    owner = market.settings.database_url.get_secret_value()
    database = Database(market.settings)
    await database.open()
    try:
        with psycopg.connect(owner) as other:
            other.execute("LOCK TABLE market_data IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(Refusal) as refused:
                await count_impatiently(database)
            assert (refused.value.status, refused.value.code) == (503, "DATABASE_BUSY")
            assert await database.answers() is True
            other.rollback()
    finally:
        await database.close()


def test_role_with_the_documented_grants_suffices(market: Market) -> None:
    role = f"viewer_{free_port()}"
    owner = market.settings.database_url.get_secret_value()
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'viewer'").format(sql.Identifier(role)))
    viewer = psycopg.conninfo.make_conninfo(owner, user=role, password="viewer")  # noqa: S106 - of this test alone
    port = free_port()
    settings = market.settings.model_copy(update={"dashboard_database_url": SecretStr(viewer), "dashboard_port": port})
    service = Service("dashboard", settings).start()
    try:
        service.wait_alive()
        refused = plainhttp.get(f"{service.url}/candles?{DAY}")
        assert (refused.status_code, refused.json()["code"]) == (503, "DATABASE_FORBIDS")
        with psycopg.connect(owner, autocommit=True) as connection:
            for table in READ_TABLES:
                grant = sql.SQL("GRANT SELECT ON {} TO {}")
                connection.execute(grant.format(sql.Identifier(table), sql.Identifier(role)))
        for timeframe in ("M1", "M5", "H1", "D1", "MN1"):
            answer = plainhttp.get(f"{service.url}/candles?{DAY}&timeframe={timeframe}&limit=1")
            assert (answer.status_code, len(answer.json()["candles"])) == (200, 1)
        for path in ("symbols", f"candles/2019-02-04/proof?{DAY}", f"compared?{DAY}&from=2019-02-04"):
            assert plainhttp.get(f"{service.url}/{path}").status_code == 200, path
    finally:
        service.kill()
        with psycopg.connect(owner, autocommit=True) as connection:
            for statement in ("DROP OWNED BY {}", "DROP ROLE {}"):
                connection.execute(sql.SQL(statement).format(sql.Identifier(role)))


async def test_bars_of_live_candles_begin_where_those_of_the_database_do(market: Market) -> None:
    owner = market.settings.database_url.get_secret_value()
    expected = {}
    found: dict[str, set[str]] = {}
    try:
        with psycopg.connect(owner, autocommit=True) as connection:
            connection.execute("SELECT set_candle_day('America/New_York', '17:00')")
        database = Database(market.settings)
        await database.open()
        starts = BarStarts(database)
        for timeframe in TIMEFRAMES:
            listed = market.get(f"/candles?{DAY}&timeframe={timeframe}&limit=2000").json()["candles"]
            expected[timeframe] = {candle["ts"] for candle in listed}
            bars = {await starts.of(timeframe, ts) for ts in eurusd_bars()}
            found[timeframe] = {
                f"{datetime.fromtimestamp(bar.starts / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}" for bar in bars if bar
            }
        catalogue = Catalogue(database, Hub())
        await catalogue.listings()
        await database.close()
    finally:
        with psycopg.connect(owner, autocommit=True) as connection:
            connection.execute("SELECT set_candle_day('UTC')")
    assert found == expected
    # The day of foreign exchange: 22:00 UTC in winter. Our day holds the end of one and the start of the next.
    assert expected["D1"] == {"2019-02-03T22:00:00Z", "2019-02-04T22:00:00Z"}
    # On a clock that is seven hours later than New York's, such days begin at 0:00.
    assert catalogue.day == ("America/New_York", 7 * 3_600_000)


async def test_without_a_database_nobody_knows_where_a_bar_begins(market: Market) -> None:
    database = Database(market.settings)
    starts = BarStarts(database)
    assert await starts.of("M1", 60_001) == (60_000, 120_000, math.inf)
    # The pool was not opened.
    assert await starts.of("H1", 60_000) is None
