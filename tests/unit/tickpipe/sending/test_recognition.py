"""What the user says about a file, what contradicts itself, and the packings that files come in."""

import builtins
import gzip
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickpipe.sending.blocks import FileTick
from tickpipe.sending.columnfile import kind_of
from tickpipe.sending.dialects import Kind, Said, UnknownForm
from tickpipe.sending.history import BarFile, TickFile
from tickpipe.sending.recognition import recognise
from tickpipe.sending.textfile import DataFileError, MissingLibrary
from tickpipe.sending.timeforms import TimeForm, said_form

#: 2019-02-04T00:00:00Z
DAY = 1_549_238_400_000


def read(path: Path, said: Said | None = None) -> tuple[list[FileTick], list[str]]:
    with TickFile(path, said) as ticks:
        return list(ticks), ticks.reasons


def write(tmp_path: Path, text: str, name: str = "ticks.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, newline="")
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a report\nof two lines\ntime,bid,ask\n1549238400994,1.1,1.2\n", Said(skip_rows=2)),
        ("1549238400994 , 1.1,x,1.2\n", Said(columns=("time", "bid", "-", "ask"))),
        ("T,B,A\n1549238400994,1.1,1.2\n", Said(columns=("time", "bid", "ask"))),
        ("time;bid;ask\n04/02/2019 00:00:00.994;1.1;1.2\n", Said(time_form=said_form("%d/%m/%Y %H:%M:%S"))),
        ("time;bid;ask\n020419 000000.994;1.1;1.2\n", Said(time_form=said_form("%m%d%y %H%M%S.%f"))),
        ("time;bid;ask\n1549238400994000;1,1;1,2\n", Said(decimal=",")),
        ("time,what,bid,ask\n1549238400994,EURUSD,1.1,1.2\n", Said(symbol_column="what")),
        ("time,what,bid,ask\n1549238400994,EURUSD,1.1,1.2\n", Said(symbol_column="2")),
    ],
)
def test_what_is_said_goes_before_what_is_recognised(tmp_path: Path, text: str, said: Said) -> None:
    (tick,), reasons = read(write(tmp_path, text), said)

    assert (tick.time_msc, tick.bid, tick.ask, reasons) == (DAY + 994, 1.1, 1.2, [])
    assert tick.symbol == ("EURUSD" if said.symbol_column else "")


def test_digits_are_said_or_those_of_the_text(tmp_path: Path) -> None:
    path = write(tmp_path, "time_msc;bid;ask\n1;1,10;1,20\n2;1,105;1,20\n")

    for said, digits in ((Said(), 3), (Said(digits=5), 5)):
        with TickFile(path, said) as ticks:
            list(ticks)
            assert ticks.digits_of("") == digits


@pytest.mark.parametrize(
    ("text", "said", "why"),
    [
        ("time,bid,ask\n03/04/2019 00:00,1.1,1.2\n", Said(), 'may be "%d/%m/%Y %H:%M" or "%m/%d/%Y %H:%M"; say which'),
        ("time,bid,ask\n1549238400994,1.1,1.2\n", Said(columns=("time", "bid")), "--columns names 2 columns"),
        ("time,bid,ask\n1549238400994,1.1,1.2\n", Said(symbol_column="pair"), "there is no column pair"),
        ("time,bid,ask\n", Said(skip_rows=9), "there is no line to read"),
        ("time_msc\tbid\task\n1\t49,500\t49,502\n", Said(), "the comma in 49,500 may part thousands"),
        ("time,bid,ask\n2019-02-04,1.1,1.2\n", Said(), "a day and no time of day (%Y-%m-%d)"),
        ("date,bid,ask\n04.02.2019,1.1,1.2\n", Said(time_form=TimeForm("%d.%m.%Y")), "a day and no time of day"),
        # Which of the two is the bid, nobody can say.
        ("20190204 00:00:01.1,1.1,1.2\n20190204 00:00:02.1,1.3,1.2\n", Said(), "nothing names the numbers"),
    ],
)
def test_what_only_the_user_can_tell_is_asked(tmp_path: Path, text: str, said: Said, why: str) -> None:
    with pytest.raises(UnknownForm) as refused:
        read(write(tmp_path, text), said)
    assert why in str(refused.value)


def test_a_day_beyond_the_twelfth_tells_day_and_month(tmp_path: Path) -> None:
    path = write(tmp_path, "time,bid,ask\n03/04/2019 00:00,1.1,1.2\n13/04/2019 00:00,1.1,1.2\n")

    ticks, _ = read(path)

    assert [datetime.fromtimestamp(tick.time_msc / 1000, UTC).strftime("%m-%d") for tick in ticks] == ["04-03", "04-13"]


@pytest.mark.parametrize(("separator", "decimal"), [(";", None), ("\t", ",")])
def test_three_decimals_behind_a_comma_are_read_where_that_is_certain(
    tmp_path: Path, separator: str, decimal: str | None
) -> None:
    text = separator.join(["time_msc", "bid", "ask"]) + "\n" + separator.join(["1", "150,123", "150,125"]) + "\n"

    (tick,), _ = read(write(tmp_path, text), Said(decimal=decimal))

    assert (tick.bid, tick.ask) == (150.123, 150.125)


@pytest.mark.parametrize("text", ["%d/%m", "%H:%M %d/%m/%Y", "%Q", "%d/%d/%Y", "noon"])
def test_a_form_without_a_whole_date_is_no_form(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|none of"):
        said_form(text)


def test_a_form_may_end_with_an_offset() -> None:
    assert said_form("%d/%m/%Y %H:%M:%S %z") == TimeForm("%d/%m/%Y", "%H:%M:%S", True)


LINES = "".join(f"{DAY + number},1.1000{number},1.20005\n" for number in range(5))


@pytest.mark.parametrize(
    ("last", "is_torn"),
    [(f"{DAY + 9},1.10009,1.2", True), (f"{DAY + 9},1.10009,1.20009", False), (f"{DAY + 9},1.10009,1.2\n", False)],
)
def test_a_last_line_that_is_cut_short_is_skipped(tmp_path: Path, last: str, *, is_torn: bool) -> None:
    ticks, reasons = read(write(tmp_path, "time_msc,bid,ask\n" + LINES + last))

    assert len(ticks) == (5 if is_torn else 6)
    assert [reason.partition(": ")[2] for reason in reasons] == (
        ["line 7: the file ends within this line"] if is_torn else []
    )


@pytest.mark.parametrize("days", [-40, -2, 30, 4_000])
def test_a_time_far_from_those_around_it_is_skipped(tmp_path: Path, days: int) -> None:
    wrong = f"{DAY + 6 + days * 86_400_000},1.10006,1.20005\n"
    path = write(tmp_path, f"time_msc,bid,ask\n{LINES}{wrong}{DAY + 7},1.10007,1.20005\n")

    ticks, reasons = read(path)

    assert [tick.time_msc - DAY for tick in ticks] == [0, 1, 2, 3, 4, 7]
    assert [reason.partition(": ")[2] for reason in reasons] == [
        f"line 7: its time is {abs(days):,} days from those of the lines before and after it"
    ]


def test_exports_in_the_wrong_order_and_newest_first_are_read(tmp_path: Path) -> None:
    month = 31 * 86_400_000
    times = [DAY + month, DAY + month + 1, DAY, DAY + 1, DAY - month, DAY - 2 * month]
    path = write(tmp_path, "time_msc,bid,ask\n" + "".join(f"{time},1.1,1.2\n" for time in times))

    ticks, reasons = read(path)

    assert ([tick.time_msc for tick in ticks], reasons) == (times, [])


@pytest.mark.parametrize(
    "line",
    [b'"1.1,1.2', b"\xff\xfe\xfa,1.1,1.2", b"1\x00,1.1,1.2", b"x" * 3_000_000, b"1_5,1.1,1.2", b"2,1_0,1.2", b"3,1.1"],
    ids=["quotation mark", "bytes", "NUL", "long", "underscore", "underscore in a price", "too few"],
)
def test_no_line_takes_the_next_with_it(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "ticks.csv"
    path.write_bytes(f"time_msc,bid,ask\n{LINES}".encode() + line + f"\n{LINES}".encode())

    ticks, reasons = read(path)

    assert len(ticks) == 10
    assert [reason.partition(": ")[2][:7] for reason in reasons] == ["line 7:"]
    assert len(reasons[0]) < 1_000


def test_strict_stops_at_the_first_bad_line(tmp_path: Path) -> None:
    path = write(tmp_path, f"time_msc,bid,ask\n{LINES}x,1.1,1.2\n{LINES}")

    with TickFile(path, is_strict=True) as ticks:
        given: list[FileTick] = []
        with pytest.raises(DataFileError, match="line 7: time: 'x' is no time"):
            given.extend(ticks)
    assert ticks.skipped == 0


def test_zstandard_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv.zst"
    path.write_bytes(pa.Codec("zstd").compress(f"time_msc,bid,ask\n{LINES * 1_000}".encode(), asbytes=True))

    ticks, reasons = read(path)

    assert (len(ticks), ticks[4].bid, reasons) == (5_000, 1.10004, [])


def arrow_file(tmp_path: Path, **columns: Any) -> Path:
    path = tmp_path / "ticks.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_is_read_by_its_columns(tmp_path: Path) -> None:
    # Doubles and floats with the digits that they need, moments whatever their zone and unit is.
    moment = datetime(2019, 2, 4, 0, 0, 0, 994_000)  # noqa: DTZ001  # Arrow's has a zone of its own
    path = arrow_file(
        tmp_path,
        symbol=pa.array(["EURUSD", "XAUUSD"]).dictionary_encode(),
        time=pa.array([moment, moment], pa.timestamp("ns", "Europe/Athens")),
        bid=pa.array([1.14543, 5000.1], pa.float64()),
        ask=pa.array([1.14545, 5000.3], pa.float32()),
        volume=pa.array([None, 2], pa.int64()),
    )

    with TickFile(path) as ticks:
        found = [(t.time_msc, t.bid, t.ask, t.volume, t.symbol) for t in ticks]

    assert found == [(DAY + 994, 1.14543, 1.14545, 0, "EURUSD"), (DAY + 994, 5000.1, 5000.3, 2, "XAUUSD")]
    assert ticks.are_instants
    assert [ticks.digits_of(symbol) for symbol in ("EURUSD", "XAUUSD")] == [5, 1]
    assert ticks.total_bytes == ticks.read_bytes == path.stat().st_size


def test_times_of_parquet_without_a_zone_are_those_of_the_source(tmp_path: Path) -> None:
    path = arrow_file(
        tmp_path, time=pa.array([DAY * 1_000 + 994_000], pa.timestamp("us")), bid=[1.1], ask=[1.2], spread=[0.1]
    )

    with TickFile(path) as ticks:
        assert [tick.time_msc for tick in ticks] == [DAY + 994]
        assert not ticks.are_instants


@pytest.mark.parametrize("pack", [b"PAR1 and more", b"\x28\xb5\x2f\xfd and more"])
def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: bytes) -> None:
    path = tmp_path / "ticks"
    path.write_bytes(pack)
    whole: Callable[..., Any] = builtins.__import__

    def without_arrow(name: str, *rest: Any) -> Any:
        if name == "pyarrow":
            raise ImportError(name)
        return whole(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_arrow)
    with pytest.raises(
        MissingLibrary, match=r"pyarrow, .* is not installed; in a clone of Tickpipe: pip install '\.\[arrow\]'"
    ):
        read(path)


def test_the_lines_before_the_damage_are_used_even_of_a_short_file(tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv.gz"
    text = "".join(f"{DAY + n},{1 + n * n % 977 / 1e5:.5f},1.20005\n" for n in range(150))
    path.write_bytes(gzip.compress(f"time_msc,bid,ask\n{text}".encode())[:-300])
    given: list[FileTick] = []

    assert kind_of(path, Said()) is Kind.TICKS
    with TickFile(path) as ticks, pytest.raises(DataFileError, match="damaged or cut off"):
        given.extend(ticks)

    assert 0 < len(given) < 150


def test_an_archive_with_a_password_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "ticks.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ticks.csv", "time_msc,bid,ask\n1,1.1,1.2\n")
    content = bytearray(path.read_bytes())
    # The flag of encryption, in the header of the file and in the directory of the archive.
    for header, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(header) + at] |= 1
    path.write_bytes(content)

    with pytest.raises(UnknownForm, match=r"ticks\.csv in it cannot be unpacked: .*password"):
        kind_of(path, Said())


CHARACTERS = st.sampled_from(
    [*'0123456789.,;:-+eE"\t\n\r\0 T', "2019.02.04", "1549238400994", "1.14543", ",,", "EURUSD"]
)
HEADERS = st.sampled_from(
    [
        "", "time_msc,bid,ask\n", "<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>\n", "time;price;size\n",
        "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>\n", "20190204 000001123,1.1,1.2,0\n",
    ]
)  # fmt: skip


@given(header=HEADERS, rest=st.lists(CHARACTERS, max_size=40).map("".join))
def test_whatever_a_file_holds_is_read_or_refused_in_a_sentence(tmp_path: Path, header: str, rest: str) -> None:
    path = write(tmp_path, header + rest)

    try:
        with (TickFile if kind_of(path, Said()) is Kind.TICKS else BarFile)(path) as items:
            count = sum(1 for _ in items)
    except UnknownForm:
        return
    assert count + items.skipped <= len(f"{header}{rest}".splitlines())


PYTHON = "MetaTrader5 package for Python"
MT5_TICKS = "<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>\n"


@pytest.mark.parametrize(
    ("lines", "writer"),
    [
        ("time,bid,ask,last,volume,time_msc,flags,volume_real\n1,1.1,1.2,0,0,1771268400083,6,0\n", PYTHON),
        ("time_msc,bid,ask,last,volume,flags\n1771268400083,1.1,1.2,,,6.0\n", PYTHON),
        ("time,open,high,low,close,tick_volume,spread,real_volume\n1786525200,1,2,1,2,2,5,0\n", PYTHON),
        (MT5_TICKS + "2019.02.04\t00:00:01.123\t1.1\t1.2\t\t\t6\n", "MetaTrader 5"),
        ("2019.02.04\t00:00:01.123\t1.1\t1.2\t\t\t6\n", "MetaTrader 5"),
        ("2012.02.01,00:00,1.3,1.4,1.2,1.3,12\n2012.02.01,00:01,1.3,1.4,1.2,1.3,31\n", "MetaTrader 4"),
        ("Date,Time,Open,High,Low,Close,Volume\n2011.12.08,18:49,1,2,1,2,3\n", "MetaTrader 4 or StrategyQuant"),
        ("Time,Ask,Bid,Volume\n2016.05.02 00:00:01,1.2,1.1,1\n", "StrategyQuant"),
        ("timestamp,askPrice,bidPrice,askVolume,bidVolume\n1730426400123,2.2,2.1,1,1\n", "dukascopy-node"),
        ("Gmt time,Open,High,Low,Close,Volume\n04.02.2019 00:00:00.000,1,2,1,2,3.5\n", "Dukascopy"),
        ("Local time,Ask,Bid,AskVolume,BidVolume\n01.03.2013 00:00:00.605 GMT-0000,2.2,2.1,4,7\n", "Dukascopy"),
        ("20120201 000003660,1.306600,1.306770,0\n", "HistData"),
        ("20120201 000000;1.3;1.3;1.2;1.2;0\n20120201 000100;1.3;1.3;1.2;1.2;0\n", "HistData"),
        ("EUR/USD,20190204 00:00:01.123,1.14543,1.14545\n", "TrueFX"),
        ("2022.01.02 22:03:54.650,1.13695,1.13664,1.50,0.75\n", "FXData"),
        ("<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>\nX,1,20140801,000000,1,2,1,2,3\n", "FINAM"),
        ("<TICKER>,<DTYYYYMMDD>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>\nX,20190204,000100,1,2,1,2,4\n", "MetaStock"),
        ("Date,Timestamp,Bid Price,Ask Price,Volume\n20190204,00:00:01:123,1.1,1.2,1\n", "Tickstory"),
        ("when,time_msc,bid,ask\nnow,1771268400083,1.1,1.2\n", "an unknown program"),
    ],
)  # fmt: skip
def test_whoever_wrote_the_file_is_named(lines: str, writer: str) -> None:
    assert recognise(Path("file.csv"), lines.splitlines(keepends=True), Said()).writer == writer
