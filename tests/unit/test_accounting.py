"""The report of processor time puts each second down once, to the file and the program that used it."""

import pytest

from tests.accounting import lines, program


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
    costs = {("a.py", "pytest"): 1.0, ("a.py", "ended"): 5.0, ("a.py", "java"): 3.0, ("b.py", "pytest"): 9.0}
    report = [" ".join(line.split()) for line in lines(costs)]
    assert report == [
        "15.0 s in all", "10.0 s pytest", "3.0 s java", "2.0 s brief", "",
        "9.0 s b.py: pytest 9.0", "6.0 s a.py: java 3.0, brief 2.0, pytest 1.0",
    ]  # fmt: skip
