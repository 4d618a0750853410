"""`tickpipe send`: a tick file goes through the producer, as if an EA had posted it."""

# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

import time
from collections.abc import Iterator
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tickpipe.connection import DataDir, producer_address
from tickpipe.console import DONE, PROBLEM, err, out
from tickpipe.times import TIME_HELP, epoch_ms, iso_utc, moment_of, time_option

if TYPE_CHECKING:
    from marketdata.tick import Tick
    from tickpipe.sender import Outcome
    from tickpipe.tickfile import TickFile

#: Ticks that are looked at to guess the digits.
_SAMPLE_TICKS = 1_000

#: What a shell reports for a command that Ctrl-C ended: 128 + SIGINT.
_INTERRUPTED = 130

#: Decimals up to which 10**-digits is a point that an instrument has.
_MOST_DIGITS = 8


def send(
    file: Annotated[
        Path,
        typer.Argument(help="The tick file; - reads standard input."),
    ],
    *,
    symbol: Annotated[str, typer.Option("--symbol", "-s", help="Symbol of the ticks, for example EURUSD.")],
    source: Annotated[
        str | None, typer.Option(help="Source to post for; needs a key that may. Default: the source of the key.")
    ] = None,
    speed: Annotated[float, typer.Option(min=0, help="0 as fast as it goes, 1 real time, 60 a minute a second.")] = 0.0,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Most ticks of one request.")] = 200,
    skip: Annotated[int, typer.Option(min=0, help="Pass over the first ticks: go on where a run stopped.")] = 0,
    from_: Annotated[
        datetime | None,
        typer.Option("--from", parser=time_option, metavar="T", help=f"Pass over ticks before T: {TIME_HELP}."),
    ] = None,
    digits: Annotated[
        int | None,
        typer.Option(min=0, max=_MOST_DIGITS, help="Decimals of a price. Default: guessed from the first ticks."),
    ] = None,
    point: Annotated[float | None, typer.Option(help="Size of a point. Default: 10^-digits.")] = None,
    url: Annotated[str | None, typer.Option(help="Address of the producer. Default: that of the stack.")] = None,
    key: Annotated[str | None, typer.Option(help="Key of the producer. Default: that of the stack.")] = None,
    patience: Annotated[
        float, typer.Option(min=0, help="How long to try again while the producer takes nothing (seconds).")
    ] = 300.0,
    data_dir: DataDir = None,
) -> None:
    """Post a tick file through the producer, in order, until every tick is confirmed.

    Read are CSV with `time_msc,bid,ask`, CSV with `timestamp,bid,ask` (ISO-8601), and MetaTrader's own
    tick export, each also compressed by gzip. MetaTrader's export is in the broker's time: the zone of the source
    (TICKPIPE_SOURCE_ZONES) makes it UTC. Sending a file twice changes no candle. Exit code 1 when a tick was rejected.

    Examples:

    * `tickpipe send eurusd-ticks.csv.gz --symbol EURUSD`
    * `tickpipe send EURUSD_201902040000.csv --symbol EURUSD --source ICMarkets-Demo`
    * `tickpipe send eurusd-ticks.csv.gz --symbol EURUSD --speed 60 --from 2019-02-04T08:00`
    """
    from tickpipe.pace import batches
    from tickpipe.sender import TickSender
    from tickpipe.tickfile import TickFile

    if str(file) != "-" and not file.is_file():
        raise typer.BadParameter(f"there is no file {file}", param_hint="FILE")
    address, api_key = producer_address(data_dir, url, key, source)
    started = time.monotonic()
    with TickFile(file) as ticks:
        form = _Form(ticks, digits, point)
        stream: Iterator[Tick] = islice(form.ticks, skip, None)
        if from_ is not None:
            first_ms = epoch_ms(from_)
            stream = (tick for tick in stream if tick.time_msc >= first_ms)
        bar = _Bar(symbol, ticks, started)
        sender = TickSender(
            address, api_key, symbol, source=source, digits=form.digits, point=form.point, coarse=form.coarse,
            patience_seconds=patience, on_wait=bar.wait,
        )  # fmt: skip
        last_msc: int | None = None
        try:
            with bar, sender:
                for group in batches(stream, batch, speed):
                    sender.send(group)
                    last_msc = group[-1].time_msc
                    bar.update(sender.outcome, last_msc)
        except (Exception, KeyboardInterrupt) as exc:
            if sender.outcome.sent:
                _report(sender.outcome, time.monotonic() - started)
                # Ticks before --from were read and not sent, so there the time says where to go on.
                where = f"--skip {skip + sender.outcome.sent}" if from_ is None else _from_hint(last_msc, from_)
                err.print(f"Go on with the same command and {where}", markup=False, soft_wrap=True)
            if isinstance(exc, KeyboardInterrupt):
                raise typer.Exit(_INTERRUPTED) from exc
            raise
    _report(sender.outcome, time.monotonic() - started)
    raise typer.Exit(PROBLEM if sender.outcome.rejected else DONE)


class _Form:
    """What the first ticks of a file tell about all: decimals, size of a point, resolution of the times."""

    def __init__(self, ticks: "TickFile", digits: int | None, point: float | None) -> None:
        from tickpipe.tickfile import digits_of

        sample = list(islice(ticks, _SAMPLE_TICKS))
        self.digits = digits_of(sample) if digits is None else digits
        self.point = float(f"1e-{self.digits}") if point is None and self.digits is not None else point
        self.coarse = all(tick.time_msc % 1000 == 0 for tick in sample)
        #: All ticks of the file, those that were looked at included.
        self.ticks: Iterator[Tick] = chain(sample, ticks)


class _Bar:
    """The progress bar: how far in the file, ticks a second, time left; ticks are not counted beforehand."""

    def __init__(self, symbol: str, ticks: "TickFile", started: float) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._ticks, self._started = ticks, started
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"), TimeRemainingColumn(),
            console=err, transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task(symbol, total=ticks.total_bytes, said="")

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *exc_info: object) -> None:
        self._progress.stop()

    def update(self, outcome: "Outcome", last_msc: int) -> None:
        ticks_per_second = outcome.sent / max(1e-3, time.monotonic() - self._started)
        said = f"{outcome.sent:,} ticks  {ticks_per_second:,.0f}/s  {iso_utc(moment_of(last_msc))}"
        self._progress.update(self._task, completed=self._ticks.read_bytes, said=said)

    def wait(self, why: str, seconds: float) -> None:
        err.print(f"{why}; next try in {seconds:.1f} s", markup=False, soft_wrap=True)


def _from_hint(last_msc: int | None, from_: datetime) -> str:
    # The ticks of the last millisecond may be sent again: a resend adds nothing.
    return f"--from {iso_utc(from_ if last_msc is None else moment_of(last_msc))}"


def _report(outcome: "Outcome", seconds: float) -> None:
    out.print(
        f"{outcome.sent:,} ticks sent, {outcome.accepted:,} accepted, {outcome.rejected:,} rejected, {seconds:.1f} s",
        markup=False,
    )
    for reason in outcome.reasons:
        err.print(f"  {reason}", markup=False)
