"""What the first lines of a file say besides its items: titles, remarks, the names of its columns."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tickpipe.sending.columnnames import PRICES, field_of, fields_of, normalised
from tickpipe.sending.dialects import SEPARATORS, Said, UnknownForm
from tickpipe.sending.timeforms import is_time

#: Headers of files that would be read wrong by the names of their columns, and what to do.
UNREAD: Final = (
    (frozenset({"rtype", "publisherid"}),
     "it is Databento's, whose flags are not MetaTrader's, and whose prices may be billionths and of orders; save it "
     "with pretty_px and pretty_ts, and say --zone UTC and --columns: ts_event as time, bid_px_00 and ask_px_00 as bid "
     "and ask, or the price and size of trades as last and volume, and - for what is not to be read"),
    (frozenset({"year", "month", "day"}),
     "the parts of its dates have a column each; write them into one column, such as 2024-10-25 13:07:09"),
    (frozenset({"deal", "order", "price"}), "it lists the deals of an account, not the ticks of a market"),
)  # fmt: skip

#: Volumes of bars by what they count, as in `Volume BTC` and `Volume_(BTC)`: the traded thing stands first, or alone
#: where it is none of the currencies in which others have their price.
_VOLUME_OF: Final = re.compile(r"Volume[ _]\(?([A-Z0-9]{3,8}|Currency)\)?")
_PRICED_IN: Final = ("USD", "USDT", "USDC", "BUSD", "EUR", "GBP", "JPY", "Currency")

#: Volumes by names that mean something else to others, and the names that stand beside them: Tardis' trades.
_VOLUME_BESIDE: Final = {"amount": frozenset({"exchange", "localtimestamp", "price"})}

_QUANTITY: Final = "quantidade"

#: What Excel takes as the separator of a file.
_SEP: Final = re.compile('"?sep=."?', re.IGNORECASE)

#: How comments begin; `#AAPL` may also be a symbol.
_COMMENT: Final = ("#", "//")

#: What stands around cells that hold separators; some programs write the other.
QUOTE, OTHER_QUOTE = '"', "'"


def split_cells(line: str, separator: str, quote: str = QUOTE) -> list[str]:
    """The cells of one line; a quotation mark that is not closed ends with the line."""
    line = line.rstrip("\r\n")
    if quote not in line:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator, quotechar=quote), [])
    except csv.Error:  # a cell is too long for csv
        return [line]


def is_before_header(line: str, following: Sequence[str]) -> bool:
    """Whether a line is empty, Excel's `sep=;`, a comment, or a title: one cell over the names of columns."""
    if not line.strip() or _SEP.fullmatch(line.strip()):
        return True
    if is_comment(line):
        return sum(map(bool, _fields_in(line))) < 2
    if any(sign in line for sign in SEPARATORS):
        return False
    return sum(bool(field) for text in following for field in _fields_in(text)) > 2


def is_comment(line: str) -> bool:
    """Whether a line is a remark: it begins like one, and has no time, as an item has."""
    line = line.strip()
    return line.startswith(_COMMENT) and not any(map(is_time, split_cells(line, separator_of(line, Said()))[:3]))


def _fields_in(line: str) -> list[str]:
    return list(fields_of(split_cells(line, separator_of(line, Said()))))


def columns_named(cells: Sequence[str]) -> tuple[str, ...]:
    """The columns that a line names as a header does; none where it is no header."""
    columns = fields_of(cells)
    return named_once(columns) if sum(map(bool, columns)) > 1 and not any(map(is_time, cells)) else ()


def check_header(path: Path, rows: list[list[str]], following: Sequence[str], number: int) -> None:
    """Raises UnknownForm where the first line is a header of UNREAD, or names no columns and a later one does."""
    names = {*map(normalised, rows[0])}
    for header, why in UNREAD:
        if header <= names:
            raise UnknownForm(f"{path}: {why}")
    if len(rows) > 1 and rows[1][0] == "Ticker":
        columns = ",".join(("time", *(field or "-" for field in map(field_of, rows[0][1:]))))
        tickers = sorted({*rows[1][1:]})
        raise UnknownForm(
            f"{path}: it is yfinance's, with three lines of names; "
            + (f"say --skip-rows {number + 1} --columns {columns} --symbol {tickers[0]}" if len(tickers) == 1
               else "save each of its symbols by itself: " + ", ".join(tickers[:3]))
        )  # fmt: skip
    if sum(map(bool, fields_of(rows[0]))) > 1 or any(map(is_time, rows[0][:2])):
        return
    at = next((at for at, line in enumerate(following, number) if _names_prices(line)), 0)
    if at:
        raise UnknownForm(f"{path}: its columns are named in line {at}; say --skip-rows {at - 1}")


def check_fixed_point(path: Path, rows: list[list[str]]) -> None:
    """Raises UnknownForm where the columns are said and Databento's prices among them are still billionths."""
    named = [*map(normalised, rows[0])]
    prices = [at for at, name in enumerate(named) if name in ("price", *PRICES) or re.fullmatch("(bid|ask)px00", name)]
    if UNREAD[0][0] <= {*named} and any(row[at].isdecimal() for row in rows[1:] for at in prices if at < len(row)):
        raise UnknownForm(f"{path}: its prices are billionths; save it with pretty_px, as `dbn --csv --pretty` does")


def _names_prices(line: str) -> bool:
    fields = {*columns_named(split_cells(line, separator_of(line, Said())))}
    return fields.issuperset(PRICES) or has_prices(fields)


def has_prices(fields: set[str]) -> bool:
    return fields.issuperset({"bid", "ask"}) or ("last" in fields and not fields & {"bid", "ask"})


def separator_of(line: str, said: Said) -> str:
    if said.columns is not None:
        fitting = [sign for sign in SEPARATORS if len(split_cells(line, sign)) == len(said.columns)]
        if fitting:
            return fitting[0]
    standing = [sign for sign in SEPARATORS if sign in line]
    # `time,bid,ask;` ends with a sign that parts nothing.
    naming = (sign for sign in standing if sum(map(bool, fields_of(split_cells(line, sign)))) > 1)
    return next(naming, standing[0] if standing else ",")


def with_volume(names: Sequence[str], columns: tuple[str, ...]) -> tuple[str, ...]:
    """The columns of a header, with the volume where that goes by a name of its own."""
    known = [normalised(name) for name in names]
    if "volume" in columns and (beside := [at for at, name in enumerate(known) if name == _QUANTITY]):
        # Brazilian platforms write the money that was traded as `Volume`, and what was traded beside it.
        return tuple("" if field == "volume" and at not in beside else field for at, field in enumerate(columns))
    if {"volume", "volume_real"} & {*columns}:
        return columns
    places = [known.index(name) for name, others in _VOLUME_BESIDE.items() if {name, *others} <= {*known}]
    if {*PRICES} <= {*columns}:
        found = {at: counted[1] for at, name in enumerate(names) if (counted := _VOLUME_OF.fullmatch(name.strip()))}
        places += [at for at, thing in found.items() if len(found) > 1 or thing not in _PRICED_IN]
    return tuple("volume" if at in places[:1] else field for at, field in enumerate(columns))


def named_once(columns: tuple[str, ...]) -> tuple[str, ...]:
    """The columns of a header; of those with one name, and of times, the one that says the most is read."""
    fields = [field if field not in columns[:index] else "" for index, field in enumerate(columns)]
    if {"open", "high", "low", "last"} <= {*fields} and "close" not in fields:
        fields[fields.index("last")] = "close"
    if "time_msc" in fields:
        return tuple("" if field in ("time", "date") else field for field in fields)
    if "date" in fields and "time" not in fields:
        return tuple("time" if field == "date" else field for field in fields)
    return tuple(fields)
