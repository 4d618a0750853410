"""Tick files: every form, and what is said about a file that cannot be read."""

import gzip
from pathlib import Path

import pytest

from marketdata.tick import Tick
from tickpipe.sending.columnfile import DataFileError, UnknownForm
from tickpipe.sending.tickfile import TickFile, digits_of

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


def read(tmp_path: Path, content: bytes) -> list[Tick]:
    path = tmp_path / "ticks"
    path.write_bytes(content)
    with TickFile(path) as ticks:
        return list(ticks)


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gz"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_metatrader_export_in_every_encoding(
    tmp_path: Path, encoding: str, newline: str, compress: type[bytes]
) -> None:
    content = compress(MT5.replace("\n", newline).encode(encoding))

    assert read(tmp_path, content) == MT5_TICKS


def test_metatrader_export_without_flags_tells_what_changed(tmp_path: Path) -> None:
    # MT5: TICK_FLAG_BID 2, TICK_FLAG_ASK 4, TICK_FLAG_LAST 8, TICK_FLAG_VOLUME 16
    lines = ["\t".join(line.split("\t")[:-1]) for line in MT5.splitlines()]

    ticks = read(tmp_path, "\n".join(lines).encode())

    assert [tick.flags for tick in ticks] == [6, 4, 2, 4 + 8 + 16, 2]
    assert [tick.bid for tick in ticks] == [tick.bid for tick in MT5_TICKS]


def test_metatrader_export_with_whole_seconds(tmp_path: Path) -> None:
    content = b"<DATE>\t<TIME>\t<BID>\t<ASK>\n2019.02.04\t00:00:07\t1.1\t1.2\n"

    assert read(tmp_path, content) == [Tick(DAY + 7_000, 1.1, 1.2, 0.0, 0.0, 6)]


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
    ticks = read(tmp_path, compress(text.encode()))

    assert ticks == [Tick(DAY + 994, 1.14543, 1.14545, 0.0, 0.0, 6)]


def test_csv_with_all_of_a_tick(tmp_path: Path) -> None:
    content = b"time_msc,bid,ask,last,volume,flags\n1549238400994,5.1,5.2,5.15,7,1080\n1549238400995,5.1,5.2,,,\n"

    assert read(tmp_path, content) == [
        Tick(DAY + 994, 5.1, 5.2, 5.15, 7.0, 1080),
        Tick(DAY + 995, 5.1, 5.2, 0.0, 0.0, 6),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("time_msc,bid,ask\n1,1.1,1.2\n2,1.1\n", "line 3: it has 2 cells, the first line names 3 columns"),
        ("time_msc,bid,ask\n1,1.1,1.2\n\n2,,1.2\n", "line 4: could not convert string to float"),
        ("time_msc,bid,ask\n1,nan,1.2\n", "line 2: a price or the volume is not a finite number"),
        ("time_msc,bid,ask\n1,1e999,1.2\n", "line 2: a price or the volume is not a finite number"),
        ("time_msc,bid,ask\n-1,1.1,1.2\n", "line 2: the time -1"),
        ("time_msc,bid,ask\n999999999999999,1.1,1.2\n", "line 2: the time 999999999999999"),
        ("time_msc,bid,ask\n1.5,1.1,1.2\n", "line 2: invalid literal for int"),
        ("timestamp,bid,ask\nyesterday,1.1,1.2\n", "line 2: Invalid isoformat string"),
        ("<DATE>\t<TIME>\t<BID>\t<ASK>\n2019.02.30\t00:00:00\t1\t2\n", "line 2: day is out of range"),
        ("<DATE>\t<TIME>\t<BID>\t<ASK>\n2019.02.04\t24:00:00\t1\t2\n", "line 2: '24:00:00' is no time of day"),
        ("<DATE>\t<TIME>\t<BID>\t<ASK>\n2019.02.04\tnoon\t1\t2\n", "line 2: 'noon' is no time of day"),
    ],
)
def test_bad_line_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataFileError, match="line") as caught:
        read(tmp_path, text.encode())

    assert said in str(caught.value)


def test_good_lines_before_a_bad_one_are_given_out(tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv"
    path.write_text("time_msc,bid,ask\n1,1.1,1.2\nx,1.1,1.2\n")

    with TickFile(path) as ticks:
        assert next(ticks).time_msc == 1
        with pytest.raises(DataFileError, match="line 3"):
            next(ticks)


def test_cut_off_gzip_says_how_far_it_was_readable(tmp_path: Path) -> None:
    text = "time_msc,bid,ask\n" + "".join(f"{n},{1 + n * n % 977 / 1e5:.5f},1.2\n" for n in range(20_000))

    with pytest.raises(DataFileError, match=r"damaged or cut off after line [\d,]+"):
        read(tmp_path, gzip.compress(text.encode())[:-5_000])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1549238400994,1.14543,1.14545\n",
        b"time,open,high,low,close\n",
        b"when,bid,ask\n1,2,3\n",
        b"\x89PNG\r\n\x1a\n\xff\xff\xff",
        b"\x1f\x8bnot really gzip",
    ],
)
def test_other_files_are_refused_with_the_forms_that_are_read(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UnknownForm, match="time_msc,bid,ask"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("prices", "digits"),
    [
        ([1.14543, 1.1454], 5),
        ([109.501, 109.5], 3),
        ([7421.0], 0),
        ([0.00001234], 8),
        ([0.1 + 0.2], None),  # 17 decimals: a computed price
        ([0.0], None),
    ],
)
def test_digits_are_the_most_decimals(prices: list[float], digits: int | None) -> None:
    assert digits_of(Tick(0, price, 0.0, 0.0, 0.0, 2) for price in prices) == digits
