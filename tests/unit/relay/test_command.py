"""`tickpipe relay`, as a task runs it: its key is in a file, and whatever it has to say is in another."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from relay import database
from relay.database import forwarding_alone, storing_alone
from relay.store import Store
from runtime.logs import configure_logs
from runtime.settings import load_settings
from tests.scripted import Answer, ScriptedServer
from tests.unit.relay.rows import put, tick
from tickpipe.cli import app


@pytest.fixture(autouse=True)
def _no_log_file_stays_open() -> Iterator[None]:
    yield
    configure_logs(load_settings())


@pytest.fixture
async def db(tmp_path: Path) -> Path:
    with Store(tmp_path / "ea.db") as store:
        await put(store, tick(0), tick(1))
    return tmp_path / "ea.db"


def export(db: Path, server: ScriptedServer, *arguments: str | Path) -> tuple[int, str]:
    command = ["relay", "export", "--db", str(db), "--api", server.url, "--all", *map(str, arguments)]
    result = CliRunner().invoke(app, command, env={"TICKPIPE_RELAY_FORWARD_KEY": ""})
    return result.exit_code, result.output


@pytest.mark.parametrize(
    "content",
    [b"open-sesame", b"open-sesame\r\nand a note", b"\xef\xbb\xbfopen-sesame \n", "open-sesame\r\n".encode("utf-16")],
)
def test_the_key_is_the_first_line_of_a_file(db: Path, server: ScriptedServer, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key.txt").write_bytes(content)
    assert export(db, server, "--key-file", tmp_path / "key.txt")[0] == 0
    assert server.requests[0].headers["X-API-Key"] == "open-sesame"


def test_a_key_file_that_is_missing_or_empty_is_named(db: Path, server: ScriptedServer, tmp_path: Path) -> None:
    key = tmp_path / "key.txt"
    code, said = export(db, server, "--key-file", key)
    assert (code, "key.txt" in said) == (2, True)
    key.write_bytes(b"\n")
    code, said = export(db, server, "--key-file", key)
    assert (code, "is empty" in said) == (2, True)
    assert server.requests == []


def test_the_log_file_has_the_outcome(db: Path, server: ScriptedServer, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "exporter.log"
    server.answers = [Answer(503)]
    assert export(db, server, "--token", "key", "--log-file", log)[0] == 0
    lines = log.read_text(encoding="utf-8").splitlines()
    assert "next try in" in lines[0]
    assert "2 rows sent, 0 rejected" in lines[-1]
    assert "\x1b" not in "".join(lines)


def test_the_log_file_has_the_error_that_ended_the_command(
    db: Path, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "exporter.log"
    assert export(db, server, "--log-file", log)[0] == 2
    assert "no key for the server" in log.read_text(encoding="utf-8")
    monkeypatch.setenv("TICKPIPE_PRODUCER_PORT", "many")
    assert export(db, server, "--log-file", log)[0] == 2
    assert "TICKPIPE_PRODUCER_PORT" in log.read_text(encoding="utf-8")


def test_a_second_relay_does_not_forward_the_same_file(
    db: Path, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_TAKEOVER_SECONDS", 0.1)
    (db.parent / "key.txt").write_text("key")
    arguments = ["--db", str(db), "--key-file", str(db.parent / "key.txt")]
    with forwarding_alone(db):
        for command in (["serve", "--forward", server.url, "--port", "1"], ["forward", "--to", server.url]):
            result = CliRunner().invoke(app, ["relay", *command, *arguments])
            assert result.exit_code != 0
            assert "Another relay forwards" in result.output
    assert server.requests == []
    # The one that held it is gone.
    with forwarding_alone(db):
        pass


def test_a_second_relay_does_not_store_in_the_same_file(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_TAKEOVER_SECONDS", 0.1)
    with storing_alone(db):
        result = CliRunner().invoke(app, ["relay", "serve", "--port", "1", "--db", str(db)])
    assert result.exit_code != 0
    assert "Another relay stores ticks" in result.output


def test_a_port_that_another_program_has_is_said_with_a_cure(tmp_path: Path) -> None:
    log = tmp_path / "relay.log"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = ["relay", "serve", "--port", port, "--db", str(tmp_path / "ea.db"), "--log-file", str(log)]
        result = CliRunner().invoke(app, command)
    assert (result.exit_code, f"cannot listen on 127.0.0.1 port {port}" in result.output) == (2, True)
    assert "does this service run already, or another on that port?" in log.read_text()
    # It never listened.
    assert "EAs post to" not in log.read_text()


@pytest.mark.parametrize("which", [["--since-minutes", "100"], ["--limit", "5000"]], ids="".join)
async def test_a_damaged_file_ends_a_run_with_a_sentence(
    tmp_path: Path, server: ScriptedServer, which: list[str]
) -> None:
    db, log = tmp_path / "ea.db", tmp_path / "exporter.log"
    with Store(db) as store:
        await put(store, *(tick(n) for n in range(2_000)))
    content = bytearray(db.read_bytes())
    middle = len(content) // 2 // 4_096 * 4_096
    content[middle : middle + 4_096] = bytes(range(256)) * 16
    db.write_bytes(content)
    command = [
        "relay",
        "export",
        "--db",
        str(db),
        "--api",
        server.url,
        *which,
        "--token",
        "key",
        "--log-file",
        str(log),
    ]
    result = await asyncio.to_thread(CliRunner().invoke, app, command)
    assert (result.exit_code, "is damaged" in result.output) == (1, True)
    assert ".recover" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_the_folder_of_the_file_is_made(tmp_path: Path) -> None:
    db = tmp_path / "new" / "folder" / "ea.db"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(app, ["relay", "serve", "--port", port, "--db", str(db)])
    assert (result.exit_code != 0, db.exists()) == (True, True)
