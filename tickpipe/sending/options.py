"""The options that `tickpipe send` and `tickpipe import` share: where to post, and what the user says about a file."""

# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

from dataclasses import dataclass
from datetime import tzinfo
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tickpipe.sending.dialects import Said
    from tickpipe.sending.timeforms import TimeForm

#: Decimals up to which 10**-digits is a point that an instrument has.
_MOST_DIGITS = 10

FilesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE...",
        help="Files of ticks or bars, folders of them, or a database with a table of bars: "
        "`market-data postgresql://user@host/name`.",
    ),
]
FilesSymbolOption = Annotated[
    str | None, typer.Option("--symbol", "-s", help="Symbol of all files. Default: from their columns or names.")
]
BarsTimeframeOption = Annotated[
    str | None,
    typer.Option("--timeframe", help="Timeframe of the bars. Default: from their column, name or opening times."),
]
FromStartOption = Annotated[
    bool, typer.Option("--from-start", help="Post everything, also what an interrupted import has posted.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Read every file, and say how it was read and what would be sent.")
]
SourceOption = Annotated[
    str | None, typer.Option(help="Source to post for; needs a key that may. Default: the source of the key.")
]
UrlOption = Annotated[str | None, typer.Option(help="Address of the producer. Default: that of the stack.")]
KeyOption = Annotated[str | None, typer.Option(help="Key of the producer. Default: that of the stack.")]
PatienceOption = Annotated[
    float, typer.Option(min=0, help="How long to try again while the producer takes nothing (seconds).")
]

ZoneOption = Annotated[
    str | None,
    typer.Option(
        "--zone",
        help="Clock of the file, such as America/New_York+07:00 or +02:00. Default: the producer's zone of the source.",
        metavar="ZONE",
    ),
]
ColumnsOption = Annotated[
    str | None,
    typer.Option(
        "--columns",
        help="Columns in their order, such as time,bid,ask,-,volume; a minus is one that is not read.",
        metavar="NAMES",
    ),
]
SkipRowsOption = Annotated[int, typer.Option("--skip-rows", min=0, help="Lines before the header or the first item.")]
DateFormatOption = Annotated[
    str | None,
    typer.Option(
        "--date-format",
        help="How times are written, such as '%d/%m/%Y %H:%M:%S', or seconds, milliseconds, microseconds, nanoseconds.",
        metavar="FORM",
    ),
]
DecimalOption = Annotated[str | None, typer.Option("--decimal", help="Decimal sign: . or ,", metavar="SIGN")]
SymbolColumnOption = Annotated[
    str | None, typer.Option("--symbol-column", help="Name or number of the column of symbols.", metavar="COLUMN")
]
DigitsOption = Annotated[
    int | None,
    typer.Option(min=0, max=_MOST_DIGITS, help="Decimals of a price. Default: those in the first lines."),
]
EncodingOption = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        help="How the text is encoded, such as cp1251 or cp932. Default: UTF-8 or 16, or as the names of columns tell.",
        metavar="NAME",
    ),
]
BarTimesOption = Annotated[
    str | None,
    typer.Option(
        "--bar-times", help="What the times of bars are: open or close. Default: open, or as the program writes them.",
        metavar="WHICH",
    ),
]  # fmt: skip
StrictOption = Annotated[bool, typer.Option("--strict", help="Stop at the first line that cannot be used.")]


@dataclass(frozen=True)
class Target:
    """Where ticks and bars are posted."""

    address: str
    api_key: str
    source: str | None
    patience_seconds: float


def said_of(
    *,
    columns: str | None,
    skip_rows: int,
    date_format: str | None,
    decimal: str | None,
    zone: str | None,
    symbol_column: str | None,
    digits: int | None,
    symbol: str | None,
    timeframe: str | None = None,
    encoding: str | None = None,
    bar_times: str | None = None,
) -> "Said":
    """What the options say about a file; anything that cannot be understood is wrong use."""
    from tickpipe.sending.dialects import Said

    if decimal not in (None, ".", ","):
        raise typer.BadParameter("it is . or ,", param_hint="--decimal")
    if bar_times not in (None, "open", "close"):
        raise typer.BadParameter("it is open or close", param_hint="--bar-times")
    return Said(
        _columns(columns), skip_rows, _time_form(date_format), decimal, _zone(zone), symbol_column, symbol, timeframe,
        digits, _encoding(encoding), None if bar_times is None else bar_times == "close",
    )  # fmt: skip


def _columns(text: str | None) -> tuple[str, ...] | None:
    from tickpipe.sending.columnnames import FIELDS, field_of

    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    fields = ["-" if name in ("-", "") else (name if name in FIELDS else field_of(name)) for name in names]
    for name, field in zip(names, fields, strict=True):
        if not field:
            raise typer.BadParameter(f"{name!r} is none of {' '.join(FIELDS)}", param_hint="--columns")
        if field != "-" and fields.count(field) > 1:
            raise typer.BadParameter(f"{field} stands there twice", param_hint="--columns")
    return tuple(fields)


def _encoding(name: str | None) -> str | None:
    try:
        if name is not None:
            "".encode(name)  # raises as well for what encodes no text
        return name
    except LookupError as exc:
        raise typer.BadParameter(
            f"{name!r} is no encoding; cp1251, cp932 and gb18030 are some", param_hint="--encoding"
        ) from exc


def _time_form(text: str | None) -> "TimeForm | None":
    from tickpipe.sending.timeforms import said_form

    try:
        return None if text is None else said_form(text)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--date-format") from exc


def _zone(name: str | None) -> tzinfo | None:
    from runtime.settings import parse_zone

    try:
        return None if name is None else parse_zone(name)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--zone") from exc
