"""Times as people type them on the command line, and as the output shows them: always UTC."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

#: What the help of every option that takes a time says.
TIME_HELP = "2019-02-04, 2019-02-04T10:30, 2019-02-04T12:30+02:00 (no zone means UTC), now, -1h, -2d"

_AGO = re.compile(r"-(\d{1,9})([smhdw])", re.ASCII)
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_time(text: str, *, now: datetime | None = None) -> datetime:
    """The moment that `text` names, in UTC: an ISO date or time, `now`, or how long ago (`-90s -5m -1h -2d -1w`).

    Raises:
        ValueError: with the accepted forms when it names none.
    """
    now = now or datetime.now(UTC)
    text = text.strip()
    if text.lower() == "now":
        return now
    try:
        if ago := _AGO.fullmatch(text.lower()):
            return now - timedelta(seconds=int(ago[1]) * _UNIT_SECONDS[ago[2]])
        return as_utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError) as exc:
        raise ValueError(f"{text!r} is no time; use one of: {TIME_HELP}") from exc


def time_option(text: str) -> datetime:
    """`parse_time` for typer: anything else is wrong use."""
    try:
        return parse_time(text)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc


#: Options of every command that reads a range of time.
FromTime = Annotated[
    datetime | None, typer.Option("--from", parser=time_option, metavar="T", help=f"From T, included: {TIME_HELP}.")
]
ToTime = Annotated[
    datetime | None, typer.Option("--to", parser=time_option, metavar="T", help="Up to T, which is not included.")
]


def as_utc(moment: datetime) -> datetime:
    """The same moment in UTC; without a zone it is taken as UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def epoch_ms(moment: datetime) -> int:
    """UTC epoch milliseconds of a moment, without going through floating point."""
    return (as_utc(moment) - _EPOCH) // timedelta(milliseconds=1)


def moment_of(time_msc: int) -> datetime:
    """The moment of UTC epoch milliseconds."""
    return _EPOCH + timedelta(milliseconds=time_msc)


def iso_utc(moment: datetime) -> str:
    """`2019-02-04T00:00:00Z`, with milliseconds or microseconds only where there are some."""
    naive = as_utc(moment).replace(tzinfo=None)
    fraction = naive.microsecond and ("microseconds" if naive.microsecond % 1000 else "milliseconds")
    return naive.isoformat(timespec=fraction or "seconds") + "Z"
