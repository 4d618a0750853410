"""The commands as they are typed: exit codes, and sentences that say the cure."""

import gzip
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import ANY

import pytest
from typer.testing import CliRunner, Result

from marketdata.errors import KafkaUnavailable, SettingsError, StackError
from tests.scripted import Answer, ScriptedServer
from tests.waiting import PATIENCE_SECONDS, wait_until
from tickpipe.cli import app
from tickpipe.connection import without_password
from tickpipe.console import explain
from tickpipe.embedded.command import curl_line, program_name, tell_of_moved_page
from tickpipe.embedded.services import StackConfig
from tickpipe.sending.dialects import UnknownForm
from tickpipe.sending.textfile import DataFileError

COMMANDS = ["up", "down", "status", "send", "candles", "query", "fidelity", "senders", "verify", "topics create",
            "topics list", "ticks", "sql",
            "db migrate", "db status", "db day-zone"]  # fmt: skip


@pytest.fixture(autouse=True)
def no_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A directory without stack and without .env, so that the machine's own do not matter.
    monkeypatch.chdir(tmp_path)
    for name in ("KAFKA_BOOTSTRAP", "DATABASE_URL", "API_KEYS", "PRODUCER_HOST", "PRODUCER_PORT"):
        monkeypatch.delenv(f"TICKPIPE_{name}", raising=False)
    monkeypatch.setenv("TICKPIPE_DATA_DIR", str(tmp_path / "nothing"))
    monkeypatch.setenv("COLUMNS", "200")


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def ticks_file(directory: Path, count: int = 5) -> str:
    path = directory / "ticks.csv.gz"
    lines = "".join(f"{1_549_238_400_001 + n},1.1454{n},1.14545\n" for n in range(count))
    path.write_bytes(gzip.compress(f"time_msc,bid,ask\n{lines}".encode()))
    return str(path)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_with_examples(command: str) -> None:
    result = run(*command.split(), "--help")

    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert f"tickpipe {command}" in result.output


def test_version() -> None:
    assert re.fullmatch(r"tickpipe \d+\.\d+\.\d+\S*\n", run("--version").output)


def test_help_loads_no_heavy_library() -> None:
    code = "import sys, tickpipe.cli; print([m for m in sys.argv[1:] if m in sys.modules])"
    heavy = ["aiokafka", "psycopg", "fastapi", "httpx", "pydantic_settings", "faust", "tenacity", "structlog"]

    said = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)

    assert said.stdout == "[]\n"


def test_ctrl_c_while_it_loads_leaves_no_traceback() -> None:
    code = """if True:
        import signal, sys
        from tickpipe.__main__ import main

        class Interrupting:
            def find_spec(self, name, path, target=None):
                if name == "tickpipe.cli":
                    signal.raise_signal(signal.SIGINT)

        sys.meta_path.insert(0, Interrupting())
        main()
    """

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (said.returncode, said.stdout, said.stderr) == (130, "", "")


@pytest.mark.parametrize(
    "command",
    [
        "candles -s EURUSD",
        "ticks -s EURUSD --from -1h",
        "query 1",
        "gaps",
        "fidelity",
        "senders",
        "verify",
        "topics list",
        "db status",
        "db day-zone UTC",
    ],
)
def test_without_a_stack_the_cure_is_named(command: str) -> None:
    result = run(*command.split())

    assert result.exit_code == 2
    assert "start one with `tickpipe up`" in result.stderr
    assert result.stdout == ""


def test_status_without_a_stack_names_the_cure(tmp_path: Path) -> None:
    other = tmp_path / "other dir"

    result = run("status", "--json", "--data-dir", str(other))

    assert result.exit_code == 2
    assert f"tickpipe up --data-dir {shlex.quote(str(other))}" in result.stderr


def test_a_log_that_is_lost_is_forgotten_while_no_stack_runs(tmp_path: Path) -> None:
    (tmp_path / "known-log").write_text("cluster/ticks/topic\n")

    result = run("topics", "create", "--recreate", "--data-dir", str(tmp_path))

    assert (result.exit_code, list(tmp_path.iterdir())) == (0, [])
    assert "the next `tickpipe up` there begins an empty log" in result.output
    assert run("topics", "create", "--recreate", "--data-dir", str(tmp_path)).exit_code == 2


def test_down_without_a_stack_has_nothing_to_do() -> None:
    result = run("down")

    assert result.exit_code == 0
    assert "No stack runs" in result.stdout


@pytest.mark.parametrize(
    "command",
    [
        "query 6", "query x", "candles", "candles -s EURUSD --from yesterday", "candles -s EURUSD --timeframe M2",
        "candles -s EURUSD --format xml", "ticks -s EURUSD", "ticks -s EURUSD --from now --to -1h",
        "ticks -s EURUSD --from -1h --raw --format mt5", "ticks -s EURUSD --from -1h --output ticks.csv",
        "send missing.csv -s EURUSD", "up --stream-workers 0", "down --data-dir=", "nonsense",
    ],
)  # fmt: skip
def test_wrong_use_is_2(command: str) -> None:
    assert run(*command.split()).exit_code == 2


@pytest.mark.parametrize(
    "command", ["restore x.zip", "replay --from -2h", "rejected resend --all", "rejected delete --all"]
)
def test_a_command_that_nobody_can_agree_to_names_what_shows_its_plan(command: str) -> None:
    refused = run(*command.split())

    assert refused.exit_code == 2
    look = re.sub(r"\s+", " ", refused.output).partition("look first with ")[2].strip()
    shown = run(*command.split(), look) if look.startswith("--") else run(*look.strip("`").split()[1:])
    assert "Usage:" not in shown.output
    assert re.search("no stack runs|x.zip", shown.output)


def test_file_goes_through_in_batches(tmp_path: Path, producer: ScriptedServer) -> None:
    result = run("send", ticks_file(tmp_path), "-s", "EURUSD", "--batch", "2", "--url", producer.url, "--key", "secret")

    assert result.exit_code == 0, result.output
    assert "5 ticks sent, 5 accepted, 0 rejected" in result.stdout
    assert [len(request.items) for request in producer.requests] == [2, 2, 1]
    assert [tick["ts_msc"] for tick in producer.taken] == [1_549_238_400_001 + n for n in range(5)]
    assert {(tick["digits"], tick["point"]) for tick in producer.taken} == {(5, 0.00001)}


@pytest.mark.parametrize(
    ("options", "first"),
    [(("--skip", "3"), 3), (("--from", "2019-02-04T00:00:00.003"), 2), (("--skip", "99"), None)],
)
def test_sending_goes_on_where_it_stopped(
    tmp_path: Path, producer: ScriptedServer, options: tuple[str, ...], first: int | None
) -> None:
    result = run("send", ticks_file(tmp_path), "-s", "EURUSD", "--url", producer.url, "--key", "secret", *options)

    assert result.exit_code == 0, result.output
    times = [tick["ts_msc"] for tick in producer.taken]
    assert times == ([] if first is None else [1_549_238_400_001 + n for n in range(first, 5)])


@pytest.mark.full
def test_standard_input_is_read(tmp_path: Path, producer: ScriptedServer) -> None:
    command = [sys.executable, "-c", "from tickpipe.cli import main; main()", "send", "-", "-s", "EURUSD"]

    with Path(ticks_file(tmp_path)).open("rb") as file:
        subprocess.run(
            [*command, "--url", producer.url, "--key", "secret"], stdin=file, capture_output=True, check=True
        )

    assert len(producer.taken) == 5


def piped(producer: ScriptedServer, *options: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", "from tickpipe.cli import main; main()", "send", "-", "-s", "EURUSD"]
    command += ["--url", producer.url, "--key", "secret", *options]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_taken(producer: ScriptedServer, count: int) -> None:
    wait_until(lambda: len(producer.taken) >= count, what=f"{count} ticks")


@pytest.mark.parametrize(
    "options", [(), pytest.param(("--speed", "1"), marks=pytest.mark.full)], ids=["full speed", "at a pace"]
)
def test_ticks_of_a_pipe_that_stays_open_are_posted_as_they_come(
    producer: ScriptedServer, options: tuple[str, ...]
) -> None:
    # The prices show their decimals one after the other: 1 in the first line, 5 in the third.
    prices = [("1.1", "1.2"), ("1.12", "1.13"), ("1.12345", "1.12351")]
    with piped(producer, *options) as sending:
        assert sending.stdin is not None
        for number, (bid, ask) in enumerate(prices):
            header = "time_msc,bid,ask\n" if number == 0 else ""
            sending.stdin.write(f"{header}{1_549_238_400_001 + number},{bid},{ask}\n".encode())
            sending.stdin.flush()
            wait_taken(producer, number + 1)  # though the pipe stays open
        output, errors = sending.communicate(timeout=PATIENCE_SECONDS)

    assert sending.returncode == 0, errors
    assert b"3 ticks sent, 3 accepted, 0 rejected" in output
    assert [tick["ts_msc"] for tick in producer.taken] == [1_549_238_400_001 + n for n in range(3)]
    assert [tick["digits"] for tick in producer.taken] == [1, 2, 5]


def test_interrupted_pipe_ends_at_once_and_says_where_to_go_on(producer: ScriptedServer) -> None:
    with piped(producer) as sending:
        assert sending.stdin is not None
        sending.stdin.write(b"time_msc,bid,ask\n1549238400001,1.1,1.2\n1549238400002,1.1,1.2\n")
        sending.stdin.flush()
        wait_taken(producer, 2)
        time.sleep(0.2)
        sending.send_signal(signal.SIGINT)
        assert sending.wait(PATIENCE_SECONDS) == 130
        assert sending.stderr is not None
        errors = sending.stderr.read()

    assert b"--skip 2" in errors
    assert b"Fatal" not in errors
    assert b"Traceback" not in errors


@pytest.mark.full
def test_pipe_that_ends_within_a_compressed_file_is_told(tmp_path: Path, producer: ScriptedServer) -> None:
    with piped(producer) as sending:
        _, errors = sending.communicate(Path(ticks_file(tmp_path)).read_bytes()[:-12], timeout=PATIENCE_SECONDS)

    assert sending.returncode == 1
    assert b"damaged or cut off" in errors


def test_rejected_ticks_are_a_problem(tmp_path: Path, producer: ScriptedServer) -> None:
    detail = {"index": 1, "field": "bid", "message": "absurd"}
    producer.answers = [Answer(207, {"ok": True, "received": 5, "inserted": 4, "errors": 1, "details": [detail]})]

    result = run("send", ticks_file(tmp_path), "-s", "EURUSD", "--url", producer.url, "--key", "secret")

    assert result.exit_code == 1
    assert "4 accepted, 1 rejected" in result.stdout
    assert "tick 2: bid: absurd" in result.stderr


def test_a_bad_line_costs_itself_alone(tmp_path: Path, producer: ScriptedServer) -> None:
    path = tmp_path / "ticks.csv"
    lines = "".join(f"{1_549_238_400_001 + n},1.1,1.2\n" for n in range(2_000))
    path.write_text(f"time_msc,bid,ask\noops,1.1,1.2\n{lines}")

    result = run("send", str(path), "-s", "EURUSD", "--url", producer.url, "--key", "secret", "--batch", "300")

    assert result.exit_code == 1
    assert "line 2: " in result.stderr
    assert "2,000 ticks sent, 2,000 accepted, 0 rejected" in result.stdout
    assert len([item for item in producer.taken if "symbol" in item]) == 2_000
    assert [item for item in producer.taken if "symbol" not in item] == [
        {"file": "ticks.csv", "line": 2, "text": "oops,1.1,1.2", "why": ANY}
    ]


def test_a_damaged_file_ends_the_run_and_says_where_to_go_on(tmp_path: Path, producer: ScriptedServer) -> None:
    path = tmp_path / "ticks.csv.gz"
    lines = "".join(f"{1_549_238_400_001 + n},{1 + n * n % 977 / 1e5:.5f},1.2\n" for n in range(20_000))
    path.write_bytes(gzip.compress(f"time_msc,bid,ask\n{lines}".encode())[:-5_000])

    result = run("send", str(path), "-s", "EURUSD", "--url", producer.url, "--key", "secret", "--batch", "300")

    assert result.exit_code == 1
    assert "damaged or cut off after line" in result.stderr
    assert 0 < len(producer.taken) < 20_000
    assert f"--skip {len(producer.taken)}" in result.stderr


def test_wrong_key_is_wrong_use(tmp_path: Path, producer: ScriptedServer) -> None:
    producer.answers = [Answer(401, {"error": "unknown key", "code": "UNAUTHORIZED"})] * 3

    result = run("send", ticks_file(tmp_path), "-s", "EURUSD", "--url", producer.url, "--key", "secret")

    assert result.exit_code == 2
    assert "--key" in result.stderr
    assert len(producer.requests) == 3


def test_no_key_is_wrong_use(tmp_path: Path) -> None:
    result = run("send", ticks_file(tmp_path), "-s", "EURUSD", "--url", "http://127.0.0.1:1")

    assert result.exit_code == 2
    assert "TICKPIPE_API_KEYS" in result.stderr


def test_key_of_the_source_is_found_in_the_settings(
    tmp_path: Path, producer: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKPIPE_API_KEYS", json.dumps({"A": "key-of-source-a", "*": "key-of-anybody"}))

    for source in ("A", "B"):
        run("send", ticks_file(tmp_path), "-s", "EURUSD", "--url", producer.url, "--source", source)

    assert [request.headers["X-API-Key"] for request in producer.requests] == ["key-of-source-a", "key-of-anybody"]


def test_ready_curl_line_is_one_tick_of_now() -> None:
    words = shlex.split(curl_line("http://127.0.0.1:18001", "a-key", "EURUSD"))

    assert words[:3] == ["curl", "-sS", "http://127.0.0.1:18001/ingest/tick"]
    assert "X-API-Key: a-key" in words
    (tick,) = json.loads(words[-1])["ticks"]
    assert (tick["symbol"], tick["digits"], tick["point"]) == ("EURUSD", 5, 0.00001)


def test_printed_commands_work_where_the_name_alone_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "a folder" / "tickpipe"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setattr("sys.argv", [str(program), "up"])
    monkeypatch.setenv("PATH", os.defpath)
    assert program_name() == shlex.quote(str(program))
    monkeypatch.setenv("PATH", str(program.parent))
    assert program_name() == "tickpipe"


@pytest.mark.parametrize(
    ("asked", "got", "said"),
    [
        (0, 20_001, "Port 18080 is in use, so the chart is on http://127.0.0.1:20001 this time"),
        (0, 18_080, ""),
        (20_001, 20_001, ""),
    ],
)  # fmt: skip
def test_a_chart_that_moved_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: int, got: int, said: str
) -> None:
    tell_of_moved_page(StackConfig(tmp_path, dashboard_port=asked), f"http://127.0.0.1:{got}")
    told = " ".join(capsys.readouterr().err.split())
    assert told.startswith(said) if said else not told


def test_secrets_are_not_shown() -> None:
    assert without_password("postgresql://postgres:s%2Fecret@127.0.0.1:5/market") == (
        "postgresql://postgres:…@127.0.0.1:5/market"
    )


def test_a_missing_package_names_its_extra() -> None:
    explained = explain(ModuleNotFoundError("No module named 'jgo'", name="jgo.maven"))

    assert explained == ("jgo.maven is not installed; in a clone of Tickpipe: pip install '.[embedded]'", 2)
    assert explain(ModuleNotFoundError("No module named 'odd'", name="odd")) is None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError("x"), 2), (StackError("x"), 2), (UnknownForm("x"), 2), (DataFileError("x"), 1),
        (KafkaUnavailable("x"), 1), (ConnectionRefusedError("x"), 1),
    ],
)  # fmt: skip
def test_expected_errors_have_a_code(error: Exception, code: int) -> None:
    assert explain(error) == ("x", code)


def test_unforeseen_errors_keep_their_traceback() -> None:
    assert explain(KeyError("x")) is None


def test_letters_that_the_output_cannot_have_are_written_out(tmp_path: Path) -> None:
    """Latin-1 is what a pipe has on Windows, and a terminal in an older locale."""
    file = tmp_path / "cotação ж.csv"
    file.write_text("time_msc,bid,ask\n1549238400000,1.1,1.2\n")
    done = subprocess.run(
        [sys.executable, "-m", "tickpipe", "import", "--dry-run", "--symbol", "EURUSD", str(file)],
        capture_output=True, check=False, env=os.environ | {"PYTHONIOENCODING": "latin-1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode("latin-1")
    assert "cotação \\u0436.csv" in "".join(done.stdout.decode("latin-1").split("\n"))
