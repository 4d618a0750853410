"""Recognises the dialect of a file by its first lines, as far as the user does not say it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tickpipe.sending.columnnames import PRICES, field_of, fields_of, normalised, writes_comma, zone_in
from tickpipe.sending.dialects import WRITERS, Dialect, Kind, Said, UnknownForm, parse_file_name, writer_of
from tickpipe.sending.headers import (
    OTHER_QUOTE,
    QUOTE,
    check_fixed_point,
    check_header,
    has_prices,
    is_before_header,
    named_once,
    separator_of,
    split_cells,
    with_volume,
)
from tickpipe.sending.numberforms import Ambiguous, NumberForm
from tickpipe.sending.numberforms import form_of as number_form_of
from tickpipe.sending.timeforms import TimeForm, forms_of, is_clock, is_time, with_counted_ms
from tickpipe.sending.timewords import why_unread

#: What a file may look like, for who has one that does not.
FORMS: Final = (
    "ticks have a line that names its columns, such as `time_msc,bid,ask`, `timestamp,bid,ask` or MetaTrader's "
    "<DATE> <TIME> <BID> <ASK> <LAST> <VOLUME> <FLAGS>; bars <DATE> <TIME> <OPEN> <HIGH> <LOW> <CLOSE> <TICKVOL> <VOL> "
    "<SPREAD>; say another order with --columns"
)

#: Lines whose times and signs are looked at.
SAMPLE_LINES: Final = 200

_NUMBERS: Final = frozenset({"bid", "ask", "last", *PRICES, "volume_real"})
_COUNTS: Final = frozenset({"volume", "tick_volume"})

#: Share of the lines in which the bid has to be below the ask, where only the prices tell which is which.
_SURE: Final = 0.95

#: What pandas and R write over an index of times.
_NAMES_OF_INDEX: Final = ("", "index")

#: What a column holds whose rows are bids, asks and deals in turn.
_SIDES: Final = frozenset({"BID", "ASK", "OFFER", "BEST_BID", "BEST_ASK", "QUOTE"})

#: Columns behind the volume of a bar without names: MetaTrader 5 has three, Binance seven.
_BEHIND_PRICES: Final = {
    7: ("tick_volume", "volume", "spread"),
    11: ("volume", "", "", "tick_volume"),
}

#: A third price without a name is not further from the first than this share of it; a volume is.
_NEAR: Final = 0.01

#: A bid and an ask without names are not further apart than this share of them; a price and a volume are.
_WIDEST: Final = 0.2

#: Times from which on it is the form that is not known, not the lines that are bad.
_SEVERAL: Final = 3

#: What no text has: control characters but tabs.
_NO_TEXT: Final = re.compile(r"[\x00-\x08\x0b-\x1f]")

#: A time of day with a fraction, or milliseconds since 1970.
_THOUSANDTHS: Final = re.compile(r":[0-9]{2}[.,][0-9]|[0-9]{13}(?<!000)")

#: Longest part of a first line that a message quotes (characters).
QUOTED: Final = 80


@dataclass(frozen=True)
class _Layout:
    """The columns of a file, and where its items begin."""

    columns: tuple[str, ...]
    #: The names in the header; none without one.
    names: tuple[str, ...]
    rows: list[list[str]]
    first_row: int


def recognise(path: Path, lines: Sequence[str], said: Said) -> Dialect:
    """The dialect of the file that begins with these lines.

    Raises:
        UnknownForm: when they are in no form that is read, or in several.
    """
    start = said.skip_rows
    while start < len(lines) and is_before_header(lines[start], lines[start + 1 : start + 2]):
        start += 1
    if start >= len(lines):
        raise UnknownForm(f"{path}: there is no line to read; {FORMS}")
    separator = separator_of(lines[start], said)
    quote = _quote(lines[start:], separator)
    rows = [split_cells(line, separator, quote) for line in lines[start:] if line.strip()]
    if said.columns is None:
        check_header(path, rows, lines[start + 1 :], start + 2)
    else:
        check_fixed_point(path, rows)
    layout = _with_symbol_column(path, _layout(path, rows, start, said), said)
    if said.columns is None:
        layout = _without_doubled_date(layout)
    fields = {*layout.columns}
    kind = Kind.BARS if fields.issuperset(PRICES) else Kind.TICKS
    if not (fields & {"time", "time_msc", "date"}) or (kind is Kind.TICKS and not has_prices(fields)):
        raise unknown(path, rows[0], separator)
    if said.columns is None and "last" in fields and not fields & {"bid", "ask"}:
        _check_sides(path, layout)
    numbers = _number_form(path, layout, separator, said)
    times = _times_in(layout)
    form = said.time_form or _form(path, layout, times)
    if form is not None and form.clock:
        form = with_counted_ms(form, times)
    if kind is Kind.TICKS and form is not None and not (form.unit or form.clock):
        raise UnknownForm(f"{path}: its ticks have a day and no time of day ({form}); all would be of its first minute")
    name_zones = (zone_in(name) for name in layout.names if field_of(name) in ("time", "date"))
    has_volume = any(cell.strip("0.,") for cell in _cells_of(layout, _COUNTS))
    writer = writer_of(layout.names, layout.columns, form, has_volume=has_volume)
    file_name = parse_file_name(path)
    named = next((zone for zone in name_zones if zone), None) or file_name.zone or writer.zone
    closes = said.closes if said.closes is not None else file_name.closes or writer.closes
    if kind is Kind.BARS and closes is None:
        raise UnknownForm(f"{path}: its times may be those at which its bars open or close; say which with --bar-times")
    has_offset = form is not None and form.has_offset
    return Dialect(
        writer.name, kind, separator, numbers, layout.columns, layout.first_row, bool(layout.names), form,
        said.zone or (None if has_offset else named), quote, bool(closes) and kind is Kind.BARS,
    )  # fmt: skip


def _check_sides(path: Path, layout: _Layout) -> None:
    """Raises UnknownForm where one column of prices holds bids and asks as well."""
    found = (cell for row in layout.rows for cell in row if cell.strip().upper() in _SIDES)
    if (side := next(found, None)) is not None:
        raise UnknownForm(
            f"{path}: its prices are of several kinds, one of them {side.strip()}; write bid and ask side by side, or, "
            "where all are deals, say --columns"
        )


def unknown(path: Path, cells: Sequence[str], separator: str = ",") -> UnknownForm:
    """The error that quotes the first line."""
    line = separator.join(cells)
    words = line.split()
    by_spaces = sum(map(bool, fields_of(words))) > 1 or (len(words) > 2 and is_time(words[0], words[1]))
    why = "its cells are parted by spaces, write tabs, semicolons or commas" if by_spaces else FORMS
    if line.startswith(("{", "[{")):
        why = "it is JSON, which `tickpipe import` reads from a file"
    elif _NO_TEXT.search(line):
        why = "it is no text; export the ticks or bars as CSV"
    elif not line.isascii():
        why += "; where its letters are wrong, say --encoding, such as cp1251 or cp932"
    return UnknownForm(f"{path}: the first line is {line[:QUOTED]!r}; {why}")


def _quote(lines: Sequence[str], separator: str) -> str:
    """What stands around cells: a single mark where one begins and ends a cell, and no other is there."""
    if any(QUOTE in line for line in lines):
        return QUOTE
    cells = (cell for line in lines for cell in line.strip().split(separator))
    return OTHER_QUOTE if any(len(cell) > 1 and cell[0] == cell[-1] == OTHER_QUOTE for cell in cells) else QUOTE


def _layout(path: Path, rows: list[list[str]], start: int, said: Said) -> _Layout:
    first = rows[0]
    if said.columns is not None:
        columns = tuple("" if field == "-" else field for field in said.columns)
        if len(first) != len(columns):
            raise UnknownForm(f"{path}: --columns names {len(columns)} columns, the first line has {len(first)}")
        at = next((index for index, field in enumerate(columns) if field in ("time_msc", "time", "date")), 0)
        clock = first[columns.index("time")] if {"date", "time"} <= {*columns} else ""
        if is_time(first[at], clock) or first[at].strip().isdecimal():
            return _Layout(columns, (), rows, start)
        return _Layout(columns, tuple(first), rows[1:], start + 1)
    if len(rows) > 1 and not first[-1].strip() and len(rows[1]) == len(first) - 1:
        first = first[:-1]  # a separator behind the last name
    columns = with_volume(first, fields_of(first))
    is_nameless = normalised(first[0]) in _NAMES_OF_INDEX and not {"time", "time_msc", "date"} & {*columns}
    if is_nameless and len(rows) > 1 and is_time(rows[1][0]):
        columns = ("time", *columns[1:])
    if sum(map(bool, columns)) > 1 and not any(is_time(cell) for cell in first):
        return _Layout(_as_ticks(named_once(columns), rows[1:]), tuple(first), rows[1:], start + 1)
    return _Layout(_without_header(path, rows), (), rows, start)


def _as_ticks(columns: tuple[str, ...], rows: list[list[str]]) -> tuple[str, ...]:
    """The columns of bars, or of ticks that Sierra Chart writes as such: no open, and the quote as low and high."""
    if not {*PRICES} <= {*columns}:
        return columns
    opens = [_numbers(row[at : at + 1]) for at in (columns.index("open"),) for row in rows]
    if not opens or any(price != [0.0] for price in opens):
        return columns
    return tuple({"open": "", "high": "ask", "low": "bid", "close": "last"}.get(field, field) for field in columns)


def _with_symbol_column(path: Path, layout: _Layout, said: Said) -> _Layout:
    wanted = said.symbol_column
    if wanted is None:
        return layout
    names = [normalised(name) for name in layout.names]
    if normalised(wanted) in names:
        at = names.index(normalised(wanted))
    elif wanted.isdecimal() and 0 < int(wanted) <= len(layout.columns):
        at = int(wanted) - 1
    else:
        raise UnknownForm(
            f"{path}: there is no column {wanted} of symbols; say its name or number with --symbol-column"
        )
    columns = ["" if field == "symbol" else field for field in layout.columns]
    columns[at] = "symbol"
    return _Layout(tuple(columns), layout.names, layout.rows, layout.first_row)


def _without_doubled_date(layout: _Layout) -> _Layout:
    """The columns without that of the date, where all that is called the time beside it has one already."""
    if not {"date", "time"} <= {*layout.columns}:
        return layout
    at = layout.columns.index("time")
    if not layout.rows or not all(is_time(row[at]) for row in layout.rows if len(row) > at):
        return layout
    return replace(layout, columns=tuple("" if field == "date" else field for field in layout.columns))


def _without_header(path: Path, rows: list[list[str]]) -> tuple[str, ...]:
    """The columns of a file without a header, by its lines.

    Raises:
        UnknownForm: when they do not tell.
    """
    first = rows[0]
    known = (writer.columns for writer in WRITERS if writer.line and re.fullmatch(writer.line, ",".join(first)))
    if (columns := next(known, None)) is not None:
        return columns
    at = next((index for index, cell in enumerate(first[:2]) if is_time(cell)), None)
    if at is None:
        raise unknown(path, first)
    times = ("date", "time") if len(first) > at + 1 and ":" in first[at + 1] and is_clock(first[at + 1]) else ("time",)
    begin = at + len(times)
    width = len(first) - begin
    values = [row[begin:] for row in rows if len(row) == len(first)]
    named: tuple[str, ...]
    are_bars = width >= 4 and all(map(_are_bar, values))
    is_fine = _THOUSANDTHS.search(first[begin - 1]) is not None
    if is_fine and width >= (4 if len(times) > 1 else 5) and not are_bars and all(map(_are_metatraders, values)):
        named = ("bid", "ask", "last", "volume", "flags")
    elif width >= 5 or are_bars:
        named = (*PRICES, *_BEHIND_PRICES.get(width, ("volume",)))
    elif 3 <= width <= 4 and all(map(_is_deal, values)):
        named = ("last", "bid", "ask", "volume")
    elif 2 <= width <= 4 and not all(map(_are_prices, values)):
        named = _quote_order(path, first, values)
    else:
        raise unknown(path, first)
    columns = (*(_before_time(rows),)[:at], *times, *named[:width])
    return (*columns, *[""] * (len(first) - len(columns)))


def _before_time(rows: list[list[str]]) -> str:
    """What the first column holds where the time is in the second: numbers that never come again name no symbols."""
    cells = [row[0].strip() for row in rows]
    return "" if all(map(str.isdecimal, cells)) and len({*cells}) == len(cells) else "symbol"


def _are_metatraders(cells: Sequence[str]) -> bool:
    """Whether these are bid, ask, last, volume and flags; an empty cell, or a last price of 0, says nothing."""
    numbers = _numbers([cell or "0" for cell in cells])
    if numbers is None:
        return False
    quote, last = numbers[0] or numbers[1], numbers[2]
    is_near = not quote or not last or abs(last - quote) <= _WIDEST * abs(quote)
    return is_near and all(not cell or cell.isdecimal() for cell in cells[4:5])


def _numbers(cells: Sequence[str]) -> list[float] | None:
    try:
        return [float(cell.replace(",", ".")) for cell in cells]
    except ValueError:
        return None


def _are_bar(cells: Sequence[str]) -> bool:
    prices = _numbers(cells[:4])
    return prices is not None and all(prices) and prices[1] == max(prices) and prices[2] == min(prices)


def _is_deal(cells: Sequence[str]) -> bool:
    """Whether three prices are those of a deal and of the quote at its time."""
    prices = _numbers(cells[:3])
    if prices is None or not prices[0]:
        return False
    last, bid, ask = prices
    volume = _numbers(cells[3:4])
    # A fourth number that is a price as well belongs to a bar whose prices are in another order.
    is_volume = not volume or abs(volume[0] - last) > _NEAR * last
    return is_volume and bid <= ask and max(abs(bid - last), abs(ask - last)) <= _NEAR * last


def _are_prices(cells: Sequence[str]) -> bool:
    """Whether four numbers are prices of one time: of a bar, in an order that nothing tells."""
    prices = _numbers(cells)
    return prices is not None and len(prices) == len(PRICES) and max(prices) - min(prices) <= _NEAR * abs(prices[0])


def _quote_order(path: Path, first: list[str], values: list[list[str]]) -> tuple[str, ...]:
    prices = [numbers for cells in values if (numbers := _numbers(cells[:2])) is not None]
    below = sum(one < other for one, other in prices)
    above = sum(one > other for one, other in prices)
    # A volume is written with other decimals than a price.
    decimals = [max(len(re.split("[.,]", cell)[-1]) if re.search("[.,]", cell) else 0 for cell in column)
                for column in zip(*(cells[:2] for cells in values), strict=True)]  # fmt: skip
    are_near = abs(decimals[0] - decimals[1]) <= 1 and all(
        abs(one - other) <= _WIDEST * max(abs(one), abs(other)) for one, other in prices
    )
    if not prices or not are_near or not any(first[-1:]) or min(below, above) > (1 - _SURE) * (below + above):
        raise UnknownForm(
            f"{path}: nothing names the numbers in {','.join(first)[:QUOTED]!r}: they may be a bid and an ask or a "
            "price and a volume; say which with --columns, such as time,bid,ask or time,last,volume"
        )
    return ("bid", "ask", "", "") if below >= above else ("ask", "bid", "", "")


def _cells_of(layout: _Layout, fields: frozenset[str]) -> list[str]:
    return [
        row[index].strip() for row in layout.rows if len(row) == len(layout.columns)
        for index, field in enumerate(layout.columns) if field in fields
    ]  # fmt: skip


def _number_form(path: Path, layout: _Layout, separator: str, said: Said) -> NumberForm:
    # The money that was traded is not read, but shows how numbers are written.
    names = zip(layout.columns, layout.names, strict=False)
    unread = replace(layout, columns=tuple("" if field else field_of(name) for field, name in names))
    try:
        return number_form_of(
            _cells_of(layout, _NUMBERS),
            _cells_of(layout, _COUNTS) + _cells_of(unread, _COUNTS),
            separator=separator,
            writes_comma=writes_comma(layout.names),
            said=said.decimal,
        )
    except Ambiguous as exc:
        raise UnknownForm(f"{path}: {exc}") from exc


def _times_in(layout: _Layout) -> list[tuple[str, str]]:
    """The cells of the first times, and of the times of day beside them where these have their own."""
    fields = layout.columns
    clock_at = fields.index("time") if {"date", "time"} <= {*fields} else None
    return [
        (row[_time_at(layout)], row[clock_at] if clock_at is not None else "")
        for row in layout.rows[:SAMPLE_LINES] if len(row) >= len(fields)
    ]  # fmt: skip


def _are_mostly_numbers(cells: list[tuple[str, str]]) -> bool:
    return sum(cell.strip().isdecimal() for cell, _ in cells) * 2 >= len(cells)


def _time_at(layout: _Layout) -> int:
    return next(layout.columns.index(field) for field in ("time_msc", "date", "time") if field in layout.columns)


def _form(path: Path, layout: _Layout, cells: list[tuple[str, str]]) -> TimeForm | None:
    forms = forms_of(cells)
    if layout.columns[_time_at(layout)] == "time_msc" and _are_mostly_numbers(cells):
        # Some call seconds or microseconds so; what has the digits of none is milliseconds.
        return next((form for form in forms if form.unit), TimeForm(unit="milliseconds"))
    if len({form.date for form in forms}) > 1:
        example = f"{cells[0][0]} {cells[0][1]}".strip()
        meant = " or ".join(f'"{form}"' for form in forms)
        raise UnknownForm(f"{path}: {example} may be {meant}; say which with --date-format")
    if not forms and len(cells) >= _SEVERAL:
        example = f"{cells[0][0]} {cells[0][1]}".strip()
        raise UnknownForm(f"{path}: {example[:QUOTED]!r} {why_unread(example)}")
    return forms[0] if forms else None
