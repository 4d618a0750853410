"""Files as traders, terminals and data sites write them: what each means, line by line."""

import tracemalloc
import zipfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from marketdata.contract.tick import POINTS
from marketdata.fold import CandleFold, split_by_period
from marketdata.resends import Passes
from marketdata.tick import ChartMode, Frame, Tick, is_deal
from runtime.settings import parse_zone
from tests.unit.tickpipe.sending.test_history import as_tick
from tickpipe.sending.blocks import FileTick
from tickpipe.sending.columnfile import kind_of
from tickpipe.sending.dialects import Kind, Said, UnknownForm
from tickpipe.sending.history import BarFile, TickFile

MT5_TICKS = "<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>\r\n"
MT5_BARS = "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\r\n"

#: A tick: time, bid, ask, last, volume, flags. A bar: time, open, high, low, close, ticks, real volume, spread.
Row = tuple[object, ...]


class Case(NamedTuple):
    """A file, and what has to be read of it."""

    name: str
    content: str
    #: Of ticks or bars, as they are to be read; the first ones when there are many.
    rows: list[Row]
    #: Numbers and reasons of the lines that are skipped.
    bad: tuple[tuple[int, str], ...] = ()
    said: Said = Said(symbol="X")
    #: Decimals of a tick's price, timeframe of a bar.
    tells: object = None


def mt5(lines: str, header: str = MT5_TICKS) -> str:
    """MetaTrader's export of lines whose cells are written with a space between, `-` for an empty one."""
    rows = [" ".join(line.split()).replace(" ", "\t").split("\t") for line in lines.strip().splitlines()]
    return header + "".join("\t".join("" if cell == "-" else cell for cell in row) + "\r\n" for row in rows)


TICKS = [
    Case(
        "dukascopy-node",
        "timestamp,askPrice,bidPrice,askVolume,bidVolume\n"
        "1730426400123,41786.197,41780.615,0.000045,0.00005\n"
        "1730426400456,41785.173,41779.663,0.000045,0.00005\n",
        [
            ("2024-11-01T02:00:00.123", 41780.615, 41786.197, 0, 0, 6),
            ("2024-11-01T02:00:00.456", 41779.663, 41785.173, 0, 0, 6),
        ],
        tells=3,
    ),
    Case(
        "Dukascopy's page, ask before bid",
        "Local time,Ask,Bid,AskVolume,BidVolume\n"
        "01.03.2013 00:00:00.605 GMT-0000,1581.15,1580.787,400,700\n"
        "01.03.2013 00:00:00.665 GMT-0000,1581.171,1580.808,400,700\n",
        [
            ("2013-03-01T00:00:00.605", 1580.787, 1581.15, 0, 0, 6),
            ("2013-03-01T00:00:00.665", 1580.808, 1581.171, 0, 0, 6),
        ],
        tells=3,
    ),
    Case(
        "FXData",
        "2022.01.02 22:03:54.650,1.13695,1.13664,1.50,0.75\n2022.01.02 22:04:02.003,1.13699,1.13668,0.75,1.50\n",
        [
            ("2022-01-02T22:03:54.650", 1.13664, 1.13695, 0, 0, 6),
            ("2022-01-02T22:04:02.003", 1.13668, 1.13699, 0, 0, 6),
        ],
        tells=5,
    ),
    Case(  # Eastern Standard Time: midnight is 05:00 UTC
        "HistData",
        "20120201 000003660,1.306600,1.306770,0\r\n20120201 000005003,1.306590,1.306760,0\r\n",
        [("2012-02-01T05:00:03.660", 1.3066, 1.30677, 0, 0, 6), ("2012-02-01T05:00:05.003", 1.30659, 1.30676, 0, 0, 6)],
        tells=6,
    ),
    Case(
        "StrategyQuant",
        "Time,Ask,Bid,Volume\n2016.05.02 00:00:01,1.14512,1.14508,1\n",
        [("2016-05-02T00:00:01", 1.14508, 1.14512, 0, 1, 0)],
        tells=5,
    ),
    Case(  # 2.15 lots in all: volume_real before volume
        "MetaTrader5 package",
        "time,bid,ask,last,volume,time_msc,flags,volume_real\n"
        "1771268400,67849.69,67861.69,67855.0,0,1771268400083,24,0.25\n"
        "1771268400,67849.70,67861.70,67856.0,1,1771268400183,24,1.5\n"
        "1771268400,67849.70,67861.70,67856.0,0,1771268400283,24,0.4\n",
        [
            ("2026-02-16T19:00:00.083", 67849.69, 67861.69, 67855, 0.25, 24),
            ("2026-02-16T19:00:00.183", 67849.7, 67861.7, 67856, 1.5, 24),
            ("2026-02-16T19:00:00.283", 67849.7, 67861.7, 67856, 0.4, 24),
        ],
        tells=2,
    ),
    Case(
        "MetaTrader5 package through pandas",
        ",time,bid,ask,last,volume,time_msc,flags,volume_real\n"
        "0,2026-02-16 19:00:00,1.18501,1.18503,0.0,0,2026-02-16 19:00:00.083,6,0.0\n"
        "1,2026-02-16 19:00:00,1.18502,1.18503,0.0,0,2026-02-16 19:00:00.412,130,0.0\n",
        [
            ("2026-02-16T19:00:00.083", 1.18501, 1.18503, 0, 0, 6),
            ("2026-02-16T19:00:00.412", 1.18502, 1.18503, 0, 0, 130),
        ],
        tells=5,
    ),
    Case(
        "flags of pandas",
        "time_msc,bid,ask,last,volume,flags\n1771268400083,1.18501,1.18503,,,6.0\n1771268400383,1.18502,1.18503,,,134.0\n",
        [
            ("2026-02-16T19:00:00.083", 1.18501, 1.18503, 0, 0, 6),
            ("2026-02-16T19:00:00.383", 1.18502, 1.18503, 0, 0, 134),
        ],
        tells=5,
    ),
    Case(
        "decimal commas between commas",
        "time_msc,bid,ask\n1771268400083,1,14543,1,14545\n1771268400383,1,14544,1,14546\n",
        [],
        ((2, "it has 5 cells, the first line names 3 columns"), (3, "it has 5 cells")),
        tells=None,
    ),
    Case(
        "semicolons and decimal commas",
        "\ufefftime_msc;bid;ask\r\n1771268400083;1,18501;1,18503\r\n",
        [("2026-02-16T19:00:00.083", 1.18501, 1.18503, 0, 0, 6)],
        tells=5,
    ),
    Case(  # whatever the zone of the source is
        "offsets",
        "timestamp,bid,ask\n2019-02-04T02:00:00.123+02:00,1.14543,1.14545\n2019-02-04T02:01:00.000+02:00,1.14550,1.14552\n",
        [("2019-02-04T00:00:00.123", 1.14543, 1.14545, 0, 0, 6), ("2019-02-04T00:01:00", 1.1455, 1.14552, 0, 0, 6)],
        said=Said(symbol="X", zone=parse_zone("Europe/Athens")),
        tells=5,
    ),
    Case(
        "a clock that goes by the summer time of the United States",
        mt5("""
            2019.03.08 23:58:30.100 1.12355 1.12365 - - 6
            2019.03.15 23:58:30.100 1.13250 1.13260 - - 6
            2019.03.18 00:05:00.200 1.13270 1.13290 - - 6
            2019.04.01 00:05:00.200 1.12240 1.12260 - - 6
        """),
        [
            ("2019-03-08T21:58:30.100", 1.12355, 1.12365, 0, 0, 6),
            ("2019-03-15T20:58:30.100", 1.1325, 1.1326, 0, 0, 6),
            ("2019-03-17T21:05:00.200", 1.1327, 1.1329, 0, 0, 6),
            ("2019-03-31T21:05:00.200", 1.1224, 1.1226, 0, 0, 6),
        ],
        said=Said(symbol="X", zone=parse_zone("America/New_York+07:00")),
        tells=5,
    ),
    Case(
        "UTF-16 with empty lines",
        mt5("""
            2026.02.16 19:00:00.083 1.18501 1.18503 - - 6

            2026.02.16 19:00:59.999 - 1.18509 - - 4
        """).replace("\t6\r\n", "\t6\r\n\r\n"),
        [
            ("2026-02-16T19:00:00.083", 1.18501, 1.18503, 0, 0, 6),
            ("2026-02-16T19:00:59.999", 1.18501, 1.18509, 0, 0, 4),
        ],
        tells=5,
    ),
    Case(
        "TrueFX",
        "EUR/USD,20190204 00:00:01.123,1.14543,1.14545\nEUR/USD,20190204 00:00:01.456,1.14544,1.14546\n",
        [
            ("2019-02-04T00:00:01.123", 1.14543, 1.14545, 0, 0, 6),
            ("2019-02-04T00:00:01.456", 1.14544, 1.14546, 0, 0, 6),
        ],
        said=Said(symbol="EURUSD"),
        tells=5,
    ),
    Case(
        "dashes",
        "date,time,bid,ask\n2019-02-04,00:00:01.123,1.14543,1.14545\n",
        [("2019-02-04T00:00:01.123", 1.14543, 1.14545, 0, 0, 6)],
        tells=5,
    ),
    Case(
        "good lines around a bad one",
        "time_msc,bid,ask\n"
        "1771268400083,1.1,1.2\n"
        "1771268401083,1.1,1.2\n"
        "1771268402083,1.1,1.2\n"
        "1771268403083,,\n"
        "1771268460083,1.3,1.4\n",
        [
            ("2026-02-16T19:00:00.083", 1.1, 1.2, 0, 0, 6),
            ("2026-02-16T19:00:01.083", 1.1, 1.2, 0, 0, 6),
            ("2026-02-16T19:00:02.083", 1.1, 1.2, 0, 0, 6),
            ("2026-02-16T19:01:00.083", 1.3, 1.4, 0, 0, 6),
        ],
        ((5, "bid: a number is expected, not ''"),),
        tells=1,
    ),
    Case(
        "seconds",
        "time,bid,ask,last,volume,flags\n1771268400,1.18501,1.18503,0,0,6\n",
        [("2026-02-16T19:00:00", 1.18501, 1.18503, 0, 0, 6)],
        tells=5,
    ),
    Case(
        "one export after another",
        mt5("2026.01.30 23:59:58.100 1.18501 1.18503 - - 6") + mt5("2026.02.02 00:05:00.100 1.18601 1.18603 - - 6"),
        [
            ("2026-01-30T23:59:58.100", 1.18501, 1.18503, 0, 0, 6),
            ("2026-02-02T00:05:00.100", 1.18601, 1.18603, 0, 0, 6),
        ],
        ((3, "it names the columns once more"),),
        tells=5,
    ),
    Case(  # the text has the digits: a spread of 2.00 is 200 points
        "whole prices with decimals",
        mt5("2026.02.16 19:00:00.083 49500.00 49502.00 - - 6"),
        [("2026-02-16T19:00:00.083", 49500, 49502, 0, 0, 6)],
        tells=2,
    ),
    Case(  # the zone stands in the header: 02:00 in Athens
        "JForex",
        "Time (EET),Ask,Bid,AskVolume,BidVolume \n2019.02.04 02:00:01.123,1.14545,1.14543,1.5,0.75\n",
        [("2019-02-04T00:00:01.123", 1.14543, 1.14545, 0, 0, 6)],
        tells=5,
    ),
    Case(
        "Tickstory",
        "Date,Timestamp,Bid Price,Ask Price,Bid Volume,Ask Volume\n20190204,00:00:01:123,1.14543,1.14545,1,2\n",
        [("2019-02-04T00:00:01.123", 1.14543, 1.14545, 0, 0, 6)],
        tells=5,
    ),
    Case(
        "MetaTrader 5 without a header",
        mt5("2019.02.04 00:00:01.123 1.14543 1.14545 - - 6\n2019.02.04 00:00:02.000 1.14544 - - - 2", header=""),
        [
            ("2019-02-04T00:00:01.123", 1.14543, 1.14545, 0, 0, 6),
            ("2019-02-04T00:00:02", 1.14544, 1.14545, 0, 0, 2),
        ],
        tells=5,
    ),
    Case(
        "numbers without a header",
        "1549238401123,1.14543,1.14545\n",
        [("2019-02-04T00:00:01.123", 1.14543, 1.14545, 0, 0, 6)],
        tells=5,
    ),
    Case(
        "newest first",
        "timestamp,bid,ask\n" + "".join(f"2026-02-16T19:{m:02d}:59,1.18599,1.18699\n" for m in (6, 5, 4)),
        [(f"2026-02-16T19:{m:02d}:59", 1.18599, 1.18699, 0, 0, 6) for m in (6, 5, 4)],
        tells=5,
    ),
]

BARS = [
    Case(
        "HistData",
        "20120201 000000;1.306600;1.306600;1.306560;1.306560;0\n"
        "20120201 000100;1.306570;1.306570;1.306470;1.306560;0\n",
        [
            ("2012-02-01T05:00:00", 1.3066, 1.3066, 1.30656, 1.30656, 0, None, None),
            ("2012-02-01T05:01:00", 1.30657, 1.30657, 1.30647, 1.30656, 0, None, None),
        ],
        tells="M1",
    ),
    Case(
        "MetaTrader 4 without a header",
        "2012.02.01,00:00,1.306600,1.306600,1.306560,1.306560,12\n2012.02.01,00:01,1.306570,1.306570,1.306470,1.306560,31\n",
        [
            ("2012-02-01T00:00:00", 1.3066, 1.3066, 1.30656, 1.30656, 12, None, None),
            ("2012-02-01T00:01:00", 1.30657, 1.30657, 1.30647, 1.30656, 31, None, None),
        ],
        tells="M1",
    ),
    Case(
        "MetaTrader5 package",
        "time,open,high,low,close,tick_volume,spread,real_volume\n1786525200,156755.0,156760.0,156740.0,156760.0,2,5,15\n"
        "1786525260,156700.0,156700.0,156700.0,156700.0,1,5,3\n",
        [
            ("2026-08-12T09:00:00", 156755, 156760, 156740, 156760, 2, 15, 5),
            ("2026-08-12T09:01:00", 156700, 156700, 156700, 156700, 1, 3, 5),
        ],
        tells="M1",
    ),
    Case(
        "Dukascopy's page",
        "Gmt time,Open,High,Low,Close,Volume\n04.02.2019 00:00:00.000,1.14543,1.14570,1.14542,1.14569,293.76\n"
        "04.02.2019 00:01:00.000,1.14569,1.14580,1.14565,1.14575,271.59\n",
        [
            ("2019-02-04T00:00:00", 1.14543, 1.1457, 1.14542, 1.14569, 0, 293.76, None),
            ("2019-02-04T00:01:00", 1.14569, 1.1458, 1.14565, 1.14575, 0, 271.59, None),
        ],
        tells="M1",
    ),
    Case(
        "MetaTrader 4",
        "Date,Time,Open,High,Low,Close,Volume\n2011.12.08,18:49,77.708,77.710,77.702,77.702,30\n2011.12.08,18:50,77.700,77.701,77.693,77.700,19\n",
        [
            ("2011-12-08T18:49:00", 77.708, 77.71, 77.702, 77.702, 30, None, None),
            ("2011-12-08T18:50:00", 77.7, 77.701, 77.693, 77.7, 19, None, None),
        ],
        tells="M1",
    ),
    Case(
        "hours",
        mt5(
            "".join(f"2019.02.04 {hour:02d}:00:00 1.1450 1.1470 1.1440 1.1460 3600 0 2\n" for hour in range(8, 12)),
            MT5_BARS,
        ),
        [(f"2019-02-04T{hour:02d}:00:00", 1.145, 1.147, 1.144, 1.146, 3600, None, 2) for hour in range(8, 12)],
        tells="H1",
    ),
    Case(
        "one bar whose open is above its high",
        mt5(
            """
            2019.02.04 00:00:00 1.2 1.205 1.19 1.2 3 0 2
            2019.02.04 00:01:00 1.21 1.205 1.19 1.2 3 0 2
            2019.02.04 00:02:00 1.2 1.205 1.19 1.2 3 0 2
        """,
            MT5_BARS,
        ),
        [
            ("2019-02-04T00:00:00", 1.2, 1.205, 1.19, 1.2, 3, None, 2),
            ("2019-02-04T00:02:00", 1.2, 1.205, 1.19, 1.2, 3, None, 2),
        ],
        ((3, "high: must not be below open"),),
        tells="M1",
    ),
    Case(
        "a missing price filled with -0.0001",
        mt5(
            """
            2001.09.11 18:25:00 0.911100 0.911100 0.911000 0.911000 0 0 0
            2001.09.11 18:26:00 0.910900 0.910900 0.910800 0.910800 0 0 0
            2001.09.11 20:12:00 -.000100 -.000100 -.000100 -.000100 0 0 0
        """,
            MT5_BARS,
        ),
        [
            ("2001-09-11T18:25:00", 0.9111, 0.9111, 0.911, 0.911, 0, None, 0),
            ("2001-09-11T18:26:00", 0.9109, 0.9109, 0.9108, 0.9108, 0, None, 0),
        ],
        ((4, "low: a negative price in a bar without ticks"),),
        tells="M1",
    ),
    Case(
        "oil in 2020",
        mt5(
            """
            2020.04.20 18:07:00 0.12 0.15 0.05 0.05 40 0 7
            2020.04.20 18:08:00 0.03 0.10 -1.43 -1.20 88 0 7
            2020.04.20 18:29:00 -37.00 -36.50 -40.32 -39.00 120 0 23
        """,
            MT5_BARS,
        ),
        [
            ("2020-04-20T18:07:00", 0.12, 0.15, 0.05, 0.05, 40, None, 7),
            ("2020-04-20T18:08:00", 0.03, 0.1, -1.43, -1.2, 88, None, 7),
            ("2020-04-20T18:29:00", -37, -36.5, -40.32, -39, 120, None, 23),
        ],
        tells="M1",
    ),
    Case(
        "MetaStock",
        "<TICKER>,<DTYYYYMMDD>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>\nX,20190204,000100,1.1,1.2,1.0,1.1,4\n"
        "X,20190204,000200,1.1,1.2,1.0,1.1,5\n",
        [
            ("2019-02-04T00:01:00", 1.1, 1.2, 1, 1.1, 4, None, None),
            ("2019-02-04T00:02:00", 1.1, 1.2, 1, 1.1, 5, None, None),
        ],
        tells="M1",
    ),
    Case(
        "MetaTrader 5 without a header",
        mt5("2019.02.04 00:01:00 1.1 1.2 1.0 1.1 4 7 2\n2019.02.04 00:02:00 1.1 1.2 1.0 1.1 5 0 3", header=""),
        [
            ("2019-02-04T00:01:00", 1.1, 1.2, 1, 1.1, 4, 7, 2),
            ("2019-02-04T00:02:00", 1.1, 1.2, 1, 1.1, 5, None, 3),
        ],
        tells="M1",
    ),
    Case(
        "days, from the date alone",
        "<DATE>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\r\n"
        "2019.02.04\t1.14560\t1.14600\t1.14240\t1.14360\t50000\t0\t2\r\n",
        [("2019-02-04T00:00:00", 1.1456, 1.146, 1.1424, 1.1436, 50000, None, 2)],
        said=Said(symbol="X", timeframe="D1"),
        tells="D1",
    ),
]


def shown(time_ms: int) -> str:
    moment = datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{moment}.{time_ms % 1000:03d}" if time_ms % 1000 else moment


def check_bad(reasons: list[str], bad: Iterable[tuple[int, str]]) -> None:
    for reason, (line, why) in zip(reasons, bad, strict=True):
        assert f": line {line}: " in reason
        assert why in reason


@pytest.mark.parametrize("case", TICKS, ids=lambda case: case.name)
def test_ticks_of_the_field(tmp_path: Path, case: Case) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(case.content.encode("utf-16" if "UTF-16" in case.name else "utf-8"))

    assert kind_of(path, case.said) is Kind.TICKS
    with TickFile(path, case.said) as ticks:
        found = [(shown(t.time_msc), t.bid, t.ask, t.last, t.volume, t.flags) for t in ticks]

    assert found == case.rows
    assert ticks.digits_of(ticks.symbol or case.said.symbol or "") == case.tells
    check_bad(ticks.reasons, case.bad)


@pytest.mark.parametrize("case", BARS, ids=lambda case: case.name)
def test_bars_of_the_field(tmp_path: Path, case: Case) -> None:
    path = tmp_path / "file.csv"
    path.write_text(case.content, newline="")

    assert kind_of(path, case.said) is Kind.BARS
    with BarFile(path, case.said) as bars:
        found = [(shown(bar[0]), *bar[1:8]) for bar in bars]

    assert found == case.rows
    assert bars.timeframe == case.tells
    check_bad(bars.reasons, case.bad)


def test_a_column_says_the_symbol_of_each_line(tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv"
    path.write_text(
        "time_msc,symbol,bid,ask\n"
        "1771268400083,EURUSD,1.18501,1.18503\n"
        "1771268400083,GBPUSD,1.36010,1.36013\n"
        "1771268400088,XAUUSD,5000.10,5000.30\n1771268400092,EURUSD,1.18502,1.18504\n"
    )

    with TickFile(path) as ticks:
        assert [(tick.symbol, tick.bid) for tick in ticks] == [
            ("EURUSD", 1.18501), ("GBPUSD", 1.3601), ("XAUUSD", 5000.1), ("EURUSD", 1.18502),
        ]  # fmt: skip
        assert [ticks.digits_of(symbol) for symbol in ("EURUSD", "GBPUSD", "XAUUSD")] == [5, 5, 2]
    with TickFile(path, Said(symbol="EURUSD")) as ticks:
        assert [tick.bid for tick in ticks] == [1.18501, 1.18502]
        check_bad(ticks.reasons, [(3, "it is of GBPUSD, not of EURUSD"), (4, "it is of XAUUSD, not of EURUSD")])


def test_bytes_that_are_no_utf_8_are_of_windows_1252(tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv"
    # One that neither knows costs its line alone.
    rows = [b"EURUSD.\xa3,1.1", "EURUSD.£,1.2".encode(), b"A\x81,1.3", "Газпром,1.4".encode()]
    path.write_bytes(b"time_msc,symbol,bid,ask\n" + b"".join(b"1771268400083," + row + b",2\n" for row in rows))

    with TickFile(path) as ticks:
        assert [(tick.symbol, tick.bid) for tick in ticks] == [("EURUSD.£", 1.1), ("EURUSD.£", 1.2), ("Газпром", 1.4)]
        assert ticks.skipped == 1


def test_finam_says_symbol_and_timeframe_in_columns(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    header = "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>\n"
    line = "NYMEX.PL,1,20140801,000{}00,1462.9,1463.4,1462.9,1462.9,16\n"
    path.write_text(header + line.format(0) + line.format(2) + line.format(3).replace(",1,", ",5,", 1))

    with BarFile(path) as bars:
        assert [(bar.symbol, shown(bar.time_msc)) for bar in bars] == [
            ("NYMEX.PL", "2014-08-01T00:00:00"), ("NYMEX.PL", "2014-08-01T00:02:00"),
        ]  # fmt: skip
        assert (bars.timeframe, bars.timeframe_from) == ("M1", "by its column")
        check_bad(bars.reasons, [(4, "it is of 5, not of M1")])


@pytest.mark.parametrize(
    ("opened", "timeframe", "why"),
    [
        (("08:00", "09:00", "10:00", "11:00"), "M1", "those of H1, not of M1"),
        (("18:49", "18:50"), "H1", "those of M1, not of H1"),
        (("18:49", "18:57", "19:12"), "H1", "those of M1, not of H1"),
    ],
)
def test_opening_times_that_contradict_the_timeframe_are_refused(
    tmp_path: Path, opened: tuple[str, ...], timeframe: str, why: str
) -> None:
    path = tmp_path / "bars.csv"
    lines = "".join(f"2019.02.04 {time}:00 1.1 1.2 1.0 1.1 5 0 2\n" for time in opened)
    path.write_text(mt5(lines, MT5_BARS))

    with pytest.raises(UnknownForm, match=why), BarFile(path, Said(symbol="X", timeframe=timeframe)):
        pass


def candles(ticks: Iterable[FileTick], mode: ChartMode, digits: int) -> list[Row]:
    """The fold of the ticks: minute, prices, ticks, real volume, spread."""
    read: list[Tick] = [as_tick(tick) for tick in ticks]
    frame = Frame(
        v=1, source="S", symbol="X", mode=mode, point=POINTS[digits], request="r", received=0, ticks=read
    )  # fmt: skip
    folded: list[Row] = []
    earliest, latest, parts = split_by_period(frame)
    passes = Passes()
    passes.enter(frame, earliest, latest)
    for ts, part in parts:
        fold = CandleFold("S", "X", ts)
        fold.add(0, 0, passes, frame, part)
        candle = fold.candle(log="l", offsets=((0, 0, 0),), closed=True, emitted=0)
        if candle is not None:
            prices = (candle.open, candle.high, candle.low, candle.close)
            folded.append((shown(ts)[:16], *prices, candle.volume, candle.real_volume, candle.spread))
    return folded


def folded(tmp_path: Path, text: str, mode: ChartMode = "bid", said: Said | None = None) -> list[Row]:
    path = tmp_path / "ticks.csv"
    path.write_text(text, newline="")
    with TickFile(path, said or Said(symbol="X")) as ticks:
        read = list(ticks)
        return candles(read, mode, ticks.digits_of("X") or 0)


def test_deals_alone_draw_candles_charted_by_last(tmp_path: Path) -> None:
    text = mt5("""
        2026.08.12 09:00:32.665 156750 156755 156755 10 56
        2026.08.12 09:00:32.700 156745 - - - 2
        2026.08.12 09:00:32.900 - 156750 - - 4
        2026.08.12 09:00:59.000 - - 156760 5 56
        2026.08.12 09:01:00.100 156735 - - - 2
        2026.08.12 09:01:20.000 - - 156700 3 88
        2026.08.12 09:02:10.000 156700 156710 - - 6
    """)

    found = folded(tmp_path, text, "last")

    assert [(row[0], row[1], row[2], row[3], row[4], row[6]) for row in found] == [
        ("2026-08-12T09:00", 156755, 156760, 156755, 156760, 15),
        ("2026-08-12T09:01", 156700, 156700, 156700, 156700, 3),
    ]


def test_a_negative_price_is_a_price(tmp_path: Path) -> None:
    text = mt5("""
        2020.04.20 18:08:02.300 -0.02 0.05 - - 6
        2020.04.20 18:08:30.000 -1.43 -1.30 - - 6
        2020.04.20 18:08:45.000 0.10 0.20 - - 6
        2020.04.20 18:29:01.000 -37.63 -37.40 - - 6
        2020.04.20 18:29:40.000 -40.32 -40.00 - - 6
    """)

    assert [row[:6] for row in folded(tmp_path, text)] == [
        ("2020-04-20T18:08", -0.02, 0.10, -1.43, 0.10, 3),
        ("2020-04-20T18:29", -37.63, -37.63, -40.32, -40.32, 2),
    ]


def test_the_order_tells_the_two_passes_of_the_hour_that_exists_twice(tmp_path: Path) -> None:
    text = mt5("""
        2025.10.26 02:59:30.000 113000.00 113010.00 - - 6
        2025.10.26 03:10:05.000 113100.00 113110.00 - - 6
        2025.10.26 03:10:45.000 113200.00 113210.00 - - 6
        2025.10.26 03:59:59.000 113300.00 113310.00 - - 6
        2025.10.26 03:10:07.000 111000.00 111010.00 - - 6
        2025.10.26 03:10:40.000 111100.00 111110.00 - - 6
        2025.10.26 04:00:01.000 111200.00 111210.00 - - 6
    """)

    found = folded(tmp_path, text, said=Said(symbol="X", zone=parse_zone("Europe/Athens")))

    assert {row[0]: row[1:6] for row in found if str(row[0]).endswith(":10")} == {
        "2025-10-26T00:10": (113100, 113200, 113100, 113200, 2),
        "2025-10-26T01:10": (111000, 111100, 111000, 111100, 2),
    }


def test_the_text_has_the_digits_of_the_spread(tmp_path: Path) -> None:
    # 2.00 at two digits
    assert folded(tmp_path, mt5("2026.02.16 19:00:00.083 49500.00 49502.00 - - 6"))[0][7] == 200


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv"
    lines = "".join(f"{1_549_238_400_000 + number},1.14543,1.14545\n" for number in range(100_000))
    path.write_text("time_msc,bid,ask\n" + lines)

    tracemalloc.start()
    try:
        with TickFile(path) as ticks:
            assert sum(1 for _ in ticks) == 100_000
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak_bytes < path.stat().st_size / 5


def test_a_zip_with_a_report_beside_its_csv_is_read(tmp_path: Path) -> None:
    path = tmp_path / "HISTDATA_COM_ASCII_EURUSD_T201202.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("DAT_ASCII_EURUSD_T_201202.csv", "20120201 000003660,1.306600,1.306770,0\r\n")
        archive.writestr("DAT_ASCII_EURUSD_T_201202.txt", "Gaps: none\r\n")

    with TickFile(path) as ticks:
        assert [(tick.symbol, shown(tick.time_msc)) for tick in ticks] == [("EURUSD", "2012-02-01T05:00:03.660")]


def test_deals_without_quotes_are_deals(tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv"
    path.write_text("<TICKER>,<PER>,<DATE>,<TIME>,<LAST>,<VOL>\nSBER,0,20190204,100000,205.5,10\n")

    with TickFile(path) as ticks:
        (tick,) = ticks
        assert (tick.symbol, tick.bid, tick.last, tick.volume, is_deal(as_tick(tick).flags)) == (
            "SBER",
            0,
            205.5,
            10,
            True,
        )
        assert not ticks.has_quotes
