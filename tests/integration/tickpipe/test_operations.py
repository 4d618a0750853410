"""The commands of docs/deploy/operations.md, run as they stand there, in order, on one stack with ticks."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from tests import plainhttp
from tests.integration.stack import Stack
from tests.kafka_tool import tool_command
from tests.waiting import wait_until
from tickpipe.embedded.stack import find_stack, stop_stack

pytestmark = [pytest.mark.full, pytest.mark.long(120), pytest.mark.timeout(900)]

PAGE = Path(__file__).parents[3] / "docs" / "deploy" / "operations.md"

#: Their commands need servers that a stack does not have: `tests/operations/` runs them.
ELSEWHERE = ("Failover of PostgreSQL", "Poolers")


def commands(*, of: Collection[str] = (), but: Collection[str] = ()) -> list[str]:
    """The blocks of commands in the sections of the page with these titles, by default in all but some."""
    blocks = []
    for section in PAGE.read_text().split("\n## ")[1:]:
        title = section.partition("\n")[0]
        if (title in of or not of) and title not in but:
            blocks += re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return blocks


#: Other stacks of this machine have the usual port, so `up` takes a free one.
_SHELL = """
tickpipe() {
    if [ "$1" = up ]; then shift; set -- up --producer-port 0 "$@"; fi
    "$PYTHON" -m tickpipe "$@"
}
"""


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of the page's reader, with Kafka's tools."""
    tool = tmp_path / "bin" / "kafka-topics.sh"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec {shlex.join(tool_command("org.apache.kafka.tools.TopicCommand"))} "$@"\n')
    tool.chmod(0o755)
    (tmp_path / "functions.sh").write_text(_SHELL)
    data = tmp_path / "data"
    yield os.environ | {
        "BASH_ENV": str(tmp_path / "functions.sh"), "PYTHON": sys.executable, "TICKPIPE_DATA_DIR": str(data),
        "PATH": f"{tool.parent}:{os.environ['PATH']}",
    }  # fmt: skip
    for folder in (data, tmp_path / "new", tmp_path / "copied"):
        if find_stack(folder):
            stop_stack(folder)


def test_the_sections_that_are_run_elsewhere_are_there() -> None:
    assert [len(commands(of=[title])) for title in ELSEWHERE] == [1, 1]


def test_every_command_of_the_page_works(shell: dict[str, str], tmp_path: Path) -> None:
    for number, block in enumerate(commands(but=ELSEWHERE)):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=tmp_path, env=shell, capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
        if number == 0:
            send_ticks(Stack(Path(shell["TICKPIPE_DATA_DIR"])))


def send_ticks(stack: Stack) -> None:
    """Five finished minutes of two symbols."""
    state = stack.found()
    for symbol in ("EURUSD", "GBPUSD"):
        ticks = [{"symbol": symbol, "time_msc": 1_709_510_400_000 + n * 1_000, "bid": 1 + n / 1e5} for n in range(300)]
        posted = plainhttp.post(
            f"{state.producer_url}/ingest/tick", json=ticks, headers={"X-API-Key": state.api_key, "X-Source": "EA"}
        )
        assert posted.status_code == 200, posted.text
    wait_until(lambda: len(stack.status()["newest"]) == 2, what="candles of both symbols")
