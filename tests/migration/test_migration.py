"""docs/migration.md, step by step: nothing is lost, nothing counts twice."""

import asyncio
import hashlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from runtime.settings import Settings
from sink.db.schema import migrate
from tests.integration.relay.process import RelayProcess
from tests.migration import old_stack
from tests.services import Service, environment, running
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
SOURCE, KEY = "Broker-Demo", "the-older-key"

#: Ticks of an archive, of a queue, and those that come through the relay afterwards.
PART = 300


class Move:
    """The older stack, ours, and the steps from one to the other in the order of the page."""

    def __init__(self, settings: Settings, folder: Path, ticks: int, rows: int) -> None:
        # Step 2 is these settings: the key that the EA has, and the source that it is of.
        self.settings = settings.model_copy(update={"api_keys": {SOURCE: KEY}})
        self.database = settings.database_url.get_secret_value()
        self.folder, self.ticks, self.rows = folder, ticks, rows
        self.market = old_stack.Market(1_000 if ticks < 100_000 else 50)
        self.api = old_stack.LocalApi(folder / "ea.db")
        self.api.take(map(self.market.tick, range(ticks)))
        self.copy = folder / "copy" / "ea.db"
        self.producer: Service
        self.sink: Service
        self.relay: RelayProcess

    def copy_what_is_there(self) -> None:
        self.copy.parent.mkdir()
        shutil.copyfile(self.api.path, self.copy)
        archive = self.copy.parent / "PDC_outbound_20251020.jsonl"
        last = self.ticks + PART
        old_stack.write_archive(archive, map(self.market.tick, range(self.ticks - PART, last)))
        old_stack.write_queue(
            self.copy.parent / "queue",
            map(self.market.tick, range(last - PART // 2, last + PART)),
            "http://older:18001",
        )

    def start_beside_the_older_stack(self) -> None:
        assert self.producer.get("/ready").status_code == 200

    def bring_the_rows(self) -> None:
        said = self.tickpipe("import", "market-data", self.database, "--table", "older.market_data", *self.to_server)
        assert f"{self.rows:,} bars sent, {self.rows:,} accepted, 0 rejected" in said

    def bring_the_ticks(self) -> None:
        export = ("relay", "export", "--db", str(self.copy), "--api", self.producer.url, "--all", "--batch", "5000")
        assert f"{self.ticks:,} rows sent, 0 rejected" in self.tickpipe(*export)
        # Once more, from a newer copy: what is there already changes nothing.
        assert "0 rows sent" in self.tickpipe(*export)

    def put_the_relay_in_place_of_the_local_api(self) -> None:
        first = self.ticks + 2 * PART
        for start in range(first, first + PART, 50):
            old_stack.post(self.relay.url, KEY, [self.market.tick(number) for number in range(start, start + 50)])
        self.relay.wait_forwarded()

    def bring_archives_and_queue(self) -> None:
        # The torn last line is listed and costs itself.
        said = self.tickpipe("import", str(self.copy.parent), *self.to_server, code=1)
        assert f"{2 * PART:,} items sent, {2 * PART:,} accepted" in said
        assert "1 lines could not be used" in said

    def look_at_what_arrived(self) -> None:
        expected = self.market.candles(self.ticks + 3 * PART)
        wait_until(lambda: len(self.candles()) == len(expected) and self.candles() == expected, what="the candles")
        with psycopg.connect(self.database) as connection:
            equal = connection.execute(
                "SELECT count(*), count(b.ts), count(m.ts) FILTER (WHERE m.origin = 'broker') FROM older.market_data o"
                " LEFT JOIN broker_bars b USING (ts, symbol, timeframe, open, high, low, close, volume)"
                " LEFT JOIN market_data m USING (ts, symbol, timeframe)"
            ).fetchone()
            # The last ten are in minutes that have ticks.
            assert equal == (self.rows, self.rows, self.rows - 10)
            total = connection.execute("SELECT count(*) FROM broker_bars").fetchone()
            assert total == (self.rows,)
            for query in old_stack.QUERIES:
                assert connection.execute(query).fetchall()
        self.older_metrics_have_their_sources()

    def older_metrics_have_their_sources(self) -> None:
        # Ages are those of live ticks alone.
        live = int(time.time() * 1_000)
        old_stack.post(self.producer.url, KEY, [self.market.tick(0) | {"symbol": "GBPUSD", "ts_msc": live}])
        compat = (ROOT / "compose" / "prometheus" / "compat.yml").read_text()
        exposed = "".join(each.get("/metrics").text for each in (self.producer, self.sink, self.relay))
        names = {name for name in re.findall(r"\btickpipe_\w+", compat) if not name.startswith("tickpipe_dashboard_")}
        assert {name for name in names if not re.search(rf"^{name}\{{? ?", exposed, re.MULTILINE)} == set()

    def end_the_older_programs(self) -> None:
        # Until then they may run beside ours: the exporter sends what came long ago.
        old_stack.export(self.api, self.producer.url, KEY)
        before = self.candles()
        last = self.market.tick(self.ticks + 3 * PART)
        old_stack.post(self.relay.url, KEY, [last])
        self.relay.wait_forwarded()
        key = (last["symbol"], datetime.fromtimestamp(last["ts_msc"] // 60_000 * 60, UTC))
        candle = self.market.candles(self.ticks + 3 * PART + 1)[key]
        wait_until(lambda: self.candles().get(key) == candle, what="the candle of the last tick")
        assert self.candles() == before | {key: candle}

    def go_back(self) -> None:
        # The older programs find their file as they left it.
        self.api.take([self.market.tick(self.ticks)])
        with closing(sqlite3.connect(self.api.path)) as database:
            assert database.execute("SELECT count(*) FROM ticks").fetchone() == (self.ticks + 1,)

    @property
    def to_server(self) -> tuple[str, ...]:
        return ("--url", self.producer.url, "--key", KEY)

    def tickpipe(self, *arguments: str, code: int = 0) -> str:
        variables = environment(self.settings) | {
            "TICKPIPE_RELAY_FORWARD_KEY": KEY, "TICKPIPE_DATA_DIR": str(self.folder / "data"),
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "tickpipe", *arguments], capture_output=True, text=True, timeout=1_200, check=False,
            env=variables,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def candles(self) -> dict[tuple[str, datetime], tuple[Any, ...]]:
        query = (
            "SELECT symbol, ts, open, high, low, close, volume FROM market_data"
            " WHERE timeframe = 'M1' AND origin = 'ticks' AND source = %s AND symbol = ANY (%s)"
        )
        with psycopg.connect(self.database) as connection:
            rows = connection.execute(query, [SOURCE, list(old_stack.SYMBOLS)]).fetchall()
        return {(symbol, ts.astimezone(UTC)): tuple(values) for symbol, ts, *values in rows}


#: By the headings of the page, in its order.
STEPS = (
    Move.copy_what_is_there,
    Move.start_beside_the_older_stack,
    Move.bring_the_rows,
    Move.bring_the_ticks,
    Move.put_the_relay_in_place_of_the_local_api,
    Move.bring_archives_and_queue,
    Move.look_at_what_arrived,
    Move.end_the_older_programs,
    Move.go_back,
)


@pytest.fixture(
    params=[
        pytest.param((1_500, 2_000), id="small", marks=[pytest.mark.full, pytest.mark.long(30)]),
        pytest.param((1_000_000, 1_000_000), id="a million", marks=[pytest.mark.full, pytest.mark.timeout(3_600)]),
    ]
)
def move(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Iterator[Move]:
    ticks, rows = request.param
    asyncio.run(migrate(settings.database_url.get_secret_value()))
    old_stack.write_rows(settings.database_url.get_secret_value(), rows)
    move = Move(settings, tmp_path, ticks, rows)
    with running(move.settings, "producer", "stream_app", "sink") as (move.producer, _, move.sink):
        move.relay = RelayProcess(tmp_path / "relay.db", move.producer.url, key=KEY, environment=dict(os.environ))
        move.relay.start()
        yield move
        move.relay.close()


def test_every_step_of_the_page_holds(move: Move) -> None:
    file = hashlib.sha256(move.api.path.read_bytes()).hexdigest()

    for step in STEPS[:-1]:
        step(move)

    assert hashlib.sha256(move.api.path.read_bytes()).hexdigest() == file
    STEPS[-1](move)


@pytest.mark.parametrize("page", ["migration.md", "migration.pt-BR.md"])
def test_the_page_has_these_steps(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    assert [int(number) for number in re.findall(r"^### (\d+)\. ", text, re.MULTILINE)] == [*range(1, len(STEPS) + 1)]
