"""Files as strangers export them, written by hand: the right values, or a refusal that says what to do.

What was expected was written down before any was read. No form may be read wrongly in silence.
"""

from datetime import datetime
from pathlib import Path

import pytest

from marketdata.errors import TickpipeError
from tickpipe.sending.columnfile import BadLine, kind_of
from tickpipe.sending.dialects import Kind, Said
from tickpipe.sending.history import BarFile, TickFile

#: Bid and ask (or open, high, low, close) and volume of each line.
EURO = (1.08412, 1.08415, 0.0)
INDEX = (128_412.5, 128_415.0, 0.0)
DAY = (1.0828, 1.0839, 1.0793, 1.0795)

#: By what is special: the text, and of each item its time (as ISO 8601, UTC or the clock of the file) with its values.
READ: dict[str, tuple[str, tuple[tuple[str | float, ...], ...]]] = {
    "English months and half days": (
        "Time,Bid,Ask\n25-Oct-2024 01:07:09 PM,1.08412,1.08415\n25-Oct-2024 01:07:10 PM,1.08412,1.08415\n",
        (("2024-10-25T13:07:09", *EURO), ("2024-10-25T13:07:10", *EURO)),
    ),
    "midnight and noon by half days": (
        "Time,Bid,Ask\n10/25/2024 12:00:09 AM,1.08412,1.08415\n10/25/2024 12:00:09 PM,1.08412,1.08415\n",
        (("2024-10-25T00:00:09", *EURO), ("2024-10-25T12:00:09", *EURO)),
    ),
    "milliseconds before PM": (
        "Time,Bid,Ask\n10/25/2024 1:07:09.250 PM,1.08412,1.08415\n",
        (("2024-10-25T13:07:09.250", *EURO),),
    ),
    "Portuguese months": (
        "Data;Bid;Ask\n25-fev-2024 13:07:09,250;1,08412;1,08415\n25-out-2024 13:07:09,250;1,08412;1,08415\n",
        (("2024-02-25T13:07:09.250", *EURO), ("2024-10-25T13:07:09.250", *EURO)),
    ),
    "Portuguese months in words": (
        "Data;Bid;Ask\n25 de outubro de 2024 13:07:09;1,08412;1,08415\n",
        (("2024-10-25T13:07:09", *EURO),),
    ),
    "German months": (
        "Zeit;Geld;Brief\n05-Mai-2024 13:07:09,250;1,08412;1,08415\n05-Okt-2024 13:07:09,250;1,08412;1,08415\n"
        "05-Dez-2024 13:07:09,250;1,08412;1,08415\n",
        (("2024-05-05T13:07:09.250", *EURO), ("2024-10-05T13:07:09.250", *EURO), ("2024-12-05T13:07:09.250", *EURO)),
    ),
    "German months with a point": (
        "Zeit;Geld;Brief\n5. März 2024 13:07:09;1,08412;1,08415\n",
        (("2024-03-05T13:07:09", *EURO),),
    ),
    "Russian months": (
        "Время;Бид;Аск\n05 мая 2024 13:07:09;1,08412;1,08415\n05 июн 2024 13:07:09;1,08412;1,08415\n",
        (("2024-05-05T13:07:09", *EURO), ("2024-06-05T13:07:09", *EURO)),
    ),
    "years of two digits": (
        "Zeit;Geld;Brief\n25.10.24 13:07:09;1,08412;1,08415\n",
        (("2024-10-25T13:07:09", *EURO),),
    ),
    "the end of the day as 24:00": (
        "Date,Time,Open,High,Low,Close,Volume\n2024-10-25,23:58,1.1,1.1,1.1,1.1,5\n2024-10-25,23:59,1.1,1.1,1.1,1.1,5\n"
        "2024-10-25,24:00,1.1,1.1,1.1,1.1,5\n",
        (("2024-10-25T23:58", *[1.1] * 4, 5), ("2024-10-25T23:59", *[1.1] * 4, 5), ("2024-10-26", *[1.1] * 4, 5)),
    ),
    "a fraction behind a comma, in quotes": (
        '"Time","Bid","Ask"\n"2024-10-25 13:07:09,250","1.08412","1.08415"\n',
        (("2024-10-25T13:07:09.250", *EURO),),
    ),
    "seconds since 1970 with a decimal comma": (
        "time;bid;ask\n1729861629,250;1,08412;1,08415\n",
        (("2024-10-25T13:07:09.250", *EURO),),
    ),
    "milliseconds with an exponent and all digits": (
        "time,bid,ask\n1.729861629250E+12,1.08412,1.08415\n",
        (("2024-10-25T13:07:09.250", *EURO),),
    ),
    "German thousands": (
        "Zeit;Geld;Brief\n25.10.2024 13:07:09;128.412,50;128.415,00\n",
        (("2024-10-25T13:07:09", *INDEX),),
    ),
    "thousands parted by spaces": (
        "Time\tBid\tAsk\n2024-10-25 13:07:09\t128 412.50\t128 415.00\n",
        (("2024-10-25T13:07:09", *INDEX),),
    ),
    "thousands parted by apostrophes": (
        "Time;Bid;Ask\n2024-10-25 13:07:09;128'412.50;128'415.00\n",
        (("2024-10-25T13:07:09", *INDEX),),
    ),
    "bars between the cells": (
        "Time|Bid|Ask\n2024.10.25 13:07:09.250|1.08412|1.08415\n",
        (("2024-10-25T13:07:09.250", *EURO),),
    ),
    "a separator behind every line": (
        "Time;Bid;Ask;\n2024.10.25 13:07:09.250;1.08412;1.08415;\n",
        (("2024-10-25T13:07:09.250", *EURO),),
    ),
    "a separator behind the lines but the first": (
        "Time,Bid,Ask\n2024.10.25 13:07:09.250,1.08412,1.08415,\n2024.10.25 13:07:09.260,1.08412,1.08415,\n",
        (("2024-10-25T13:07:09.250", *EURO), ("2024-10-25T13:07:09.260", *EURO)),
    ),
    "spaces behind the commas": (
        "Time, Bid, Ask\n2024-10-25 13:07:09.250, 1.08412, 1.08415\n",
        (("2024-10-25T13:07:09.250", *EURO),),
    ),
    "sizes of bid and ask": (
        "time,bid,bid size,ask,ask size\n2024-10-25 13:07:09.250,1.08412,1500000,1.08415,2000000\n",
        (("2024-10-25T13:07:09.250", *EURO),),
    ),
    "volumes of bid and ask": (
        "Time (UTC),Ask Price,Bid Price,Ask Volume,Bid Volume\n2024-10-25 13:07:09.250,1.08415,1.08412,0.9,1.2\n",
        (("2024-10-25T13:07:09.250", *EURO),),
    ),
    "daily bars of a newspaper, American": (
        '"Date","Price","Open","High","Low","Vol.","Change %"\n'
        '"10/25/2024","1.0795","1.0828","1.0839","1.0793","0.12M","-0.31%"\n'
        '"10/24/2024","1.0795","1.0828","1.0839","1.0793","98.50K","0.42%"\n',
        (("2024-10-25", *DAY, 120_000), ("2024-10-24", *DAY, 98_500)),
    ),
    "daily bars of a newspaper, Portuguese": (
        '"Data","Último","Abertura","Máxima","Mínima","Vol.","Var%"\n'
        '"25.10.2024","1,0795","1,0828","1,0839","1,0793","0,12M","-0,31%"\n'
        '"24.10.2024","1,0795","1,0828","1,0839","1,0793","98,50K","0,42%"\n',
        (("2024-10-25", *DAY, 120_000), ("2024-10-24", *DAY, 98_500)),
    ),
    "daily bars of a newspaper, German": (
        '"Datum","Zuletzt","Eröffn.","Hoch","Tief","Vol.","+/- %"\n'
        '"25.10.2024","1,0795","1,0828","1,0839","1,0793","","-0,31%"\n'
        '"24.10.2024","1,0795","1,0828","1,0839","1,0793","","0,42%"\n',
        (("2024-10-25", *DAY, 0), ("2024-10-24", *DAY, 0)),
    ),
    "deals in Portuguese": (
        "Data;Hora;Preço;Quantidade\n25/10/2024;13:07:09,250;128.415,00;5\n",
        (("2024-10-25T13:07:09.250", 0.0, 0.0, 5),),
    ),
    "no last price": (
        "time,bid,ask,last,volume\n2024-10-25 13:07:09,1.08412,1.08415,N/A,#N/A\n",
        (("2024-10-25T13:07:09", *EURO),),
    ),
    "prices with exponents and signs": (
        "time,bid,ask\n2024-10-25 13:07:09,1.08412E+00,+1.08415\n",
        (("2024-10-25T13:07:09", *EURO),),
    ),
    "single quotes": (
        "'time','bid','ask'\n'2024-10-25 13:07:09','1.08412','1.08415'\n",
        (("2024-10-25T13:07:09", *EURO),),
    ),
    "nanoseconds and an offset": (
        "time,bid,ask\n2024-10-25T15:07:09.250000000+0200,1.08412,1.08415\n",
        (("2024-10-25T13:07:09.250", *EURO),),
    ),
    "milliseconds with an exponent and a decimal comma": (
        "time;bid;ask\n1,729861629250E+12;1,08412;1,08415\n",
        (("2024-10-25T13:07:09.250", *EURO),),
    ),
    "a Russian year": (
        "Дата;Бид;Аск\n25 октября 2024 г. 13:07:09;1,08412;1,08415\n",
        (("2024-10-25T13:07:09", *EURO),),
    ),
    "Brazilian bars with the money that was traded": (
        "Ativo;Data;Hora;Abertura;Máximo;Mínimo;Fechamento;Volume;Quantidade\n"
        "EURUSD;25/10/2024;13:05:00;128.410;128.415;128.400;128.405;1.234.567,00;12\n",
        (("2024-10-25T13:05", 128_410, 128_415, 128_400, 128_405, 12),),
    ),
    "Portuguese abbreviations": (
        "Data;Hora;Abert.;Máx.;Mín.;Fech.;Vol.\n25/10/2024;13:05;1,10;1,12;1,09;1,11;5\n",
        (("2024-10-25T13:05", 1.1, 1.12, 1.09, 1.11, 5),),
    ),
    "German pieces with thousands": (
        "Datum;Erster;Hoch;Tief;Schlusskurs;Stücke\n25.10.2024;1,5;1,7;1,4;1,6;12.900\n",
        (("2024-10-25", 1.5, 1.7, 1.4, 1.6, 12_900),),
    ),
    "points within the time of day": (
        "time;bid;ask\n25.10.2024 13.07.09;1,08412;1,08415\n",
        (("2024-10-25T13:07:09", *EURO),),
    ),
    "ISO 8601 without separators": (
        "time,bid,ask\n20241025T130709.250Z,1.08412,1.08415\n",
        (("2024-10-25T13:07:09.250", *EURO),),
    ),
    "the time of day in the first column": (
        "Time,Date,Bid,Ask\n13:07:09.250,25.10.2024,1.08412,1.08415\n",
        (("2024-10-25T13:07:09.250", *EURO),),
    ),
    "the day of the week before the date": (
        "time,bid,ask\nFri Oct 25 2024 13:07:09,1.08412,1.08415\n",
        (("2024-10-25T13:07:09", *EURO),),
    ),
}

#: What may mean two things, or has lost what is needed, and what the message says.
REFUSED = {
    "milliseconds that Excel has rounded": ("time,bid,ask\n1.73E+12,1.08412,1.08415\n", "save the file again"),
    "the same with a decimal comma": ("time;bid;ask\n1,72986E+12;1,08412;1,08415\n", "save the file again"),
    "days as Excel counts them": ("time;bid;ask\n45590,5466349;1,08412;1,08415\n", "as Excel counts them"),
    "digits of a time in groups": ('time,bid,ask\n"1,729,861,629,250",1.08412,1.08415\n', "--date-format"),
    "the time of day before the date": ("time,bid,ask\n13:07:09 25.10.2024,1.08412,1.08415\n", "the date before"),
    "parts of a date in columns": (
        "Year,Month,Day,Hour,Minute,Second,Bid,Ask\n2024,10,25,13,7,9,1.08412,1.08415\n", "one column"
    ),
    "a time of day without its zeros": ("Date,Time,Bid,Ask\n20241025,90709,1.08412,1.08415\n", "all digits"),
    "what Excel saves of a time of day": ("Date;Time;Bid;Ask\n25.10.2024;07:09,2;1,08412;1,08415\n", "all that Excel"),
    "no year": ("time,bid,ask\n25/10 13:07:09,1.08412,1.08415\n", "--date-format"),
    "a day or a month first": ("time,bid,ask\n05/10/2024 13:07:09,1.08412,1.08415\n", "--date-format"),
    "buying and selling in Portuguese": ("Data;Hora;Compra;Venda\n25/10/2024;13:07:09;1,1;1,2\n", "--columns"),
    "spaces between the cells": ("time bid ask\n1729861629250 1.08412 1.08415\n", "parted by spaces"),
    "a title with separators": ("; EURUSD, by hand\nTime,Bid,Ask\n2024-10-25 13:07:09,1.1,1.2\n", "--skip-rows 1"),
    "a name for two months": ("time;bid;ask\n05 jui 2024 13:07:09;1,08412;1,08415\n", "--date-format"),
    "hours as h": ("time;bid;ask\n25/10/2024 13h07;1,08412;1,08415\n", "--date-format"),
}  # fmt: skip

#: Lines that are skipped, each listed with its reason, beside two that are read.
SKIPPED = {
    "units below the names": ("ms,USD,USD", "time"),
    "an empty ask": ("1729861629250,1.08412,", "ask"),
    "no ask": ("1729861629250,1.08412,N/A", "ask"),
    "an error of a spreadsheet": ("1729861629250,#N/A,1.08415", "bid"),
    "a division by zero": ("1729861629250,#DIV/0!,1.08415", "bid"),
    "a bid in brackets": ("1729861629250,(1.08412),1.08415", "bid"),
    "a total": ("Total,2,2", "time"),
}

ENCODINGS = {
    "UTF-16 LE with a mark": ("\ufeffZeit;Geld;Brief\r\n25.10.2024 13:07:09;1,08412;1,08415\r\n", "utf-16-le"),
    "UTF-16 BE with a mark": ("\ufeffDate;Bid;Ask\r\n25.10.2024 13:07:09;1,08412;1,08415\r\n", "utf-16-be"),
    "UTF-16 BE without a mark": ("Date;Bid;Ask\r\n25.10.2024 13:07:09;1,08412;1,08415\r\n", "utf-16-be"),
    "UTF-8 with a mark before a quote": ('\ufeff"Date","Bid","Ask"\r\n"25.10.2024 13:07:09","1.08412","1.08415"\r\n',
                                         "utf-8"),
    "Cyrillic of Windows": ("Время;Бид;Аск\n25.10.2024 13:07:09;1,08412;1,08415\n", "cp1251"),
    "Cyrillic of DOS": ("Время;Бид;Аск\n25.10.2024 13:07:09;1,08412;1,08415\n", "cp866"),
}  # fmt: skip


def at(text: str) -> int:
    return round(datetime.fromisoformat(f"{text}+00:00" if "T" in text else f"{text}T00:00+00:00").timestamp() * 1_000)


def items_of(path: Path) -> tuple[list[tuple[float, ...]], list[BadLine]]:
    """Of each tick time, bid, ask and volume, of each bar time, prices and volume; and the lines that were skipped."""
    bad: list[BadLine] = []
    said = Said(symbol="EURUSD")
    if kind_of(path, said) is Kind.TICKS:
        with TickFile(path, said, on_bad=bad.append) as ticks:
            return [(tick.time_msc, tick.bid, tick.ask, tick.volume) for tick in ticks], bad
    with BarFile(path, said, on_bad=bad.append) as bars:
        return [
            (bar.time_msc, bar.open, bar.high, bar.low, bar.close, bar.real_volume or bar.tick_volume) for bar in bars
        ], bad


@pytest.mark.parametrize("name", READ)
def test_values_are_those_of_the_file(tmp_path: Path, name: str) -> None:
    text, expected = READ[name]
    path = tmp_path / "export.csv"
    path.write_text(text, encoding="utf-8")

    items, bad = items_of(path)

    assert items == [(at(str(time)), *values) for time, *values in expected]
    assert bad == []


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_says_what_to_do(tmp_path: Path, name: str) -> None:
    text, cure = REFUSED[name]
    *_, line = text.splitlines()
    path = tmp_path / "export.csv"
    path.write_text(text + f"{line}\n" * 4, encoding="utf-8")

    with pytest.raises(TickpipeError, match=cure):
        items_of(path)


@pytest.mark.parametrize("name", SKIPPED)
def test_odd_line_is_listed_and_takes_no_other_with_it(tmp_path: Path, name: str) -> None:
    line, field = SKIPPED[name]
    good = ["1729861629250,1.08412,1.08415", "1729861629260,1.08412,1.08415"]
    path = tmp_path / "export.csv"
    path.write_text("\n".join(["time,bid,ask", line, *good, ""]))

    items, bad = items_of(path)

    assert [item[0] for item in items] == [1_729_861_629_250, 1_729_861_629_260]
    assert [(each.number, each.text) for each in bad] == [(2, line)]
    assert bad[0].reason.startswith(f"{field}: ")


@pytest.mark.parametrize("name", ENCODINGS)
def test_encoding_is_recognised(tmp_path: Path, name: str) -> None:
    text, encoding = ENCODINGS[name]
    path = tmp_path / "export.csv"
    path.write_bytes(text.encode(encoding))

    assert items_of(path) == ([(at("2024-10-25T13:07:09"), *EURO)], [])
