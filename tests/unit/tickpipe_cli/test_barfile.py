"""Files of bars: MetaTrader's exports, their names, and what is said about a line that is no bar."""

import gzip
from pathlib import Path

import pytest

from tickpipe.sending.barfile import Bar, BarFile, named_by, timeframe_told_by
from tickpipe.sending.columnfile import UnknownForm

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
        ("2019.13.04\t00:01:00\t1.1\t1.2\t1.0\t1.1\t5\t0\t1", "date: '20191304' is no date"),
        ("2019.02.04\t25:01:00\t1.1\t1.2\t1.0\t1.1\t5\t0\t1", "is no time of day"),
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
            HEADER + "2019.02.04\t00:00:00\t-37.00\t-36.50\t-40.32\t-39.00\t120\t0\t23\n",
            Bar(DAY, -37.0, -36.5, -40.32, -39.0, 120, None, 23), id="oil in 2020",
        ),
    ],
)  # fmt: skip
def test_bars_of_data_sites_and_scripts_are_read(tmp_path: Path, text: str, bar: Bar) -> None:
    path = tmp_path / "bars.csv"
    path.write_text(text)

    with BarFile(path, symbol="EURUSD") as bars:
        assert list(bars) == [bar]
        assert bars.reasons == []


@pytest.mark.parametrize(
    ("minutes", "timeframe"),
    [
        ([0, 1, 2], "M1"), ([0, 60, 120, 240], "H1"), ([0, 1440, 2880], "D1"), ([5, 10, 20], "M5"), ([0, 60, 61], "M1"),
        ([0, 60], None), ([60, 0, 120], None),
    ],
)  # fmt: skip
def test_opening_times_tell_the_timeframe(minutes: list[int], timeframe: str | None) -> None:
    bars = [BARS[0]._replace(time_msc=DAY + minute * 60_000) for minute in minutes]
    assert timeframe_told_by(bars) == timeframe


def test_another_header_is_refused_with_the_form(tmp_path: Path) -> None:
    with pytest.raises(UnknownForm, match="<TICKVOL>"):
        read(tmp_path, b"when,open,high,low,close\n")


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
