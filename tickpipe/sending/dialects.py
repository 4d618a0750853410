"""What files of ticks and bars look like, as tables: programs that write them, and names of files."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote

from marketdata.errors import TickpipeError
from marketdata.timeframes import TIMEFRAMES
from tickpipe.sending.columnnames import EST, normalised
from tickpipe.sending.numberforms import NumberForm
from tickpipe.sending.timeforms import TimeForm


class Kind(StrEnum):
    """What the lines of a file are."""

    TICKS = "ticks"
    BARS = "bars"


#: Separators, the surest first: a comma may also be a decimal sign.
SEPARATORS: Final = ("\t", ";", "|", ",")

#: Timeframes as FINAM (minutes, D, W, M) and MetaTrader's names of files write them.
TIMEFRAME_NAMES: Final = {str(timeframe.minutes): name for name, timeframe in TIMEFRAMES.items()} | {
    "D": "D1", "1D": "D1", "1W": "W1", "W": "W1", "M": "MN1", "DAILY": "D1", "WEEKLY": "W1", "MONTHLY": "MN1",
    "MN": "MN1",
}  # fmt: skip


#: How a line of Binance's deals begins: number, price, quantity.
_ID_PRICE: Final = r"\d+,[\d.]+,[\d.]+,"


class Writer(NamedTuple):
    """A program or a site that writes such files."""

    name: str
    #: Names that the header has, as in NAMES; empty for files without a header.
    header: Collection[str] = ()
    #: How times are written in one cell, and the first column, where no header tells.
    form: TimeForm | None = None
    first: str = "time"
    #: The clock of the file, where the writer says it.
    zone: tzinfo | None = None
    #: Whether the names of `header` have to be the first, in this order.
    is_ordered: bool = False
    #: Whether there are volumes other than 0, where that tells two writers apart.
    has_volume: bool | None = None
    #: What the lines of a file without a header match, and its columns, where no rule for such files finds them.
    line: str = ""
    columns: tuple[str, ...] = ()
    #: Whether a bar has the time of its close; None where such files have either.
    closes: bool | None = False


#: Whoever fits first is named; what is read depends on the columns alone, but for the zone.
WRITERS: Final = (
    Writer("Tickpipe", ("time", "timemsc", "bid", "ask", "last", "volume", "flags"), zone=UTC, is_ordered=True),
    Writer("Tickpipe", ("source", "timeframe", "ts", "open"), zone=UTC, is_ordered=True),
    Writer("MetaTrader5 package for Python", frozenset({"time", "timemsc", "volumereal"})),
    Writer("MetaTrader5 package for Python", frozenset({"time", "tickvolume", "realvolume"})),
    Writer("Stooq", frozenset({"ticker", "per", "openint"})),
    Writer("FINAM", frozenset({"ticker", "per"})),
    Writer("MetaStock", frozenset({"ticker", "dtyyyymmdd"})),
    Writer("MetaTrader 5", frozenset({"date", "time", "bid", "ask", "last", "flags"})),
    Writer("MetaTrader 5", frozenset({"date", "open", "tickvol", "vol", "spread"})),
    Writer("MetaTrader5 package for Python", frozenset({"time", "bid", "ask", "last", "volume", "flags"})),
    Writer("MetaTrader5 package for Python", frozenset({"timemsc", "bid", "ask", "last", "volume", "flags"})),
    Writer("Tickstory", frozenset({"date", "timestamp", "bidprice", "askprice"})),
    Writer("Tardis", frozenset({"exchange", "localtimestamp"}), zone=UTC),
    Writer("dukascopy-node", frozenset({"timestamp", "askprice", "bidprice"}), zone=UTC),
    Writer("Dukascopy", frozenset({"gmttime"})),
    Writer("Dukascopy", frozenset({"localtime"})),
    Writer("Dukascopy", frozenset({"timeutc"})),
    Writer("Dukascopy", frozenset({"timeeet"})),
    Writer("Binance", frozenset({"opentime", "closetime", "quotevolume"}), zone=UTC),
    Writer("Binance", frozenset({"aggtradeid", "transacttime"}), zone=UTC),
    Writer("Binance", frozenset({"id", "price", "qty", "quoteqty"}), zone=UTC),
    Writer("Binance", frozenset({"updateid", "bestbidprice"}), zone=UTC),
    Writer("Binance", line=_ID_PRICE + r"[\d.]+,\d{13,16}(?i:,true|,false){2}", zone=UTC,
           columns=("", "last", "volume", "", "time", "", "")),
    Writer("Binance", line=_ID_PRICE + r"\d+,\d+,\d{13,16}(?i:,true|,false){2}", zone=UTC,
           columns=("", "last", "volume", "", "", "time", "", "")),
    Writer("Binance", line=r"\d{13,16}(?:,[\d.]+){5},\d{13,16},[\d.]+,\d+(?:,[\d.]+){3}", zone=UTC,
           columns=("time", "open", "high", "low", "close", "volume", "", "", "tick_volume", "", "", "")),
    Writer("Bybit", frozenset({"timestamp", "symbol", "trdmatchid"}), zone=UTC),
    Writer("Bybit", frozenset({"startat", "open", "turnover"}), zone=UTC),
    Writer("Coinbase", frozenset({"time", "tradeid", "price", "size"}), zone=UTC),
    Writer("CryptoDataDownload", frozenset({"unix", "date", "symbol", "open"}), zone=UTC),
    Writer("Polygon", frozenset({"windowstart", "open"}), zone=UTC),
    Writer("Polygon", frozenset({"siptimestamp"}), zone=UTC),
    Writer("TradeStation or MultiCharts", frozenset({"date", "time", "open", "up", "down"}), closes=True),
    Writer("TradeStation or MultiCharts", frozenset({"date", "time", "open", "vol", "oi"}), closes=True),
    Writer("StrategyQuant", frozenset({"time", "ask", "bid", "volume"})),
    Writer("MetaTrader 4 or StrategyQuant", frozenset({"date", "time", "open", "volume"})),
    Writer("HistData", form=TimeForm("%Y%m%d", "%H%M%S%f"), zone=EST),
    Writer("HistData", form=TimeForm("%Y%m%d", "%H%M%S"), zone=EST, has_volume=False),
    Writer("NinjaTrader", form=TimeForm("%Y%m%d", "%H%M%S"), has_volume=True, closes=None),
    Writer("NinjaTrader", form=TimeForm("%Y%m%d", "%H%M%S %f"), zone=UTC),
    Writer("TrueFX", form=TimeForm("%Y%m%d", "%H:%M:%S"), first="symbol", zone=UTC),
    Writer("MetaTrader 4", form=TimeForm("%Y.%m.%d", "%H:%M"), first="date"),
    Writer("MetaTrader 5", form=TimeForm("%Y.%m.%d", "%H:%M:%S"), first="date"),
    Writer("FXData", form=TimeForm("%Y.%m.%d", "%H:%M:%S")),
)  # fmt: skip

UNKNOWN_WRITER: Final = "an unknown program"

#: Two of these make the symbol of a pair, whoever named the file.
_CURRENCY: Final = (
    "(?:AUD|BRL|CAD|CHF|CNH|CZK|DKK|EUR|GBP|HKD|HUF|ILS|INR|JPY|MXN|NOK|NZD|PLN|RON|RUB|SEK|SGD|THB|TRY|USD|ZAR|XAG|XAU"
    "|XPD|XPT|BTC|ETH|LTC|XRP)"
)

#: A pair with a timeframe, dates, and words that are no part of a symbol. Any other ending than those of files may be
#: the suffix of a broker, as in `EURUSD.m`.
_PAIR_NAME: Final = (
    rf"(?:(?i:ticks?|bars?|quotes?)[ _-]+)?(?P<symbol>(?i:{_CURRENCY}{_CURRENCY}))"
    rf"(?:[ _,.-]+(?P<timeframe>{'|'.join(TIMEFRAMES)}))?(?:[ _-]+(?i:ticks?|bars?|quotes?|\d[\d._-]*))*"
    r"(?=(?:\.(?i:csv|txt|gz|zip|zst|parquet|feather|arrow|jsonl?|ndjson))*$)"
)

#: Names of files, and the zone where the writer says it: MetaTrader 5, HistData, Dukascopy, dukascopy-node, TrueFX,
#: Binance, NinjaTrader, TradingView, pairs of currencies, MetaTrader 4 (whose names end with the minutes of a bar).
_FILE_NAMES: Final = tuple(
    (re.compile(pattern + r"(?:\..*)?", re.ASCII), zone)
    for pattern, zone in (
        (r"(?P<symbol>.+?)(?:_(?P<timeframe>[A-Za-z]+\d*))?_\d{8,14}_\d{8,14}", None),
        (r"DAT_(?:ASCII|MT|MS|XLSX)_(?P<symbol>[A-Z0-9]+)_(?:T|(?P<timeframe>M1))_\d{4,6}", EST),
        (r"HISTDATA_COM_(?:ASCII|MT|MS)_(?P<symbol>[A-Z0-9]+)_(?:T|(?P<timeframe>M1))_?\d{4,6}", EST),
        (r"(?P<symbol>[A-Z0-9]+)_Ticks_[\d.]+-[\d.]+", None),
        (r"(?P<symbol>[A-Za-z0-9]+)-tick-\d{4}-\d\d-\d\d-.*", None),
        (r"(?P<symbol>[A-Za-z0-9]+)-(?P<timeframe>[mh]\d+|d1|mn1)-(?:bid|ask)-\d{4}-\d\d-\d\d-.*", None),
        (r"(?P<symbol>[A-Z]{6})-\d{4}-\d\d", None),
        (r"(?P<symbol>[A-Z0-9]{5,20})-(?P<timeframe>\d+(?:mo|[mhdw]))-\d{4}-\d\d(?:-\d\d)?", UTC),
        (r"(?P<symbol>[A-Z0-9]{5,20})-(?:aggTrades|trades)-\d{4}-\d\d(?:-\d\d)?", UTC),
        (r"(?P<symbol>[^.]+)\.(?P<closes>Last|Bid|Ask)", UTC),
        (r"[A-Z_]+_(?P<symbol>[A-Z0-9.!]+), (?P<timeframe>\d+|1[DW])(?:_[0-9a-f]+)?", UTC),
        (_PAIR_NAME, None),
        (r"(?P<symbol>[A-Z]{6}[A-Za-z.]{0,6})(?P<timeframe>1|5|15|30|60|240|1440|10080|43200)", None),
    )
)


#: What Windows and browsers put behind the name of a copy.
_COPY: Final = re.compile(
    r"(?i: \(\d{1,3}\)| - (?:copy|c[oó]pia|copie|kopie|kopia|копия))+(?=\.[^.]+(?:\.(?:gz|zip|zst))?$)"
)

#: How a folder of `tickpipe export` begins, as readers of partitioned files expect it.
_PARTITION: Final = "symbol="


class UnknownForm(TickpipeError):
    """A file is in no form that is read, or in one of several that only the user can tell apart."""

    is_wrong_use = True


class FileName(NamedTuple):
    """What the name of a file says; None where it says nothing."""

    symbol: str | None = None
    timeframe: str | None = None
    zone: tzinfo | None = None
    #: Whether its bars have the times of their closes.
    closes: bool = False


@dataclass(frozen=True)
class Said:
    """What the user says about a file, instead of having it recognised."""

    #: Fields in the order of the columns.
    columns: tuple[str, ...] | None = None
    #: Lines before the header, or before the first item.
    skip_rows: int = 0
    time_form: TimeForm | None = None
    decimal: str | None = None
    zone: tzinfo | None = None
    #: Name or number of the column of symbols.
    symbol_column: str | None = None
    symbol: str | None = None
    timeframe: str | None = None
    #: Decimals of a price.
    digits: int | None = None
    #: How the text is encoded, as Python calls it.
    encoding: str | None = None
    #: Whether bars have the times of their closes.
    closes: bool | None = None


@dataclass(frozen=True)
class Dialect:
    """How one file writes ticks or bars."""

    writer: str
    kind: Kind
    separator: str
    numbers: NumberForm
    #: The field of each column, empty for those that are not read.
    columns: tuple[str, ...]
    #: Lines before the first item.
    first_row: int
    has_header: bool
    form: TimeForm | None
    #: The clock of the file; None for that of the source, which the server knows.
    zone: tzinfo | None
    #: What stands around cells that hold separators.
    quote: str = '"'
    #: Whether bars have the times of their closes.
    closes: bool = False

    @property
    def column_of(self) -> dict[str, int]:
        """The place of each field."""
        return {field: index for index, field in enumerate(self.columns) if field}

    @property
    def are_instants(self) -> bool:
        """Whether the times become moments, not those of the clock of the source."""
        return self.zone is not None or (self.form is not None and self.form.has_offset)

    def described(self) -> list[tuple[str, str]]:
        """What was recognised, to be shown."""
        signs = {"\t": "tab", ";": "semicolon", ",": "comma", "|": "bar", ".": "point"}
        if self.form is not None and self.form.has_offset:
            zone = "the offsets in the file"
        else:
            zone = "that of the source on the server" if self.zone is None else str(self.zone)
        header = "with header" if self.has_header else "no header"
        return [
            ("written by", f"{self.writer}, {header}"),
            ("columns", " ".join(field or "-" for field in self.columns)),
            ("separator", signs.get(self.separator, self.separator)),
            (
                "decimal sign",
                signs[self.numbers.decimal]
                + (f", {self.numbers.thousands!r} between thousands" if self.numbers.thousands else "")
                + (f", {self.numbers.currency} at prices" if self.numbers.currency else ""),
            ),
            ("times", f"{self.form or 'in no known form'}{', at which bars close' if self.closes else ''}"),
            ("zone", zone),
        ]


def writer_of(header: Sequence[str], columns: Sequence[str], form: TimeForm | None, *, has_volume: bool) -> Writer:
    """Who writes files with this header or, without one, with these columns and times in this form."""
    names = [normalised(name) for name in header]
    for writer in WRITERS:
        if writer.header and {*writer.header} <= {*names}:
            if not writer.is_ordered or (*names[: len(writer.header)],) == writer.header:
                return writer
            continue
        if writer.columns:
            if not header and writer.columns == (*columns,):
                return writer
            continue
        is_first = columns[0] == writer.first and ("date" in columns) is (writer.first == "date")
        is_volume = writer.has_volume in (None, has_volume)
        if not header and is_first and is_volume and writer.form == form is not None:
            return writer
    return Writer(UNKNOWN_WRITER)


def parse_file_name(path: Path) -> FileName:
    """What the name of a file says, or that of the zip it is in, where it is one that a known program gives."""
    partition = next((part for part in path.parts if part.startswith(_PARTITION)), "")
    if partition:
        return FileName(unquote(partition.removeprefix(_PARTITION)))
    names = [path.name, *(parent.name for parent in path.parents if parent.suffix.lower() == ".zip")]
    return next((found for name in names if (found := _parse(name)) != FileName()), FileName())


def _parse(name: str) -> FileName:
    name = _COPY.sub("", name)
    for pattern, zone in _FILE_NAMES:
        if (found := pattern.fullmatch(name)) is None:
            continue
        groups = found.groupdict()
        symbol, named, closes = groups["symbol"], groups.get("timeframe"), bool(groups.get("closes"))
        if named and (turned := re.fullmatch(r"(\d+)(mo|[mhdw])", named)):
            named = f"{'MN' if turned[2] == 'mo' else turned[2].upper()}{turned[1]}"
        timeframe = TIMEFRAME_NAMES.get(named.upper(), named.upper()) if named else None
        if timeframe is not None and not re.fullmatch(r"M\d+|H\d+|D1|W1|MN1", timeframe):
            # The part behind the underscore belongs to the symbol, as in `US_TECH`.
            return FileName(f"{symbol}_{named}", None, zone)
        return FileName(symbol.upper() if symbol.islower() else symbol, timeframe, zone, closes)
    return FileName()
