"""A day goes in through the producer and comes out of `tickpipe ticks` in every form, tick for tick."""

import csv
import io
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from aiokafka.admin import NewTopic
from pyarrow import ipc, parquet

from marketdata.tick import Tick
from marketdata.wire import decode_frame
from runtime.archive.files import LocalFiles
from runtime.archive.manifest import Catalogue
from runtime.kafka import admin_client, log_ends
from runtime.logreader import own_log
from runtime.settings import Settings
from tests import plainhttp
from tests.conftest import own_settings
from tests.days import DAYS, Day
from tests.kafka_log import group_lag, read_records
from tests.ports import free_port
from tests.servers import EmbeddedServers
from tests.services import environment, running
from tests.waiting import PATIENCE_SECONDS, eventually
from tickpipe.proof.check import check, fingerprint_of

pytestmark = [pytest.mark.full, pytest.mark.long(150)]

RANGE = ("--from", "2019-02-04", "--to", "2019-02-05")


class Sent:
    """A pipeline that has stored a day, and the command line on it."""

    def __init__(self, settings: Settings, url: str, ticks: list[Tick]) -> None:
        self.settings = settings
        self.url = url
        self.ticks = ticks

    def run(self, *arguments: str, expect: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [sys.executable, "-m", "tickpipe", *arguments],
            env=environment(self.settings), capture_output=True, timeout=PATIENCE_SECONDS, check=False, cwd=cwd,
        )  # fmt: skip
        assert done.returncode == expect, f"{arguments}: {done.stdout[-2000:]!r} {done.stderr.decode()}"
        return done

    def send(self, path: Path, source: str) -> None:
        self.run("send", str(path), "-s", "EURUSD", "--source", source, "--url", self.url, "--zone", "UTC")

    def candles(self, source: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.settings.database_url.get_secret_value()) as connection:
            return connection.execute(
                "SELECT ts, open, high, low, close, volume, real_volume, spread FROM market_data"
                " WHERE source = %s ORDER BY ts",
                [source],
            ).fetchall()

    async def settled(self) -> None:
        async def done() -> bool:
            settings = self.settings
            folding = await group_lag(settings, settings.stream_group, settings.ticks_topic)
            return folding + await group_lag(settings, settings.sink_group, settings.candles_topic) == 0

        await eventually(done, what="a settled pipeline")


@pytest.fixture(scope="module", params=DAYS, ids=str)
def day(request: pytest.FixtureRequest) -> Day:
    assert isinstance(request.param, Day)
    return request.param


@pytest.fixture(scope="module")
def sent(servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory, day: Day) -> Iterator[Sent]:
    folder = tmp_path_factory.mktemp("ticks")
    settings = own_settings(servers, f"ticks_{free_port()}", data_dir=folder, kafka_partitions=2).model_copy(
        update={"archive": str(folder / "archive"), "archive_flush_seconds": 1}
    )
    ticks = day.ticks
    path = folder / "day.csv"
    path.write_text("time_msc,bid,ask\n" + "".join(f"{t.time_msc},{t.bid:.5f},{t.ask:.5f}\n" for t in ticks))
    with running(settings, "producer", "stream_app", "sink") as (producer, _, _):
        sent = Sent(settings, producer.url, ticks)
        sent.send(path, "Day")
        # The last third comes once more.
        again = folder / "again.csv"
        lines = path.read_text().splitlines(keepends=True)
        again.write_text(lines[0] + "".join(lines[1 + len(ticks) * 2 // 3 :]))
        sent.send(again, "Day")
        yield sent


async def test_the_lines_of_the_readme_do_what_they_say(sent: Sent, tmp_path: Path) -> None:
    """Ticks as a DataFrame, SQL over ticks, a proof, gaps: the first page has a line for each."""
    await sent.settled()
    lines = (Path(__file__).parents[3] / "README.md").read_text().splitlines()
    printed = {}
    for name in ("ticks ", "sql ", "proof export ", "gaps "):
        [line] = [line for line in lines if line.startswith(f"tickpipe {name}")]
        # The day that was sent, instead of the last one.
        arguments = shlex.split(line.replace("--from -1d", " ".join(RANGE)), comments=True)[1:]
        # There are gaps: of the night, which the exit code says as well.
        printed[name] = sent.run(*arguments, cwd=tmp_path, expect=name == "gaps ").stdout.decode()

    assert parquet.read_table(tmp_path / "day.parquet")["time_msc"].to_pylist() == [t.time_msc for t in sent.ticks]
    assert str(len(sent.ticks)) in printed["sql "]
    assert next((tmp_path / "proof").iterdir(), None) is not None
    assert sent.run("proof", "check", str(tmp_path / "proof"))
    assert "EURUSD" in printed["gaps "]


async def test_every_form_has_every_tick_once(sent: Sent, tmp_path: Path) -> None:
    # Arrange
    expected = [(t.time_msc, t.bid, t.ask, t.last, t.volume, t.flags) for t in sent.ticks]
    await sent.settled()

    # Act
    as_csv = sent.run("ticks", "-s", "EURUSD", *RANGE, "--format", "csv").stdout
    as_json = sent.run("ticks", "-s", "EURUSD", *RANGE, "--format", "json").stdout
    sent.run("ticks", "-s", "EURUSD", *RANGE, "--format", "parquet", "--output", str(tmp_path / "day.parquet"))
    sent.run("ticks", "-s", "EURUSD", *RANGE, "--format", "mt5", "--output", str(tmp_path / "mt5.csv"))

    # Assert
    header, *lines = csv.reader(io.StringIO(as_csv.decode()))
    assert header == ["time", "time_msc", "bid", "ask", "last", "volume", "flags"]
    assert [(int(cells[1]), *map(float, cells[2:6]), int(cells[6])) for cells in lines] == expected
    assert [tuple(list(row.values())[1:]) for row in json.loads(as_json)] == expected
    table = parquet.read_table(tmp_path / "day.parquet")
    assert list(zip(*(table[name].to_pylist() for name in header[1:]), strict=True)) == expected
    assert table["time"][0].as_py() == datetime.fromtimestamp(expected[0][0] / 1000, UTC)
    await assert_mt5_is_read_back(sent, tmp_path / "mt5.csv")


async def assert_mt5_is_read_back(sent: Sent, path: Path) -> None:
    """Sent as a file of MetaTrader it makes the same candles, of another source."""
    sent.send(path, "Copy")
    await sent.settled()
    assert sent.candles("Copy") == sent.candles("Day")
    assert len(sent.candles("Day")) > 1000

    several = sent.run("ticks", "-s", "EURUSD", *RANGE, expect=2).stderr.decode()
    assert "EURUSD comes from Copy and Day; name one with --source" in several


async def test_raw_has_the_records(sent: Sent) -> None:
    await sent.settled()
    said = sent.run("ticks", "-s", "EURUSD", "--source", "Day", *RANGE, "--raw", "--format", "csv").stdout.decode()
    rows = list(csv.DictReader(io.StringIO(said)))
    assert len(rows) == len(sent.ticks) + len(sent.ticks) - len(sent.ticks) * 2 // 3
    assert len({(row["partition"], row["offset"], row["index"]) for row in rows}) == len(rows)


async def test_a_table_is_cut_and_unknown_symbols_are_hinted_at(sent: Sent) -> None:
    await sent.settled()
    table = sent.run("ticks", "-s", "EURUSD", "--source", "Day", *RANGE)
    assert table.stdout.count(b"2019-02-04T") == 50
    assert f"… and {len(sent.ticks) - 50:,} more of {len(sent.ticks):,}" in table.stderr.decode()
    unknown = sent.run("ticks", "-s", "eurusd", *RANGE, expect=1).stderr.decode()
    assert "nothing of eurusd is stored; did you mean EURUSD?" in unknown
    nothing = sent.run("ticks", "-s", "EURUSD", "--source", "Other", *RANGE).stderr.decode()
    assert "No tick of EURUSD from Other is in the log for that time. It comes from" in nothing


@pytest.mark.parametrize("format_", ["parquet", "csv", "mt5"])
async def test_an_export_has_every_tick_once(sent: Sent, tmp_path: Path, format_: str) -> None:
    await sent.settled()
    said = sent.run("export", "--ticks", "--format", format_, "--symbol", "EURUSD", *RANGE, str(tmp_path / "out"))
    folder = tmp_path / "out" / "source=Day" / "symbol=EURUSD"
    expected = [(t.time_msc, t.bid, t.ask) for t in sent.ticks]
    if format_ == "mt5":
        alone = sent.run("ticks", "-s", "EURUSD", "--source", "Day", *RANGE, "--format", "mt5").stdout
        assert (folder / "ticks.csv").read_bytes() == alone
    elif format_ == "csv":
        with (folder / "date=2019-02-04" / "ticks.csv").open() as file:
            assert [(int(r["time_msc"]), float(r["bid"]), float(r["ask"])) for r in csv.DictReader(file)] == expected
    else:
        table = parquet.read_table(tmp_path / "out", filters=[("source", "==", "Day")])
        assert list(zip(*(table[n].to_pylist() for n in ("time_msc", "bid", "ask")), strict=True)) == expected
    manifest = json.loads((tmp_path / "out" / "_export.json").read_text())
    assert f"{manifest['ticks']:,} ticks in {manifest['files']} files" in said.stdout.decode()


async def test_every_other_way_out_has_every_tick_once(sent: Sent, tmp_path: Path) -> None:
    """The dashboard's forms, SQL over the archive, a proof, and the log restored from the archive."""
    expected = [(t.time_msc, t.bid, t.ask, t.last, t.volume, t.flags) for t in sent.ticks]
    names = ["time_msc", "bid", "ask", "last", "volume", "flags"]
    await sent.settled()
    with running(sent.settings, "archive", "dashboard") as (_, dashboard):
        catalogue = Catalogue(LocalFiles(Path(sent.settings.archive)), await own_log(sent.settings))

        async def is_archived() -> bool:
            ends = await log_ends(sent.settings, sent.settings.ticks_topic)
            return all(catalogue.progress(partition).next == end for partition, (_, end) in ends.items())

        await eventually(is_archived, what="the day in the archive")
        url = f"{dashboard.url}/ticks?symbol=EURUSD&source=Day&from=2019-02-04&to=2019-02-05&limit=200000&format="
        as_json = plainhttp.get(url + "json", timeout=PATIENCE_SECONDS).json()
        as_csv = list(csv.DictReader(io.StringIO(plainhttp.get(url + "csv", timeout=PATIENCE_SECONDS).text)))
        as_arrow = ipc.open_stream(plainhttp.get(url + "arrow", timeout=PATIENCE_SECONDS).content).read_all()
    assert as_json["next"] is None
    assert [tuple(one[name] for name in names) for one in as_json["ticks"]] == expected
    assert [(int(r["time_msc"]), *(float(r[n]) for n in names[1:5]), int(r["flags"])) for r in as_csv] == expected
    assert list(zip(*(as_arrow[name].to_pylist() for name in names), strict=True)) == expected

    query = (
        "select epoch_ms(time) as time_msc, bid, ask, last, volume, flags from ticks where source = 'Day' order by all"
    )
    sent.run("sql", query, "--format", "parquet", "--output", str(tmp_path / "sql.parquet"))
    table = parquet.read_table(tmp_path / "sql.parquet")
    assert list(zip(*(table[name].to_pylist() for name in names), strict=True)) == sorted(expected)

    proof = tmp_path / "proof"
    sent.run("proof", "export", str(proof), "-s", "EURUSD", "--source", "Day", *RANGE)
    assert list(check(proof, fingerprint=fingerprint_of(proof))) == []
    with (proof / "ticks" / "2019-02-04.csv").open() as file:
        proven = [
            (int(r["time_msc"]), *(float(r[n]) for n in names[1:5]), int(r["flags"])) for r in csv.DictReader(file)
        ]
    assert proven == expected

    again = f"{sent.settings.ticks_topic}.again"
    async with admin_client(sent.settings) as client:
        # With the default of seven days Kafka would delete ticks of 2019 as soon as it looks.
        await client.create_topics([NewTopic(again, 2, 1, topic_configs={"retention.ms": "-1"})])
    restored = 0
    for partition in catalogue.partitions():
        said = sent.run("archive", "restore", "--to", again, "--partition", str(partition)).stdout.decode()
        restored += int(said.split()[0].replace(",", ""))
    of_topics = [await read_records(sent.settings, topic) for topic in (sent.settings.ticks_topic, again)]
    before, after = ([(r.partition, r.key, decode_frame(r.value)) for r in records] for records in of_topics)
    assert after == before
    assert restored == len(before)
