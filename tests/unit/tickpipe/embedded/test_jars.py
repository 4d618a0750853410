"""A download tells how far it is, and jgo asks for it as we think."""

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from jgo.maven import MavenContext, PythonResolver

from marketdata.errors import StackError
from tickpipe.embedded import jars
from tickpipe.embedded.jars import Download, resolve_jars


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[str]:
    """A Maven repository with one jar of 200 kB."""
    folder = tmp_path / "repository" / "org" / "example" / "thing" / "1.0"
    folder.mkdir(parents=True)
    jar = folder / "thing-1.0.jar"
    jar.write_bytes(b"x" * 200_000)
    jar.with_suffix(".jar.sha1").write_text(hashlib.sha1(jar.read_bytes(), usedforsecurity=False).hexdigest())
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "repository")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_line_is_due_after_some_megabytes_of_all_files() -> None:
    told: list[str] = []
    download = Download(told.append)
    for name in ("a.jar", "b.jar", "c.jar"):
        with download.file(name, 4_000_000) as received:
            for _ in range(4):
                received(1_000_000)
    # Of 12 MB: the fifth is the first of b.jar, the tenth the second of c.jar.
    assert told == ["downloaded 5 of about 55 MB (b.jar)", "downloaded 10 of about 55 MB (c.jar)"]


def test_a_slow_download_is_told_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(jars, "_STEP_SECONDS", 0.0)
    with Download(told.append).file("a.jar", 9) as received:
        received(9)
    assert told == ["downloaded 0 of about 55 MB (a.jar)"]


def test_a_cache_that_cannot_be_written_is_named_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").touch()
    monkeypatch.setenv("JGO_CACHE_DIR", str(tmp_path / "home" / "cache"))
    with pytest.raises(StackError, match=r"cannot be written \(Not a directory\); set JGO_CACHE_DIR and M2_REPO"):
        resolve_jars()


def test_jgo_tells_of_every_piece(repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(jars, "_STEP_BYTES", 100_000)
    context = MavenContext(
        repo_cache=tmp_path / "cache",
        remote_repos={"here": repository},
        resolver=PythonResolver(progress_callback=Download(told.append).file),
    )
    found = context.project("org.example", "thing").at_version("1.0").artifact().resolve()
    assert found.stat().st_size == 200_000
    assert len(told) == 1
    assert told[0].endswith("(thing-1.0.jar)")
