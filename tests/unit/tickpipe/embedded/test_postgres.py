"""The URL of PostgreSQL, and who it runs as."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tickpipe.embedded.postgres import Postgres, Privileges, open_to_all, unprivileged


def test_password_is_quoted_in_the_url_and_does_not_show() -> None:
    postgres = Postgres(directory=Path("x"), port=20003, password="p@ss/word", binaries=Path("bin"), log=Path("x.log"))  # noqa: S106 - made up
    assert postgres.url == "postgresql://postgres:p%40ss%2Fword@127.0.0.1:20003/market"
    assert "p@ss" not in repr(postgres)


def test_ordinary_user_stays_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert unprivileged([Path("/root/x")]) == Privileges()


def test_root_becomes_nobody_and_retains_a_capability_only_where_it_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    barred = tmp_path / "barred"
    barred.mkdir(mode=0o700)
    assert not open_to_all(barred / "data")

    outside, inside = unprivileged([Path("/usr/bin")]), unprivileged([barred / "data"])

    assert not any("dac_override" in option for option in outside.setpriv_options)
    assert any("dac_override" in option for option in inside.setpriv_options)
    assert outside.uid == inside.uid != 0


@contextmanager
def server_in(folder: Path, program: Path) -> Iterator[int]:
    """A process of that name that works in the folder, as a server does in that of its data; its pid."""
    shutil.copy("/usr/bin/sleep", program)
    with subprocess.Popen([program, "60"], cwd=folder) as process:
        yield process.pid
        process.kill()


@pytest.mark.parametrize(("name", "where", "is_stale"), [
    ("postgres", "data", False), ("postgres", "other", True), ("browser", "data", True),
])  # fmt: skip
def test_the_pid_file_of_a_killed_server_is_removed_whoever_has_its_pid_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, where: str, is_stale: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for folder in ("data", "other"):
        (tmp_path / folder).mkdir()
    postgres = Postgres(directory=tmp_path, port=1, password="x", binaries=tmp_path, log=tmp_path / "log")  # noqa: S106 - made up
    pid_file = tmp_path / "data" / "postmaster.pid"
    with server_in(tmp_path / where, tmp_path / name) as pid:
        pid_file.write_text(f"{pid}\n{tmp_path / 'data'}\n")
        postgres.prepare()
        assert pid_file.exists() is not is_stale
