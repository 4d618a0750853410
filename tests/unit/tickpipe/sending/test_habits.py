"""Files as people save them: the same values in the many ways in which dates, numbers and names are written.

What could mean two things is refused, and the message says which option tells.
"""

import bz2
import gzip
import io
import lzma
import pickle
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import feather, parquet

from marketdata.errors import TickpipeError
from tickpipe.sending.columnfile import kind_of
from tickpipe.sending.columnnames import field_of, zone_in
from tickpipe.sending.dialects import Kind, Said, UnknownForm, parse_file_name
from tickpipe.sending.history import BarFile, TickFile
from tickpipe.sending.textfile import unpacked

#: 2024-03-25 13:07:09.250, and the minute and the day that it lies in (epoch milliseconds).
TIME = 1_711_372_029_250
MINUTE = 1_711_372_020_000
DAY = 1_711_324_800_000

#: By what is special in them: the header, and a line in which `{n}` counts from 0. The first has the time above.
TICKS = {
    "months in full": ("time,bid,ask\n", "25 March 2024 13:07:09.25{n},1.08412,1.08415\n"),
    "years of two digits": ("time;bid;ask\n", "25.03.24 13:07:09,25{n};1,08412;1,08415\n"),
    "American years of two digits": ("Date,Time,Bid,Ask\n", "03/25/24,13:07:09.25{n},1.08412,1.08415\n"),
    "half days with points": ("time,bid,ask\n", "25/03/2024 01:07:09.25{n} p. m.,1.08412,1.08415\n"),
    "UTC behind the time": ("time,bid,ask\n", "2024-03-25 13:07:09.25{n} UTC,1.08412,1.08415\n"),
    "seconds by numpy": ("time,bid,ask\n", "1.71137202925{n}000000e+09,1.08412,1.08415\n"),
    "milliseconds by numpy": ("time,bid,ask\n", "1.71137202925{n}000000E+12,1.08412,1.08415\n"),
    "milliseconds in a column": ("Date,Time,Ms,Bid,Ask\n", "2024-03-25,13:07:09,25{n},1.08412,1.08415\n"),
    "German": ("\ufeffZeit;Geld;Brief\r\n", "25.03.2024 13:07:09,25{n};1,08412;1,08415\r\n"),
    "Russian": ("Дата;Время;Бид;Аск\n", "25.03.2024;13:07:09.25{n};1,08412;1,08415\n"),
    "no value by pandas": ("time,bid,ask,last,volume\n", "2024-03-25 13:07:09.25{n},1.08412,1.08415,NaN,nan\n"),
    "no value by PostgreSQL": ("time,bid,ask,last,volume,flags\n",
                               "2024-03-25 13:07:09.25{n},1.08412,1.08415,\\N,NULL,\\N\n"),
    "remarks": ("# by my script\n// in UTC, of EURUSD\ntime,bid,ask\n",
                "2024-03-25 13:07:09.25{n},1.08412,1.08415\n# a pause\n"),
    "a remark with the names": ("# by my script\n#time,bid,ask\n", "2024-03-25 13:07:09.25{n},1.08412,1.08415\n"),
    "GAIN": ("lTid,cDealable,CurrencyPair,RateDateTime,RateBid,RateAsk\n",
             "81{n},D,S,2024-03-25 13:07:09.25{n}000000,1.08412,1.08415\n"),
    "a date beside milliseconds": ("date,timestamp,bid,ask\n", "2024-03-25,171137202925{n},1.08412,1.08415\n"),
    "a date beside all of the time": ("Date;Time;Bid;Ask\n", "25.03.2024;25.03.2024 13:07:09,25{n};1,08412;1,08415\n"),
    "nanoseconds by numpy": ("time,bid,ask\n", "1.71137202925{n}000000e+18,1.08412,1.08415\n"),
}  # fmt: skip


#: By the language of the header, or by what parts thousands: the header and a line; open 38712.5, high 38720.
BARS = {
    "Portuguese": ("Data;Hora;Abertura;Máxima;Mínima;Fechamento;Volume\n",
                   "25/03/2024;13:0{n};38712,5;38720,0;38700,5;38715,0;1200\n"),
    "Portuguese without accents": ("Data;Hora;Abertura;Maxima;Minima;Ultimo;Volume\n",
                                   "25/03/2024;13:0{n};38712,5;38720,0;38700,5;38715,0;1200\n"),
    "Portuguese, date and hour in one": ("Data/Hora;Abertura;Máximo;Mínimo;Fechamento;Volume\n",
                                         "25/03/2024 13:0{n};38712,5;38720,0;38700,5;38715,0;1200\n"),
    "German without umlauts": ("Datum/Zeit;Eroeffnung;Hoechst;Tiefst;Schluss;Stuecke\n",
                               "25.03.2024 13:0{n};38712,5;38720,0;38700,5;38715,0;1200\n"),
    "French without accents": ("Date et heure;Ouverture;Haut;Bas;Cloture;Volume\n",
                               "25/03/2024 13:0{n};38712,5;38720,0;38700,5;38715,0;1200\n"),
    "Russian": ("Дата;Время;Открытие;Максимум;Минимум;Закрытие;Объем\n",
                "25.03.2024;13:0{n};38712,5;38720,0;38700,5;38715,0;1200\n"),
    "German": ("Datum;Uhrzeit;Eröffnung;Hoch;Tief;Schluss;Volumen\n",
               "25.03.2024;13:0{n};38712,5;38720,0;38700,5;38715,0;1200\n"),
    "French, with accents of their own": ("Date;Heure;Ouverture;Haut;Bas;Clo\u0302ture;Volume\n",
                                          "25/03/2024;13:0{n};38712,5;38720,0;38700,5;38715,0;1200\n"),
    "Spanish": ("Fecha;Hora;Apertura;Máximo;Mínimo;Cierre;Volumen\n",
                "25/03/2024;13:0{n};38712,5;38720,0;38700,5;38715,0;1200\n"),
    "Italian": ("Data;Ora;Apertura;Massimo;Minimo;Chiusura;Volume\n",
                "25/03/2024;13:0{n};38712,5;38720,0;38700,5;38715,0;1200\n"),
    "Chinese": ("日期,时间,开盘,最高,最低,收盘,成交量\n", "2024/03/25,13:0{n},38712.5,38720.0,38700.5,38715.0,1200\n"),
    "Japanese": ("日付,時刻,始値,高値,安値,終値,出来高\n", "2024/03/25,13:0{n},38712.5,38720.0,38700.5,38715.0,1200\n"),
    "American thousands": ("Date,Time,Open,High,Low,Close,Volume\n",
                           '2024-03-25,13:0{n},"38,712.5","38,720.0","38,700.5","38,715.0","1,200"\n'),
    "American thousands without decimals": ("Date,Time,Open,High,Low,Close,Volume\n",
                                            '2024-03-25,13:0{n},"38,712.50","38,720","38,700.50","38,715","1,200"\n'),
    "Indian thousands, beside what has few": ("Date,Time,Open,High,Low,Close,Volume,Value\n",
                                              '2024-03-25,13:0{n},"38,712.5","38,720.0","38,700.5","38,715.0","1,200",'
                                              '"4,64,55,000.5"\n'),
    "German thousands": ("Date;Time;Open;High;Low;Close;Volume\n",
                         "2024-03-25;13:0{n};38.712,5;38.720,0;38.700,5;38.715,0;1.200\n"),
    "French thousands": ("Date;Time;Open;High;Low;Close;Volume\n",
                         "2024-03-25;13:0{n};38\u202f712,5;38\u202f720,0;38\u202f700,5;38\u202f715,0;1\u202f200\n"),
    "Swiss thousands": ("Date;Time;Open;High;Low;Close;Volume\n",
                        "2024-03-25;13:0{n};38'712.5;38'720.0;38'700.5;38'715.0;1'200\n"),
}  # fmt: skip

#: Texts that may mean two things, or nothing that is known, and what the message says.
REFUSED = {
    "one sign in front of three figures": ("time\tbid\task\n2024-03-25 13:07\t38,712\t38,714\n", "say --decimal"),
    "day and month of two digits": ("time,bid,ask\n01/02/24 13:07:09,1.1,1.2\n", "--date-format"),
    "seconds that Excel has rounded": ("time,bid,ask\n1.71137E+12,1.1,1.2\n", "'1.71137E+12' is no time"),
    "days since 1900": ("time,bid,ask\n45376.546634838,1.1,1.2\n", "days as Excel counts them"),
    "a zone by its name": ("time,bid,ask\n2024-03-25 13:07:09 EST,1.1,1.2\n", "say --zone"),
    "buying and selling prices": ("Data;Hora;Compra;Venda\n25/03/2024;13:07:09;1,1;1,2\n", "--columns"),
    "a bid alone": ("time,bid\n2024-03-25 13:07:09,1.1\n", "--columns"),
    "a middle and a spread": ("time,mid,spread\n2024-03-25 13:07:09,1.1,2\n", "--columns"),
}

#: Names of files: the symbol and the timeframe that they tell.
NAMES = {
    "EURUSD.csv": ("EURUSD", None),
    "eurusd-ticks.csv": ("EURUSD", None),
    "eurusd_ticks.csv.gz": ("EURUSD", None),
    "ticks_EURUSD_2024.csv": ("EURUSD", None),
    "EURUSD_2024-03-05.csv": ("EURUSD", None),
    "EURUSD_M1_2020.csv": ("EURUSD", "M1"),
    "XAUUSD_H1.csv": ("XAUUSD", "H1"),
    "EURUSD.M1.csv": ("EURUSD", "M1"),
    "EURUSD,M15.csv": ("EURUSD", "M15"),
    "EURUSD M1.csv": ("EURUSD", "M1"),
    "FX_EURUSD, 60.csv": ("EURUSD", "H1"),
    "OANDA_XAUUSD, 1D.csv": ("XAUUSD", "D1"),
    "EURUSD_M1_202403251300_202403251303 (1).csv": ("EURUSD", "M1"),
    "EURUSD.r_202403251300_202403251303 - Copy (2).csv": ("EURUSD.r", None),
    "XAUUSD_H1 - Cópia.csv.gz": ("XAUUSD", "H1"),
    "Volatility 75 (1s) Index_M1_202403251300_202403251303.csv": ("Volatility 75 (1s) Index", "M1"),
    "EURUSD - GBPUSD.csv": (None, None),
    # The symbol of a broker may have a suffix, and a name of two pairs is of neither.
    "EURUSD.m.csv": (None, None),
    "EURUSD_GBPUSD.csv": (None, None),
    "history_M1.csv": (None, None),
    "export.csv": (None, None),
}


#: Names of columns: the field that they hold, and the zone that they say.
NAMED = {
    "Data/Hora": ("time", None), "Data e hora": ("time", None), "Fecha y hora": ("time", None),
    "Datum/Uhrzeit": ("time", None), "Дата и время": ("time", None), "Date & Time": ("time", None),
    "Server time": ("time", None), "tick_time": ("time", None), "timestamp_utc": ("time", UTC),
    "Date_Time (GMT)": ("time", UTC), "UTC time": ("time", UTC), "Open time UTC": ("time", UTC),
    "ts_ms": ("time_msc", None),
    "Best Bid": ("bid", None), "best_ask": ("ask", None), "bid_px": ("bid", None), "Preco": ("last", None),
    "Clo\u0302ture": ("close", None), "시가": ("open", None), "Close time": ("", None), "Time left": ("", None),
    "Bid time": ("", None), "Time (ET)": ("", None), "Date/Time ET": ("", None), "Time (UTC+2)": ("", UTC),
     "UTC": ("", UTC), "Volume time": ("", None),
}  # fmt: skip

PLAIN = b"time,bid,ask\n2024-03-25 13:07:09.250,1.08412,1.08415\n"


def in_zip(name: str, content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, content)
    return packed.getvalue()


def in_tar(content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("ticks.csv")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def sqlite_database(folder: Path) -> bytes:
    with closing(sqlite3.connect(folder / "other.db")) as connection, connection:
        connection.execute("CREATE TABLE ticks (bid REAL)")
    return (folder / "other.db").read_bytes()


#: By what was done to a file that can be read: its bytes, and what the message says.
PACKED: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "bzip2": (lambda folder: bz2.compress(PLAIN), "unpack it first"),
    "xz": (lambda folder: lzma.compress(PLAIN), "unpack it first"),
    "a zip in gzip": (lambda folder: gzip.compress(in_zip("a.csv", PLAIN)), "packed once more"),
    "gzip twice": (lambda folder: gzip.compress(gzip.compress(PLAIN)), "packed once more"),
    "gzip in a zip": (lambda folder: in_zip("a.csv", gzip.compress(PLAIN)), "packed once more"),
    "tar in gzip": (lambda folder: in_tar(PLAIN), "tar archive"),
    "a workbook": (lambda folder: in_zip("xl/workbook.xml", b"<xml/>"), "save it as CSV"),
    "the history of MetaTrader 4": (
        lambda folder: b"\x91\1\0\0(C)opyright 2003, MetaQuotes Software Corp." + bytes(200),
        "History Center",
    ),
    "the history of MetaTrader 5": (
        lambda folder: b"\xf5\1\0\0" + "Copyright 2000-2024, MetaQuotes Ltd.".encode("utf-16-le"),
        "from its Symbols",
    ),
    "Dukascopy's own": (lambda folder: lzma.compress(PLAIN, lzma.FORMAT_ALONE), "dukascopy-node"),
    "numpy's own": (lambda folder: b"\x93NUMPY\1\0v\0{'descr': '<f8'}\n", "write CSV or Parquet"),
    "a pickle": (lambda folder: pickle.dumps([1.08412, 1.08415]), "write CSV or Parquet"),
    "a report": (lambda folder: b"<!DOCTYPE html><html><table></table></html>", "save it as CSV"),
    "something else that is no text": (lambda folder: b"TICKS\1\2\3\x1f" * 20, "it is no text"),
    "a database": (sqlite_database, "tickpipe relay export --db"),
}


def write(folder: Path, text: str, name: str = "file.csv") -> Path:
    path = folder / name
    path.write_text(text, newline="", encoding="utf-8")
    return path


def bars_of(path: Path, said: Said) -> tuple[list[Any], list[str]]:
    with BarFile(path, said) as bars:
        return list(bars), bars.reasons


@pytest.mark.parametrize("habit", TICKS)
def test_ticks_are_read_as_they_are_meant(tmp_path: Path, habit: str) -> None:
    header, line = TICKS[habit]
    path = write(tmp_path, header + "".join(line.format(n=n) for n in range(4)))
    assert kind_of(path, Said()) is Kind.TICKS
    with TickFile(path, Said(symbol="S")) as ticks:
        found = [(tick.time_msc, tick.bid, tick.ask, tick.last, tick.volume) for tick in ticks]
    assert (ticks.reasons, found) == ([], [(TIME + n, 1.08412, 1.08415, 0.0, 0.0) for n in range(4)])


@pytest.mark.parametrize("name", NAMED)
def test_a_column_is_known_by_its_name(name: str) -> None:
    field, zone = NAMED[name]
    assert (field_of(name), zone_in(name)) == (field, zone)


@pytest.mark.parametrize("form", ["%Y.%m.%d", "%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y"])
def test_every_day_has_its_own_date(tmp_path: Path, form: str) -> None:
    # Days that differ in their last figure alone.
    days = [form.replace("%Y", "2024").replace("%m", "03").replace("%d", f"{day}") for day in range(25, 30)]
    path = write(tmp_path, "Date,Open,High,Low,Close\n" + "".join(f"{day},1.1,1.2,1.0,1.1\n" for day in days))
    bars, reasons = bars_of(path, Said(symbol="S"))
    assert ([bar.time_msc for bar in bars], reasons) == ([DAY + n * 86_400_000 for n in range(5)], [])


@pytest.mark.parametrize("habit", BARS)
def test_bars_are_read_as_they_are_meant(tmp_path: Path, habit: str) -> None:
    header, line = BARS[habit]
    bars, reasons = bars_of(write(tmp_path, header + "".join(line.format(n=n) for n in range(4))), Said(symbol="S"))
    start = MINUTE - 7 * 60_000
    assert reasons == []
    assert [bar[:6] for bar in bars] == [
        (start + n * 60_000, 38712.5, 38720.0, 38700.5, 38715.0, 1200) for n in range(4)
    ]


#: By how their times are written: the header and lines of bars a day apart, of which the first is of 1999-12-30.
LAST_CENTURY = {
    "seconds": ("time,open,high,low,close\n", "946512000 946598400 946684800"),
    "seconds up to 2001": ("time,open,high,low,close\n", "946512000 946598400 1003276800"),
    "milliseconds": ("time,open,high,low,close\n", "946512000000 946598400000 946684800000"),
    "microseconds": ("time,open,high,low,close\n", "946512000000000 946598400000000 946684800000000"),
    "nanoseconds": ("time,open,high,low,close\n", "946512000000000000 946598400000000000 946684800000000000"),
    "years of two digits": ("Date,Open,High,Low,Close\n", "12/30/99 12/31/99 01/01/00"),
    "years of two digits, with points": ("Datum,Open,High,Low,Close\n", "30.12.99 31.12.99 01.01.00"),
}


@pytest.mark.parametrize("how", LAST_CENTURY)
def test_times_of_the_last_century(tmp_path: Path, how: str) -> None:
    header, times = LAST_CENTURY[how]
    path = write(tmp_path, header + "".join(f"{time},1.1,1.2,1.0,1.1\n" for time in times.split()))
    bars, reasons = bars_of(path, Said(symbol="S", timeframe="D1"))
    assert ([bar.time_msc for bar in bars[:2]], reasons) == ([946_512_000_000, 946_598_400_000], [])


def test_volumes_of_which_one_has_a_fraction_are_all_what_was_traded(tmp_path: Path) -> None:
    """A whole one would be a number of ticks, in one bar among others that have none."""
    volumes = ["3", "0", "0.5", "1.00", "12"]
    lines = "".join(f"2024-03-25 13:0{n},1.1,1.2,1.0,1.1,{volume}\n" for n, volume in enumerate(volumes))
    bars, reasons = bars_of(write(tmp_path, f"time,open,high,low,close,volume\n{lines}"), Said(symbol="S"))
    assert ([(bar.tick_volume, bar.real_volume) for bar in bars], reasons) == (
        [(0, 3.0), (0, None), (0, 0.5), (0, 1.0), (0, 12.0)], []
    )  # fmt: skip


@pytest.mark.parametrize("times", ["2024-03-25 13:07:0{n}", "2024-03-25,13:07:0{n}"])
def test_an_empty_ask_costs_its_line_however_the_time_is_written(tmp_path: Path, times: str) -> None:
    """The ask before it is meant by MetaTrader alone, whose files have a last price and a volume besides."""
    names = "date,time" if "," in times else "time"
    asks = ["1.2", "1.2", "", "1.2"]
    lines = "".join(f"{times.format(n=n)},1.1,{ask}\n" for n, ask in enumerate(asks))
    with TickFile(write(tmp_path, f"{names},bid,ask\n{lines}"), Said(symbol="S")) as ticks:
        found = [(tick.bid, tick.ask) for tick in ticks]
    assert (found, ticks.skipped) == ([(1.1, 1.2)] * 3, 1)
    assert "line 4: ask" in ticks.reasons[0]


#: By what follows the seconds of a file: the milliseconds that it means.
BEHIND_SECONDS = {
    "numbers": (("5", "57", "120", "123", "8"), [5, 57, 120, 123, 8]),
    "fractions without their zeros": (("5", "57", "12", "123", "05"), [500, 570, 120, 123, 50]),
    "what may be either": (("5", "57", "123"), [500, 570, 123]),
    "whole fractions": (("050", "100", "120"), [50, 100, 120]),
    "tenths": (("0", "5", "1"), [0, 500, 100]),
    "more digits than a thousandth has": (("5", "50", "1234567"), [500, 500, 123]),
}


@pytest.mark.parametrize("sign", [".", ":", ","])
@pytest.mark.parametrize("habit", BEHIND_SECONDS)
def test_milliseconds_that_a_script_joins_to_the_time_are_no_fraction(tmp_path: Path, habit: str, sign: str) -> None:
    behind, expected = BEHIND_SECONDS[habit]
    lines = "".join(f"25.03.2024 13:07:0{n}{sign}{text};1.1;1.2\n" for n, text in enumerate(behind))
    with TickFile(write(tmp_path, f"time;bid;ask\n{lines}"), Said(symbol="S")) as ticks:
        found = [tick.time_msc - MINUTE - n * 1_000 for n, tick in enumerate(ticks)]
    assert (found, ticks.reasons) == (expected, [])


def test_a_number_of_milliseconds_has_three_digits(tmp_path: Path) -> None:
    lines = "".join(f"2024-03-25 13:07:09.{text},1.1,1.2\n" for text in ["5", "50", *["500"] * 300, "5000"])
    with TickFile(write(tmp_path, f"time,bid,ask\n{lines}"), Said(symbol="S")) as ticks:
        assert [tick.time_msc - MINUTE for tick in ticks][:3] == [9_005, 9_050, 9_500]
    assert (ticks.skipped, "and a number of milliseconds" in ticks.reasons[0]) == (1, True)


#: By who writes them: lines without names, and bid, ask, last, volume and flags of the first.
NAMELESS = {
    "a script by CopyTicks": ("2024.03.25,13:07:09.25{n},1.08412,1.08415,0,0,6", (1.08412, 1.08415, 0, 0, 6)),
    "the same, its time in one cell": ("2024.03.25 13:07:09.25{n};1,08412;1,08415;0;0;6", (1.08412, 1.08415, 0, 0, 6)),
    "the same, in milliseconds": ("171137202925{n}\t1.08412\t1.08415\t0\t0\t6", (1.08412, 1.08415, 0, 0, 6)),
    "deals": ("2024.03.25 13:07:09.25{n},128412,128415,128415,3,56", (128412, 128415, 128415, 3, 56)),
    "ask before bid, and volumes of both": (
        "20240325,13:07:09.25{n},1.08415,1.08412,5.5,6.5",
        (1.08412, 1.08415, 0, 0, 6),
    ),
    "numbers before the time": ("3123456{n},2024-03-25 13:07:09.25{n},1.08412,1.08415", (1.08412, 1.08415, 0, 0, 6)),
}


@pytest.mark.parametrize("writer", NAMELESS)
def test_ticks_without_names(tmp_path: Path, writer: str) -> None:
    line, first = NAMELESS[writer]
    path = write(tmp_path, "".join(f"{line.format(n=n)}\n" for n in range(4)))
    with TickFile(path, Said(symbol="S")) as ticks:
        found = list(ticks)
    tick = found[0]
    assert (tick.symbol, tick.time_msc, len(found), ticks.skipped) == ("S", TIME, 4, 0)
    assert (tick.bid, tick.ask, tick.last, tick.volume, tick.flags) == first


@pytest.mark.parametrize(
    "times", ["1711372029 1711372030 1711372031", "1711372029000000 1711372030000000 1711372031000000"]
)
def test_what_is_called_milliseconds_goes_by_its_digits(tmp_path: Path, times: str) -> None:
    with TickFile(write(tmp_path, "time_msc,bid,ask\n" + "".join(f"{time},1.1,1.2\n" for time in times.split())),
                  Said(symbol="S")) as ticks:  # fmt: skip
        assert [tick.time_msc for tick in ticks] == [MINUTE + second * 1_000 for second in (9, 10, 11)]


def test_the_hundreds_of_thousands_may_be_parted_as_in_india(tmp_path: Path) -> None:
    lines = "".join(
        f'2{n}-Mar-2024,"1,22,004.70","1,22,073.20","1,21,947.55","1,22,004.70","1,23,45,678"\n' for n in range(5, 8)
    )
    bars, reasons = bars_of(
        write(tmp_path, f"Date,Open,High,Low,Close,Volume\n{lines}"), Said(symbol="S", timeframe="D1")
    )
    assert reasons == []
    assert bars[0][:6] == (DAY, 122_004.7, 122_073.2, 121_947.55, 122_004.7, 12_345_678)


def test_a_deal_without_a_price_costs_its_line(tmp_path: Path) -> None:
    prices = ["1.5", "0", "0.00", "1.6", *["1.7"] * 600, "0"]
    lines = "".join(f"{TIME + n},{price},5\n" for n, price in enumerate(prices))
    with TickFile(write(tmp_path, f"time_msc,last,volume\n{lines}"), Said(symbol="S")) as ticks:
        assert [tick.last for tick in ticks] == [1.5, 1.6, *[1.7] * 600]
    assert [reason.partition(": ")[2] for reason in ticks.reasons] == [
        f"line {line}: last: no deal has a price of 0" for line in (3, 4, 606)
    ]


def test_quotes_under_names_that_tell_no_side_are_not_lost_beside_a_last_price_of_0(tmp_path: Path) -> None:
    lines = "".join(f"25/03/2024\t13:07:0{n}\t1,1\t1,2\t0\t0\n" for n in range(4))
    path = write(tmp_path, f"Data\tHora\tCompra\tVenda\tÚltimo\tVolume\n{lines}")
    with pytest.raises(UnknownForm, match="--columns"), TickFile(path, Said(symbol="S")):
        pass


@pytest.mark.parametrize("name", ["Газпром", "ВТБ"])
def test_a_symbol_in_another_encoding_is_not_read_as_one_of_windows_1252(tmp_path: Path, name: str) -> None:
    path = tmp_path / "file.csv"
    lines = "".join(f"{name},2024-03-25 13:07:0{n},1.1,1.2\n" for n in range(4))
    path.write_bytes(f"symbol,time,bid,ask\n{lines}".encode("cp1251"))
    with pytest.raises(UnknownForm, match="--encoding"), TickFile(path):
        pass
    with TickFile(path, Said(encoding="cp1251")) as ticks:
        assert {tick.symbol for tick in ticks} == {name}


def test_a_price_may_have_ten_decimals(tmp_path: Path) -> None:
    lines = "".join(f"{TIME + n},0.0000081234,0.0000081250\n" for n in range(4))
    with TickFile(write(tmp_path, f"time_msc,bid,ask\n{lines}"), Said(symbol="PEPEUSD")) as ticks:
        assert len(list(ticks)) == 4
    assert ticks.digits_of("PEPEUSD") == 10


def test_the_ask_of_a_bar_may_have_been_below_its_bid(tmp_path: Path) -> None:
    lines = "".join(f"2024-03-25 13:0{n},1.1,1.2,1.0,1.1,5,-{n}\n" for n in range(1, 4))
    bars, reasons = bars_of(write(tmp_path, f"time,open,high,low,close,tick_volume,spread\n{lines}"), Said(symbol="S"))
    assert ([bar.spread for bar in bars], reasons) == ([-1, -2, -3], [])


def test_a_time_of_day_without_colons_is_no_number_since_1970(tmp_path: Path) -> None:
    path = write(tmp_path, "time,bid,ask\n" + "".join(f"13070925{n},1.1,1.2\n" for n in range(4)))
    with pytest.raises(UnknownForm, match="--date-format"), TickFile(path, Said(symbol="S")):
        pass


def test_a_history_may_begin_before_1970(tmp_path: Path) -> None:
    """Its oldest lines are listed, however many of the first they are, and those behind them are read."""
    days = [datetime(1969, 6, 1, tzinfo=UTC) + timedelta(days=day) for day in range(300)]
    path = write(tmp_path, "Date,Open,High,Low,Close\n" + "".join(f"{day:%Y-%m-%d},1.1,1.2,1.0,1.1\n" for day in days))
    with BarFile(path, Said(symbol="S", timeframe="D1")) as bars:
        found = [bar.time_msc for bar in bars]
    assert found == [int(day.timestamp()) * 1000 for day in days if day.year == 1970]
    assert (bars.skipped, bars.reasons[0]) == (
        214, f"{path}: line 2: time: it is before 1970, and nothing is stored before 1971"
    )  # fmt: skip


@pytest.mark.parametrize("habit", REFUSED)
def test_what_may_mean_two_things_is_refused(tmp_path: Path, habit: str) -> None:
    text, why = REFUSED[habit]
    header, line = text.splitlines(keepends=True)
    path = write(tmp_path, header + line * 3)
    with pytest.raises(UnknownForm) as refused, TickFile(path, Said(symbol="S")) as ticks:
        list(ticks)
    assert why in str(refused.value)


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_file_tells_a_symbol_only_where_it_is_certain(name: str) -> None:
    found = parse_file_name(Path(name))
    assert (found.symbol, found.timeframe) == NAMES[name]


def test_a_said_decimal_comma_makes_points_part_thousands(tmp_path: Path) -> None:
    path = write(tmp_path, "time;bid;ask\n2024-03-25 13:07:09;38.712;38.714\n")
    for said, bid in ((Said(symbol="S"), 38.712), (Said(symbol="S", decimal=","), 38712.0)):
        with TickFile(path, said) as ticks:
            assert [tick.bid for tick in ticks] == [bid]


def test_milliseconds_in_a_column_that_are_none_make_a_bad_line(tmp_path: Path) -> None:
    lines = [f"2024-03-25,13:07:09,{ms},1.1,1.2\n" for ms in ("7", "1000", "", "42")]
    with TickFile(write(tmp_path, "Date,Time,Milliseconds,Bid,Ask\n" + "".join(lines)), Said(symbol="S")) as ticks:
        assert [tick.time_msc % 1000 for tick in ticks] == [7, 42]
    assert ticks.skipped == 2


@pytest.mark.parametrize("how", PACKED)
def test_a_file_in_another_form_is_refused_with_what_to_do(tmp_path: Path, how: str) -> None:
    make, why = PACKED[how]
    path = tmp_path / "file.csv"
    path.write_bytes(make(tmp_path))
    with pytest.raises(UnknownForm, match=why):
        kind_of(unpacked(path)[0], Said())


#: Columns of Arrow's types: the same tick by each.
AT = datetime(2024, 3, 25, 13, 7, 9, 250_000, tzinfo=UTC)
COLUMNS: dict[str, dict[str, Any]] = {
    "moments in New York": {"time": pa.array([AT], pa.timestamp("us", "America/New_York"))},
    "exact prices": {"bid": pa.array([Decimal("1.08412")], pa.decimal128(12, 5))},
    "lists beside them": {"tags": pa.array([["a", "b"]]), "more": pa.array([{"x": 1}])},
    "symbols from a dictionary": {"symbol": pa.array(["S"]).dictionary_encode()},
    "a date and a time of day": {"date": pa.array([AT.date()]), "time": pa.array([AT.time()], pa.time64("us"))},
    "seconds in floats": {"time": pa.array([TIME / 1000])},
    "the index of pandas": {"time": None, "__index_level_0__": pa.array([AT.replace(tzinfo=None)])},
    "no values": {"last": pa.array([None], pa.float64()), "volume": pa.array([None], pa.null())},
}


@pytest.mark.parametrize("form", ["parquet", "feather", "stream"])
@pytest.mark.parametrize("habit", COLUMNS)
def test_columns_of_arrow_are_read_as_they_are_meant(tmp_path: Path, habit: str, form: str) -> None:
    columns = {"time": pa.array([AT.replace(tzinfo=None)]), "bid": pa.array([1.08412]), "ask": pa.array([1.08415])}
    table = pa.table({name: column for name, column in (columns | COLUMNS[habit]).items() if column is not None})
    path = tmp_path / f"ticks.{form}"
    if form == "parquet":
        parquet.write_table(table, path)
    elif form == "feather":
        feather.write_feather(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    with TickFile(path, Said(symbol="S")) as ticks:
        found = [(tick.time_msc, tick.bid, tick.ask, tick.last, tick.volume) for tick in ticks]
    assert (ticks.reasons, found) == ([], [(TIME, 1.08412, 1.08415, 0.0, 0.0)])


@pytest.mark.parametrize("form", ["parquet", "feather"])
def test_a_cell_without_end_is_not_decoded(tmp_path: Path, form: str) -> None:
    table = pa.table({"time": ["9" * 30_000_000], "bid": [1.1], "ask": [1.2]})
    path = tmp_path / f"ticks.{form}"
    if form == "parquet":
        parquet.write_table(table, path, compression="zstd")
    else:
        feather.write_feather(table, path, compression="zstd")
    with pytest.raises(UnknownForm, match=r"its rows have 30,000,\d\d\d bytes"):
        kind_of(path, Said())


def test_a_zip_with_a_false_size_is_damaged(tmp_path: Path) -> None:
    packed = bytearray(in_zip("ticks.csv", PLAIN * 100))
    at = packed.rfind(b"PK\x01\x02") + 24  # the unpacked size in the index of a zip
    packed[at : at + 4] = (100).to_bytes(4, "little")
    path = tmp_path / "ticks.zip"
    path.write_bytes(packed)
    with pytest.raises(TickpipeError, match="damaged"):
        kind_of(unpacked(path)[0], Said())


def test_a_zip_of_zips_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "ticks.zip"
    path.write_bytes(in_zip("a.zip", in_zip("b.csv", PLAIN)))
    with pytest.raises(UnknownForm, match="it holds no file that ends with"):
        unpacked(path)
