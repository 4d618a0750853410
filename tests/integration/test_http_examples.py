"""The HTTP examples of the pages, run as they stand there against a real producer and a real relay."""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from runtime.settings import Settings
from tests import tools
from tests.integration.relay.process import RelayProcess
from tests.services import Process, running

ROOT = Path(__file__).parents[2]

#: With how many examples each has; none may get lost.
PAGES = {
    "README.md": 2, "README.pt-BR.md": 2, "docs/http.md": 4, "docs/relay.md": 1, "docs/relay.pt-BR.md": 1,
    "docs/deploy/compose.md": 1,
}  # fmt: skip

#: Where the pages have producer and relay.
_PRODUCER, _RELAY = "http://127.0.0.1:18001", "http://127.0.0.1:18000"

KEY = "key-of-the-examples"

_SUCCESS = {"ok": True, "received": 1, "inserted": 1, "duplicates": 0, "errors": 0, "total": 1}

Example = tuple[str, str]


def examples(text: str) -> Iterator[Example]:
    """Each command that posts to the producer or the relay, and the remark below it, which is its answer."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        command = ""
        lines = [*block.splitlines(), ""]
        for line, below in pairwise(lines):
            command += line + "\n"
            if line.endswith(("\\", "|")) or not _is_whole(command):
                continue
            if re.search(r"\bcurl .*/ingest", command):
                yield command, below.removeprefix("# ") if below.startswith("# ") else ""
            command = ""


def _is_whole(command: str) -> bool:
    try:
        shlex.split(command, comments=True)
    except ValueError:  # a quotation mark is open
        return False
    return True


@pytest.fixture
def producer(settings: Settings) -> Iterator[Process]:
    with running(settings.model_copy(update={"api_keys": {"*": SecretStr(KEY)}}), "producer") as (started,):
        yield started.wait_ready()


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Process]:
    process = RelayProcess(tmp_path / "ea.db", None)
    try:
        yield process.start()
    finally:
        process.close()


def run(command: str, folder: Path, producer: Process, relay: Process) -> tuple[str, dict[str, Any]]:
    (folder / ".env").write_text(f"TICKPIPE_API_KEY={KEY}\n")
    command = command.replace(_PRODUCER, producer.url).replace(_RELAY, relay.url).replace("KEY'", f"{KEY}'")
    command = re.sub(r"\bcurl ", r"curl --silent --write-out '\\n%{http_code}' ", command)
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=folder, capture_output=True, check=True)
    body, _, status = done.stdout.decode().rpartition("\n")
    return status, json.loads(body)


def test_no_example_is_overlooked() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    found = {str(page.relative_to(ROOT)): len(list(examples(page.read_text()))) for page in pages}
    assert {page: count for page, count in found.items() if count} == PAGES


def test_every_example_gets_the_answer_beside_it(producer: Process, relay: Process, tmp_path: Path) -> None:
    tools.find("curl")
    for page in PAGES:
        for command, said in examples((ROOT / page).read_text()):
            status, answer = run(command, tmp_path, producer, relay)
            wanted, _, body = said.partition(" ") if said[:1].isdigit() else ("200", "", said)
            assert (status, answer) == (wanted, json.loads(body) if body else _SUCCESS), (page, command)
