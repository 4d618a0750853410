"""The URL of PostgreSQL, and who it runs as."""

import os
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
