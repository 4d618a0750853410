"""The forms in which files write times, as data, and the reader that is made from one.

A form is a date and a time of day in the directives of `strftime`, or the unit of a number since 1970. A fraction of
the second and an offset from UTC may follow any time of day.
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache, lru_cache
from typing import Final, NamedTuple

from marketdata.contract.fields import quoted
from marketdata.errors import InvalidItem
from marketdata.tick import DAY_MS, MAX_TIME_MSC
from tickpipe.sending.timewords import month_named

#: Dates that are recognised. Where two fit all of the first lines, as with 03/04/2019, the user has to say which.
DATES: Final = (
    "%Y.%m.%d", "%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y",
    "%d-%b-%Y", "%d %b %Y", "%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%y/%m/%d", "%d-%m-%y", "%m-%d-%y", "%y-%m-%d",
    "%d-%b-%y", "%b %d, %Y", "%b %d %Y", "%d. %b %Y", "%d de %b de %Y", "%d %b %Y г.",
)  # fmt: skip

#: Times of day that are recognised; `%H%M%S%f` is HistData's, whose last three digits are milliseconds, and `%H%M%S %f`
#: NinjaTrader's, with seven.
CLOCKS: Final = (
    "%H:%M:%S", "%H:%M", "%H.%M.%S", "%H%M%S", "%H%M%S%f", "%H%M%S %f", "%H%M", "%I:%M:%S %p", "%I:%M %p",
)  # fmt: skip

#: Numbers since 1970: how many digits they have from September 2001 on, and how many make a millisecond (a second has
#: 0.001).
EPOCHS: Final = {"seconds": 10, "milliseconds": 13, "microseconds": 16, "nanoseconds": 19}

#: With a digit less they are of 1977 and later where they begin so; below, they may be times of day without colons.
_OLDER_FROM: Final = "24"

#: POSIX: from here on a year of two digits is of the last century.
_LAST_CENTURY_FROM: Final = 69

#: What each directive matches; it is the group of that letter.
_DIRECTIVES: Final = {
    "Y": "[0-9]{4}", "y": "[0-9]{2}", "m": "[0-9]{1,2}", "d": "[0-9]{1,2}", "b": r"[^\W\d_]{3,12}", "H": "[0-9]{1,2}",
    "I": "[0-9]{1,2}", "M": "[0-9]{2}", "S": "[0-9]{2}", "f": "[0-9]{1,9}", "p": r"[AaPp]\.?\s?[Mm]\.?",
}  # fmt: skip
_DIRECTIVE: Final = re.compile("%(.)")
_FRACTION: Final = r"(?:[.,:](?P<f>[0-9]{1,9}))?"
_OFFSET: Final = r" ?(?:(?:GMT|UTC)?(?P<z>[+-][0-9]{2})(?::?(?P<zz>[0-9]{2}))?|GMT|UTC)"
#: Z claims nothing: MetaTrader's scripts write it behind the broker's time.
_NO_OFFSET: Final = "Z?"

#: A day of the week may stand before a date with the name of a month.
_WEEKDAY: Final = r"(?:[^\W\d_]{2,12}\.?,? )?"
_NUMBER: Final = re.compile(r"([0-9]{9,19})(?:[.,]([0-9]{1,9}))?")

#: A time as numpy writes it; with fewer digits its seconds are lost, as in Excel's 1.70964E+12.
_SCIENTIFIC: Final = re.compile(r"[0-9]\.[0-9]{9,}[eE]\+?[0-9]{1,2}")

#: Of a number of milliseconds in a second.
_COUNTED_DIGITS: Final = 3

#: Cells of which every form is tried; there are about 170.
_TRIED: Final = 8

#: Parts of times of one kind that a reader remembers: all minutes of a day, or all thousandths of a second. In a file
#: that is in order, no older ones come again.
_REMEMBERED: Final = 1_500

#: Reads a time from one cell, or from two: the date and the time of day. The result is milliseconds since 1970: of UTC
#: where the form has an offset, else of the clock of the file.
TimeReader = Callable[[str, str], int]


#: Earlier than that no market wrote what looks like a date (milliseconds since 1970): 1900.
_OLDEST_MS: Final = -2_208_988_800_000


class TooEarly(InvalidItem):
    """A time that is one, of years that are not stored."""


class TimeForm(NamedTuple):
    """How a file writes times: a date and a time of day, or a number since 1970."""

    date: str = ""
    clock: str = ""
    has_offset: bool = False
    #: One of EPOCHS, where times are numbers.
    unit: str = ""
    #: Whether what follows the second counts milliseconds, so that `.5` is 5 ms; else it is a fraction.
    has_counted_ms: bool = False

    def __str__(self) -> str:
        if self.unit:
            return f"{self.unit} since 1970"
        counted = " and a number of milliseconds" if self.has_counted_ms else ""
        return f"{self.date} {self.clock}{counted}{' with offset' if self.has_offset else ''}".strip()


def forms_of(cells: Sequence[tuple[str, str]]) -> list[TimeForm]:
    """The forms that fit the most of these cells: one, none, or several where day and month may be exchanged."""
    step = max(1, len(cells) // _TRIED)
    readers = {form: reader_of(form, "") for cell in cells[::step] for form in _fitting(*cell) or _older(*cell)}
    fits = {form: sum(_is_read(reader, cell) for cell in cells) for form, reader in readers.items()}
    most = max(fits.values(), default=0)
    return [form for form, number in fits.items() if number == most]


def with_counted_ms(form: TimeForm, cells: Sequence[tuple[str, str]]) -> TimeForm:
    """The form, where these cells show that numbers of milliseconds follow the seconds, as scripts join them.

    A number has no zeros before it, and a fraction that lost its zeros none behind it.
    """
    found = (_pattern(form).fullmatch(_bare(*cell)) for cell in cells)
    behind = {match["f"] for match in found if match and match.groupdict().get("f")}
    are_numbers = all(len(text) <= _COUNTED_DIGITS and (text[0] != "0" or text == "0") for text in behind)
    are_fractions = not any(len(text) > 1 and text[-1] == "0" for text in behind)
    if not are_numbers or are_fractions or len({*map(len, behind)}) == 1:
        return form
    return form._replace(has_counted_ms=True)


def said_form(text: str) -> TimeForm:
    """The form that a user says: `%d/%m/%Y %H:%M:%S`, or one of EPOCHS; an offset is `%z` at the end.

    Raises:
        ValueError: when it is none.
    """
    if text in EPOCHS:
        return TimeForm(unit=text)
    body = text.removesuffix("%z").rstrip()
    names = _DIRECTIVE.findall(body)
    if unknown := [name for name in names if name not in _DIRECTIVES]:
        raise ValueError(f"%{unknown[0]} is none of {' '.join(f'%{name}' for name in _DIRECTIVES)} %z")
    if len({*names}) < len(names) or len({"Y", "y"} & {*names}) != 1 or len({"m", "b"} & {*names}) != 1:
        raise ValueError(f"year, month and day are expected once, as in %d/%m/%Y, or one of {', '.join(EPOCHS)}")
    at = min((body.index(f"%{name}") for name in "HI" if name in names), default=len(body))
    if "%d" not in body[:at] or any(f"%{name}" in body[at:] for name in "Yymb"):
        raise ValueError("the date is expected before the time of day, as in %d/%m/%Y %H:%M:%S")
    return TimeForm(body[:at].rstrip(" T"), body[at:].removesuffix(".%f"), body != text)


def is_time(cell: str, clock: str = "") -> bool:
    """Whether a cell, or a date and the time of day beside it, is in one of the forms."""
    return bool(_fitting(cell, clock))


def is_clock(cell: str) -> bool:
    """Whether a cell is a time of day alone: with colons, or of four, six or nine digits."""
    forms = (TimeForm("", clock, has_offset) for clock in CLOCKS for has_offset in (False, True))
    return any(_pattern(form).fullmatch(cell.strip()) for form in forms)


def reader_of(form: TimeForm | None, field: str) -> TimeReader:
    """The reader of a form, which raises InvalidItem naming `field`; where no form is known it always does."""
    if form is None:
        return lambda cell, clock: _none(cell, clock, field, "2019-02-04 00:00:01.234")
    return _number_reader(form, field) if form.unit else _text_reader(form, field)


def _fitting(cell: str, clock: str) -> list[TimeForm]:
    if not clock and (number := _NUMBER.fullmatch(_plain(cell.strip().replace(",", ".", 1)))):
        units = [unit for unit, digits in EPOCHS.items() if digits == len(number[1])]
        if units:
            return [TimeForm(unit=units[0])]
    text = _bare(cell, clock)
    return [
        form
        for form, pattern in _text_forms()
        if (form.clock or not clock) and pattern.fullmatch(text) and _is_read(reader_of(form, ""), (cell, clock))
    ]


def _older(cell: str, clock: str) -> list[TimeForm]:
    """The unit of a number before September 2001, of a column that is one of times; elsewhere it may be anything."""
    number = _NUMBER.fullmatch(cell.strip().replace(",", ".", 1))
    if clock or number is None or number[1] < _OLDER_FROM:
        return []
    return [TimeForm(unit=unit) for unit, digits in EPOCHS.items() if digits - 1 == len(number[1])]


@cache
def _text_forms() -> tuple[tuple[TimeForm, re.Pattern[str]], ...]:
    """Every form of a text; without a time of day none has an offset."""
    forms = (
        TimeForm(date, clock, has_offset)
        for date in DATES
        for clock in ("", *CLOCKS)
        for has_offset in (False, True)
        if clock or not has_offset
    )
    return tuple((form, _pattern(form)) for form in forms)


def _bare(cell: str, clock: str) -> str:
    """What the pattern of a form has to match."""
    return f"{cell.strip()} {clock.strip()}".strip()


def _plain(number: str) -> str:
    """A number without an exponent."""
    return f"{Decimal(number):f}" if _SCIENTIFIC.fullmatch(number) else number


def _is_read(reader: TimeReader, cell: tuple[str, str]) -> bool:
    try:
        reader(*cell)
    except TooEarly:
        return True
    except InvalidItem:
        return False
    return True


def _none(cell: str, clock: str, field: str, expected: str) -> int:
    raise InvalidItem(field, f"{quoted(f'{cell} {clock}'.strip())} is no time such as {expected}")


def read_numbers(cells: Sequence[str], unit: str) -> list[int] | None:
    """Milliseconds since 1970 of cells with nothing but digits; None where one has to be read by itself."""
    digits, times, units = _scale_of(unit)
    if not "".join(cells).isdecimal() or not all(cells) or max(map(len, cells)) > digits:
        return None
    numbers = map(int, cells)
    return list(numbers) if times == units else [number * times // units for number in numbers]


def _scale_of(unit: str) -> tuple[int, int, int]:
    """How many digits the numbers of a unit have, and how many milliseconds so many units are."""
    digits = EPOCHS[unit]
    times, units = (1_000, 1) if digits == EPOCHS["seconds"] else (1, 10 ** (digits - EPOCHS["milliseconds"]))
    return digits, times, units


def _number_reader(form: TimeForm, field: str) -> TimeReader:
    digits, times, units = _scale_of(form.unit)

    def read(cell: str, _: str) -> int:
        if cell.isdecimal() and len(cell) <= digits:
            return _checked(int(cell) * times // units, field)
        whole, _, fraction = _plain(cell.strip().replace(",", ".", 1)).partition(".")
        if not whole.isdecimal() or len(whole) > digits + 1 or (fraction and not fraction.isdecimal()):
            return _none(cell, "", field, f"the {form.unit} since 1970")
        # Of a second, the milliseconds follow the point.
        return _checked(int(whole) * times // units + (int(fraction[:3].ljust(3, "0")) if times > 1 else 0), field)

    return read


def _text_reader(form: TimeForm, field: str) -> TimeReader:
    pattern = _pattern(form)
    # What was read, by its text up to the minute, of the second, and behind it; and where those end.
    minutes: dict[str, int] = {}
    seconds: dict[str, int] = {}
    fractions: dict[str, int] = {}
    at = end = -1

    def read(cell: str, clock: str) -> int:
        nonlocal at, end
        text = f"{cell} {clock}" if clock else cell
        try:
            return minutes[text[:at]] + seconds[text[at:end]] + fractions[text[end:]]
        except KeyError:
            pass
        bare = _bare(cell, clock)
        found = pattern.fullmatch(bare)
        if found is None:
            return _none(cell, clock, field, expected)
        parts = found.groupdict()
        try:
            minute = _minute_of(parts)
        except ValueError as exc:
            raise InvalidItem(field, f"{quoted(text)} is no time of the calendar") from exc
        fraction = parts.get("f") or ""
        if form.has_counted_ms and len(fraction) > _COUNTED_DIGITS:
            return _none(cell, clock, field, expected)
        thousandths = int(fraction or 0) if form.has_counted_ms else int(fraction[:3].ljust(3, "0"))
        second = int(parts.get("S") or 0) * 1_000
        if second >= 60_000:
            raise InvalidItem(field, f"{quoted(text)} is no time of the calendar")
        time_ms = minute + second + thousandths
        if form.has_offset:
            sign = parts["z"] or "+00"
            offset = abs(int(sign)) * 60 + int(parts["zz"] or 0)
            return _checked(time_ms - (-offset if sign[0] == "-" else offset) * 60_000, field)
        time_ms = _checked(time_ms, field)  # before any of it is remembered
        # Without minutes all of the text is the date.
        ends = (found.end("M"), found.end("S" if "S" in parts else "M")) if "M" in parts else (len(text), len(text))
        if at in (-1, ends[0]) and end in (-1, ends[1]) and "p" not in parts and text == bare:
            at, end = ends
            _remember(minutes, text[:at], minute)
            _remember(seconds, text[at:end], second)
            _remember(fractions, text[end:], thousandths)
        return time_ms

    expected = f"the first ones of the file, {form}"
    return read


def _remember(known: dict[str, int], text: str, ms: int) -> None:
    if len(known) >= _REMEMBERED:
        known.clear()
    known[text] = ms


def _minute_of(parts: dict[str, str | None]) -> int:
    """The milliseconds of the minute since 1970.

    Raises:
        ValueError: when the calendar or the day has none such.
    """
    full = parts.get("Y")
    year = int(full or parts["y"] or 0)
    if not full:
        year += 2000 if year < _LAST_CENTURY_FROM else 1900
    named = parts.get("b")
    month = month_named(named) if named else int(parts["m"] or 0)
    hour = int(parts.get("H") or parts.get("I") or 0)
    # 24:00 is the end of the day (ISO 8601).
    is_end = hour == 24 and not int(parts.get("M") or 0) + int(parts.get("S") or 0) + int(parts.get("f") or 0)
    if half := parts.get("p"):
        if not 1 <= hour <= 12:
            raise ValueError(hour)
        hour = hour % 12 + (12 if half[0] in "Pp" else 0)
    moment = datetime(year, month, int(parts["d"] or 0), 0 if is_end else hour, int(parts.get("M") or 0), tzinfo=UTC)
    return int(moment.timestamp()) * 1_000 + (DAY_MS if is_end else 0)


def _checked(ms: int, field: str) -> int:
    if 0 <= ms <= MAX_TIME_MSC:
        return ms
    if _OLDEST_MS <= ms < 0:
        raise TooEarly(field, "it is before 1970, and nothing is stored before 1971")
    raise InvalidItem(field, f"the time {ms} is not between 1970 and the year 9999 (milliseconds)")


@lru_cache(1_000)
def _pattern(form: TimeForm) -> re.Pattern[str]:
    """Of the text of a time; groups are named after the directives, `z` and `zz` are the offset."""
    # Without separators every part has all its digits.
    date = _expression(form.date, fixed=form.date == "%Y%m%d")
    if "%b" in form.date:
        date = _WEEKDAY + date.replace(rf"{_DIRECTIVES['b']})", rf"{_DIRECTIVES['b']})\.?")
    if not form.clock:
        return re.compile(date)
    clock = _expression(form.clock, fixed=not re.search("[:.]", form.clock))
    clock = clock.replace(r"\ (?P<p>", " ?(?P<p>")
    clock = clock.replace("[0-9]{1,9}", "[0-9]{3}") if form.clock == "%H%M%S%f" else clock
    if "%S" in form.clock and "%f" not in form.clock:
        at = clock.index("(?P<S>") + len(f"(?P<S>{_DIRECTIVES['S']})")
        clock = clock[:at] + _FRACTION + clock[at:]
    joint = "" if not date else "[ T]?" if form.date == "%Y%m%d" and ":" not in form.clock else "(?: {1,2}|T)"
    return re.compile(date + joint + clock + (_OFFSET if form.has_offset else _NO_OFFSET))


def _expression(form: str, *, fixed: bool) -> str:
    parts = _DIRECTIVE.split(form)
    matched = {name: rule.replace("{1,2}", "{2}") if fixed else rule for name, rule in _DIRECTIVES.items()}
    return "".join(f"(?P<{part}>{matched[part]})" if index % 2 else re.escape(part) for index, part in enumerate(parts))
