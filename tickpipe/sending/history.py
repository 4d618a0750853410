"""The ticks and the bars of files of history, whatever dialect they are written in."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, pairwise
from typing import Final, NamedTuple

from marketdata.contract.bar import check_prices, opening_of
from marketdata.contract.fields import is_said, price, timeframe_of, whole
from marketdata.contract.tick import MAX_FLAGS
from marketdata.errors import InvalidItem
from marketdata.tick import DAY_MS, MAX_PRICE
from marketdata.timeframes import TIMEFRAMES
from tickpipe.sending.blocks import QUOTE_FLAGS, BlockReader, FileTick, in_blocks
from tickpipe.sending.columnfile import ColumnFile, Unwanted
from tickpipe.sending.dialects import TIMEFRAME_NAMES, Kind, UnknownForm, parse_file_name
from tickpipe.sending.numberforms import EMPTY, NumberReader, optional_number, without_currency
from tickpipe.sending.numberforms import reader_of as number_reader_of

#: MT5: TICK_FLAG_BID, TICK_FLAG_ASK, TICK_FLAG_LAST, TICK_FLAG_VOLUME, by the column whose change they announce.
_FLAG_OF_COLUMN: Final = {"bid": 2, "ask": 4, "last": 8, "volume": 16}

#: With more decimals, which no instrument has, the file holds computed prices, and the size of a point is unknown.
_MOST_DIGITS: Final = 10

#: Lines of a symbol whose prices are inspected for the number of decimals.
_SAMPLED_LINES: Final = 1_000

_PRICES: Final = ("open", "high", "low", "close")

_SHORTEST_MONTH_MS: Final = 28 * DAY_MS

#: Offsets of zones from UTC are whole multiples of this (milliseconds).
_OFFSET_STEP_MS: Final = 15 * 60_000

#: Bars from which the distance of their openings tells the timeframe: three of M1 lie on whole hours by chance once in
#: 200,000 times.
_ENOUGH_BARS: Final = 3


class TickFile(ColumnFile[FileTick]):
    """The ticks of a file, as `with TickFile(path) as ticks`."""

    kind = Kind.TICKS

    def digits_of(self, symbol: str) -> int | None:
        """Decimals of a symbol's prices (MT5: SYMBOL_DIGITS), as in its first lines; None for computed prices."""
        if self.said.digits is not None:
            return self.said.digits
        digits = self._digits.get(symbol, [-1])[0]
        return digits if 0 <= digits <= _MOST_DIGITS else None

    @property
    def has_quotes(self) -> bool:
        """Whether there are bids and asks; else the ticks are deals alone."""
        return "bid" in self.dialect.column_of

    def _begin(self, rows: list[list[str]]) -> None:
        #: By symbol: the most decimals of a price, and how many lines were inspected.
        self._digits: dict[str, list[int]] = {}
        #: Symbols of which enough lines were inspected.
        self._sampled: set[str] = set()
        #: By symbol: bid, ask, last and volume so far. In MetaTrader's files an empty cell means the value before.
        self._values: dict[str, list[float]] = {}
        self._is_carried = {"date", "time", "bid", "last"} <= self.dialect.column_of.keys()

    def _all_items(self, lines: Iterator[str]) -> Iterator[FileTick]:
        if self.is_live:
            return self._items(self._rows(lines))
        return chain.from_iterable(self._by_blocks(lines))

    def _by_blocks(self, lines: Iterator[str]) -> Iterator[Iterable[FileTick]]:
        """The ticks of one block of lines after the other; lines with anything unusual are read one by one."""
        reader = BlockReader(
            self.dialect, self._time, self._utc_ms if self._is_shifted else None,
            symbol=self.symbol or "", symbols=self._symbols, sampled=self._sampled,
            carried=self._values if self._is_carried else None,
        )  # fmt: skip
        first = 1
        for block in in_blocks(lines):
            ticks = reader.ticks(block) if first > self.dialect.first_row else None
            if ticks is None:
                yield self._items(self._rows(block, first))
            else:
                self._line, self._text = first, block[0]
                yield ticks
            first += len(block)

    def _items(self, rows: Iterator[list[str]]) -> Iterator[FileTick]:
        return self._carried(rows) if self._is_carried else self._complete(rows)

    def _complete(self, rows: Iterator[list[str]]) -> Iterator[FileTick]:
        """Rows that are complete: an empty price is an error."""
        column, number = self.dialect.column_of, number_reader_of(self.dialect.numbers)
        read_time, utc_ms = self._time, self._utc_ms
        clock_at = column.get("time") if "date" in column else None
        time_at = column["date"] if clock_at is not None else column["time_msc" if "time_msc" in column else "time"]
        bid_at, ask_at, last_at = column.get("bid"), column.get("ask"), column.get("last")
        prices_at = [at for at in (bid_at, ask_at, last_at) if at is not None]
        volumes_at = [column[name] for name in ("volume_real", "volume") if name in column]
        flags_at, symbol_at, symbol = column.get("flags"), column.get("symbol"), self.symbol or ""
        has_milliseconds, is_shifted, sampled = "milliseconds" in column, self._is_shifted, self._sampled
        for cells in rows:
            try:
                if symbol_at is not None:
                    symbol = self._symbol_in(cells[symbol_at])
                time_msc = read_time(cells[time_at], "" if clock_at is None else cells[clock_at])
                if has_milliseconds:
                    time_msc += self._milliseconds(cells)
                if is_shifted:
                    time_msc = utc_ms(time_msc, symbol)
                bid = 0.0 if bid_at is None else number(cells[bid_at], "bid")
                ask = 0.0 if ask_at is None else number(cells[ask_at], "ask")
                # Where there are bids, a tick need not be a deal.
                if last_at is None:
                    last = 0.0
                elif bid_at is None:
                    last = _of_deal(number(cells[last_at], "last"))
                else:
                    last = optional_number(number, cells[last_at], "last") or 0.0
                volume = 0.0
                for at in volumes_at:
                    if (said := optional_number(number, cells[at], "volume")) is not None:
                        volume = _volume(said)
                        break
                _check_prices(bid, ask, last)
                # Without flags a tick with a last price or a volume is taken for a deal (marketdata/fold.py).
                flags = 0 if last or volume else QUOTE_FLAGS
                if flags_at is not None:
                    flags = _flags_in(cells[flags_at], flags)
                tick = FileTick(time_msc, bid, ask, last, volume, flags, symbol=symbol)
            except InvalidItem as exc:
                self._skip(exc)
                continue
            if symbol not in sampled:
                self._sample_digits(symbol, cells, prices_at)
            yield tick

    def _carried(self, rows: Iterator[list[str]]) -> Iterator[FileTick]:
        """MetaTrader's rows, in which an empty cell means that the value is the one before (as in MqlTick)."""
        column, number = self.dialect.column_of, number_reader_of(self.dialect.numbers)
        read_time, utc_ms = self._time, self._utc_ms
        date_at, time_at, flags_at, symbol_at = (
            column["date"],
            column["time"],
            column.get("flags"),
            column.get("symbol"),
        )
        at = [
            (index, column[name], name, flag) for index, (name, flag) in enumerate(_FLAG_OF_COLUMN.items())
            if name in column
        ]  # fmt: skip
        prices_at = [place for _, place, name, _ in at if name != "volume"]
        values, symbol = self._values, self.symbol or ""
        has_milliseconds, is_shifted, sampled = "milliseconds" in column, self._is_shifted, self._sampled
        for cells in rows:
            try:
                if symbol_at is not None:
                    symbol = self._symbol_in(cells[symbol_at])
                time_msc = read_time(cells[date_at], cells[time_at])
                if has_milliseconds:
                    time_msc += self._milliseconds(cells)
                if is_shifted:
                    time_msc = utc_ms(time_msc, symbol)
                now, changed = values.get(symbol, [0.0] * 4).copy(), 0
                for index, place, name, flag in at:
                    if (cell := cells[place]) in EMPTY:
                        continue
                    value = number(cell, name) if name in ("bid", "ask") else optional_number(number, cell, name)
                    if value is not None:
                        now[index] = value
                        if value:  # a 0 is written where there is no such price
                            changed |= flag
                if now[3] < 0:
                    _volume(now[3])  # raises
                _check_prices(now[0], now[1], now[2])
                flags = changed if flags_at is None else _flags_in(cells[flags_at], changed)
                tick = FileTick(time_msc, now[0], now[1], now[2], now[3], flags, symbol=symbol)
            except InvalidItem as exc:
                self._skip(exc)
                continue
            values[symbol] = now
            if symbol not in sampled:
                self._sample_digits(symbol, cells, prices_at)
            yield tick

    def _sample_digits(self, symbol: str, cells: Sequence[str], prices_at: Sequence[int]) -> None:
        sampled = self._digits.setdefault(symbol, [-1, 0])
        sampled[1] += 1
        if sampled[1] >= _SAMPLED_LINES:
            self._sampled.add(symbol)
        currency = self.dialect.numbers.currency
        for text in (without_currency(cells[at], currency) for at in prices_at):
            if text:
                # The text has the digits: 49500.00 is a price of two. One with an exponent was computed.
                digits = len(text.partition(self.dialect.numbers.decimal)[2])
                sampled[0] = max(
                    sampled[0], digits if text[-1].isdecimal() and "e" not in text.lower() else _MOST_DIGITS + 1
                )


def _of_deal(price: float) -> float:
    if not price:
        raise InvalidItem("last", "no deal has a price of 0")
    return price


def _volume(volume: float) -> float:
    if volume < 0:
        raise InvalidItem("volume", f"must not be negative: {volume:g}")
    return volume


def _optional(number: NumberReader, cell: str, field: str) -> float:
    """The volume in a cell, 0 in one without a value."""
    return _volume(optional_number(number, cell, field) or 0.0)


def _check_prices(bid: float, ask: float, last: float) -> None:
    # Nearly every line passes at once.
    if max(bid, ask, last) <= MAX_PRICE and min(bid, ask, last) >= -MAX_PRICE:
        return
    for name, value in (("bid", bid), ("ask", ask), ("last", last)):
        price(value, name)


def _flags_in(cell: str, missing: int) -> int:
    if cell.isdecimal() and len(cell) < len(str(MAX_FLAGS)):
        return int(cell)
    return whole(cell, "flags", MAX_FLAGS) if cell not in EMPTY and is_said(cell) else missing


class Bar(NamedTuple):
    """A bar as it stands in a file (MT5: MqlRates)."""

    #: Opening time (milliseconds): UTC where the times of the file are moments, else by its clock.
    time_msc: int
    open: float
    high: float
    low: float
    close: float
    #: Number of ticks.
    tick_volume: int
    real_volume: float | None
    spread: int | None
    symbol: str = ""


class BarFile(ColumnFile[Bar]):
    """The bars of a file, as `with BarFile(path) as bars`."""

    kind = Kind.BARS
    #: Of all bars, and what it is known from; None when nothing tells.
    timeframe: str | None = None
    timeframe_from = ""
    #: How long before the times in the file its bars open.
    _closing_ms = 0
    #: Whether the volumes count what was traded, also those that are whole: no number of ticks has a fraction.
    _is_traded = False

    def _begin(self, rows: list[list[str]]) -> None:
        column = self.dialect.column_of
        self._closing_ms = 0
        self._is_traded = self._counts_what_was_traded(rows)
        inferred = inferred_timeframe(self._sampled_openings(rows))
        whole = next((row for row in rows if len(row) >= len(self.dialect.columns)), None)
        in_column = _timeframe_in(whole[column["timeframe"]]) if "timeframe" in column and whole else None
        told = (
            (self.said.timeframe, "as said"),
            (in_column, "by its column"),
            (parse_file_name(self.path).timeframe, "by its name"),
            (inferred, "by its opening times"),
        )
        self.timeframe, self.timeframe_from = next(((name, how) for name, how in told if name), (None, ""))
        if self.timeframe is None:
            return
        try:
            self.timeframe = timeframe_of(self.timeframe)
        except InvalidItem as exc:
            raise UnknownForm(f"{self.path}: {exc.message}") from exc
        width_ms = TIMEFRAMES[self.timeframe].width_ms
        if self.dialect.closes and width_ms is not None and width_ms < DAY_MS:
            self._closing_ms = width_ms  # longer bars have the date of their day
        self._check_openings(rows, self.timeframe, inferred)

    def _counts_what_was_traded(self, rows: list[list[str]]) -> bool:
        volume_at, _ = _volumes_at(self.dialect.column_of)
        if volume_at is None:
            return False
        number = number_reader_of(self.dialect.numbers)
        for cells in rows:
            with suppress(InvalidItem, IndexError):  # it is reported when its turn comes
                if not _optional(number, cells[volume_at], "volume").is_integer():
                    return True
        return False

    def _check_openings(self, rows: list[list[str]], timeframe: str, inferred: str | None) -> None:
        names = list(TIMEFRAMES)
        openings = self._sampled_openings(rows)
        off = sum(not self._is_opening(opening) for opening in openings)
        is_longer = inferred is not None and names.index(inferred) > names.index(timeframe)
        if is_longer or (off and off * 2 > len(openings)):
            fitting = f"those of {inferred}, not" if inferred is not None else "not those"
            raise UnknownForm(f"{self.path}: the opening times are {fitting} of {timeframe}; say it with --timeframe")

    def _sampled_openings(self, rows: list[list[str]]) -> list[int]:
        """The opening times of the first symbol's bars in the rows, by the clock of the file."""
        column = self.dialect.column_of
        symbol_at, openings = column.get("symbol"), []
        for cells in rows:
            if symbol_at is None or cells[symbol_at : symbol_at + 1] == rows[0][symbol_at : symbol_at + 1]:
                try:
                    openings.append(self._opening(cells))
                except (InvalidItem, IndexError):
                    continue  # it is reported when its turn comes
        return openings

    def _opening(self, cells: list[str]) -> int:
        column = self.dialect.column_of
        if "date" in column:
            return self._time(cells[column["date"]], cells[column["time"]]) - self._closing_ms
        return self._time(cells[column["time_msc" if "time_msc" in column else "time"]], "") - self._closing_ms

    def _is_opening(self, wall_ms: int) -> bool:
        """Whether bars of the timeframe can open then; those longer than a day are left to the server."""
        width_ms = TIMEFRAMES[self.timeframe].width_ms if self.timeframe is not None else None
        if width_ms is None or width_ms > DAY_MS:
            return True
        has_offset = self.dialect.form is not None and self.dialect.form.has_offset
        # The clock that bars open by is unknown where times are moments.
        return wall_ms % (min(width_ms, _OFFSET_STEP_MS) if has_offset else width_ms) == 0

    def _items(self, rows: Iterator[list[str]]) -> Iterator[Bar]:
        column, number = self.dialect.column_of, number_reader_of(self.dialect.numbers)
        prices_at = [(column[name], name) for name in _PRICES]
        volume_at, real_at = _volumes_at(column)
        spread_at, symbol_at, timeframe_at = column.get("spread"), column.get("symbol"), column.get("timeframe")
        symbol = self.symbol or ""
        for cells in rows:
            try:
                if symbol_at is not None:
                    symbol = self._symbol_in(cells[symbol_at])
                if timeframe_at is not None and _timeframe_in(cells[timeframe_at]) != self.timeframe:
                    raise Unwanted("timeframe", f"it is of {cells[timeframe_at]}, not of {self.timeframe}")
                opening = self._opening(cells)
                if not self._is_opening(opening):
                    raise InvalidItem("time", f"no bar of {self.timeframe} opens then")
                open_, high, low, close = (number(cells[at], name) for at, name in prices_at)
                volume = 0.0 if volume_at is None else _optional(number, cells[volume_at], "volume")
                real = None if real_at is None else _optional(number, cells[real_at], "real_volume") or None
                self._is_traded = self._is_traded or not volume.is_integer()
                if self._is_traded:
                    volume, real = 0.0, volume or None
                spread = None if spread_at is None else optional_number(number, cells[spread_at], "spread")
                check_prices(open_, high, low, close, int(volume))
                bar = Bar(
                    self._utc_ms(opening, symbol), open_, high, low, close, int(volume), real,
                    # A fraction is a difference of prices, not points.
                    int(spread) if spread is not None and spread.is_integer() else None, symbol,
                )  # fmt: skip
            except InvalidItem as exc:
                self._skip(exc)
                continue
            yield bar


def inferred_timeframe(openings: Sequence[int]) -> str | None:
    """The longest timeframe that fits these opening times (milliseconds); it is at most their smallest distance.

    None when they are too few or out of order, or are days apart and open at no time at which bars of days, weeks or
    months do: those open by another clock. Bars a minute apart are of M1, however few.
    """
    if openings and openings[0] > openings[-1]:
        openings = openings[::-1]  # the newest stand first
    steps = [after - before for before, after in pairwise(openings)]
    shortest = min(steps, default=0)
    if shortest <= 0 or (len(openings) < _ENOUGH_BARS and shortest != TIMEFRAMES["M1"].width_ms):
        return None
    fitting = [
        timeframe.name
        for timeframe in TIMEFRAMES.values()
        if (timeframe.width_ms or _SHORTEST_MONTH_MS) <= shortest
        and all(opening_of(opening, timeframe.name) == opening for opening in openings)
    ]
    least = next((name for name in ("W1", "D1") if shortest >= (TIMEFRAMES[name].width_ms or 0)), "M1")
    names = list(TIMEFRAMES)
    return fitting[-1] if fitting and names.index(fitting[-1]) >= names.index(least) else None


def _volumes_at(column: dict[str, int]) -> tuple[int | None, int | None]:
    """The columns of the number of ticks and of the volume of deals: beside the first, `volume` is the second."""
    ticks, other, real = (column.get(name) for name in ("tick_volume", "volume", "volume_real"))
    return (other, real) if ticks is None else (ticks, other if real is None else real)


def _timeframe_in(cell: str) -> str:
    name = cell.strip().upper()
    return TIMEFRAME_NAMES.get(name, name.removeprefix("PERIOD_"))
