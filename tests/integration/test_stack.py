"""What a user does, by the command line alone: start the stack, send, look, verify, break it, stop it."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from runtime import clock
from tests import plainhttp
from tests.days import EURUSD_COUNT, GENERATED, eurusd_bars
from tests.ports import free_port


class Stack:
    """The command line on one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.producer_port = free_port()

    def run(self, *arguments: str, expect: int = 0, timeout_seconds: float = 120) -> str:
        """Standard output of `tickpipe ARGUMENTS`, whose exit code must be the expected one."""
        done = subprocess.run(
            [sys.executable, "-m", "tickpipe", *arguments, "--data-dir", str(self.data_dir)],
            capture_output=True, text=True, timeout=timeout_seconds, check=False,
        )  # fmt: skip
        assert done.returncode == expect, f"{arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def up(self) -> str:
        return self.run("up", "--detach", "--producer-port", str(self.producer_port))

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.run("status", "--json"))
        return status

    def pid(self, name: str) -> int:
        return next(int(service["pid"]) for service in self.status()["services"] if service["name"] == name)

    def candles(self, *arguments: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.run("candles", *arguments, "--format", "csv"))))

    def settle(self, within_seconds: float = 60) -> None:
        """Wait until nothing lags."""
        deadline = time.monotonic() + within_seconds
        while (lag := self.status()["lag"]) != {"stream": 0, "sink": 0}:
            assert time.monotonic() < deadline, lag
            time.sleep(0.5)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stack") / "data")
    started = stack.up()
    try:
        assert "curl" in started
        yield stack
    finally:
        stack.run("down")
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(stack.data_dir) in " ".join(p.info["cmdline"] or [])]


@pytest.fixture(scope="module")
def ticks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The day as a file."""
    return GENERATED.write_ticks(tmp_path_factory.mktemp("ticks") / "ticks.csv.gz")


def test_a_day_goes_in_and_comes_out(stack: Stack, ticks: Path) -> None:
    said = stack.run("send", str(ticks), "--symbol", "EURUSD", "--source", "Dukascopy")
    assert f"{EURUSD_COUNT:,}" in said
    stack.settle()

    rows = stack.candles("--symbol", "EURUSD", "--from", "2019-02-04", "--to", "2019-02-05")
    assert list(rows[0]) == ["ts", "symbol", "timeframe", "open", "high", "low", "close", "volume"]
    assert rows[0]["ts"] == "2019-02-04T00:00:00Z"
    ohlc = [(float(row["open"]), float(row["high"]), float(row["low"]), float(row["close"])) for row in rows]
    assert ohlc == list(eurusd_bars().values())
    assert sum(int(row["volume"]) for row in rows) == EURUSD_COUNT
    stack.run("verify", "--symbol", "EURUSD")


def test_a_sparse_file_of_another_form_goes_in_and_comes_out(stack: Stack, tmp_path: Path) -> None:
    sparse = GENERATED.write_sparse(tmp_path / "usdjpy.csv")
    stack.run("send", str(sparse), "--symbol", "USDJPY", "--source", "Sparse")
    stack.settle()

    rows = stack.candles("--symbol", "USDJPY", "--from", "2013-01-01", "--to", "2013-01-03")
    assert [int(row["volume"]) for row in rows] == list(GENERATED.sparse_minutes.values())
    report = json.loads(stack.run("verify", "--symbol", "USDJPY", "--json"))
    assert report["checked"] == len(rows)


@pytest.mark.fault
def test_what_dies_is_started_again_and_what_was_sent_is_whole(stack: Stack, ticks: Path) -> None:
    sending = subprocess.Popen(
        [sys.executable, "-m", "tickpipe", "send", str(ticks), "--symbol", "EURUSD", "--source", "Twice",
         "--data-dir", str(stack.data_dir)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    time.sleep(2)
    for name in ("stream", "sink", "producer"):
        os.kill(stack.pid(name), signal.SIGKILL)
    assert sending.wait(120) == 0
    stack.settle()

    status = {service["name"]: service for service in stack.status()["services"]}
    assert all(status[name]["restarts"] >= 1 for name in ("stream", "sink", "producer"))
    assert all(service["state"] == "running" for service in status.values())
    rows = stack.candles("--symbol", "EURUSD", "--source", "Twice", "--from", "2019-02-04", "--to", "2019-02-05")
    assert sum(int(row["volume"]) for row in rows) == EURUSD_COUNT
    assert [float(row["close"]) for row in rows] == [bar[3] for bar in eurusd_bars().values()]
    stack.run("verify")


def test_a_tampered_row_is_found_and_mended(stack: Stack) -> None:
    import psycopg  # noqa: PLC0415 - only here

    with psycopg.connect(stack.status()["database_url"]) as connection:
        connection.execute(
            "UPDATE market_data SET high = high + 1 WHERE ts = '2019-02-04 12:00Z' AND source = 'Dukascopy'"
        )

    report = json.loads(stack.run("verify", "--json", expect=1))
    assert [(d["field"], d["symbol"]) for d in report["differences"]] == [("high", "EURUSD")]
    stack.run("verify", "--repair", expect=1)
    stack.run("verify")


def test_a_live_tick_is_a_candle_within_seconds(stack: Stack) -> None:
    state = stack.status()
    answer = plainhttp.post(
        f"{state['producer_url']}/ingest/tick",
        headers={"Authorization": f"Bearer {state['api_key']}"},
        json={"ts_msc": clock.now_ms(), "symbol": "XAUUSD", "bid": 2650.25, "ask": 2650.51},
    )

    assert (answer.status_code, answer.json()["inserted"]) == (200, 1)
    deadline = time.monotonic() + 20
    while not stack.candles("--symbol", "XAUUSD"):
        assert time.monotonic() < deadline


def test_who_sends_is_listed_and_two_servers_under_one_source_are_warned_about(stack: Stack) -> None:
    state = stack.status()
    for server in ("Broker-Demo", "Broker-Real 2"):
        plainhttp.post(
            f"{state['producer_url']}/ingest/tick",
            headers={
                "X-API-Key": state["api_key"], "X-Source": "Shared",
                "User-Agent": f"DataCollectorPRO/PDC/1.65 (Account:12345; Server:{server}; Build:3850; trace_id:0f)",
            },
            json={"ts_msc": clock.now_ms(), "symbol": "XAUUSD", "bid": 2650.25, "ask": 2650.51},
        )  # fmt: skip
    deadline = time.monotonic() + 30
    while len(shared := [row for row in senders(stack) if row["source"] == "Shared"]) < 2:
        assert time.monotonic() < deadline, shared
        time.sleep(0.5)

    assert {row["server"] for row in shared} == {"Broker-Demo", "Broker-Real 2"}
    said = ("ea", "version", "account", "build", "address", "ticks", "shared")
    assert {tuple(row[name] for name in said) for row in shared} == {
        ("DataCollectorPRO/PDC", "1.65", "12345", "3850", "127.0.0.1", 1, "servers")
    }
    # By receipt: the day that was sent is one of 2019.
    [day] = [row for row in senders(stack) if row["source"] == "Dukascopy"]
    assert (day["ea"], day["ticks"]) == ("tickpipe-send", EURUSD_COUNT)
    shown = subprocess.run(
        [sys.executable, "-m", "tickpipe", "senders", "--data-dir", str(stack.data_dir)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "Several servers send under the source Shared" in shown.stderr
    assert "Broker-Real 2" in shown.stdout
    assert senders(stack, "--since", "2099-01-01") == []


def senders(stack: Stack, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(stack.run("senders", "--format", "json", *arguments))
    return found


def test_the_chart_and_its_candles_are_served(stack: Stack) -> None:
    url = stack.status()["dashboard_url"]
    page = plainhttp.get(url)
    answer = plainhttp.get(f"{url}/candles?symbol=EURUSD&source=Dukascopy&timeframe=D1").json()

    assert "<title>Tickpipe</title>" in page.text
    assert [(c["ts"], c["volume"]) for c in answer["candles"]] == [("2019-02-04T00:00:00Z", EURUSD_COUNT)]


@pytest.mark.parametrize("number", range(1, 6))
def test_the_stock_questions_are_answered(stack: Stack, number: int) -> None:
    answer = stack.run("query", str(number), "--format", "csv")

    assert len(answer.splitlines()) > 1


def test_a_stack_that_is_not_there_is_an_error_with_a_cure(tmp_path: Path) -> None:
    missing = Stack(tmp_path)
    for command in (["status"], ["candles", "--symbol", "EURUSD"], ["verify"], ["query", "1"]):
        done = subprocess.run(
            [sys.executable, "-m", "tickpipe", *command, "--data-dir", str(missing.data_dir)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode in (1, 2)
        assert "tickpipe up" in done.stderr
        assert "Traceback" not in done.stderr
