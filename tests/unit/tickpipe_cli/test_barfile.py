"""Files of bars: MetaTrader's exports, their names, and what is said about a line that is no bar."""

import gzip
from pathlib import Path

import pytest

from tickpipe.sending.barfile import Bar, BarFile, named_by
from tickpipe.sending.columnfile import DataFileError, UnknownForm

#: 2019-02-04T00:00:00 by the broker's clock.
DAY = 1_549_238_400_000

HEADER = "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n"
M1 = (
    HEADER
    + "2019.02.04\t00:00:00\t1.14543\t1.14550\t1.14540\t1.14546\t45\t0\t2\n"
    + "2019.02.04\t23:59:00\t1.14546\t1.14546\t1.14546\t1.14546\t1\t250\t0\n"
)
BARS = [
    Bar(DAY, 1.14543, 1.14550, 1.14540, 1.14546, 45, None, 2),
    Bar(DAY + 86_340_000, 1.14546, 1.14546, 1.14546, 1.14546, 1, 250.0, 0),
]


def read(tmp_path: Path, content: bytes) -> list[Bar]:
    path = tmp_path / "bars.csv"
    path.write_bytes(content)
    with BarFile(path) as bars:
        return list(bars)


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gz"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_metatraders_bars(tmp_path: Path, encoding: str, compress: type[bytes]) -> None:
    assert read(tmp_path, compress(M1.replace("\n", "\r\n").encode(encoding))) == BARS


def test_days_have_no_time(tmp_path: Path) -> None:
    lines = [line.split("\t") for line in M1.splitlines()]
    daily = "\n".join("\t".join([cells[0], *cells[2:]]) for cells in lines[:2])
    assert read(tmp_path, daily.encode()) == BARS[:1]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("2019.02.04\t00:01:00\t1.1\t1.2\t1.0", "it has 5 cells, the first line names 9 columns"),
        ("2019.13.04\t00:01:00\t1.1\t1.2\t1.0\t1.1\t5\t0\t1", "2019.13.04"),
        ("2019.02.04\t25:01:00\t1.1\t1.2\t1.0\t1.1\t5\t0\t1", "is no time of day"),
        ("2019.02.04\t00:01:00\t1.1\tx\t1.0\t1.1\t5\t0\t1", "could not convert"),
        ("2019.02.04\t00:01:00\t1.1\t1.0\t1.2\t1.1\t5\t0\t1", "no prices of one bar"),
        ("2019.02.04\t00:01:00\t1.1\tnan\t1.0\t1.1\t5\t0\t1", "no prices of one bar"),
        ("2019.02.04\t00:01:00\t0\t0\t0\t0\t5\t0\t1", "no prices of one bar"),
        ("2019.02.04\t00:01:00\t1.1\t1.2\t1.0\t1.1\t5.5\t0\t1", "invalid literal"),
    ],
)
def test_a_line_that_is_no_bar_is_named(tmp_path: Path, line: str, why: str) -> None:
    with pytest.raises(DataFileError, match="line 4: ") as told:
        read(tmp_path, (M1 + line + "\n").encode())
    assert why in str(told.value)


def test_another_header_is_refused_with_the_form(tmp_path: Path) -> None:
    with pytest.raises(UnknownForm, match="<TICKVOL>"):
        read(tmp_path, b"timestamp,open,high,low,close\n")


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
    ],
)
def test_metatraders_file_names(name: str, symbol: str | None, timeframe: str | None) -> None:
    assert named_by(Path(name)) == (symbol, timeframe)
