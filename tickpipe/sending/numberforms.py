"""The forms in which files write numbers, and the readers that are made from them.

A number has a decimal sign, and may have a sign between its thousands, that of a currency around it, and, as a volume,
a letter behind it: `1.2K`.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import isfinite
from typing import Final, NamedTuple

from marketdata.contract.fields import NOTHING_FROM, finite, is_said, quoted
from marketdata.errors import InvalidItem

#: What programs write into a cell that has no value.
EMPTY: Final = frozenset({"", "nan", "NaN", "NAN", "null", "NULL", "None", "N/A", "#N/A", "NA", "\\N", "-"})

#: 49,500 may be one of two numbers; where decimal commas are usual, 49.500 as well.
_GROUPS: Final = {sign: re.compile(rf"-?[0-9]{{1,3}}(?:{re.escape(sign)}[0-9]{{3}})+") for sign in ",."}

#: What parts thousands and is never a decimal sign: spaces of three widths, and Swiss apostrophes.
_SPACES: Final = (" ", "\N{NO-BREAK SPACE}", "\N{NARROW NO-BREAK SPACE}")
_APOSTROPHES: Final = ("'", "\N{RIGHT SINGLE QUOTATION MARK}")

#: Signs that sites write before or behind a price; the longest first.
_CURRENCIES: Final = ("US$", "R$", "$", "€", "£", "¥", "₽", "₹", "₩", "zł")

#: What a letter behind a volume stands for.
_SCALES: Final = {"K": 1e3, "M": 1e6, "B": 1e9}
_VOLUMES: Final = frozenset({"volume", "real_volume"})
#: Decimals of a scaled volume that are no error of multiplying.
_SCALED_DECIMALS: Final = 6

NumberReader = Callable[[str, str], float]


class NumberForm(NamedTuple):
    """How a file writes numbers."""

    decimal: str = "."
    #: What parts thousands; empty when nothing does.
    thousands: str = ""
    #: The sign of a currency; empty when there is none.
    currency: str = ""


class Ambiguous(Exception):
    """A number may be two; the message says which option tells."""


def form_of(
    prices: Sequence[str], counts: Sequence[str], *, separator: str, writes_comma: bool, said: str | None
) -> NumberForm:
    """The form of the numbers in these cells.

    Args:
        prices: cells of prices, and `counts` those of volumes, without spaces around.
        separator: of cells.
        writes_comma: whether the names of the columns are of a language with decimal commas.
        said: the decimal sign as the user says it.

    Raises:
        Ambiguous: when they may be two numbers.
    """
    currency = next((sign for sign in _CURRENCIES if any(_has_sign(cell, sign) for cell in prices)), "")
    if currency:
        prices = [without_currency(cell, currency) for cell in prices]
    decimal = said or _decimal(prices, counts, separator, writes_comma=writes_comma)
    return NumberForm(decimal, _thousands(prices, counts, decimal, is_said=said is not None), currency)


def reader_of(form: NumberForm) -> NumberReader:
    """What reads the number in a cell; it raises InvalidItem naming the field, which is its second argument."""
    number = number_in if form.decimal == "." else _decimal_comma
    sign, currency = form.thousands, form.currency
    if not sign and not currency:
        return number
    is_grouped = grouped(sign, form.decimal).fullmatch if sign else lambda text: None

    def read(cell: str, field: str) -> float:
        text = without_currency(cell, currency) if currency else cell
        return number(text.replace(sign, "") if is_grouped(text.strip()) else text, field)

    return read


def optional_number(number: NumberReader, cell: str, field: str) -> float | None:
    """The number in a cell that may be empty; None where it says nothing, as in a field of a body.

    Raises:
        InvalidItem: as `number`, which reads it.
    """
    if cell in EMPTY:
        return None
    try:
        found = number(cell, field)
    except InvalidItem:
        if is_said(cell):
            raise
        return None
    return found if -NOTHING_FROM < found < NOTHING_FROM else None


def number_in(cell: str, field: str) -> float:
    """The number in a cell.

    Raises:
        InvalidItem: when there is none, or it is not finite.
    """
    try:
        number = float(cell)
    except ValueError:
        return _unusual(cell, field)
    if not isfinite(number):
        return finite(number, field)
    # Python's own notation has underscores, nobody else's.
    return number if "_" not in cell else finite(cell, field)


@lru_cache
def grouped(sign: str, decimal: str) -> re.Pattern[str]:
    """Matches numbers whose thousands are parted by a sign, and as in India the hundreds of thousands: 1,22,004.70."""
    fraction, mark = f"(?:{re.escape(decimal)}[0-9]*)?" if decimal else "", re.escape(sign)
    whole = f"[1-9][0-9]{{0,2}}(?:{mark}[0-9]{{3}})+|[1-9][0-9]?(?:{mark}[0-9]{{2}})+{mark}[0-9]{{3}}"
    return re.compile(f"[+-]?(?:{whole}){fraction}")


def without_currency(cell: str, currency: str) -> str:
    """The cell without the sign of a currency; `-$37.63` is -37.63."""
    return cell.replace(currency, "").strip()


def _unusual(cell: str, field: str) -> float:
    text = cell.strip().replace("\N{MINUS SIGN}", "-")
    if field in _VOLUMES and (scale := _SCALES.get(text[-1:].upper())):
        return round(finite(text[:-1], field) * scale, _SCALED_DECIMALS)
    return finite(text, field)  # raises with what is wrong


def _decimal_comma(cell: str, field: str) -> float:
    if "." in cell:
        raise InvalidItem(field, f"{quoted(cell)} has a point, where the file has decimal commas")
    return number_in(cell.replace(",", ".", 1), field)


def _has_sign(cell: str, sign: str) -> bool:
    return cell.lstrip("+-").startswith(sign) or cell.endswith(sign)


def _decimal(prices: Sequence[str], counts: Sequence[str], separator: str, *, writes_comma: bool) -> str:
    # Of two signs in a number, the decimal sign is the last.
    last = {max(",.", key=cell.rfind) for cell in (*prices, *counts) if "," in cell and "." in cell}
    if len(last) == 1:
        return last.pop()
    with_comma = [cell for cell in prices if "," in cell]
    with_point = [cell for cell in prices if "." in cell]
    if len(with_comma) <= len(with_point):
        if writes_comma and with_point and all(map(_GROUPS["."].fullmatch, with_point)):
            raise Ambiguous(f"the point in {with_point[0]} may part thousands; say --decimal , or --decimal .")
        return "."
    # Who separates cells by semicolons does so because commas are decimal signs.
    if separator != ";" and all(map(_GROUPS[","].fullmatch, with_comma)):
        raise Ambiguous(f"the comma in {with_comma[0]} may part thousands; say --decimal , or --decimal .")
    return ","


def _thousands(prices: Sequence[str], counts: Sequence[str], decimal: str, *, is_said: bool) -> str:
    """What parts the thousands of the numbers; a comma or a point only where it is no decimal sign.

    That is where somebody said so, or a number shows the decimal sign as nothing but that.

    Raises:
        Ambiguous: when an apostrophe may also part the 32nds of a bond's price.
    """
    other = "." if decimal == "," else ","
    cells = (*prices, *counts)
    shown = [cell.replace(other, "") for cell in cells if decimal in cell]
    is_certain = is_said or any(not grouped(decimal, "").fullmatch(cell) for cell in shown)
    signs = (*_SPACES, *_APOSTROPHES, other) if is_certain else (*_SPACES, *_APOSTROPHES)
    sign = next((sign for sign in signs if any(grouped(sign, decimal).fullmatch(cell) for cell in cells)), "")
    if sign in _APOSTROPHES and not is_certain:
        example = next(cell for cell in cells if sign in cell)
        raise Ambiguous(f"the apostrophe in {example} may part thousands or the 32nds of a bond; say --decimal .")
    return sign
