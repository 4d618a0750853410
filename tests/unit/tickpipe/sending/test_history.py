"""Files of ticks and of bars: every form, MetaTrader's names, and what is said about what cannot be read."""

import gzip
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from marketdata.contract.tick import read_tick
from marketdata.errors import InvalidItem
from marketdata.tick import Tick, is_deal
from tickpipe.sending.blocks import FileTick
from tickpipe.sending.dialects import Said, UnknownForm, parse_file_name
from tickpipe.sending.history import Bar, BarFile, TickFile, inferred_timeframe
from tickpipe.sending.textfile import DataFileError

#: 2019-02-04T00:00:00Z
DAY = 1_549_238_400_000

MT5 = """\
<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>
2019.02.04\t00:00:01.234\t1.14543\t1.14545\t\t\t6
2019.02.04\t00:00:01.500\t\t1.14546\t\t\t4
2019.02.04\t00:00:02.000\t1.14544\t\t\t\t2
2019.02.05\t23:59:59.999\t\t1.14550\t1.14546\t3\t28
2019.02.05\t23:59:59.999\t1.14541\t\t\t\t2
"""
MT5_TICKS = [
    Tick(DAY + 1_234, 1.14543, 1.14545, 0.0, 0.0, 6),
    Tick(DAY + 1_500, 1.14543, 1.14546, 0.0, 0.0, 4),
    Tick(DAY + 2_000, 1.14544, 1.14546, 0.0, 0.0, 2),
    Tick(DAY + 2 * 86_400_000 - 1, 1.14544, 1.14550, 1.14546, 3.0, 28),
    Tick(DAY + 2 * 86_400_000 - 1, 1.14541, 1.14550, 1.14546, 3.0, 2),
]


def as_tick(tick: FileTick) -> Tick:
    return Tick(tick.time_msc, tick.bid, tick.ask, tick.last, tick.volume, tick.flags)


def read_ticks(tmp_path: Path, content: bytes) -> list[Tick]:
    path = tmp_path / "ticks"
    path.write_bytes(content)
    with TickFile(path) as ticks:
        return [as_tick(tick) for tick in ticks]


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gz"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_metatrader_export_in_every_encoding(
    tmp_path: Path, encoding: str, newline: str, compress: type[bytes]
) -> None:
    content = compress(MT5.replace("\n", newline).encode(encoding))

    assert read_ticks(tmp_path, content) == MT5_TICKS


def test_metatrader_export_without_flags_tells_what_changed(tmp_path: Path) -> None:
    # MT5: TICK_FLAG_BID 2, TICK_FLAG_ASK 4, TICK_FLAG_LAST 8, TICK_FLAG_VOLUME 16
    lines = ["\t".join(line.split("\t")[:-1]) for line in MT5.splitlines()]

    ticks = read_ticks(tmp_path, "\n".join(lines).encode())

    assert [tick.flags for tick in ticks] == [6, 4, 2, 4 + 8 + 16, 2]
    assert [tick.bid for tick in ticks] == [tick.bid for tick in MT5_TICKS]


def test_metatrader_export_with_whole_seconds(tmp_path: Path) -> None:
    content = b"<DATE>\t<TIME>\t<BID>\t<ASK>\n2019.02.04\t00:00:07\t1.1\t1.2\n"

    assert read_ticks(tmp_path, content) == [Tick(DAY + 7_000, 1.1, 1.2, 0.0, 0.0, 6)]


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gz"])
@pytest.mark.parametrize(
    "text",
    [
        "time_msc,bid,ask\n1549238400994,1.14543,1.14545\n",
        "time_msc,bid,ask,bid_volume,ask_volume\n1549238400994,1.14543,1.14545,2.06,1.0\n",
        '"time_msc","bid","ask"\r\n"1549238400994","1.14543","1.14545"\r\n',
        "\ufefftime_msc;ask;bid\n1549238400994;1.14545;1.14543",
        "timestamp,bid,ask\n2019-02-04 00:00:00.994000+00:00,1.14543,1.14545\n",
        "timestamp,bid,ask\n2019-02-04T00:00:00.994Z,1.14543,1.14545\n",
        "timestamp,bid,ask\n2019-02-04T02:00:00.994+02:00,1.14543,1.14545\n\n",
        "timestamp,bid,ask\n2019-02-04T00:00:00.994,1.14543,1.14545\n",
    ],
)
def test_csv_forms(tmp_path: Path, text: str, compress: type[bytes]) -> None:
    ticks = read_ticks(tmp_path, compress(text.encode()))

    assert ticks == [Tick(DAY + 994, 1.14543, 1.14545, 0.0, 0.0, 6)]


def test_csv_with_all_of_a_tick(tmp_path: Path) -> None:
    content = b"time_msc,bid,ask,last,volume,flags\n1549238400994,5.1,5.2,5.15,7,1080\n1549238400995,5.1,5.2,,,\n"

    assert read_ticks(tmp_path, content) == [
        Tick(DAY + 994, 5.1, 5.2, 5.15, 7.0, 1080),
        Tick(DAY + 995, 5.1, 5.2, 0.0, 0.0, 6),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("time_msc,bid,ask\n1,1.1,1.2\n2,1.1\n", "line 3: it has 2 cells, the first line names 3 columns"),
        ("time_msc,bid,ask\n1,1,14543,1,14545\n", "line 2: it has 5 cells, the first line names 3 columns"),
        ("time_msc;bid;ask\n1;1,18501;1,18503\n2;1.18501;1,18503\n", "line 3: bid: '1.18501' has a point"),
        ("time_msc,bid,ask\n1,1.1,1.2\n\n2,,1.2\n", "line 4: bid: a number is expected, not ''"),
        ("time_msc,bid,ask\n1,nan,1.2\n", "line 2: bid: a finite number is expected"),
        ("time_msc,bid,ask\n1,1e999,1.2\n", "line 2: bid: a finite number is expected"),
        ("time_msc,bid,ask\n-1,1.1,1.2\n", "line 2: time: '-1' is no time such as"),
        (
            "time_msc,bid,ask\n99999999999999999999,1.1,1.2\n",
            "line 2: time: '99999999999999999999' is no time such as the milliseconds since 1970",
        ),
        ("time_msc,bid,ask\n1.5,1.1,1.2\n", "line 2: time: '1.5' is no time such as"),
        ("time_msc,bid,ask,flags\n1,1.1,1.2,6.5\n", "line 2: flags: a whole number is expected"),
        ("timestamp,bid,ask\nyesterday,1.1,1.2\n", "line 2: time: 'yesterday' is no time such as"),
        (
            "<DATE>\t<TIME>\t<BID>\t<ASK>\n2019.02.28\t00:00:00\t1\t2\n2019.02.30\t00:00:00\t1\t2\n",
            "line 3: time: '2019.02.30 00:00:00' is no time of the calendar",
        ),
        (
            "<DATE>\t<TIME>\t<BID>\t<ASK>\n2019.02.04\t25:00:00\t1\t2\n",
            "line 2: time: '2019.02.04 25:00:00' is no time such as",
        ),
        (
            "<DATE>\t<TIME>\t<BID>\t<ASK>\n2019.02.04\tnoon\t1\t2\n",
            "line 2: time: '2019.02.04 noon' is no time such as",
        ),
        (
            "timestamp,bid,ask\n2019-02-04T00:00:00,1.1,1.2\n2019-02-04T00:00:01+02:00,1.1,1.2\n",
            "line 3: time: '2019-02-04T00:00:01+02:00' is no time such as the first ones of the file",
        ),
    ],
)
def test_a_bad_line_costs_itself_alone_and_is_told(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "ticks.csv"
    path.write_text(text)

    with TickFile(path) as ticks:
        read_ticks = list(ticks)

    assert (ticks.skipped, len(ticks.reasons)) == (1, 1)
    assert said in ticks.reasons[0]
    assert len(read_ticks) == len([line for line in text.splitlines()[1:] if line]) - 1


def test_good_lines_around_bad_ones_are_given_out(tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv"
    forex = "".join(MT5.splitlines(keepends=True)[:4])
    path.write_text(forex + "\n" + forex + forex.partition("\n")[2] * 10 + "x\n" * 30)

    with TickFile(path) as ticks:
        assert [as_tick(tick) for tick in ticks] == MT5_TICKS[:3] * 12
        # The second header, and of the thirty others as many reasons as a reader wants.
        assert (ticks.skipped, len(ticks.reasons)) == (31, 20)
        assert "line 6: it names the columns once more" in ticks.reasons[0]


#: Files as data sites and scripts write them: content, ticks (time, bid, ask, volume), and whether times are moments.
SITES = {
    "Dukascopy, node": (
        "timestamp,askPrice,bidPrice,askVolume,bidVolume\n1730426400123,41786.197,41780.615,0.000045,0.00005\n",
        [(1_730_426_400_123, 41780.615, 41786.197, 0.0)], True, 3,
    ),
    "Dukascopy, page": (
        "Local time,Ask,Bid,AskVolume,BidVolume\n01.03.2013 02:00:00.605 GMT+0200,1581.15,1580.787,400,700\n",
        [(1_362_096_000_605, 1580.787, 1581.15, 0.0)], True, 3,
    ),
    "FXData, no header": (
        "2022.01.02 22:03:54.650,1.13695,1.13664,1.50,0.75\n",
        [(1_641_161_034_650, 1.13664, 1.13695, 0.0)], False, 5,
    ),
    "HistData, no header, EST": (
        "20120201 000003660,1.306600,1.306770,0\r\n",
        [(1_328_072_403_660, 1.3066, 1.30677, 0.0)], True, 6,
    ),
    "StrategyQuant": (
        "Time,Ask,Bid,Volume\n2016.05.02 00:00:01,1.14512,1.14508,1\n",
        [(1_462_147_201_000, 1.14508, 1.14512, 1.0)], False, 5,
    ),
    "MetaTrader5 package": (
        "time,bid,ask,last,volume,time_msc,flags,volume_real\n1771268400,67849.69,67861.69,67855.0,0,1771268400083,24,0.25\n",
        [(1_771_268_400_083, 67849.69, 67861.69, 0.25)], False, 2,
    ),
    "MetaTrader5 package, pandas": (
        ",time,bid,ask,last,volume,time_msc,flags,volume_real\n"
        "0,2026-02-16 19:00:00,1.18501,1.18503,0.0,0,2026-02-16 19:00:00.083,6,0.0\n",
        [(1_771_268_400_083, 1.18501, 1.18503, 0.0)], False, 5,
    ),
    "MetaTrader5 package, seconds": (
        "time,bid,ask,last,volume,flags\n1771268400,1.18501,1.18503,0,0,6\n",
        [(1_771_268_400_000, 1.18501, 1.18503, 0.0)], False, 5,
    ),
    "flags of pandas": (
        "time_msc,bid,ask,last,volume,flags\n1771268400083,1.18501,1.18503,,,6.0\n",
        [(1_771_268_400_083, 1.18501, 1.18503, 0.0)], False, 5,
    ),
    "TrueFX, no header": (
        "EUR/USD,20190204 00:00:01.123,1.14543,1.14545\n",
        [(DAY + 1_123, 1.14543, 1.14545, 0.0)], True, 5,
    ),
    "dashes": (
        "date,time,bid,ask\n2019-02-04,00:00:01.123,1.14543,1.14545\n",
        [(DAY + 1_123, 1.14543, 1.14545, 0.0)], False, 5,
    ),
    "offsets": (
        "timestamp,bid,ask\n2019-02-04T02:00:00.123+02:00,1.14543,1.14545\n",
        [(DAY + 123, 1.14543, 1.14545, 0.0)], True, 5,
    ),
    "whole prices with decimals": (
        "<DATE>\t<TIME>\t<BID>\t<ASK>\n2019.02.04\t00:00:00.083\t49500.00\t49502.00\n",
        [(DAY + 83, 49500.0, 49502.0, 0.0)], False, 2,
    ),
    "oil in 2020": (
        "<DATE>\t<TIME>\t<BID>\t<ASK>\n2019.02.04\t00:00:00.083\t-37.63\t-37.40\n",
        [(DAY + 83, -37.63, -37.4, 0.0)], False, 2,
    ),
    "computed prices": (
        "time_msc,bid,ask\n1771268400083,0.30000000000000004,0.4\n",
        [(1_771_268_400_083, 0.1 + 0.2, 0.4, 0.0)], False, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SITES)
@pytest.mark.parametrize("pack", ["plain", "zip"])
def test_files_of_data_sites_and_scripts_are_read(tmp_path: Path, name: str, pack: str) -> None:
    text, expected, are_instants, digits = SITES[name]
    path = tmp_path / "ticks.csv"
    if pack == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("EURUSD_ticks.csv", text)
    else:
        path.write_text(text, newline="")

    with TickFile(path, Said(symbol="EURUSD")) as ticks:
        found = [(tick.time_msc, tick.bid, tick.ask, tick.volume) for tick in ticks]

    assert (found, ticks.are_instants, ticks.digits_of(ticks.symbol or ""), ticks.reasons) == (
        expected,
        are_instants,
        digits,
        [],
    )


def test_deals_of_a_file_without_flags_are_deals(tmp_path: Path) -> None:
    content = b"time_msc,bid,ask,last,volume\n1549238400994,5.1,5.2,5.15,7\n1549238400995,5.1,5.2,,\n"

    ticks = read_ticks(tmp_path, content)

    assert [(tick.flags, is_deal(tick.flags)) for tick in ticks] == [(0, True), (6, False)]


def test_a_file_of_many_symbols_gives_out_the_one_that_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv"
    path.write_text("time_msc,symbol,bid,ask\n1,EURUSD,1.1,1.2\n2,GBPUSD,1.3,1.4\n3,EURUSD,1.5,1.6\n")

    with TickFile(path, Said(symbol="EURUSD")) as ticks:
        assert [tick.bid for tick in ticks] == [1.1, 1.5]
        assert ticks.reasons == [f"{path}: line 3: it is of GBPUSD, not of EURUSD"]


def test_a_zone_makes_moments_of_the_times_of_a_file(tmp_path: Path) -> None:
    # Athens put its clock back at 04:00 on 26 October 2025: the file goes through the hour twice.
    walls = ["02:59:30", "03:10:05", "03:59:59", "03:10:07", "03:59:58", "04:00:01"]
    path = tmp_path / "ticks.csv"
    path.write_text("date,time,bid,ask\n" + "".join(f"2025.10.26,{wall},1.1,1.2\n" for wall in walls))

    with TickFile(path, Said(zone=ZoneInfo("Europe/Athens"))) as ticks:
        moments = [datetime.fromtimestamp(tick.time_msc / 1000, UTC).strftime("%H:%M:%S") for tick in ticks]

    assert moments == ["23:59:30", "00:10:05", "00:59:59", "01:10:07", "01:59:58", "02:00:01"]
    assert ticks.are_instants


def test_cut_off_gzip_says_how_far_it_was_readable(tmp_path: Path) -> None:
    text = "time_msc,bid,ask\n" + "".join(f"{n},{1 + n * n % 977 / 1e5:.5f},1.2\n" for n in range(20_000))

    with pytest.raises(DataFileError, match=r"damaged or cut off after line [\d,]+"):
        read_ticks(tmp_path, gzip.compress(text.encode())[:-5_000])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"time,open,high,low,close\n",
        b"when,bid,ask\n1,2,3\n",
        b"\x89PNG\r\n\x1a\n\xff\xff\xff",
    ],
)
def test_other_files_are_refused_with_the_forms_that_are_read(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UnknownForm, match="time_msc,bid,ask"):
        read_ticks(tmp_path, content)


@pytest.mark.parametrize("content", [b"\x1f\x8bnot really gzip", b"PK\x03\x04not really zip"])
def test_a_damaged_file_is_called_damaged(tmp_path: Path, content: bytes) -> None:
    with pytest.raises((UnknownForm, DataFileError), match="damaged"):
        read_ticks(tmp_path, content)


BAR_HEADER = "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n"
M1 = (
    BAR_HEADER
    + "2019.02.04\t00:00:00\t1.14543\t1.14550\t1.14540\t1.14546\t45\t0\t2\n"
    + "2019.02.04\t23:59:00\t1.14546\t1.14546\t1.14546\t1.14546\t1\t250\t0\n"
)
BARS = [
    Bar(DAY, 1.14543, 1.14550, 1.14540, 1.14546, 45, None, 2),
    Bar(DAY + 86_340_000, 1.14546, 1.14546, 1.14546, 1.14546, 1, 250.0, 0),
]


def read_bars(tmp_path: Path, content: bytes) -> list[Bar]:
    path = tmp_path / "bars.csv"
    path.write_bytes(content)
    with BarFile(path) as bars:
        return list(bars)


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gz"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_metatraders_bars(tmp_path: Path, encoding: str, compress: type[bytes]) -> None:
    assert read_bars(tmp_path, compress(M1.replace("\n", "\r\n").encode(encoding))) == BARS


def test_days_have_no_time(tmp_path: Path) -> None:
    lines = [line.split("\t") for line in M1.splitlines()]
    daily = "\n".join("\t".join([cells[0], *cells[2:]]) for cells in lines[:2])
    assert read_bars(tmp_path, daily.encode()) == BARS[:1]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("2019.02.04\t00:01:00\t1.1\t1.2\t1.0", "it has 5 cells, the first line names 9 columns"),
        ("2019.13.04\t00:01:00\t1.1\t1.2\t1.0\t1.1\t5\t0\t1", "time: '2019.13.04 00:01:00' is no time of the calendar"),
        ("2019.02.04\t25:01:00\t1.1\t1.2\t1.0\t1.1\t5\t0\t1", "'2019.02.04 25:01:00' is no time of the calendar"),
        ("2019.02.04\t00:01:00\t1.1\tx\t1.0\t1.1\t5\t0\t1", "high: a number is expected, not 'x'"),
        ("2019.02.04\t00:01:00\t1.1\t1.0\t1.2\t1.1\t5\t0\t1", "high: must not be below open, close or low"),
        ("2019.02.04\t00:01:00\t1.1\tnan\t1.0\t1.1\t5\t0\t1", "high: a finite number is expected"),
        ("2019.02.04\t00:01:00\t0\t0\t0\t0\t5\t0\t1", "open: must be a finite number other than 0"),
        ("2001.09.11\t20:12:00\t-.0001\t-.0001\t-.0001\t-.0001\t0\t0\t0", "a negative price in a bar without ticks"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_bar_costs_itself_alone_and_is_told(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "bars.csv"
    path.write_text(M1 + line + "\n" + M1.splitlines()[1] + "\n")

    with BarFile(path) as bars:
        assert list(bars) == [*BARS, BARS[0]]

    (reason,) = bars.reasons
    assert "line 4: " in reason
    assert why in reason


@pytest.mark.parametrize(
    ("text", "bar"),
    [
        pytest.param(
            "20120201 000000;1.306600;1.306600;1.306560;1.306560;0\n",
            Bar(1_328_072_400_000, 1.3066, 1.3066, 1.30656, 1.30656, 0, None, None), id="HistData, EST",
        ),
        pytest.param(
            "2019.02.04,00:00,1.306600,1.306600,1.306560,1.306560,12\n",
            Bar(DAY, 1.3066, 1.3066, 1.30656, 1.30656, 12, None, None), id="MetaTrader 4, no header",
        ),
        pytest.param(
            "Date,Time,Open,High,Low,Close,Volume\n2019.02.04,00:00,77.708,77.710,77.702,77.702,30\n",
            Bar(DAY, 77.708, 77.71, 77.702, 77.702, 30, None, None), id="MetaTrader 4",
        ),
        pytest.param(
            "time,open,high,low,close,tick_volume,spread,real_volume\n1549238400,156755.0,156760.0,156740.0,156760.0,2,5,15\n",
            Bar(DAY, 156_755.0, 156_760.0, 156_740.0, 156_760.0, 2, 15.0, 5), id="MetaTrader5 package",
        ),
        pytest.param(
            "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>\n"
            "EURUSD,1,20190204,000000,1462.9,1463.4,1462.9,1462.9,16\n",
            Bar(DAY, 1462.9, 1463.4, 1462.9, 1462.9, 16, None, None), id="Finam",
        ),
        pytest.param(
            "Gmt time,Open,High,Low,Close,Volume\n04.02.2019 00:00:00.000,1.14543,1.14570,1.14542,1.14569,293.76\n",
            Bar(DAY, 1.14543, 1.1457, 1.14542, 1.14569, 0, 293.76, None), id="Dukascopy",
        ),
        pytest.param(
            BAR_HEADER + "2019.02.04\t00:00:00\t-37.00\t-36.50\t-40.32\t-39.00\t120\t0\t23\n",
            Bar(DAY, -37.0, -36.5, -40.32, -39.0, 120, None, 23), id="oil in 2020",
        ),
    ],
)  # fmt: skip
def test_bars_of_data_sites_and_scripts_are_read(tmp_path: Path, text: str, bar: Bar) -> None:
    path = tmp_path / "bars.csv"
    path.write_text(text)

    with BarFile(path, Said(symbol="EURUSD")) as bars:
        assert list(bars) == [bar._replace(symbol="EURUSD")]
        assert bars.reasons == []


@pytest.mark.parametrize(
    ("minutes", "timeframe"),
    [
        ([0, 1, 2], "M1"), ([0, 60, 120, 240], "H1"), ([0, 1440, 2880], "D1"), ([5, 10, 20], "M5"), ([0, 60, 61], "M1"),
        ([0, 60], None), ([60, 0, 120], None), ([0, 1], "M1"), ([], None),
        # The day is a Monday. Weeks from Monday, and from the Sunday before it; four and three days apart.
        ([0, 7 * 1440, 14 * 1440], "W1"), ([-1440, 6 * 1440, 20 * 1440], "W1"), ([0, 4 * 1440, 7 * 1440], "D1"),
        # The first of March, April and June; every other Wednesday; days of a clock that is three hours ahead.
        ([25 * 1440, 56 * 1440, 117 * 1440], "MN1"), ([2 * 1440, 16 * 1440, 30 * 1440], None),
        ([1260, 1260 + 1440, 1260 + 2 * 1440], None),
    ],
)  # fmt: skip
def test_opening_times_tell_the_timeframe(minutes: list[int], timeframe: str | None) -> None:
    assert inferred_timeframe([DAY + minute * 60_000 for minute in minutes]) == timeframe


def test_another_header_is_refused_with_the_form(tmp_path: Path) -> None:
    with pytest.raises(UnknownForm, match="<TICKVOL>"):
        read_bars(tmp_path, b"when,open,high,low,close\n")


@pytest.mark.parametrize(
    ("name", "symbol", "timeframe"),
    [
        ("EURUSD_M1_201902040000_201902042359.csv", "EURUSD", "M1"),
        ("EURUSD_201902040000_201902042359.csv.gz", "EURUSD", None),
        ("US_TECH_H4_201902040000_201902042359.csv", "US_TECH", "H4"),
        ("US_TECH_201902040000_201902042359.csv", "US_TECH", None),
        ("EURUSD.r_Daily_201902040000_201902042359.csv", "EURUSD.r", "D1"),
        ("XAUUSD_Monthly_201902040000_201902042359.csv", "XAUUSD", "MN1"),
        ("EURUSD_M2_201902040000_201902042359.csv", "EURUSD", "M2"),
        ("bars.csv", None, None),
        ("DAT_ASCII_EURUSD_T_201202.csv", "EURUSD", None),
        ("DAT_MT_EURUSD_M1_201202.csv", "EURUSD", "M1"),
        ("XAUUSD60.csv", "XAUUSD", "H1"),
        ("US30.csv", None, None),
        ("eurusd-m1-bid-2019-02-04-2019-02-05.csv", "EURUSD", "M1"),
        ("EURUSD-2019-02.csv", "EURUSD", None),
    ],
)
def test_metatraders_file_names(name: str, symbol: str | None, timeframe: str | None) -> None:
    assert parse_file_name(Path(name))[:2] == (symbol, timeframe)


_EMPTY_VALUE = "1.7976931348623157e+308"


@pytest.mark.parametrize(
    ("field", "cell", "said"),
    [
        ("last", _EMPTY_VALUE, 0.0),
        ("last", f"{float(_EMPTY_VALUE):.5f}", 0.0),
        ("last", f"-{_EMPTY_VALUE}", 0.0),
        ("last", "1.#INF", 0.0),
        ("last", "-nan(ind)", 0.0),
        ("last", "inf", 0.0),
        ("last", "1e16", "no price is so large"),
        ("bid", _EMPTY_VALUE, "no price is so large"),
        ("ask", "1e16", "no price is so large"),
        ("bid", "-1e16", "no price is so large"),
        ("volume", _EMPTY_VALUE, 0.0),
        ("volume", "nan", 0.0),
        ("volume", "-1", "must not be negative"),
        ("flags", "-1", "must be from 0"),
        ("flags", "2147483647", 2147483647),
        ("flags", "9223372036854775807", 2**63 - 1),
        ("flags", "9223372036854775808", "must be from 0"),
        ("flags", "6.0", 6),
        ("flags", "6.5", "a whole number is expected"),
        ("flags", _EMPTY_VALUE, None),
        ("time", "0000.00.00 00:00:00", "time"),
    ],
)  # fmt: skip
def test_what_stands_for_no_value_is_read_in_files_and_bodies_alike(
    tmp_path: Path, field: str, cell: str, said: float | str | None
) -> None:
    values = {
        "time": "2019.02.04 00:00:02", "bid": "1.5", "ask": "1.6", "last": "0", "volume": "2", "flags": "56",
    }  # fmt: skip
    names = [name for name in values if said is not None or name != "volume"]
    first = values | {"time": "2019.02.04 00:00:01"}
    odd = values | {field: cell}
    # Arrange
    path = tmp_path / "EURUSD.csv"
    path.write_text("\n".join([",".join(names), *(",".join(row[name] for name in names) for row in (first, odd))]))

    # Act
    with TickFile(path) as ticks:
        *_, from_file = list(ticks)
    item = {"symbol": "EURUSD"} | {name: odd[name] for name in names}

    # Assert
    if isinstance(said, str):
        with pytest.raises(InvalidItem) as refused:
            read_tick(item)
        assert said in f"{refused.value.field}: {refused.value.message}"
        assert from_file.time_msc % 60_000 == 1_000
        assert ticks.skipped == 1
        assert said in str(ticks.reasons)
        return
    from_body = read_tick(item)
    assert ticks.skipped == 0
    assert (from_file.last, from_file.volume) == (from_body.last, from_body.volume)
    if said is None:  # a file tells a quote by its having no deal, a body by the rule for senders without flags
        assert (from_file.flags, from_body.flags) == (6, 0)
        return
    assert from_file.flags == from_body.flags
    assert getattr(from_file, field) == said
