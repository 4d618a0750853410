"""The report of processor time puts each second down once, to the file and the program that used it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.accounting import OwnTime, Report, Sampler, Seen, lines, program
from tests.guardian import RUNS_VARIABLE

#: Works a fifth of a second, says so, and waits for the end of its input.
WORK = "import sys, time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\nsys.stdin.read()"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/opt/jre/bin/java -Xmx256m kafka.Kafka server.properties", "java"),
        ("postgres: sink market 127.0.0.1(5) idle", "postgres"),
        ("/venv/bin/python -m tickpipe import ticks.csv", "python -m tickpipe import"),
        ('/venv/bin/python -m tickpipe.embedded.stack {"data_dir":"x"}', "python -m tickpipe.embedded.stack"),
        ("/venv/bin/python -m sink", "python -m sink"),
        ("/venv/bin/python -IS /tests/guardian.py 1f", "python guardian.py"),
        ("/usr/lib/chromium/chromium --type=renderer", "chromium"),
    ],
)
def test_a_program_is_named_by_what_it_runs(command: str, name: str) -> None:
    assert program(command.split(" ")) == name


def test_what_ended_between_two_samples_is_the_rest_and_files_come_with_the_dearest_first() -> None:
    costs = {
        ("a.py", "pytest"): 1.0, ("a.py", "ended"): 5.0, ("a.py", "sampled"): 3.0, ("a.py", "java"): 3.0,
        ("b.py", "pytest"): 9.0,
    }  # fmt: skip
    report = [" ".join(line.split()) for line in lines(costs)]
    assert report == [
        "15.0 s in all", "10.0 s pytest", "3.0 s java", "2.0 s brief", "",
        "9.0 s b.py: pytest 9.0", "6.0 s a.py: java 3.0, brief 2.0, pytest 1.0",
    ]  # fmt: skip


def test_what_one_file_is_sampled_for_and_another_waits_for_is_counted_once() -> None:
    costs = {
        ("a.py", "java"): 3.0, ("a.py", "sampled"): 3.0, ("b.py", "ended"): 4.0, ("c.py", "ended"): 2.0,
    }  # fmt: skip
    report = [" ".join(line.split()) for line in lines(costs)]
    assert report == [
        "6.0 s in all", "3.0 s java", "3.0 s brief", "",
        "3.0 s a.py: java 3.0", "2.0 s b.py: brief 2.0", "1.0 s c.py: brief 1.0",
    ]  # fmt: skip


def test_children_are_known_whose_numbers_are_smaller_than_those_of_their_parents() -> None:
    alive = {30: Seen("a.py", "java"), 20: Seen("a.py", "python -m sink"), 400: Seen("", "worker")}
    Sampler("a-run").place(alive, {30: 20, 20: 400, 400: os.getpid()})
    assert [(one.child, one.tester) for one in (alive[20], alive[30])] == [(alive[20], 400)] * 2


def test_a_server_that_ends_in_another_file_than_it_began_in_is_counted_once(tmp_path: Path) -> None:
    own, sampler = OwnTime(), Sampler("a-run-of-its-own")
    own.note()
    own.costs.clear()
    own.pytest_runtest_logstart("a.py::test_one")
    environment = {RUNS_VARIABLE: sampler.run, "PYTEST_CURRENT_TEST": "a.py::test_one (call)"}
    with subprocess.Popen(
        [sys.executable, "-c", WORK], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout
        server.stdout.readline()
        sampler.sample()
        own.pytest_runtest_logstart("b.py::test_two")
        sampler.sample()
    sampler.start()
    report = Report(tmp_path / "report", own, sampler, has_workers=False)

    report.pytest_unconfigure()

    [server_line] = [
        line for line in (tmp_path / "report").read_text().splitlines() if "python -c" in line and ":" in line
    ]
    assert " a.py: python -c 0.2" in server_line
    assert [line for line in (tmp_path / "report").read_text().splitlines() if "brief" in line] == []
