"""`tickpipe import` against a small producer: what is recognised, what is sent, what is said."""

import gzip
import json
import os
import threading
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.scripted import Answer, ScriptedServer
from tests.unit.tickpipe.sending.test_history import BAR_HEADER, M1, MT5
from tests.waiting import wait_until
from tickpipe.cli import app
from tickpipe.sending.dialects import Said
from tickpipe.sending.options import Target
from tickpipe.sending.progress import SavedPlace
from tickpipe.sending.ticks import SendOptions, send_ticks

BARS = "EURUSD_M1_201902040000_201902042359.csv"
TICKS = "GBPUSD_201902040000_201902042359.csv"


@pytest.fixture
def folder(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    # Interrupted imports are saved there.
    monkeypatch.setenv("TICKPIPE_DATA_DIR", str(tmp_path_factory.mktemp("data")))
    (tmp_path / BARS).write_text(M1)
    (tmp_path / TICKS).write_text(MT5)
    return tmp_path


def run(*arguments: str, producer: ScriptedServer | None = None) -> Result:
    where = [] if producer is None else ["--url", producer.url, "--key", "secret-key"]
    return CliRunner().invoke(app, ["import", *arguments, *where])


def test_bars_and_ticks_go_the_way_an_ea_sends_them(folder: Path, producer: ScriptedServer) -> None:
    assert folder.is_dir()
    result = run(BARS, TICKS, "--source", "Demo", producer=producer)

    assert result.exit_code == 0, result.stderr
    assert [(request.path, len(request.items)) for request in producer.requests] == [
        ("/ingest", 2),
        ("/ingest/tick", 5),
    ]
    assert {request.headers["X-Source"] for request in producer.requests} == {"Demo"}
    assert producer.taken[:2] == [
        {
            "ts": "2019-02-04T00:00:00Z", "symbol": "EURUSD", "timeframe": "M1", "open": 1.14543, "high": 1.1455,
            "low": 1.1454, "close": 1.14546, "tick_volume": 45, "spread": 2,
        },
        {
            "ts": "2019-02-04T23:59:00Z", "symbol": "EURUSD", "timeframe": "M1", "open": 1.14546, "high": 1.14546,
            "low": 1.14546, "close": 1.14546, "tick_volume": 1, "real_volume": 250.0, "spread": 0,
        },
    ]  # fmt: skip
    assert {tick["symbol"] for tick in producer.taken[2:]} == {"GBPUSD"}
    assert "2 bars sent, 2 accepted" in result.stdout
    assert "5 ticks sent, 5 accepted" in result.stdout


def test_options_go_before_the_name(folder: Path, producer: ScriptedServer) -> None:
    (folder / "bars.csv").write_text(M1.replace("23:59", "20:00"))
    assert run("bars.csv", "-s", "EURUSD.r", "--timeframe", "h4", producer=producer).exit_code == 0
    assert {(bar["symbol"], bar["timeframe"]) for bar in producer.taken} == {("EURUSD.r", "H4")}


def test_a_dry_run_reads_everything_and_sends_nothing(folder: Path, producer: ScriptedServer) -> None:
    result = run("--dry-run", BARS, TICKS, producer=producer)
    assert result.exit_code == 0
    assert producer.requests == []
    said = " ".join(result.stdout.split())
    assert f"{BARS} M1 bars EURUSD 2 2019-02-04T00:00:00 2019-02-04T23:59:00" in said
    assert f"{TICKS} ticks GBPUSD 5 2019-02-04T00:00:01.234" in said

    (folder / BARS).write_text(M1 + "2019.02.05\tnoon\t1\t1\t1\t1\t1\t0\t0\n")
    broken = run("--dry-run", BARS)
    assert broken.exit_code == 1
    assert "line 4: time: '2019.02.05 noon' is no time such as" in broken.stderr


def test_bars_of_another_timeframe_are_refused(folder: Path, producer: ScriptedServer) -> None:
    hours = "".join(f"2019.02.04\t{hour:02d}:00:00\t1.145\t1.147\t1.144\t1.146\t3600\t0\t2\n" for hour in range(8, 12))
    (folder / "bars.csv").write_text(BAR_HEADER + hours)

    refused = run("bars.csv", "-s", "EURUSD", "--timeframe", "M1", producer=producer)

    assert (refused.exit_code, producer.requests) == (2, [])
    assert "are those of H1, not of M1" in " ".join(refused.stderr.replace("│", " ").split())
    assert run("bars.csv", "-s", "EURUSD", "--timeframe", "H1", producer=producer).exit_code == 0


def test_good_lines_are_sent_and_bad_ones_listed(folder: Path, producer: ScriptedServer) -> None:
    (folder / BARS).write_text(M1 + "2019.02.05\tnoon\t1\t1\t1\t1\t1\t0\t0\n" + M1.splitlines()[1] + "\n")

    result = run(BARS, producer=producer)

    assert (result.exit_code, len(producer.taken)) == (1, 4)
    assert producer.taken[-1] == {
        "file": BARS, "line": 4, "text": "2019.02.05\tnoon\t1\t1\t1\t1\t1\t0\t0",
        "why": "time: '2019.02.05 noon' is no time such as the first ones of the file, %Y.%m.%d %H:%M:%S",
    }  # fmt: skip
    assert "3 bars sent, 3 accepted, 0 rejected" in result.stdout
    assert "1 lines could not be used" in result.stdout
    assert "line 4: time: '2019.02.05 noon' is no time" in " ".join(result.stderr.split())


def test_a_zone_makes_moments_of_the_times(folder: Path, producer: ScriptedServer) -> None:
    assert run(BARS, TICKS, "--zone", "America/New_York+07:00", producer=producer).exit_code == 0
    assert [item["ts"] for item in producer.taken[:3]] == [
        "2019-02-03T22:00:00+00:00", "2019-02-04T21:59:00+00:00", "2019-02-03T22:00:01.234+00:00",
    ]  # fmt: skip
    assert all("ts_msc" not in item for item in producer.taken)
    assert run(BARS, "--zone", "Atlantis", producer=producer).exit_code == 2


@pytest.mark.parametrize(
    ("name", "content", "arguments", "said"),
    [
        ("none.csv", None, (), "there is no file none.csv"),
        ("bars.csv", M1, (), "pass --symbol"),
        ("bars.csv", M1, ("-s", "EURUSD"), "nor the opening times of bars.csv tell the timeframe"),
        (
            "EURUSD_M2_201902040000_201902042359.csv",
            M1,
            (),
            "one of M1 M5 M15 M30 H1 H4 D1 W1 MN1 is expected, not 'M2'",
        ),
        ("x.csv", "a,b\n1,2\n", ("-s", "EURUSD"), "<TICKVOL>"),
    ],
)
def test_what_cannot_be_recognised_is_wrong_use(
    folder: Path, name: str, content: str | None, arguments: tuple[str, ...], said: str
) -> None:
    if content is not None:
        (folder / name).write_text(content)
    result = run(name, *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.replace("│", " ").split())


def test_what_comes_through_a_pipe_is_left_to_send(folder: Path) -> None:
    os.mkfifo(folder / "feed.csv")
    for name in ("-", "feed.csv"):
        result = run(name, "--symbol", "EURUSD", "--dry-run")
        assert (result.exit_code, "send -" in result.stderr) == (2, True)


def test_a_file_without_bars_sends_nothing(folder: Path, producer: ScriptedServer) -> None:
    (folder / BARS).write_text(BAR_HEADER)
    result = run(BARS, producer=producer)
    assert (result.exit_code, producer.requests) == (0, [])
    assert "0 bars sent" in result.stdout


def test_a_dry_run_names_the_dialect_and_shows_the_first_rows(folder: Path) -> None:
    (folder / "ticks.csv").write_text("time;symbol;bid;ask\n04.02.2019 00:00:01;EURUSD;1,14543;1,14545\n")

    result = run("--dry-run", "ticks.csv", "--zone", "Europe/Athens")

    said = " ".join(result.stdout.split())
    assert result.exit_code == 0
    for words in (
        "columns time symbol bid ask", "separator semicolon", "decimal sign comma", "times %d.%m.%Y %H:%M:%S",
        "zone Europe/Athens", "2019-02-03T22:00:01 1.14543 1.14545 0.0 0.0 6 EURUSD",
    ):  # fmt: skip
        assert words in said


def test_options_say_what_the_first_lines_do_not(folder: Path, producer: ScriptedServer) -> None:
    (folder / "ticks.txt").write_text("report\n03/04/2019 00:00:01|x|1,1|1,2\n")
    options = ["--columns", "time,-,ask,bid", "--skip-rows", "1", "--date-format", "%d/%m/%Y %H:%M:%S"]

    done = run("ticks.txt", "-s", "EURUSD", *options, "--decimal", ",", "--digits", "5", producer=producer)

    assert done.exit_code == 0, done.output
    (tick,) = producer.taken
    assert (tick["ts"], tick["bid"], tick["ask"], tick["digits"]) == ("2019-04-03T00:00:01Z", 1.2, 1.1, 5)
    for wrong in (["--columns", "time,what"], ["--date-format", "%Q"], ["--decimal", "'"], ["--columns", "bid,bid"]):
        assert run("ticks.txt", "-s", "EURUSD", *wrong).exit_code == 2


@pytest.mark.parametrize(
    "option",
    [
        ["--bar-times", "close"], ["--columns", "time,bid,ask"], ["--skip-rows", "1"], ["--decimal", ","],
        ["--date-format", "%d/%m/%Y %H:%M"], ["--symbol-column", "pair"], ["--digits", "5"], ["--encoding", "cp1251"],
    ],
)  # fmt: skip
def test_what_can_say_nothing_of_json_is_refused(folder: Path, producer: ScriptedServer, option: list[str]) -> None:
    """Bars that have the times of their closes would be stored a period late."""
    (folder / "bars.json").write_text('[{"symbol":"S","timeframe":"M1","time":1549238460,"open":1,"close":1}]')

    done = run("bars.json", *option, producer=producer)

    assert (done.exit_code, producer.requests) == (2, [])
    assert f"it is JSON, of which {option[0]} can say nothing" in " ".join(done.output.split())


def test_every_symbol_of_a_column_is_sent_with_its_own_point(folder: Path, producer: ScriptedServer) -> None:
    (folder / "ticks.csv").write_text("time_msc,symbol,bid,ask\n1,EURUSD,1.18501,1.18503\n2,XAUUSD,5000.10,5000.30\n")

    assert run("ticks.csv", producer=producer).exit_code == 0
    assert [(tick["symbol"], tick["digits"], tick["point"]) for tick in producer.taken] == [
        ("EURUSD", 5, 0.00001), ("XAUUSD", 2, 0.01),
    ]  # fmt: skip


def test_deals_alone_say_that_they_draw_the_chart(folder: Path, producer: ScriptedServer) -> None:
    (folder / "deals.csv").write_text("timestamp,price,size\n2019-02-04T00:00:01.5,205.5,10\n")

    assert run("deals.csv", "-s", "SBER", producer=producer).exit_code == 0
    (tick,) = producer.taken
    assert (tick["mode"], tick["last"], tick["volume"], tick["bid"]) == ("last", 205.5, 10, 0)


def test_a_folder_is_read_in_the_order_of_names(folder: Path, producer: ScriptedServer) -> None:
    (folder / "notes.md").write_text("not for us")

    result = run(str(folder), "--source", "Demo", producer=producer)

    assert result.exit_code == 0, result.output
    (folder / "orders.csv").write_text("ticket,profit\n1,2\n")
    with_another = run(str(folder), "--dry-run")
    assert (with_another.exit_code, "orders.csv: the first line is" in with_another.stderr) == (1, True)
    assert [request.path for request in producer.requests] == ["/ingest", "/ingest/tick"]
    assert "not read: notes.md" in " ".join(result.stderr.split())


def test_strict_stops_at_the_first_bad_line(folder: Path, producer: ScriptedServer) -> None:
    (folder / TICKS).write_text(MT5 + "noon\n" + MT5)
    result = run(TICKS, "--strict", producer=producer)
    assert (result.exit_code, len(producer.taken)) == (1, 5)
    assert "line 7: it has 1 cells" in " ".join(result.stderr.split())


def test_an_interrupted_import_goes_on_where_it_ended(
    folder: Path, producer: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Arrange: a bad line before and one behind the place at which the server says no
    monkeypatch.setenv("TICKPIPE_DATA_DIR", str(folder / "data"))
    lines = [f"{number},1.1,1.2\n" for number in range(12_000)]
    name = "EURUSD_201902040000_201902042359.csv"
    (folder / name).write_text("time_msc,bid,ask\nx,1,2\n" + "".join(lines) + "y,1,2\n")
    producer.answers = [Answer(200), Answer(404, {"error": "gone"})]

    # Act
    failed = run(name, "--patience", "0", producer=producer)
    sent = len(producer.taken)
    resumed = run(name, producer=producer)

    # Assert
    assert failed.exit_code == 1
    assert sent == 5_000
    assert "5,000 items are on the server; the same command continues there" in " ".join(failed.stderr.split())
    assert resumed.exit_code == 1, resumed.output  # for its bad lines
    assert "continues after 5,000 items" in resumed.stdout
    assert [item["ts_msc"] for item in producer.taken if "bid" in item] == list(range(12_000))
    assert [item["line"] for item in producer.taken if "line" in item] == [2, 12_003]
    # It was finished, so the next time everything is sent again.
    assert not list((folder / "data" / "imports").iterdir())
    run(name, producer=producer)
    assert len([item for item in producer.taken if "bid" in item]) == 24_000


def test_an_interrupted_import_begins_again_when_the_stack_has_another_log(
    folder: Path, producer: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `tickpipe topics create --recreate`: what was posted before is in no log."""
    data = folder / "data"
    data.mkdir()
    monkeypatch.setenv("TICKPIPE_DATA_DIR", str(data))
    (data / "known-log").write_text("cluster/ticks/one")
    (folder / TICKS).write_text("time_msc,bid,ask\n" + "".join(f"{number},1.1,1.2\n" for number in range(6_000)))
    producer.answers = [Answer(200), Answer(404, {"error": "gone"})]
    run(TICKS, "--patience", "0", producer=producer)
    posted = len(producer.taken)
    (data / "known-log").write_text("cluster/ticks/another")

    resumed = run(TICKS, producer=producer)

    assert (posted, resumed.exit_code) == (5_000, 0)
    assert "continues after" not in resumed.stdout
    assert [item["ts_msc"] for item in producer.taken[posted:]] == list(range(6_000))


def test_an_import_reads_ahead_of_a_slow_server(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, producer: ScriptedServer
) -> None:
    # Arrange: two batches behind the one that waits for its answer, and then lines that are posted as they are read
    path = tmp_path / "EURUSD.csv"
    lines = [f"{number},1.1,1.2\n" for number in range(3_500)]
    path.write_text("time_msc,bid,ask\n" + "".join(lines) + "x,1,2\n" * 200)
    target, said = Target(producer.url, "secret-key", None, 0.0), Said(symbol="EURUSD")
    place = SavedPlace(tmp_path_factory.mktemp("data"), path, target, said)
    producer.held.set()
    sending = threading.Thread(target=send_ticks, args=(path, target, SendOptions(said, batch=1_000), place))

    # Act
    sending.start()
    try:
        wait_until(lambda: any("line" in r.items[0] for r in producer.requests), what="the bad lines")
        waiting = [item for request in producer.requests for item in request.items if "bid" in item]
    finally:
        producer.held.clear()
        producer.released.set()
        sending.join()

    # Assert: in order, one request after the other
    assert [item["ts_msc"] for item in waiting] == list(range(1_000))
    assert [item["ts_msc"] for item in producer.taken if "bid" in item] == list(range(3_500))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (TICKS, "2019.02.04\t00:00:0{}.234\t1.14543\t1.1454{}\t\t\t6\n"),
        (BARS, "2019.02.04\t00:0{}:00\t1.14543\t1.1455\t1.1454\t1.1454{}\t45\t0\t2\n"),
        ("PDC_outbound_20251020.jsonl", '{{"ts":"x","kind":"tick","body":{{"symbol":"EURUSD","ts_msc":{}{}}}}}\n'),
    ],
)
def test_what_stands_before_the_damage_of_a_file_is_sent(
    folder: Path, producer: ScriptedServer, name: str, line: str
) -> None:
    header = {TICKS: MT5.splitlines(keepends=True)[0], BARS: BAR_HEADER}.get(name, "")
    content = header + "".join(line.format(number % 10, number * number % 977) for number in range(600))
    (folder / name).unlink(missing_ok=True)
    (folder / f"{name}.gz").write_bytes(gzip.compress(content.encode())[:-800])

    result = run(f"{name}.gz", "--from-start", producer=producer)

    assert result.exit_code == 1
    assert "damaged or cut off after line" in result.stderr
    sent = [item for item in producer.taken if "symbol" in item]
    assert 0 < len(sent) < 600
    assert f"{len(sent):,} items are on the server" in " ".join(result.stderr.split())


def test_from_start_forgets_an_interrupted_import(
    folder: Path, producer: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKPIPE_DATA_DIR", str(folder / "data"))
    (folder / BARS).write_text(BAR_HEADER + "2019.02.04\t00:00:00\t1.1\t1.2\t1.0\t1.1\t45\t0\t2\n" * 1_500)
    producer.answers = [Answer(200), *[Answer(404, {"error": "gone"})] * 3]

    run(BARS, producer=producer)
    again = run(BARS, "--from-start", producer=producer)

    assert again.exit_code == 0, again.output
    assert len(producer.taken) == 1_000 + 1_500


def test_an_archive_is_posted_for_whoever_sent_it(folder: Path, producer: ScriptedServer) -> None:
    tick = {"symbol": "EURUSD", "ts_msc": 1_760_926_800_417, "bid": 1.16512, "ask": 1.16518}
    entry = {
        "url": "http://127.0.0.1:18001/ingest/tick", "payload": {"ticks": [tick, tick], "utc_offset_s": 7200},
        "headers": {"X-API-Key": "theirs", "X-Source": "Broker-Demo", "User-Agent": "PDC (Server:Broker-Demo)"},
    }  # fmt: skip
    (folder / "1.json").write_text(json.dumps(entry))

    shown = run("1.json", "--dry-run", producer=producer)
    assert (shown.exit_code, producer.requests) == (0, [])
    assert "archive of 2 ticks EURUSD 2 2025-10-20T02:20:00.417" in " ".join(shown.stdout.split())

    done = run("1.json", producer=producer)

    assert done.exit_code == 0, done.output
    (request,) = producer.requests
    assert request.body == {"ticks": [tick, tick], "utc_offset_s": 7200}
    assert (request.headers["X-Source"], request.headers["X-API-Key"]) == ("Broker-Demo", "secret-key")
    assert request.headers["User-Agent"] == "PDC (Server:Broker-Demo)"
    assert run("1.json", "--zone", "UTC").exit_code == 2


def test_every_file_of_a_zip_and_of_a_folder_is_imported(folder: Path, producer: ScriptedServer) -> None:
    history = folder / "history"
    history.mkdir()
    with zipfile.ZipFile(history / "2019.zip", "w") as archive:
        archive.writestr(f"forex/{BARS}", M1)
        archive.writestr(f"forex/{TICKS}", MT5)
        archive.writestr("nobody.csv", MT5)
        archive.writestr("readme.txt", "nothing")
    (history / "damaged.zip").write_bytes((history / "2019.zip").read_bytes()[:200])
    (history / "notes.csv").write_text("nothing\n")

    shown = run("--dry-run", "history", producer=producer)
    result = run("history", producer=producer)

    said = " ".join(shown.stdout.split())
    assert f"2019.zip/forex/{BARS} M1 bars EURUSD 2" in said
    assert f"2019.zip/forex/{TICKS} ticks GBPUSD 5" in said
    assert "2019.zip/nobody.csv ticks unknown 5" in said
    assert "written by MetaTrader 5, with header" in said
    assert (shown.exit_code, result.exit_code) == (1, 1)
    assert [len(request.items) for request in producer.requests] == [2, 5]
    # What cannot be read takes nothing with it.
    not_read = [line.partition(": ")[2] for line in result.stderr.splitlines() if line.startswith("not read")]
    assert [next(word for word in ("damaged.zip", "notes", "nobody") if word in line) for line in not_read] == [
        "damaged.zip", "nobody", "notes",
    ]  # fmt: skip
    assert "pass --symbol" in not_read[1]
