"""`tickpipe replay`, Kafka's own reset of offsets and `tickpipe rejected`: one embedded stack, by the command line."""

import asyncio
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from marketdata.tick import Frame, Tick
from marketdata.wire import encode
from runtime.kafka import new_producer
from runtime.kafka_groups import group_offsets
from runtime.settings import Settings
from tests import plainhttp, preloaded
from tests.days import eurusd_bars, eurusd_ticks
from tests.integration.stack import Row, Stack
from tests.kafka_log import KafkaLog
from tests.kafka_tool import tool_command
from tests.waiting import PATIENCE_SECONDS, wait_until
from tickpipe.embedded.stack import start_service, stop_service
from tickpipe.replay.engine import wait_until_empty

# integration/test_stack.py replays a part of its day, test_rejected.py lists, shows and resends one of every form.
pytestmark = [pytest.mark.full, pytest.mark.long(170)]

#: The first ticks of the day; batches of ten make 300 records of a symbol.
COUNT, BATCH = 3_000, 10


class Pipeline(Stack):
    """A stack that holds the same ticks as two symbols: sent once, and in part sent again later."""

    def rows(self) -> list[Row]:
        """All that a row says of its minute; not when it was written, and not by which polls it was folded."""
        return self.sql(
            "SELECT source, symbol, ts, open, high, low, close, volume, real_volume, spread, closed, first_tick,"
            " last_tick, log FROM market_data WHERE source IN ('Once', 'Resent')"
            " ORDER BY source, symbol, ts"
        )

    def committed(self) -> dict[int, int]:
        settings = self.settings()
        return asyncio.run(group_offsets(settings, settings.stream_group, settings.ticks_topic))

    def send(self, file: Path, source: str, *options: str) -> None:
        self.run("send", str(file), "-s", "EURUSD", "--source", source, "--batch", str(BATCH), *options)


def pipeline_of(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(tmp_path_factory.mktemp("replay") / "data")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    stack = pipeline_of(tmp_path_factory)
    file = stack.data_dir.parent / "ticks.csv"
    lines = (f"{tick.time_msc},{tick.bid},{tick.ask}\n" for tick in eurusd_ticks()[:COUNT])
    file.write_text("time_msc,bid,ask\n" + "".join(lines))
    stack.start_to_the_table()
    try:
        stack.send(file, "Once")
        stack.send(file, "Resent")
        # Long enough for the minutes to be over and forgotten, so that the sink has to refold them.
        stack.settle()
        time.sleep(6)
        stack.send(file, "Resent", "--skip", "1000")
        stack.settle()
        yield stack
    finally:
        stack.run("down")


@pytest.fixture
def rows(stack: Pipeline) -> list[Row]:
    """The table before a test, which is right and proven."""
    rows = stack.rows()
    bars = eurusd_bars()
    for source in ("Once", "Resent"):
        mine = [row for row in rows if row[0] == source]
        assert sum(row[7] for row in mine) == COUNT
        # The last minute is cut off.
        assert all(row[3:7] == bars[int(row[2].timestamp() * 1000)] for row in mine[:-1])
    stack.run("verify")
    return rows


def test_dry_run_tells_and_changes_nothing(stack: Pipeline) -> None:
    before = stack.committed()

    said = stack.run("replay", "--from", "2019-02-04", "--dry-run")

    assert f"{sum(before.values()):,} records to fold" in said
    assert "Nothing was changed" in said
    one = stack.run("replay", "--from", "2019-02-04T00:30", "-s", "EURUSD", "--source", "Once", "--dry-run")
    # All partitions, since a symbol may lie in any of them, and the sum.
    assert len([line for line in one.splitlines() if line.strip()[:1].isdigit()]) == 4 + 1
    none = stack.run("replay", "--from", "2019-03-01", "--dry-run")
    assert "\n0 records to fold" in none
    assert stack.committed() == before


def test_an_intact_table_is_not_touched(stack: Pipeline, rows: list[Row]) -> None:
    written = "SELECT ts, xmin::text, ctid::text FROM market_data WHERE source = 'Once' ORDER BY ts"
    before = stack.sql(written)

    said = stack.run("replay", "--from", "2019-02-04", "--yes")

    assert "0 different" in said
    assert "records folded in" in said
    assert stack.sql(written) == before
    assert stack.rows() == rows


def test_what_was_lost_and_what_is_wrong_comes_back(stack: Pipeline, rows: list[Row]) -> None:
    stack.sql("TRUNCATE market_data")

    stack.run("replay", "--from", "1970-01-01", "--yes")

    assert stack.rows() == rows

    stack.sql(
        "DELETE FROM market_data WHERE source = 'Once' AND ts BETWEEN '2019-02-04 00:10Z' AND '2019-02-04 00:15Z'"
    )
    stack.sql("UPDATE market_data SET high = high + 1 WHERE source = 'Once' AND ts = '2019-02-04 00:16Z'")
    said = stack.run(
        "replay", "--from", "2019-02-04T00:10:30", "--to", "2019-02-04T00:20", "--margin", "1m",
        "--symbol", "EURUSD", "--source", "Once", "--yes",
    )  # fmt: skip

    assert "10 candles checked, 10 equal, 0 different" in said
    assert stack.rows() == rows


def test_kafkas_own_reset_gives_the_same_rows(stack: Pipeline, rows: list[Row]) -> None:
    settings = stack.settings()
    stop_service(stack.data_dir, "stream")
    try:
        asyncio.run(wait_until_empty(settings, lambda members, waited: None))
        # Frames of ten ticks begin less than a minute before the minute that they reach.
        stack.sql("DELETE FROM market_data WHERE ts >= '2019-02-04 00:15Z'")
        command = tool_command(
            "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
            "--bootstrap-server", settings.kafka_bootstrap,
            "--command-config", str(stack.data_dir / "kafka" / "client.properties"), "--group", settings.stream_group,
            "--reset-offsets", "--to-datetime", "2019-02-04T00:14:00.000", "--topic", settings.ticks_topic, "--execute",
        )  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert settings.ticks_topic in done.stdout
    finally:
        start_service(stack.data_dir, "stream")
    stack.settle()

    assert stack.rows() == rows
    stack.run("verify")


def test_ctrl_c_starts_the_workers_again(stack: Pipeline) -> None:
    before = stack.committed()
    replaying = subprocess.Popen(
        [sys.executable, "-m", "tickpipe", "replay", "--from", "2019-02-04", "--yes",
         "--data-dir", str(stack.data_dir)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert replaying.stderr is not None
    assert "Stopping stream" in replaying.stderr.readline()
    wait_until(lambda: stack.found().service("stream").state == "stopped", what="a stopped worker")
    replaying.send_signal(signal.SIGINT)
    _, said = replaying.communicate(timeout=PATIENCE_SECONDS)

    assert replaying.returncode == 130, said
    assert "nothing was changed" in said
    assert stack.found().service("stream").state == "running"
    assert stack.committed() == before


def test_workers_that_run_elsewhere_must_be_stopped_first(stack: Pipeline, tmp_path: Path) -> None:
    before = stack.committed()
    status = stack.status()
    elsewhere = os.environ | {"TICKPIPE_DATABASE_URL": status["database_url"]}
    elsewhere |= {f"TICKPIPE_{name.upper()}": value for name, value in status["kafka_settings"].items()}

    done = preloaded.run(
        ["tickpipe", "replay", "--from", "2019-02-04", "--yes", "--data-dir", str(tmp_path)], environment=elsewhere
    )

    assert done.returncode == 1
    assert "docker compose stop stream" in done.stderr
    assert "Traceback" not in done.stderr
    assert stack.committed() == before


def rejected(stack: Pipeline, *options: str) -> list[dict[str, str]]:
    listed = stack.run("rejected", "list", "--format", "csv", *options)
    return list(csv.DictReader(io.StringIO(listed)))


def eventually_rejected(stack: Pipeline, reason: str) -> dict[str, str]:
    def found() -> list[dict[str, str]]:
        return [one for one in rejected(stack) if reason in one["reason"]]

    return wait_until(found, what=f"a record that was rejected for {reason}")[0]


async def produce(settings: Settings, topic: str, value: bytes | None, headers: dict[str, str]) -> str:
    """The name of a new record, as `rejected show` takes it."""
    producer = new_producer(settings)
    await producer.start()
    try:
        encoded = [(name, text.encode()) for name, text in headers.items()]
        sent = await producer.send_and_wait(topic, value, key=b"x", headers=encoded)
        return f"{sent.partition} {sent.offset}"
    finally:
        await producer.stop()


def resend_one(stack: Pipeline, what: str, name: str, *, expect: int = 0) -> str:
    partition, offset = name.split()
    return stack.run(
        "rejected", "resend", "--topic", what, "--partition", partition, "--offset", offset, "--yes", expect=expect
    )


def volume(stack: Pipeline, source: str) -> int | None:
    (count,) = stack.sql(f"SELECT sum(volume)::int FROM market_data WHERE source = '{source}'")  # noqa: S608 - a name of ours
    return count[0] if count[0] is None else int(count[0])


MINUTE_MS = int(datetime(2020, 1, 1, 12, tzinfo=UTC).timestamp()) * 1000


def test_what_is_still_unusable_is_listed_shown_and_not_sent(stack: Pipeline) -> None:
    state = stack.status()
    answer = plainhttp.post(
        f"{state['producer_url']}/ingest/tick", headers={"X-API-Key": state["api_key"], "X-Source": "Broken"},
        json={"ticks": [{"ts_msc": MINUTE_MS, "symbol": "EURUSD", "bid": "many"}]},
    )  # fmt: skip
    assert answer.status_code == 400
    asyncio.run(produce(stack.settings(), "ticks", b"\x00 no frame", {}))

    item = eventually_rejected(stack, "bid")
    assert (item["topic"], item["origin"]) == ("ticks", "item 0 from Broken")
    shown = stack.run("rejected", "show", "ticks", item["partition"], item["offset"])
    assert "header source: Broken" in shown
    assert '"bid": "many"' in shown
    assert "resend: cannot be used: bid" in shown
    frame = eventually_rejected(stack, "JSON is malformed")
    assert frame["origin"].startswith("ticks-")
    assert r"\x00 no frame" in stack.run("rejected", "show", "ticks", frame["partition"], frame["offset"])

    before = len(rejected(stack))
    resend_one(stack, "ticks", f"{item['partition']} {item['offset']}", expect=1)
    resend_one(stack, "ticks", f"{frame['partition']} {frame['offset']}", expect=1)
    assert len(rejected(stack)) == before
    assert rejected(stack, "--topic", "candles") == []
    assert "no record at offset 999" in unsuccessful(stack, "rejected", "show", "candles", "0", "999")


def unsuccessful(stack: Pipeline, *arguments: str) -> str:
    done = preloaded.run(["tickpipe", *arguments, "--data-dir", str(stack.data_dir)])
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    return done.stderr


def test_an_item_that_is_usable_now_becomes_a_candle_and_sent_twice_counts_once(stack: Pipeline) -> None:
    # As an older version may have rejected it.
    item = json.dumps({"ts_msc": MINUTE_MS + 5, "symbol": "EURUSD", "bid": 1.1, "ask": 1.2}).encode()
    headers = {"reason": "an older version", "topic": "http", "partition": "-1", "offset": "3", "source": "Fixed"}
    name = asyncio.run(produce(stack.settings(), "ticks.rejected", item, headers))
    assert "/ingest/tick for source Fixed" in stack.run("rejected", "show", "ticks", *name.split())

    for _ in range(2):
        assert "1 records sent" in resend_one(stack, "ticks", name)
        stack.settle()
        assert volume(stack, "Fixed") == 1


def test_a_frame_that_is_usable_now_becomes_a_candle(stack: Pipeline) -> None:
    ticks = [Tick(MINUTE_MS + 60_000 + n, 1.1, 1.2, 0.0, 0.0, 6) for n in range(4)]
    frame = Frame(
        v=1, source="Framed", symbol="EURUSD", mode="bid", point=None, request="r", received=MINUTE_MS, ticks=ticks
    )
    headers = {"reason": "an older version", "topic": "ticks", "partition": "0", "offset": "1"}
    name = asyncio.run(produce(stack.settings(), "ticks.rejected", encode(frame), headers))

    resend_one(stack, "ticks", name)
    resend_one(stack, "ticks", name)
    stack.settle()

    assert volume(stack, "Framed") == 4
    stack.run("verify", "--source", "Framed")


def test_a_candle_that_is_usable_now_is_stored(stack: Pipeline, rows: list[Row]) -> None:
    settings = stack.settings()
    candle = next(value for value in asyncio.run(published(settings)) if b'"source":"Once"' in value)
    ts = datetime.fromtimestamp(json.loads(candle)["ts"] / 1000, UTC)
    headers = {"reason": "the database refused it", "topic": "candles.m1", "partition": "0", "offset": "0"}
    name = asyncio.run(produce(settings, "candles.rejected", candle, headers))
    listed = rejected(stack, "--topic", "candles")
    assert [(one["origin"], one["reason"]) for one in listed] == [("candles.m1-0@0", "the database refused it")]
    stack.sql(f"DELETE FROM market_data WHERE source = 'Once' AND ts = '{ts.isoformat()}'")  # noqa: S608 - a time of ours

    assert "to the topic candles.m1" in resend_one(stack, "candles", name)
    stack.settle()

    assert any(row[0] == "Once" and row[2] == ts for row in stack.rows())
    assert "1 × to the topic candles.m1" in stack.run("rejected", "resend", "--all", "--topic", "candles", "--dry-run")
    # The record may have been an early fold of its minute; the whole one is in the topic of ticks.
    stack.run("replay", "--from", "2019-02-04", "--yes")
    assert stack.rows() == rows


async def published(settings: Settings) -> list[bytes]:
    """Values of the candles topic."""
    producer = new_producer(settings)
    await producer.start()
    try:
        records = await KafkaLog(settings, producer).read(settings.candles_topic)
    finally:
        await producer.stop()
    return [value for _, value in records if value is not None]


def test_all_are_sent_at_once(stack: Pipeline) -> None:
    # Besides what the tests before have left there, if they ran.
    item = json.dumps({"ts_msc": MINUTE_MS + 7, "symbol": "EURUSD", "bid": 1.1, "ask": 1.2}).encode()
    headers = {"reason": "an older version", "topic": "http", "partition": "-1", "source": "All"}
    for n in range(3):
        asyncio.run(produce(stack.settings(), "ticks.rejected", item, headers | {"offset": str(n)}))
    asyncio.run(produce(stack.settings(), "ticks.rejected", b"\x00", headers | {"topic": "ticks", "partition": "0"}))

    said = stack.run("rejected", "resend", "--all", "--yes", expect=1)

    sent = re.search(r"(\d+) records sent, 0 refused", said)
    assert sent is not None, said
    assert 3 <= int(sent[1]) < len(rejected(stack))
    stack.settle()
    assert volume(stack, "All") == 1
    stack.run("verify")
