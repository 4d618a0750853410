"""Files in combinations of separator, decimal sign, date, order, header and zone come back as they were written.

So do those that are packed, or encoded in another way than UTF-8.
"""

import gzip
import random
import tracemalloc
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from tickpipe.sending.columnfile import kind_of
from tickpipe.sending.dialects import Kind, Said
from tickpipe.sending.history import BarFile, TickFile
from tickpipe.sending.timeforms import TimeForm, reader_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ATHENS = ZoneInfo("Europe/Athens")

SEPARATORS = {"tab": "\t", "semicolon": ";", "comma": ",", "bar": "|"}

#: Dates with their times of day; `{f}` stands for the milliseconds. Two cells where a line has two parts.
DATES = {
    "MetaTrader": ("%Y.%m.%d", "%H:%M:%S.{f}"),
    "ISO": ("%Y-%m-%dT%H:%M:%S.{f}",),
    "pandas": ("%Y-%m-%d %H:%M:%S.{f}000",),
    "German": ("%d.%m.%Y %H:%M:%S.{f}",),
    "British": ("%d/%m/%Y", "%H:%M:%S.{f}"),
    "American": ("%m/%d/%Y %H:%M:%S.{f}",),
    "half days": ("%m/%d/%Y %I:%M:%S.{f} %p",),
    "digits": ("%Y%m%d %H:%M:%S.{f}",),
    "Tickstory": ("%Y%m%d", "%H:%M:%S:{f}"),
    "named months": ("%d-%b-%Y", "%H:%M:%S.{f}"),
    "seconds": ("{seconds}",),
    "milliseconds": ("{milliseconds}",),
    "microseconds": ("{milliseconds}000",),
    "nanoseconds": ("{milliseconds}000000",),
}

ORDERS = {
    "time first": ("time", "bid", "ask"),
    "ask first": ("time", "ask", "bid"),
    "symbol first": ("symbol", "time", "bid", "ask"),
    "time last": ("bid", "ask", "size", "time"),
}

#: The same of bars.
BAR_ORDERS = {
    "time first": ("time", "open", "high", "low", "close", "volume"),
    "ask first": ("time", "close", "low", "open", "high", "volume"),
    "symbol first": ("symbol", "time", "open", "high", "low", "close", "volume"),
    "time last": ("open", "high", "low", "close", "volume", "time"),
}

ZONES = ("none", "said", "offsets")


class Form(NamedTuple):
    separator: str
    decimal: str
    date: str
    order: str
    has_header: bool
    zone: str

    def __str__(self) -> str:
        header = "header" if self.has_header else "no header"
        return f"{self.separator}, {self.decimal}, {self.date}, {self.order}, {header}, {self.zone}"


def is_possible(form: Form) -> bool:
    """Whether anybody could write and read such a file."""
    is_number = form.date in ("seconds", "milliseconds", "microseconds", "nanoseconds")
    if form.zone == "offsets" and (is_number or form.date == "half days"):
        return False
    if form.order == "time last" and not form.has_header:
        return False  # only a name could tell
    # A decimal sign that separates cells as well stands in quotation marks.
    return not (is_number and form.zone == "offsets")


def chosen() -> list[Form]:
    """Some of all forms: each value of each property with each of every other, more or less."""
    everything = [
        form
        for form in map(Form._make, product(SEPARATORS, ".,", DATES, ORDERS, (True, False), ZONES))
        if is_possible(form)
    ]
    return random.Random(20).sample(everything, 120)


def test_every_value_of_every_property_is_among_them() -> None:
    values = [{*values} for values in zip(*chosen(), strict=True)]
    assert values == [{*SEPARATORS}, {".", ","}, {*DATES}, {*ORDERS}, {True, False}, {*ZONES}]


def written_time(form: Form, wall: datetime, moment: datetime) -> list[str]:
    milliseconds = (wall.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)
    cells = []
    for part in DATES[form.date]:
        text = wall.strftime(part.replace("%f", "")).replace("{f}", f"{wall.microsecond // 1000:03d}")
        cells.append(
            text.replace("{milliseconds}", str(milliseconds)).replace("{seconds}", f"{milliseconds / 1000:.3f}")
        )
    if form.zone == "offsets":
        offset = moment.astimezone(ATHENS).strftime("%z")
        cells[-1] += f"{offset[:3]}:{offset[3:]}"
    return cells


def lines_of(form: Form, rows: list[tuple[datetime, dict[str, str]]]) -> str:
    """The file: each row is a moment and the other cells by the names of their columns."""
    separator, order = SEPARATORS[form.separator], (BAR_ORDERS if "open" in rows[0][1] else ORDERS)[form.order]
    names: list[str] = []
    for field in order:
        names += (["Date", "Time"] if len(DATES[form.date]) == 2 else ["Time"]) if field == "time" else [field.title()]
    text = separator.join(names) + "\n" if form.has_header else ""
    for moment, values in rows:
        wall = moment.astimezone(ATHENS).replace(tzinfo=None) if form.zone != "none" else moment.replace(tzinfo=None)
        times = written_time(form, wall, moment)
        cells = []
        for name in names:
            cell = (
                times[0 if name == "Date" or len(times) == 1 else 1]
                if name in ("Date", "Time")
                else values[name.lower()]
            )
            if form.decimal == "," and name not in ("Date", "Time", "Symbol"):
                cell = cell.replace(".", ",")
            cells.append(f'"{cell}"' if separator in cell else cell)
        text += separator.join(cells) + "\n"
    return text


def said(form: Form) -> Said:
    return Said(symbol="EURUSD", zone=ATHENS if form.zone == "said" else None)


def milliseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


def as_zip(path: Path, text: str) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("EURUSD.csv", text)
        archive.writestr("report.txt", "Gaps: none\n")
        archive.writestr("__MACOSX/._EURUSD.csv", b"\0\5\x16\7")


def as_zstandard(path: Path, text: str) -> None:
    with pa.CompressedOutputStream(str(path), "zstd") as file:
        file.write(text.encode())


def as_parquet(path: Path, text: str) -> None:
    """The columns in the types that pyarrow finds in the text: numbers are doubles, times are timestamps."""
    parquet.write_table(csv.read_csv(pa.py_buffer(text.encode())), path)


#: How the text of a file gets on the disk.
CONTAINERS: dict[str, Callable[[Path, str], object]] = {
    "plain": lambda path, text: path.write_text(text),
    "gzip": lambda path, text: path.write_bytes(gzip.compress(text.encode())),
    "zip": as_zip,
    "Zstandard": as_zstandard,
    "Parquet": as_parquet,
    "UTF-8 with mark": lambda path, text: path.write_bytes(text.encode("utf-8-sig")),
    "UTF-16 with mark": lambda path, text: path.write_bytes(text.encode("utf-16")),
    "UTF-16 LE": lambda path, text: path.write_bytes(text.encode("utf-16-le")),
    "UTF-16 BE": lambda path, text: path.write_bytes(text.encode("utf-16-be")),
    "UTF-16 in gzip": lambda path, text: path.write_bytes(gzip.compress(text.encode("utf-16"))),
    "ends of Windows": lambda path, text: path.write_text(text, newline="\r\n"),
    "ends of old Macs": lambda path, text: path.write_text(text, newline="\r"),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("order", [order for order in ORDERS if order != "symbol first"])
def test_ticks_come_back_however_the_file_is_packed(tmp_path: Path, container: str, order: str) -> None:
    form = Form("comma", ".", "pandas", order, True, "none")
    rows = ticks_of(form)
    path = tmp_path / "ticks"
    CONTAINERS[container](path, lines_of(form, rows))

    with TickFile(path, said(form)) as ticks:
        found = [(tick.time_msc, tick.bid, tick.ask) for tick in ticks]

    assert (ticks.reasons, ticks.total_bytes) == ([], path.stat().st_size)
    assert found == [(milliseconds(at), float(row["bid"]), float(row["ask"])) for at, row in rows]


def ticks_of(form: Form) -> list[tuple[datetime, dict[str, str]]]:
    """A month of ticks, so that day and month are told apart."""
    random_ = random.Random(str(form))
    moment = datetime(2019, 2, 4, tzinfo=UTC)
    rows = []
    for _ in range(60):
        moment += timedelta(milliseconds=random_.randrange(1, 43_000_000))
        bid = random_.randrange(100_000, 200_000)
        rows.append(
            (
                moment,
                {
                    "symbol": "EURUSD", "bid": f"{bid / 100_000:.5f}", "size": "1.50",
                    "ask": f"{(bid + random_.randrange(1, 30)) / 100_000:.5f}",
                },
            )
        )  # fmt: skip
    return rows


@pytest.mark.parametrize("form", chosen(), ids=str)
def test_ticks_come_back_as_they_were_written(tmp_path: Path, form: Form) -> None:
    rows = ticks_of(form)
    path = tmp_path / "ticks"
    path.write_text(lines_of(form, rows))

    assert kind_of(path, said(form)) is Kind.TICKS
    with TickFile(path, said(form)) as ticks:
        found = [(tick.time_msc, tick.bid, tick.ask) for tick in ticks]

    assert ticks.reasons == []
    assert found == [(milliseconds(at), float(row["bid"]), float(row["ask"])) for at, row in rows]
    assert ticks.digits_of("EURUSD") == 5
    assert ticks.are_instants is (form.zone != "none")
    assert ticks.dialect.separator == SEPARATORS[form.separator]
    assert ticks.dialect.numbers.decimal == form.decimal
    assert ticks.dialect.has_header is form.has_header


@pytest.mark.parametrize("form", [f for f in chosen() if f.order != "ask first" or f.has_header], ids=str)
def test_bars_come_back_as_they_were_written(tmp_path: Path, form: Form) -> None:
    # Arrange
    random_ = random.Random(str(form))
    moment = datetime(2019, 2, 4, tzinfo=UTC)
    rows = []
    for _ in range(60):
        moment += timedelta(minutes=random_.randrange(1, 700))
        low, *within, high = sorted(random_.randrange(100_000, 200_000) for _ in range(4))
        prices = {"open": within[0], "high": high, "low": low, "close": within[1]}
        values = {name: f"{price / 100_000:.5f}" for name, price in prices.items()}
        rows.append((moment, values | {"symbol": "EURUSD", "volume": str(random_.randrange(1, 999))}))
    path = tmp_path / "bars"
    path.write_text(lines_of(form, rows))

    # Act
    assert kind_of(path, said(form)) is Kind.BARS
    with BarFile(path, said(form)) as bars:
        found = [(bar.time_msc, bar.open, bar.high, bar.low, bar.close, bar.tick_volume) for bar in bars]

    # Assert
    assert (bars.reasons, bars.timeframe) == ([], "M1")
    assert bars.dialect.separator == SEPARATORS[form.separator]
    assert bars.dialect.numbers.decimal == form.decimal
    assert bars.dialect.has_header is form.has_header
    assert bars.are_instants is (form.zone != "none")
    assert found == [
        (milliseconds(at), *(float(row[name]) for name in ("open", "high", "low", "close")), int(row["volume"]))
        for at, row in rows
    ]


@pytest.mark.full  # test_field_files.py has a file of many ticks
def test_the_times_of_a_week_are_read_in_constant_memory() -> None:
    read = reader_of(TimeForm("%Y.%m.%d", "%H:%M:%S"), "time")
    tracemalloc.start()
    try:
        for minute in range(7 * 1_440):
            day, within = divmod(minute, 1_440)
            read(f"2024.01.{day + 1:02}", f"{within // 60:02}:{within % 60:02}:00.000")
        assert tracemalloc.get_traced_memory()[1] < 600_000
    finally:
        tracemalloc.stop()
