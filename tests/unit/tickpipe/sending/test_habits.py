"""Files as people save them: the same values in the many ways in which dates, numbers and names are written.

What could mean two things is refused, and the message says which option tells.
"""

from pathlib import Path
from typing import Any

import pytest

from tickpipe.sending.columnfile import kind_of
from tickpipe.sending.dialects import Kind, Said
from tickpipe.sending.history import BarFile, TickFile

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
    "nanoseconds by numpy": ("time,bid,ask\n", "1.71137202925{n}000000e+18,1.08412,1.08415\n"),
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


@pytest.mark.parametrize("form", ["%Y.%m.%d", "%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y"])
def test_every_day_has_its_own_date(tmp_path: Path, form: str) -> None:
    # Days that differ in their last figure alone.
    days = [form.replace("%Y", "2024").replace("%m", "03").replace("%d", f"{day}") for day in range(25, 30)]
    path = write(tmp_path, "Date,Open,High,Low,Close\n" + "".join(f"{day},1.1,1.2,1.0,1.1\n" for day in days))
    bars, reasons = bars_of(path, Said(symbol="S"))
    assert ([bar.time_msc for bar in bars], reasons) == ([DAY + n * 86_400_000 for n in range(5)], [])
