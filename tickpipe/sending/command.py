"""`tickpipe send`: posts a tick file to the producer, as if an EA had posted it."""

# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

import time
from dataclasses import dataclass
from datetime import datetime, tzinfo
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickpipe.connection import DataDir, producer_address
from tickpipe.console import DONE, INTERRUPTED, PROBLEM, TIME_HELP, epoch_ms, err, iso_utc, moment_of, out, time_option

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from marketdata.tick import Tick
    from tickpipe.sending.columnfile import ColumnFile
    from tickpipe.sending.history import TickFile
    from tickpipe.sending.sender import Outcome

#: Ticks that are inspected to guess the digits.
_SAMPLE_TICKS = 1_000

#: Decimals up to which 10**-digits is a point that an instrument has.
_MOST_DIGITS = 8


#: Options of every command that posts to a producer.
SourceOption = Annotated[
    str | None, typer.Option(help="Source to post for; needs a key that may. Default: the source of the key.")
]
UrlOption = Annotated[str | None, typer.Option(help="Address of the producer. Default: that of the stack.")]
KeyOption = Annotated[str | None, typer.Option(help="Key of the producer. Default: that of the stack.")]
ZoneOption = Annotated[
    str | None,
    typer.Option(
        "--zone",
        help="Clock of the file, such as America/New_York+07:00 or +02:00. Default: the producer's zone of the source.",
        metavar="ZONE",
    ),
]
PatienceOption = Annotated[
    float, typer.Option(min=0, help="How long to try again while the producer takes nothing (seconds).")
]


def send(
    file: Annotated[
        Path,
        typer.Argument(help="The tick file; - reads standard input, and posts what comes through a pipe as it comes."),
    ],
    *,
    symbol: Annotated[str, typer.Option("--symbol", "-s", help="Symbol of the ticks, for example EURUSD.")],
    source: SourceOption = None,
    speed: Annotated[float, typer.Option(min=0, help="0 as fast as it goes, 1 real time, 60 a minute a second.")] = 0.0,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Most ticks of one request.")] = 200,
    skip: Annotated[int, typer.Option(min=0, help="Skip the first ticks: continue where a run stopped.")] = 0,
    from_: Annotated[
        datetime | None,
        typer.Option("--from", parser=time_option, metavar="T", help=f"Skip ticks before T: {TIME_HELP}."),
    ] = None,
    digits: Annotated[
        int | None,
        typer.Option(min=0, max=_MOST_DIGITS, help="Decimals of a price. Default: guessed from the first ticks."),
    ] = None,
    point: Annotated[float | None, typer.Option(help="Size of a point. Default: 10^-digits.")] = None,
    zone: ZoneOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    patience: PatienceOption = 300.0,
    data_dir: DataDir = None,
) -> None:
    """Post a tick file through the producer, in order, until every tick is confirmed.

    Read are CSV with `time_msc,bid,ask` or `timestamp,bid,ask`, MetaTrader's own tick export, and the files of some
    data sites, each also compressed by gzip or zip. MetaTrader's export is in the broker's time: --zone, or the zone
    of the source (TICKPIPE_SOURCE_ZONES), makes it UTC; a time with an offset is never shifted. Sending a file twice
    changes no candle. A line that cannot be used is skipped and listed. Exit code 1 when there was one, or
    when a tick was rejected.

    Examples:

    * `tickpipe send eurusd-ticks.csv.gz --symbol EURUSD`
    * `tickpipe send EURUSD_201902040000.csv --symbol EURUSD --source ICMarkets-Demo`
    * `tickpipe send eurusd-ticks.csv.gz --symbol EURUSD --speed 60 --from 2019-02-04T08:00`
    * `my-feed | tickpipe send - --symbol EURUSD --digits 5`
    """
    if str(file) != "-" and not file.is_file():
        raise typer.BadParameter(f"there is no file {file}", param_hint="FILE")
    address, api_key = producer_address(data_dir, url, key, source)
    target = Target(address, api_key, source, patience)
    options = SendOptions(symbol, speed, batch, skip, from_, digits, point, zone_named(zone))
    outcome = send_ticks(file, target, options)
    raise typer.Exit(PROBLEM if outcome.rejected or outcome.skipped else DONE)


def zone_named(name: str | None) -> tzinfo | None:
    """The zone that an option names; anything else is wrong use."""
    from runtime.settings import parse_zone

    try:
        return None if name is None else parse_zone(name)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--zone") from exc


@dataclass(frozen=True)
class Target:
    """Where ticks and bars are posted."""

    address: str
    api_key: str
    source: str | None
    patience_seconds: float


@dataclass(frozen=True)
class SendOptions:
    """Which ticks of a file are sent, and how."""

    symbol: str
    speed: float = 0.0
    batch: int = 200
    skip: int = 0
    from_: datetime | None = None
    digits: int | None = None
    point: float | None = None
    zone: tzinfo | None = None


def send_ticks(file: Path, target: Target, how: SendOptions) -> "Outcome":
    """Post a tick file and report; after a failure, say how to continue.

    Raises:
        DataFileError: when the file cannot be read beyond some line.
        ServerUnavailable, ServerRefused, SettingsError: as the sender.
    """
    from tickpipe.sending.history import TickFile
    from tickpipe.sending.sender import TickSender, batches

    started = time.monotonic()
    with TickFile(file, symbol=how.symbol, zone=how.zone) as ticks:
        bar = FileBar(how.symbol, ticks, started)
        sender = TickSender(
            target.address, target.api_key, how.symbol, source=target.source, patience_seconds=target.patience_seconds,
            on_wait=bar.wait,
        )  # fmt: skip
        form = _Form(ticks, how.digits, how.point)
        last_msc: int | None = None
        try:
            with bar, sender:
                for group in batches(_selected(form.ticks(), how), how.batch, how.speed):
                    form.learn(group)
                    sender.set_form(
                        digits=form.digits, point=form.point, coarse=form.coarse, are_instants=ticks.are_instants
                    )
                    sender.send(group)
                    last_msc = group[-1].time_msc
                    bar.update(sender.outcome, last_msc)
        except (Exception, KeyboardInterrupt) as exc:
            if sender.outcome.sent:
                report(sender.outcome, "ticks", time.monotonic() - started)
                # Ticks before --from were read and not sent, so there the time says where to go on.
                where = (
                    f"--skip {how.skip + sender.outcome.sent}" if how.from_ is None else _from_hint(last_msc, how.from_)
                )
                err.print(f"Continue with the same command and {where}", markup=False, soft_wrap=True)
            if isinstance(exc, KeyboardInterrupt):
                raise typer.Exit(INTERRUPTED) from exc
            raise
        add_skipped(sender.outcome, ticks)
    report(sender.outcome, "ticks", time.monotonic() - started)
    return sender.outcome


def add_skipped(outcome: "Outcome", file: "ColumnFile[Any]") -> None:
    """Count the lines of a file that were skipped."""
    outcome.skipped = file.skipped
    outcome.reasons += file.reasons


def _selected(ticks: "Iterator[Tick | None]", how: SendOptions) -> "Iterator[Tick | None]":
    """The ticks that are to be sent; each None, a pause of the feed, is passed on."""
    skipped = 0
    first_ms = None if how.from_ is None else epoch_ms(how.from_)
    for tick in ticks:
        if tick is not None and skipped < how.skip:
            skipped += 1
        elif tick is None or first_ms is None or tick.time_msc >= first_ms:
            yield tick


class _Form:
    """What the ticks so far say about all of them: decimals, size of a point, resolution of the times.

    Of a file, the first ticks are inspected before any is sent; of a live feed, those that have arrived.
    """

    def __init__(self, ticks: "TickFile", digits: int | None, point: float | None) -> None:
        self._file, self._digits, self._point = ticks, digits, point
        #: Whether all times are whole seconds.
        self.coarse = True

    def ticks(self) -> "Iterator[Tick | None]":
        """All ticks; None where a live feed pauses."""
        from tickpipe.sending.sender import live

        if self._file.is_live:
            return live(self._file)
        sample = list(islice(self._file, _SAMPLE_TICKS))
        self.learn(sample)
        return chain(sample, self._file)

    def learn(self, ticks: "Sequence[Tick]") -> None:
        """Take the ticks that are sent next into account."""
        self.coarse = self.coarse and all(tick.time_msc % 1000 == 0 for tick in ticks)

    @property
    def digits(self) -> int | None:
        return self._file.digits if self._digits is None else self._digits

    @property
    def point(self) -> float | None:
        digits = self.digits
        return float(f"1e-{digits}") if self._point is None and digits is not None else self._point


class FileBar:
    """The progress bar of a file: how far in it, items a second, time left; items are not counted beforehand."""

    def __init__(self, symbol: str, file: "ColumnFile[Any]", started: float, noun: str = "ticks") -> None:
        from tickpipe.console import Bar

        self._file, self._started, self._noun = file, started, noun
        self._bar = Bar(symbol, file.total_bytes)

    def __enter__(self) -> None:
        self._bar.__enter__()

    def __exit__(self, *exc_info: Any) -> None:
        self._bar.__exit__(*exc_info)

    def update(self, outcome: "Outcome", last_msc: int) -> None:
        """Show what the producer has answered so far."""
        per_second = outcome.sent / max(1e-3, time.monotonic() - self._started)
        detail = f"{outcome.sent:,} {self._noun}  {per_second:,.0f}/s  {iso_utc(moment_of(last_msc))}"
        self._bar.update(self._file.read_bytes, detail)

    def wait(self, why: str, seconds: float) -> None:
        """Say why the producer takes nothing at the moment, and when the next try is."""
        err.print(f"{why}; next try in {seconds:.1f} s", markup=False, soft_wrap=True)


def _from_hint(last_msc: int | None, from_: datetime) -> str:
    # The ticks of the last millisecond may be sent again: a resend adds nothing.
    return f"--from {iso_utc(from_ if last_msc is None else moment_of(last_msc))}"


def report(outcome: "Outcome", noun: str, seconds: float) -> None:
    """Print how many items were sent, accepted and rejected, and why."""
    out.print(
        f"{outcome.sent:,} {noun} sent, {outcome.accepted:,} accepted, {outcome.rejected:,} rejected, {seconds:.1f} s"
        + (f"; {outcome.skipped:,} lines could not be used" if outcome.skipped else ""),
        markup=False,
    )
    for reason in outcome.reasons:
        err.print(f"  {reason}", markup=False, soft_wrap=True)
