"""`tickpipe replay`: makes the stream workers fold a range of the log again."""

# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from tickpipe.connection import DataDir, StackServices, connected_settings, data_directory
from tickpipe.console import (
    DONE,
    INTERRUPTED,
    PROBLEM,
    TIME_HELP,
    ask,
    epoch_ms,
    err,
    iso_utc,
    out,
    parse_time,
    print_table,
    require_consent,
    run,
    time_option,
)

if TYPE_CHECKING:
    from runtime.settings import Settings
    from sink.verify import VerifyReport
    from tickpipe.replay.engine import PartitionPlan

#: Names of the stack's stream workers.
_WORKER = re.compile(r"stream(-\d+)?")

#: Candles that wait for a refold by the sink are verified again after this long (seconds), up to so many times.
_REFOLD_SECONDS, _REFOLD_TRIES = 3.0, 20

_STOP_ELSEWHERE = (
    "stop every stream worker first: `docker compose stop stream`, or in Kubernetes scale the stream app to 0 "
    "replicas; then run the same command again"
)
_START_ELSEWHERE = (
    "The offsets are reset. Now start the stream workers: `docker compose start stream`, or in Kubernetes scale the "
    "stream app up again."
)


def margin_option(text: str) -> timedelta:
    """A length of time such as 90m, 1h or 2d, for typer."""
    now = datetime.now(UTC)
    try:
        return now - parse_time(f"-{text}", now=now)
    except ValueError as exc:
        raise typer.BadParameter(f"{text!r} is no length of time; use one such as 90m, 1h or 2d") from exc


def replay(
    *,
    from_: Annotated[
        datetime,
        typer.Option("--from", parser=time_option, metavar="T", help=f"Fold from the minute of T on: {TIME_HELP}."),
    ],
    to: Annotated[
        datetime | None,
        typer.Option(
            parser=time_option,
            metavar="T",
            help="Verify up to T, which is not included. The stream always folds on to the end of the log.",
        ),
    ] = None,
    symbol: Annotated[str | None, typer.Option("--symbol", "-s", help="Verify this symbol only.")] = None,
    source: Annotated[
        str | None,
        typer.Option(help="Verify this source only."),
    ] = None,
    margin: Annotated[
        timedelta,
        typer.Option(
            parser=margin_option,
            metavar="LENGTH",
            help="How long before T the log is searched from: longer than one request's ticks span.",
        ),
    ] = "1h",  # type: ignore[assignment]  # typer parses the default as well
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be folded again.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    patience: Annotated[float, typer.Option(min=1, help="Give up when nothing moves for so long (seconds).")] = 600.0,
    data_dir: DataDir = None,
) -> None:
    """Fold history again: set the stream group back to T and let it come to the end of the log, then verify.

    Mends candles that are missing or came out wrong, and changes nothing else: a fold that equals the stored one, or
    holds less than it, is not written. The stream always goes on to the end of the log; `--to` bounds the verification
    only. Meanwhile ticks are still accepted, and candles of new ticks come late by as long as the replay takes.

    The stream workers of the embedded stack are stopped and started again, also after Ctrl-C. Elsewhere you stop and
    start them when the command says so. Exit code 1 when a candle of the range differs from its fold.

    Examples:

    * `tickpipe replay --from 2019-02-04 --dry-run`
    * `tickpipe replay --from -2h`
    * `tickpipe replay --from 2019-02-04T08:00 --to 2019-02-04T12:00 --symbol EURUSD --source ICMarkets-Demo --yes`
    """
    if to is not None and to <= from_:
        raise typer.BadParameter("it is not after --from", param_hint="--to")
    if not dry_run:
        require_consent(yes, look="--dry-run")
    settings = connected_settings(data_dir)
    wanted = _Range(from_.replace(second=0, microsecond=0), to, symbol, source)
    _fold_again(settings, data_directory(data_dir), wanted, margin, patience, dry_run=dry_run, yes=yes)
    report = run(_verify(settings, wanted))
    _show_report(report, wanted)
    nothing_proven = bool(report.unprovable) and not report.checked
    raise typer.Exit(PROBLEM if report.differences or nothing_proven else DONE)


def _fold_again(
    settings: "Settings",
    directory: Path,
    wanted: "_Range",
    margin: timedelta,
    patience: float,
    *,
    dry_run: bool,
    yes: bool,
) -> None:
    plans = run(_plan(settings, wanted, margin))
    _show_plans(plans)
    if dry_run:
        out.print("Nothing was changed.")
        raise typer.Exit(DONE)
    is_archived = any(one.archived for one in plans)
    if is_archived or any(one.is_reset for one in plans):
        ask("Fold these records again?", yes)
    if any(one.is_reset for one in plans):
        _Replay(settings, directory, plans, patience).run()
    elif not is_archived:
        out.print("The stream has nothing to fold again: there is no record from that time on, or it is not there yet.")

    if is_archived:
        # What Kafka no longer holds cannot go through the workers.
        with err.status("folding what the archive holds"):
            stored = run(_store_archived(settings, wanted))
        out.print(f"{stored:,} candles stored that were missing or differed from what the archive holds")


async def _store_archived(settings: "Settings", wanted: "_Range") -> int:
    from sink.verify import verify

    return (await verify(settings, from_=wanted.minute, complete=True, repair=True)).repaired


@dataclass(frozen=True)
class _Range:
    """What is verified: minutes from `minute` up to `to`."""

    minute: datetime
    to: datetime | None
    symbol: str | None
    source: str | None


async def _plan(settings: "Settings", wanted: _Range, margin: timedelta) -> list["PartitionPlan"]:
    from tickpipe.replay.engine import plan

    return await plan(settings, epoch_ms(wanted.minute), margin_ms=margin // timedelta(milliseconds=1))


def _show_plans(plans: list["PartitionPlan"]) -> None:
    columns = ("partition", "committed", "from", "end", "records")
    print_table(columns, [(one.partition, one.committed, one.begin, one.end, one.records) for one in plans])
    out.print(f"{sum(one.records for one in plans):,} records to fold")
    if archived := sum(one.archived for one in plans):
        out.print(f"{archived:,} older ones are in the archive alone and are folded from there.")


class _Replay:
    """Stops the workers, resets the offsets, starts the workers, and follows them to the end of the log."""

    def __init__(self, settings: "Settings", directory: Path, plans: list["PartitionPlan"], patience: float) -> None:
        self._settings, self._plans, self._patience = settings, plans, patience
        self._workers = StackServices(directory, _WORKER)
        self._is_reset = False

    def run(self) -> None:
        """Replay, and return when everything is folded and stored."""
        try:
            with _stopped(self._workers):
                run(self._reset())
            if not self._workers.names:
                err.print(_START_ELSEWHERE, markup=False, soft_wrap=True)
            run(self._follow())
        except KeyboardInterrupt as exc:
            outcome = "the stream folds on by itself" if self._is_reset else "nothing was changed"
            err.print(f"Interrupted; {outcome}. `tickpipe status` shows the lag.", markup=False, soft_wrap=True)
            raise typer.Exit(INTERRUPTED) from exc

    async def _reset(self) -> None:
        from tickpipe.replay.engine import SESSION_OVER_SECONDS, GroupActive, reset, wait_until_empty

        try:
            with err.status("") as status:
                await wait_until_empty(
                    self._settings,
                    lambda members, waited: status.update(
                        f"waiting until Kafka has let go of {members} stopped workers: "
                        f"{waited:.0f} of at most {SESSION_OVER_SECONDS:.0f} s"
                    ),
                )
            await reset(self._settings, self._plans)
        except GroupActive as exc:
            raise GroupActive(f"{exc}; {_STOP_ELSEWHERE}") from exc
        self._is_reset = True

    async def _follow(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        from tickpipe.replay.engine import follow_sink, follow_stream

        started = time.monotonic()
        total = sum(one.records for one in self._plans)
        progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[detail]}"), TimeRemainingColumn(),
            console=err, transient=True,
        )  # fmt: skip
        with progress:
            folding = progress.add_task("folding", total=total, detail="waiting for the stream workers")
            await follow_stream(
                self._settings, self._plans, _show_on(progress, folding, total), patience_seconds=self._patience
            )
            folded_seconds = time.monotonic() - started
            storing = progress.add_task("storing", total=None, detail="")
            await follow_sink(
                self._settings,
                lambda candles: progress.update(storing, total=candles),
                lambda done: progress.update(storing, completed=done, detail=f"{done:,} candles"),
                patience_seconds=self._patience,
            )
        seconds = time.monotonic() - started
        out.print(
            f"{total:,} records folded in {folded_seconds:.1f} s ({total / max(folded_seconds, 1e-3):,.0f} a second), "
            f"candles stored after {seconds:.1f} s",
            markup=False,
        )


def _show_on(progress: Any, task: Any, total: int) -> Callable[[int], None]:
    """A callback that shows on the bar how many records the stream has folded."""
    started = time.monotonic()

    def show(done: int) -> None:
        if done == 0:
            return
        per_second = done / max(1e-3, time.monotonic() - started)
        # The newest minutes are committed when they are over.
        last = "" if done < total * 0.95 else "  the last minutes wait until they are over"
        progress.update(task, completed=done, detail=f"{done:,} of {total:,} records  {per_second:,.0f}/s{last}")

    return show


@contextmanager
def _stopped(workers: StackServices) -> Iterator[None]:
    """Stop the workers for the block, and start them again however it ends."""
    if not workers.names:
        yield
        return
    with _signals(_end):
        try:
            workers.stop()
            yield
        finally:
            # The workers must start again, whatever signal arrives.
            with _signals(signal.SIG_IGN, signal.SIGINT):
                workers.start()


def _end(number: int, _: FrameType | None) -> NoReturn:
    """What SIGTERM and SIGHUP do while workers are stopped: end like an error, so that they are started again."""
    raise SystemExit(128 + number)


@contextmanager
def _signals(handler: Any, *more: signal.Signals) -> Iterator[None]:
    """Handle SIGTERM, SIGHUP where there is one, and `more` with `handler` within the block."""
    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []), *more]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


async def _verify(settings: "Settings", wanted: _Range) -> "VerifyReport":
    import asyncio

    from sink.verify import verify

    for _ in range(_REFOLD_TRIES):
        with err.status("verifying"):
            report = await verify(
                settings, symbol=wanted.symbol, source=wanted.source, from_=wanted.minute, to=wanted.to
            )
        if not report.pending:
            break
        # Where neither fold contains the other, the sink will soon fold both together.
        await asyncio.sleep(_REFOLD_SECONDS)
    return report


def _show_report(report: "VerifyReport", wanted: _Range) -> None:
    different = report.checked - report.equal
    out.print(f"{report.checked:,} candles checked, {report.equal:,} equal, {different:,} different")
    if report.pending:
        out.print(f"{len(report.pending):,} candles still wait for a refold by the sink and were not checked.")
    if report.unprovable:
        out.print(f"{len(report.unprovable):,} candles cannot be proven: the log no longer holds their offsets.")
    if report.differences:
        bounds = f"--from {iso_utc(wanted.minute)}" + (f" --to {iso_utc(wanted.to)}" if wanted.to else "")
        err.print(f"See them with `tickpipe verify {bounds}`, store their folds with --repair.", markup=False)
