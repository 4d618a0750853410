"""`tickpipe relay export` and `forward` as users and the Task Scheduler run them."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relay.store import Store
from tests import preloaded
from tests.scripted import Answer, ScriptedServer
from tests.unit.relay.rows import BASE, put, tick
from tests.unit.relay.test_database import OLD
from tests.waiting import wait_until


def environment() -> dict[str, str]:
    return {**os.environ, "TICKPIPE_RELAY_FORWARD_KEY": "key"}


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tickpipe", "relay", name, *arguments]


def export(db: Path, server: ScriptedServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = ["tickpipe", "relay", "export", "--db", str(db), "--api", server.url, *arguments]
    return preloaded.run(words, environment=environment())


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """500 ticks of 50 requests, over ten minutes."""
    path = tmp_path / "ea.db"

    async def fill() -> None:
        with Store(path) as store:
            for start in range(0, 500, 10):
                await put(store, *(tick(n * 1_200 + 1, bid=1 + n / 1000, n=n) for n in range(start, start + 10)))

    asyncio.run(fill())
    return path


def numbers(server: ScriptedServer) -> list[int]:
    return [item["n"] for item in server.taken]


def test_the_newest_rows_are_sent_by_default(db: Path, server: ScriptedServer) -> None:
    ended = export(db, server, "--token", "mine", "--limit", "30", "--batch", "20")
    assert (ended.returncode, ended.stdout) == (0, "30 rows sent, 0 rejected\n"), ended.stderr
    assert numbers(server) == list(range(470, 500))
    assert server.requests[0].headers["Authorization"] == "Bearer mine"
    assert len(server.requests) == 2
    assert export(db, server).stdout == "200 rows sent, 0 rejected\n"


def test_since_minutes_has_no_limit_of_its_own(db: Path, server: ScriptedServer) -> None:
    with closing(sqlite3.connect(db)) as connection, connection:
        connection.execute("UPDATE ticks SET created_at = '2020-01-01 00:00:00' WHERE id <= 50")
    ended = export(db, server, "--since-minutes", "5", "--page-size", "100", "--batch", "60")
    assert (ended.returncode, ended.stdout) == (0, "450 rows sent, 0 rejected\n"), ended.stderr
    assert numbers(server) == list(range(50, 500))
    assert export(db, server, "--since-minutes", "5", "--limit", "30").stdout == "30 rows sent, 0 rejected\n"
    assert numbers(server)[-30:] == list(range(470, 500))


@pytest.mark.parametrize("route", ["/ingest", "/ingest/tick", "/Ingest/Tick/"])
def test_the_address_and_the_flags_of_older_scripts_are_taken(db: Path, server: ScriptedServer, route: str) -> None:
    server.url += route
    ended = export(db, server, "--all", "--wrap-items", "--fallback-aggregate-on-404")
    assert (ended.returncode, ended.stdout) == (0, "500 rows sent, 0 rejected\n"), ended.stderr
    assert {request.path for request in server.requests} == {"/ingest/tick"}
    assert numbers(server) == list(range(500))


def test_flags_that_contradict_each_other_are_wrong_use(db: Path, server: ScriptedServer) -> None:
    ended = export(db, server, "--aggregate-to", "none", "--fallback-aggregate-on-404")
    assert ended.returncode == 2
    assert "contradict" in ended.stderr
    assert server.requests == []


def test_a_dry_run_sends_nothing(db: Path, server: ScriptedServer) -> None:
    ended = export(db, server, "--all", "--dry-run")
    assert (ended.returncode, ended.stdout) == (0, f"500 rows would be sent to {server.url}/ingest/tick\n")
    assert server.requests == []


def test_a_run_that_was_stopped_goes_on_where_it_was(db: Path, server: ScriptedServer) -> None:
    server.answers = [Answer(200), Answer(200), *[Answer(401, {"error": "no", "code": "UNAUTHORIZED"})] * 3]
    ended = export(db, server, "--all", "--page-size", "300")
    assert ended.returncode != 0
    assert "--token" in ended.stderr
    assert len(server.taken) > 200
    assert export(db, server, "--all").returncode == 0
    assert numbers(server) == list(range(500))
    assert export(db, server, "--all").stdout == "0 rows sent, 0 rejected\n"
    assert export(db, server, "--all", "--from-start").stdout == "500 rows sent, 0 rejected\n"


def test_bars_are_sent_to_a_server_that_knows_no_ticks(db: Path, server: ScriptedServer) -> None:
    server.missing = {"/ingest/tick"}
    assert export(db, server, "--all", "--aggregate-to", "none").returncode == 1
    ended = export(db, server, "--all")
    assert (ended.returncode, ended.stdout) == (0, "10 bars sent, 0 rejected\n")
    assert "404" in ended.stderr
    # 50 ticks of 1.2 s are a minute.
    assert [(bar["ts"] - BASE, bar["open"], bar["close"], bar["volume"]) for bar in server.taken] == [
        (n * 60_000, 1 + 50 * n / 1000, 1 + (50 * n + 49) / 1000, 50) for n in range(10)
    ]
    assert {request.path for request in server.requests if request.status == 200} == {"/ingest"}


@pytest.mark.parametrize("count", [8_000, pytest.param(100_000, marks=pytest.mark.full)])
def test_an_old_file_is_exported_completely(tmp_path: Path, server: ScriptedServer, count: int) -> None:
    path = tmp_path / "old.db"
    rows = fill_old_file(path, count)
    ended = export(path, server, "--all", "--batch", str(count // 20))
    assert (ended.returncode, ended.stdout) == (0, f"{count:,} rows sent, 0 rejected\n"), ended.stderr

    by_symbol: dict[str, list[dict[str, object]]] = {symbol: [] for symbol in OLD_SYMBOLS}
    for item in server.taken:
        by_symbol[item["symbol"]].append(item)
    for symbol, items in by_symbol.items():
        assert items == [exported(row) for row in rows if row[1] == symbol]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT id, symbol, ts_ms FROM ticks ORDER BY id").fetchall() == [r[:3] for r in rows]


OLD_SYMBOLS = ("EURUSD", "GBPUSD", "USDJPY", "XAUUSD", "US500")

OldRow = tuple[int, str, int, float, float, str | None]


def fill_old_file(path: Path, count: int) -> list[OldRow]:
    """An `ea.db` of the older program: one tick a symbol and second, gaps between ids, originals in half of them."""
    rows: list[OldRow] = []
    for n in range(count):
        symbol, ts_ms, bid = OLD_SYMBOLS[n % len(OLD_SYMBOLS)], BASE + n // len(OLD_SYMBOLS) * 1000, 1 + n / 1e6
        # DataCollectorRebuild's tick has a time of whole seconds only.
        ts = datetime.fromtimestamp(ts_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        original = {"ts": ts, "symbol": symbol, "bid": bid, "ask": bid + 0.0001, "last": 0.0, "flags": 1030}
        rows.append((2 * n + 5, symbol, ts_ms, bid, bid + 0.0001, json.dumps(original) if n % 2 else None))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(OLD)
        connection.executemany(
            "INSERT INTO ticks (id, symbol, ts_ms, timeframe, open, high, low, close, volume, kind, meta)"
            " VALUES (?1, ?2, ?3, 'tick', ?4, ?5, ?4, 0, 0, 'tick', ?6)",
            rows,
        )
    return rows


def exported(row: OldRow) -> dict[str, object]:
    """What the server gets: the original where there is one, else the row in the exporter's words."""
    _, symbol, ts_ms, bid, ask, meta = row
    if meta is not None:
        original: dict[str, object] = json.loads(meta)
        return original
    return {
        "symbol": symbol, "ts": ts_ms, "timeframe": "tick", "open": bid, "high": ask, "low": bid, "close": 0.0,
        "volume": 0.0, "kind": "tick",
    }  # fmt: skip


def test_forward_looks_again_and_again(db: Path, server: ScriptedServer) -> None:
    with subprocess.Popen(
        command("forward", "--db", str(db), "--to", server.url, "--every", "0.2s"),
        env=environment(),
    ) as process:
        try:
            wait_until(lambda: len(server.taken) >= 500, what="500 rows")
            with Store(db) as store:
                asyncio.run(put(store, tick(10_000_000, n=500)))
            wait_until(lambda: len(server.taken) >= 501, what="one more row")
        finally:
            process.kill()
    assert numbers(server) == list(range(501))
