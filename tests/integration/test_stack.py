"""What a user does, by the command line alone: start the stack, send, look, verify, break it, stop it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from runtime import clock
from tests import plainhttp, preloaded
from tests.conftest import FULL
from tests.days import GENERATED
from tests.integration.stack import Stack
from tests.waiting import PATIENCE_SECONDS, wait_until

pytestmark = pytest.mark.long(60)

#: The whole day in full runs. In each, stream_app/test_worker.py folds it, and a sink stores it for the page.
DAY = GENERATED if FULL else GENERATED.beginning(8)

#: What the start wrote to standard output and to standard error.
welcomes: dict[Stack, tuple[str, str]] = {}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stack") / "data")
    welcomes[stack] = stack.up(short_lived=True), stack.said
    try:
        yield stack
    finally:
        stack.run("down")
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(stack.data_dir) in " ".join(p.info["cmdline"] or [])]


@pytest.fixture(scope="module")
def ticks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The day as a file."""
    return DAY.write_ticks(tmp_path_factory.mktemp("ticks") / "ticks.csv.gz")


def test_a_day_goes_in_and_comes_out(stack: Stack, ticks: Path) -> None:
    said = stack.run("send", str(ticks), "--symbol", "EURUSD", "--source", "Dukascopy")
    assert f"{len(DAY.ticks):,}" in said
    stack.settle()

    rows = stack.candles("--symbol", "EURUSD", "--from", "2019-02-04", "--to", "2019-02-05")
    assert list(rows[0]) == ["ts", "symbol", "timeframe", "open", "high", "low", "close", "volume", "source"]
    assert rows[0]["ts"] == "2019-02-04T00:00:00Z"
    assert_is_the_day(rows)
    stack.run("verify", "--symbol", "EURUSD")


def assert_is_the_day(rows: list[dict[str, str]]) -> None:
    ohlc = [(float(row["open"]), float(row["high"]), float(row["low"]), float(row["close"])) for row in rows]
    assert ohlc == list(DAY.bars.values())
    assert sum(int(row["volume"]) for row in rows) == len(DAY.ticks)


@pytest.mark.full  # unit/tickpipe/sending has the forms, test_pipeline.py the sparse quotes
def test_a_sparse_file_of_another_form_goes_in_and_comes_out(stack: Stack, tmp_path: Path) -> None:
    sparse = GENERATED.write_sparse(tmp_path / "usdjpy.csv")
    stack.run("send", str(sparse), "--symbol", "USDJPY", "--source", "Sparse")
    stack.settle()

    rows = stack.candles("--symbol", "USDJPY", "--from", "2013-01-01", "--to", "2013-01-03")
    assert [int(row["volume"]) for row in rows] == list(GENERATED.sparse_minutes.values())
    report = json.loads(stack.run("verify", "--symbol", "USDJPY", "--json"))
    assert report["checked"] == len(rows)


@pytest.mark.fault
@pytest.mark.full  # stream_app/test_worker.py, sink/test_service.py and tickpipe/test_stack.py kill one service each
def test_whatever_dies_while_a_day_is_sent_is_started_again_and_the_day_is_whole(stack: Stack, ticks: Path) -> None:
    sending = subprocess.Popen(
        [sys.executable, "-m", "tickpipe", "send", str(ticks), "--symbol", "EURUSD", "--source", "Killed",
         "--data-dir", str(stack.data_dir)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_until(lambda: stack.sql("SELECT FROM market_data WHERE source = 'Killed' LIMIT 1"), what="the first minute")
    for names in (("stream", "sink", "producer"), ("kafka",), ("postgres", "dashboard")):
        assert all(restarts >= 1 for restarts in stack.kill(*names).values())
    assert sending.wait(PATIENCE_SECONDS) == 0
    stack.settle()

    assert {service["state"] for service in stack.status()["services"]} == {"running"}
    rows = stack.candles("--symbol", "EURUSD", "--source", "Killed", "--from", "2019-02-04", "--to", "2019-02-05")
    assert_is_the_day(rows)
    stack.run("verify")


def test_a_tampered_row_is_found_and_mended(stack: Stack) -> None:
    import psycopg  # noqa: PLC0415 - only here

    with psycopg.connect(stack.status()["database_url"]) as connection:
        connection.execute(
            "UPDATE market_data SET high = high + 1 WHERE ts = '2019-02-04 04:00Z' AND source = 'Dukascopy'"
        )

    report = json.loads(stack.run("verify", "--json", expect=1))
    assert [(d["field"], d["symbol"]) for d in report["differences"]] == [("high", "EURUSD")]
    stack.run("verify", "--repair", expect=1)
    stack.run("verify")


def test_a_stretch_that_was_lost_comes_back_by_a_replay(stack: Stack) -> None:
    stack.sql(
        "DELETE FROM market_data WHERE source = 'Dukascopy' AND ts BETWEEN '2019-02-04 04:10Z' AND '2019-02-04 04:15Z'"
    )
    said = stack.run(
        "replay", "--from", "2019-02-04T04:10:30", "--to", "2019-02-04T04:20", "--margin", "1m",
        "--symbol", "EURUSD", "--source", "Dukascopy", "--yes",
    )  # fmt: skip
    assert "10 candles checked, 10 equal, 0 different" in said
    assert_is_the_day(
        stack.candles("--symbol", "EURUSD", "--source", "Dukascopy", "--from", "2019-02-04", "--to", "2019-02-05")
    )


def test_the_commands_of_the_first_screen_make_a_candle_and_show_it(stack: Stack) -> None:
    printed, _ = welcomes[stack]
    curl, *others = [line.strip() for line in printed.splitlines() if line.startswith("  ")][7:]
    assert [command.split(" --data-dir")[0].rpartition("tickpipe ")[2] for command in others] == [
        "candles --symbol EURUSD", "status", "verify",
    ]  # fmt: skip

    def shell(command: str) -> str:
        done = subprocess.run(  # noqa: S602 - as a user pastes it
            command, shell=True, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True
        )
        return done.stdout

    assert json.loads(shell(curl))["inserted"] == 1
    wait_until(lambda: stack.candles("--symbol", "EURUSD", "--from", "-1h"), what="the candle of a tick")
    assert all(shell(command) for command in others)
    assert stack.found().api_key not in printed


def test_each_service_has_one_line_with_its_time_when_it_is_ready(stack: Stack) -> None:
    _, said = welcomes[stack]
    lines = [line.split() for line in said.splitlines() if line.endswith("is ready")]
    assert sorted(line[2] for line in lines) == sorted(service.name for service in stack.found().services)
    assert all(float(seconds) > 0 for seconds, *_ in lines)


def test_a_key_begins_and_ends_while_the_stack_runs(stack: Stack) -> None:
    url = stack.status()["producer_url"]
    key = stack.run("keys", "create", "pc7", "--source", "Keyed").strip()

    def answer() -> tuple[int, str]:
        tick = {"ts_msc": clock.now_ms(), "symbol": "XAUUSD", "bid": 2650.25, "ask": 2650.51}
        found = plainhttp.post(f"{url}/ingest/tick", headers={"X-API-Key": key}, json=tick)
        return found.status_code, found.json().get("code", "")

    wait_until(lambda: answer() == (200, ""), what="a key that was made")
    assert "valid" in stack.run("keys", "list")
    stack.run("keys", "revoke", "pc7")
    wait_until(lambda: answer() == (401, "KEY_REVOKED"), what="a key that was revoked")


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

    def both() -> list[dict[str, Any]]:
        found = [row for row in senders(stack) if row["source"] == "Shared"]
        return found if len(found) == 2 else []

    shared = wait_until(both, what="two senders")
    assert {row["server"] for row in shared} == {"Broker-Demo", "Broker-Real 2"}
    said = ("ea", "version", "account", "build", "address", "ticks", "shared")
    assert {tuple(row[name] for name in said) for row in shared} == {
        ("DataCollectorPRO/PDC", "1.65", "12345", "3850", "127.0.0.1", 1, "servers")
    }
    # By receipt: the day that was sent is one of 2019.
    [day] = [row for row in senders(stack) if row["source"] == "Dukascopy"]
    assert (day["ea"], day["ticks"]) == ("tickpipe-send", len(DAY.ticks))
    shown = stack.run("senders")
    assert "Several servers send under the source Shared" in stack.said
    assert "Broker-Real 2" in shown
    assert senders(stack, "--since", "2099-01-01") == []


def senders(stack: Stack, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(stack.run("senders", "--format", "json", *arguments))
    return found


def test_the_chart_and_its_candles_are_served(stack: Stack) -> None:
    url = stack.status()["dashboard_url"]
    page = plainhttp.get(url)
    answer = plainhttp.get(f"{url}/candles?symbol=EURUSD&source=Dukascopy&timeframe=D1").json()

    assert "<title>Tickpipe</title>" in page.text
    assert [(c["ts"], c["volume"]) for c in answer["candles"]] == [("2019-02-04T00:00:00Z", len(DAY.ticks))]


def test_the_stock_questions_are_answered(stack: Stack) -> None:
    state = stack.status()
    tick = {"ts_msc": clock.now_ms(), "symbol": "EURUSD", "bid": 1.1, "ask": 1.2}
    plainhttp.post(f"{state['producer_url']}/ingest/tick", headers={"X-API-Key": state["api_key"]}, json=tick)
    wait_until(lambda: stack.candles("--symbol", "EURUSD", "--from", "-1h"), what="the candle of a tick")

    rows = {number: len(stack.run("query", str(number), "--format", "csv").splitlines()) for number in range(1, 6)}

    assert min(rows.values()) > 1, rows


def test_a_stack_that_is_not_there_is_an_error_with_a_cure(tmp_path: Path) -> None:
    missing = Stack(tmp_path)
    for command in (["status"], ["candles", "--symbol", "EURUSD"], ["verify"], ["query", "1"]):
        done = preloaded.run(["tickpipe", *command, "--data-dir", str(missing.data_dir)])
        assert done.returncode in (1, 2)
        assert "tickpipe up" in done.stderr
        assert "Traceback" not in done.stderr
