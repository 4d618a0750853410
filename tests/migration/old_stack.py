"""An older collection stack, built from its described contracts.

An EA, the local API that stores in `ea.db`, the exporter, the EA's archives, an edge relay's queue, and PostgreSQL.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psycopg

SYMBOLS = ("EURUSD", "XAUUSD")
FIRST_MSC = 1_760_926_800_000
AGENT = "DataCollectorPRO/PDC/1.65 (Account:12345; Server:Broker-Demo; Build:3850; Symbols:28; trace_id:0f3a9c)"

#: What the older dashboards ask for.
QUERIES = (
    "SELECT ts, symbol, timeframe, open, high, low, close, volume FROM market_data ORDER BY ts DESC LIMIT 20",
    "SELECT symbol, count(*), max(ts) FROM market_data GROUP BY symbol",
    "SELECT symbol, max(ts), extract(epoch FROM now() - max(ts)) / 60 FROM market_data GROUP BY symbol",
    "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'market_data'",
    "SELECT symbol, min(ts), max(ts), count(*) FROM market_data WHERE timeframe = 'M1' GROUP BY symbol ORDER BY 1",
)

_TICKS = """CREATE TABLE ticks (
 id INTEGER PRIMARY KEY AUTOINCREMENT, symbol TEXT NOT NULL, ts_ms INTEGER NOT NULL, timeframe TEXT,
 open REAL, high REAL, low REAL, close REAL, volume REAL, kind TEXT, meta TEXT,
 created_at TEXT DEFAULT CURRENT_TIMESTAMP, UNIQUE(symbol, ts_ms))"""

#: M1 bars from 2019 on, one a minute of either symbol in turn. The last ten are in minutes of which there are ticks.
_ROWS = """
CREATE SCHEMA older;
CREATE TABLE older.market_data (ts timestamptz NOT NULL, symbol text NOT NULL, timeframe text NOT NULL,
    open double precision, high double precision, low double precision, close double precision, volume bigint,
    PRIMARY KEY (symbol, timeframe, ts));
INSERT INTO older.market_data
SELECT CASE WHEN n > {rows} - 10 THEN to_timestamp({first}) + (n + 10 - {rows}) / 2 * interval '1 minute'
            ELSE timestamptz '2019-02-04 00:00+00' + n * interval '1 minute' END,
    CASE n % 2 WHEN 0 THEN 'EURUSD' ELSE 'XAUUSD' END, 'M1', 1.1 + n % 100 / 1e4, 1.2 + n % 100 / 1e4, 1.0, 1.15,
    1 + n % 50
FROM generate_series(1, {rows}) n
"""


class Market(NamedTuple):
    """Numbered ticks, one every `step_ms` of either symbol in turn."""

    step_ms: int

    def tick(self, number: int) -> dict[str, Any]:
        """As the EA posts it."""
        time_msc = FIRST_MSC + number * self.step_ms
        bid = round(1.16 + number * 7919 % 500 / 1e5, 5)
        return {
            "ts": datetime.fromtimestamp(time_msc // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "symbol": SYMBOLS[number % 2], "bid": bid, "ask": round(bid + 0.00006, 5), "last": 0.0, "volume": 0,
            "flags": 6, "ts_msc": time_msc, "digits": 5, "point": 0.00001, "spread": 0.00006,
            "meta": {"ea": "PDC", "ver": "1.65", "src": "tick", "acct": 12345, "srv": "Broker-Demo", "build": 3850},
        }  # fmt: skip

    def candles(self, count: int) -> dict[tuple[str, datetime], tuple[float, float, float, float, int]]:
        """What the first ticks make, each counted once: open, high, low, close, ticks."""
        prices: dict[tuple[str, datetime], list[float]] = {}
        for number in range(count):
            tick = self.tick(number)
            minute = datetime.fromtimestamp(tick["ts_msc"] // 60_000 * 60, UTC)
            prices.setdefault((tick["symbol"], minute), []).append(tick["bid"])
        return {key: (of[0], max(of), min(of), of[-1], len(of)) for key, of in prices.items()}


class LocalApi:
    """The API on the trading PC: it stores each tick in `ea.db`, of one symbol and millisecond the first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(_TICKS)

    def take(self, ticks: Iterable[dict[str, Any]]) -> None:
        """Store what an EA posted."""
        insert = (
            "INSERT OR IGNORE INTO ticks (symbol, ts_ms, timeframe, open, high, low, close, volume, kind, meta)"
            " VALUES (?, ?, 'tick', ?, ?, ?, ?, ?, 'tick', ?)"
        )
        with closing(sqlite3.connect(self.path)) as database, database:
            database.executemany(
                insert,
                (
                    (t["symbol"], t["ts_msc"], t["bid"], t["ask"], t["bid"], t["last"], t["volume"], json.dumps(t))
                    for t in ticks
                ),
            )

    def newest(self, limit: int) -> list[dict[str, Any]]:
        """What the exporter posts: the newest rows, oldest first."""
        names = ("symbol", "ts", "timeframe", "open", "high", "low", "close", "volume", "kind", "meta")
        query = (
            "SELECT symbol, ts_ms, timeframe, open, high, low, close, volume, kind, meta FROM"
            " (SELECT * FROM ticks ORDER BY id DESC LIMIT ?) ORDER BY id"
        )
        with closing(sqlite3.connect(self.path)) as database:
            rows = [dict(zip(names, row, strict=True)) for row in database.execute(query, (limit,))]
        return [row | {"meta": json.loads(row["meta"])} for row in rows]


def export(api: LocalApi, url: str, key: str, limit: int = 200) -> None:
    """One run of the exporter."""
    answer = httpx.post(
        f"{url}/ingest/tick", json=api.newest(limit), headers={"Authorization": f"Bearer {key}"}, timeout=60
    )
    answer.raise_for_status()


def post(url: str, key: str, ticks: list[dict[str, Any]]) -> None:
    """What the EA does with a batch."""
    headers = {"X-API-Key": key, "User-Agent": AGENT}
    httpx.post(f"{url}/ingest/tick", json={"ticks": ticks}, headers=headers, timeout=60).raise_for_status()


def write_archive(path: Path, ticks: Iterable[dict[str, Any]]) -> None:
    """`PDC_outbound_YYYYMMDD.jsonl`, the last line torn by the end of the terminal."""
    with path.open("w", encoding="utf-8-sig") as file:
        for group in _groups(ticks, 20):
            request = {"ts": group[-1]["ts"], "kind": "tick", "body": json.dumps({"ticks": group})}
            file.write(json.dumps(request) + "\n")
        file.write('{"ts":"2025-10-20T02:')


def write_queue(folder: Path, ticks: Iterable[dict[str, Any]], url: str) -> None:
    """`queue/*.json` of an edge relay whose server is away."""
    folder.mkdir()
    for number, group in enumerate(_groups(ticks, 50)):
        request = {"url": f"{url}/ingest/tick", "payload": {"ticks": group}, "headers": {"User-Agent": AGENT}}
        (folder / f"{number:08d}.json").write_text(json.dumps(request))


def write_rows(url: str, rows: int) -> None:
    """Its table, in a schema of its own."""
    with psycopg.connect(url) as connection:
        connection.execute(_ROWS.format(rows=rows, first=FIRST_MSC // 1000))


def _groups(ticks: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    for tick in ticks:
        group.append(tick)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
