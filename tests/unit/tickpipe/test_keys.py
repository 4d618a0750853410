"""`tickpipe keys`: what it shows, what the file holds then, and what the producer makes of it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from marketdata.contract.http import Refusal, Right
from runtime.api_keys import ApiKeys
from runtime.settings import load_settings
from tickpipe.cli import app


class Folder:
    """A data directory without a stack, its keys by the command and by a service that reads them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(app, ["keys", *words, "--data-dir", str(self.path)])

    def secret(self, *words: str) -> str:
        result = self.run(*words)
        assert result.exit_code == 0, result.output
        assert "shown only now" in result.stderr
        return result.stdout.strip()

    def refusal(self, secret: str, right: Right = Right.INGEST) -> str:
        """The code of the refusal; empty where the key may do it."""
        keys = ApiKeys(load_settings(keys_file=self.path / "api-keys.json"))
        try:
            keys.authorise(secret.encode(), right)
        except Refusal as refusal:
            return refusal.code
        return ""

    def listed(self) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = json.loads(self.run("list", "--format", "json").stdout)
        return rows


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TICKPIPE_KEYS_FILE", raising=False)
    return Folder(tmp_path / "data")


def test_a_key_is_shown_once_and_does_what_it_was_made_for(folder: Folder) -> None:
    secret = folder.secret("create", "pc7", "--source", "ICMarkets-Demo", "--ticks-per-minute", "60000")
    reader = folder.secret("create", "bot", "--right", "read", "--requests-per-minute", "600", "--expires", "90d")

    assert folder.refusal(secret) == folder.refusal(reader, Right.READ) == ""
    assert folder.refusal(secret, Right.READ) == folder.refusal(reader) == "RIGHT_MISSING"
    stored = (folder.path / "api-keys.json").read_text()
    assert secret not in stored
    assert secret not in folder.run("list").stdout
    rows = folder.listed()
    assert [(row["name"], row["source"], row["rights"], row["state"]) for row in rows] == [
        ("pc7", "ICMarkets-Demo", "ingest", "valid"), ("bot", "", "read", "valid")
    ]  # fmt: skip
    assert rows[0]["expires"] is None
    assert rows[1]["expires"] is not None


def test_while_a_key_is_rotated_two_are_valid_and_never_three(folder: Folder) -> None:
    first = folder.secret("create", "pc7", "--source", "A")
    second = folder.secret("rotate", "pc7")
    assert [folder.refusal(secret) for secret in (first, second)] == ["", ""]
    assert [row["state"] for row in folder.listed()] == ["valid", "valid, former"]

    third = folder.secret("rotate", "pc7")
    assert [folder.refusal(secret) for secret in (first, second, third)] == ["UNAUTHORIZED", "", ""]

    fourth = folder.secret("rotate", "pc7", "--overlap", "0s")
    assert [folder.refusal(secret) for secret in (second, third, fourth)] == ["UNAUTHORIZED", "KEY_EXPIRED", ""]


def test_a_revoked_key_is_told_so_and_its_name_may_be_given_again(folder: Folder) -> None:
    secret = folder.secret("create", "pc7", "--source", "A")
    assert folder.run("revoke", "pc7").exit_code == 0
    assert folder.refusal(secret) == "KEY_REVOKED"
    assert folder.listed()[0]["state"] == "revoked"
    assert folder.run("rotate", "pc7").exit_code == 2
    again = folder.secret("create", "pc7", "--source", "A")
    assert [folder.refusal(secret), folder.refusal(again)] == ["UNAUTHORIZED", ""]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "pc7"), "--source says whose ticks"),
        (("create", "a b", "--source", "A"), "is no name"),
        (("create", "settings:*", "--source", "A"), "is no name"),
        (("create", "pc7", "--source", "a\nb"), "is no source"),
        (("create", "pc7", "--source", "A", "--expires", "soon"), "length of time such as 90d"),
        (("create", "pc7", "--source", "A", "--expires", "2020-01-01"), "is over"),
        (("create", "pc7", "--source", "A", "--right", "write"), "write"),
        (("create", "taken", "--source", "A"), "there is a key taken already"),
        (("rotate", "nobody"), "there is no key 'nobody'"),
        (("rotate", "taken", "--overlap", "long"), "is no length of time"),
        (("revoke", "nobody"), "there is no key 'nobody'"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(folder: Folder, words: tuple[str, ...], said: str) -> None:
    folder.secret("create", "taken", "--source", "A")
    before = (folder.path / "api-keys.json").read_bytes()
    result = folder.run(*words)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.replace("│", " ").split())
    assert (folder.path / "api-keys.json").read_bytes() == before


def test_without_a_stack_the_file_has_to_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TICKPIPE_KEYS_FILE", raising=False)
    monkeypatch.setenv("TICKPIPE_DATA_DIR", str(tmp_path / "nothing"))
    result = CliRunner().invoke(app, ["keys", "list"])
    assert result.exit_code == 2
    assert "TICKPIPE_KEYS_FILE" in result.stderr
    monkeypatch.setenv("TICKPIPE_KEYS_FILE", str(tmp_path / "keys.json"))
    assert CliRunner().invoke(app, ["keys", "create", "pc7", "--source", "A"]).exit_code == 0
    assert (tmp_path / "keys.json").exists()
