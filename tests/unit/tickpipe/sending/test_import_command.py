"""`tickpipe import` against a small producer: what is recognised, what is sent, what is said."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.scripted import ScriptedServer
from tests.unit.tickpipe.sending.test_history import BAR_HEADER, M1, MT5
from tickpipe.cli import app

BARS = "EURUSD_M1_201902040000_201902042359.csv"
TICKS = "GBPUSD_201902040000_201902042359.csv"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
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


def test_a_file_without_bars_sends_nothing(folder: Path, producer: ScriptedServer) -> None:
    (folder / BARS).write_text(BAR_HEADER)
    result = run(BARS, producer=producer)
    assert (result.exit_code, producer.requests) == (0, [])
    assert "0 bars sent" in result.stdout
