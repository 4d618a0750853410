"""A whole stack whose Kafka has let go of its ticks: the replay into an empty table gives the same rows."""

import asyncio
import json
from collections.abc import Iterator

import pytest

from runtime.kafka import log_ends
from tests.days import eurusd_ticks
from tests.integration.stack import Row, Stack
from tests.waiting import wait_until
from tickpipe.proof.check import check

pytestmark = [pytest.mark.full, pytest.mark.long(40)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("archived") / "data")
    file = stack.data_dir.parent / "ticks.csv"
    lines = (f"{tick.time_msc},{tick.bid},{tick.ask}\n" for tick in eurusd_ticks()[:3_000])
    file.write_text("time_msc,bid,ask\n" + "".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TICKPIPE_ARCHIVE_FLUSH_SECONDS", "1")
        patch.setenv("TICKPIPE_TICKS_LOCAL_RETENTION_DAYS", "1")
        stack.up()
        try:
            # Twice, so that candles hold late resends as well.
            for _ in range(2):
                stack.run("send", str(file), "-s", "EURUSD", "--source", "Broker", "--batch", "10")
            stack.settle()
            yield stack
        finally:
            stack.run("down")


def rows(stack: Stack) -> list[Row]:
    return stack.sql(
        "SELECT source, symbol, ts, open, high, low, close, volume, real_volume, spread, closed, first_tick, last_tick,"
        " log FROM market_data ORDER BY source, symbol, ts"
    )


def test_kafka_emptied_to_the_archived_offset_verifies_and_replays_alike(stack: Stack) -> None:
    # Arrange
    settings = stack.settings()

    def is_empty() -> bool:
        ends = asyncio.run(log_ends(settings, settings.ticks_topic))
        return all(first == end for first, end in ends.values()) and any(end for _, end in ends.values())

    wait_until(is_empty, what="a Kafka without ticks")
    before = rows(stack)

    # Act and assert
    report = json.loads(stack.run("verify", "--complete", "--json"))
    assert (report["checked"], report["equal"]) == (len(before), len(before))
    assert report["unprovable"] == report["missing"] == []
    assert "0 faults" in stack.run("archive", "check")
    stack.sql("TRUNCATE market_data")
    assert "in the archive alone" in stack.run("replay", "--from", "2019-01-01", "--yes")
    assert rows(stack) == before
    ticks = stack.run("ticks", "-s", "EURUSD", "--from", "2019-02-04", "--to", "2019-02-05", "--format", "csv")
    assert len(ticks.splitlines()) == 1 + 3_000
    proof = stack.data_dir.parent / "proof"
    said = stack.run("proof", "export", str(proof), "-s", "EURUSD", "--from", "2019-02-04", "--to", "2019-02-05")
    assert f"{len(before)} candles and 3,000 ticks" in said
    fingerprint = said.split("fingerprint ")[1].strip()
    assert list(check(proof, fingerprint=fingerprint)) == []
