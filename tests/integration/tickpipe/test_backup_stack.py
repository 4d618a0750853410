"""The disk of the one machine died: a new stack on an empty folder gets everything back, by the command line alone."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import preloaded
from tests.days import EURUSD_COUNT, GENERATED
from tests.integration.stack import Stack
from tests.waiting import PATIENCE_SECONDS, wait_until

#: Ticks of the day that are sent after the restore.
LATER = 20_000


@pytest.mark.full
@pytest.mark.long(95)
@pytest.mark.timeout(600)
def test_a_new_machine_has_all_there_was_and_goes_on(tmp_path: Path) -> None:
    # Arrange: a day but for its end, and the backup while everything runs
    backups = tmp_path / "backups"
    backups.mkdir()
    old = Stack(tmp_path / "old")
    old.up()
    try:
        ticks = GENERATED.write_ticks(tmp_path / "ticks.csv.gz")
        old.run("send", str(ticks), "-s", "EURUSD", "--source", "D")
        old.settle()
        before = old.candles("--symbol", "EURUSD")
        said = old.run("backup", "--topics", str(backups))
        assert re.search(r"market_data: 1,4\d\d rows", said)
        assert old.run("verify").count("0 different") == 1
    finally:
        old.run("down")
    (file,) = backups.iterdir()

    # Act
    new = Stack(tmp_path / "new")
    new.up()
    try:
        assert "every checksum is right" in new.run("restore", "--check", str(file))
        said = new.run("restore", "--yes", str(file))

        # Assert
        assert "at the offsets they had" in said
        assert new.candles("--symbol", "EURUSD") == before
        assert f"{len(before):,} equal, 0 different" in new.run("verify").replace("candles checked, ", "")
        new.settle()
        assert new.run("verify").count("0 different") == 1

        # Sent again, nothing counts twice; new ticks lie behind the old ones.
        new.run("send", str(ticks), "-s", "EURUSD", "--source", "D", "--skip", str(EURUSD_COUNT - LATER))
        new.settle()
        time.sleep(6)
        new.settle()
        assert new.candles("--symbol", "EURUSD") == before
        new.run("send", str(ticks), "-s", "GBPUSD", "--source", "D", "--skip", str(EURUSD_COUNT - LATER))
        new.settle()
        assert sum(int(row["volume"]) for row in new.candles("--symbol", "GBPUSD")) == LATER
        assert new.run("verify").count("0 different") == 1

        # It holds candles now, so that another restore has to be told.
        assert "--replace" in failed(new, "restore", "--yes", str(file), code=2)
        assert "PostgreSQL" not in new.run("restore", "--yes", "--replace", str(file))
        new.settle()
        assert sum(int(row["volume"]) for row in new.candles("--symbol", "GBPUSD")) == LATER
        assert new.run("verify").count("0 different") == 1
    finally:
        new.run("down")


@pytest.mark.full
def test_ctrl_c_leaves_no_backup(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "data")
    stack.up()
    try:
        ticks = GENERATED.write_ticks(tmp_path / "ticks.csv.gz")
        stack.run("send", str(ticks), "-s", "EURUSD", "--source", "D")
        (tmp_path / "backups").mkdir()
        backing_up = subprocess.Popen(
            [sys.executable, "-m", "tickpipe", "backup", "--topics", str(tmp_path / "backups"),
             "--data-dir", str(stack.data_dir)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_until(lambda: list((tmp_path / "backups").glob(".*.partial")), what="a backup that has begun")
        backing_up.send_signal(signal.SIGINT)
        _, said = backing_up.communicate(timeout=PATIENCE_SECONDS)
        assert (backing_up.returncode, list((tmp_path / "backups").iterdir())) == (130, []), said
        assert "no backup was written" in said
    finally:
        stack.run("down")


def failed(stack: Stack, *arguments: str, code: int) -> str:
    done = preloaded.run(["tickpipe", *arguments, "--data-dir", str(stack.data_dir)])
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr
