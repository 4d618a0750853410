"""What makes our candles differ from the broker's bars, as far as the numbers tell. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum
from itertools import groupby
from typing import Any, Final, NamedTuple

#: A row of the comparison by minute, by the names of its columns.
Row = Mapping[str, Any]

_PRICES: Final = ("open", "high", "low", "close")

#: Offsets of zones are multiples of it, and none is further from another.
_CLOCK_STEP: Final = timedelta(minutes=15)
_CLOCK_STEPS: Final = 26 * 4

#: What concerns a whole series shows in so many minutes, and in such a share of them: some agree or differ by chance.
_SERIES_MINUTES: Final = 10
_SERIES_SHARE: Final = 0.9


class Cause(Enum):
    """What probably happened; the text says what to look at."""

    CLOCK = (
        "the clock: our minutes are the broker's bars {shift}; look at the zone of the source (TICKPIPE_SOURCE_ZONES)"
    )
    NO_TICKS = "no ticks came, though the broker has bars: was the EA, the PC or the network away?"
    NO_BAR = "the broker has no bar, though ticks came: is its file of bars complete?"
    OPEN_BAR = "the broker's bar was still forming when it was read: send or import it again"
    CHART = (
        "the broker charts it by its deals, we chart it by the bid: name it in TICKPIPE_LAST_MODE_SYMBOLS, or let the "
        "sender say `mode` last"
    )
    DEALS = (
        "quotes counted as deals: MetaTrader repeats the last deal in every quote; does the sender leave out `flags`?"
    )
    REAL_VOLUME = "the real volume alone differs: does the sender leave out the volume of deals (`volume_real`)?"
    SPREAD = (
        "the spread alone is counted in other units: look at the symbol's `point` or `digits`, and at the bars' spread"
    )
    MORE_TICKS = "ticks were counted twice, or the bar was read before its last ticks: prices agree"
    FEWER_TICKS = "ticks were lost, or never sent: does the EA send every tick, or only the newest at each look?"
    PRICE = "the same number of ticks with other prices: bid or last (`mode`), or bars of another server or account?"


class Diagnosis(NamedTuple):
    """A likely cause and the minutes of one series that it explains."""

    symbol: str
    source: str
    cause: Cause
    minutes: list[datetime]
    #: How far our times are ahead of the broker's; for CLOCK only.
    ahead: timedelta = timedelta()

    def __str__(self) -> str:
        first, count = self.minutes[0], len(self.minutes)
        where = f"{first:%Y-%m-%d %H:%M}" if count == 1 else f"{count} minutes from {first:%Y-%m-%d %H:%M} on"
        return f"{self.symbol} of {self.source}, {where}: {self.cause.value.format(shift=_shift(self.ahead))}"


def diagnose(rows: Sequence[Row]) -> list[Diagnosis]:
    """The likely causes in rows of the comparison by minute, which come by symbol and source and in order of time."""
    return [
        found
        for (symbol, source), series in groupby(rows, lambda row: (row["symbol"], row["source"]))
        for found in _of_series(symbol, source, list(series))
    ]


def _of_series(symbol: str, source: str, rows: list[Row]) -> Iterator[Diagnosis]:
    different = [row for row in rows if row["verdict"] != "equal"]
    if ahead := _clock_difference(rows):
        yield Diagnosis(symbol, source, Cause.CLOCK, [row["ts"] for row in different], ahead)
        return
    counting = _counting_cause(different)
    causes = [(counting if counting in _counting_causes(row) else _cause(row), row["ts"]) for row in different]
    for cause in Cause:
        if minutes := [ts for found, ts in causes if found is cause]:
            yield Diagnosis(symbol, source, cause, minutes)


def _counting_cause(rows: Sequence[Row]) -> Cause | None:
    """What makes nearly every minute of a symbol that the broker charts by last count too many ticks, if it is so."""
    compared = [row for row in rows if row["verdict"] == "differs"]
    too_many = [_counting_causes(row) for row in compared if row["volume"] > row["broker_volume"]]
    for cause in (Cause.CHART, Cause.DEALS):
        found = sum(cause in causes for causes in too_many)
        if found >= max(_SERIES_MINUTES, len(compared) * _SERIES_SHARE):
            return cause
    return None


def _counting_causes(row: Row) -> tuple[Cause, ...]:
    """What may make a minute differ where it makes nearly all others differ; alone it proves little."""
    if row["verdict"] == "no_bar":
        return (Cause.CHART, Cause.DEALS)  # by last, a minute of quotes alone has none
    if row["verdict"] == "no_candle" or not row["broker_real_volume"]:
        return ()
    if row["real_volume"] == row["broker_real_volume"]:
        return () if set(row["differing"]).isdisjoint(_PRICES) else (Cause.CHART,)
    return (Cause.DEALS,) if row["real_volume"] > row["broker_real_volume"] else ()


def _cause(row: Row) -> Cause:
    if row["verdict"] != "differs":
        return Cause.NO_TICKS if row["verdict"] == "no_candle" else Cause.NO_BAR
    differing = set(row["differing"])
    if differing == {"spread"}:
        return Cause.SPREAD
    prices_differ = not differing.isdisjoint(_PRICES)
    more_ticks = row["volume"] - row["broker_volume"]
    if more_ticks > 0:
        return (
            Cause.OPEN_BAR
            if prices_differ and _is_part(row)
            else Cause.MORE_TICKS
            if not prices_differ
            else Cause.PRICE
        )
    if more_ticks < 0:
        return Cause.FEWER_TICKS
    if "real_volume" in differing:
        repeats = row["real_volume"] > row["broker_real_volume"]
        return Cause.DEALS if repeats else Cause.PRICE if prices_differ else Cause.REAL_VOLUME
    return Cause.PRICE


def _is_part(row: Row) -> bool:
    """Whether the broker's bar may be the beginning of our minute."""
    within = row["broker_high"] <= row["high"] and row["broker_low"] >= row["low"]
    return bool(row["open"] == row["broker_open"] and within)


def _clock_difference(rows: Sequence[Row]) -> timedelta:
    """How far our times are ahead of the broker's, when the same minutes agree under another clock; else 0."""
    ours = {row["ts"]: _prices_of(row, "") for row in rows if row["open"] is not None}
    theirs = {row["ts"]: _prices_of(row, "broker_") for row in rows if row["broker_open"] is not None}
    if sum(theirs.get(ts) == prices for ts, prices in ours.items()) > len(ours) * (1 - _SERIES_SHARE):
        return timedelta()
    # A small difference is likelier than a large one.
    for step in sorted(range(-_CLOCK_STEPS, _CLOCK_STEPS + 1), key=abs):
        ahead = step * _CLOCK_STEP
        pairs = [(prices, theirs[ts - ahead]) for ts, prices in ours.items() if ts - ahead in theirs]
        agreeing = sum(one == other for one, other in pairs)
        if step and agreeing >= max(_SERIES_MINUTES, len(pairs) * _SERIES_SHARE):
            return ahead
    return timedelta()


def _prices_of(row: Row, whose: str) -> tuple[float, ...]:
    return tuple(row[whose + name] for name in _PRICES)


def _shift(ahead: timedelta) -> str:
    minutes = round(abs(ahead) / timedelta(minutes=1))
    return f"{minutes // 60}:{minutes % 60:02d} h {'later' if ahead > timedelta() else 'earlier'}"
