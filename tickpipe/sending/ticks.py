"""A tick file on its way to the producer: which of its ticks are sent, and how."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import typer

from marketdata.errors import TickpipeError
from marketdata.tick import ChartMode
from tickpipe.console import INTERRUPTED, epoch_ms, err, iso_utc, moment_of
from tickpipe.sending.batches import Posting, batches, batches_at_once, live
from tickpipe.sending.blocks import FileTick
from tickpipe.sending.columnfile import ColumnFile
from tickpipe.sending.dialects import Said
from tickpipe.sending.history import TickFile
from tickpipe.sending.options import Target
from tickpipe.sending.progress import BadLines, FileBar, SavedPlace, report, wait
from tickpipe.sending.sender import Outcome, PriceForm, TickSender
from tickpipe.sending.textfile import DataFileError

#: Ticks whose times are inspected before any is sent.
_SAMPLE_TICKS: Final = 1_000


@dataclass(frozen=True)
class SendOptions:
    """Which ticks of a file are sent, and how."""

    said: Said
    speed: float = 0.0
    batch: int = 200
    skip: int = 0
    from_: datetime | None = None
    point: float | None = None
    is_strict: bool = False


def send_ticks(file: Path, target: Target, how: SendOptions, place: SavedPlace | None = None) -> Outcome:
    """Post a tick file and report; after a failure, say how to continue.

    Args:
        place: where an earlier run of the same import ended, and where this one saves how far it came.

    Raises:
        UnknownForm, DataFileError: when the file cannot be read, or not beyond some line.
        ServerUnavailable, ServerRefused, SettingsError: as the sender.
    """
    started = time.monotonic()
    skip = how.skip if place is None else place.items
    bad = BadLines(file, target, wait, 0 if place is None else place.bad_lines)
    with bad, TickFile(file, how.said, on_bad=bad.take, is_strict=how.is_strict) as ticks:
        if missing := missing_symbol(ticks):
            raise typer.BadParameter(missing, param_hint="--symbol")
        form = _Form(ticks, how.point)
        sender = TickSender(
            target.address, target.api_key, form.of, source=target.source, patience_seconds=target.patience_seconds,
            on_wait=wait, user_agent="tickpipe-send" if place is None else "tickpipe-import",
        )  # fmt: skip
        bar = FileBar(ticks.symbol or file.name, ticks, started)
        last_msc: int | None = None

        def post(batch: tuple[list[FileTick], bool]) -> None:
            group, coarse = batch
            mode: ChartMode | None = None if ticks.has_quotes else "last"
            sender.set_form(coarse=coarse, are_instants=ticks.are_instants, mode=mode)
            sender.send(group)

        try:
            with bar, sender, Posting(post, is_ahead=place is not None) as posting:
                if how.speed or ticks.is_live:
                    groups = batches(_selected(form.ticks(), skip, how.from_), how.batch, how.speed)
                else:
                    groups = batches_at_once(_selected_at_once(form.all(), skip, how.from_), how.batch)
                for group in groups:
                    form.learn(group)
                    posting.add((group, form.coarse))
                    if place is not None:
                        place.reached(skip + sender.outcome.sent, bad.posted)
                    last_msc = group[-1].time_msc
                    bar.update(sender.outcome, last_msc)
                posting.finish()
                bad.flush()
        except (Exception, KeyboardInterrupt) as exc:
            if place is not None:
                place.interrupted(skip + sender.outcome.sent, bad.posted)
            elif sender.outcome.sent:
                report(sender.outcome, "ticks", time.monotonic() - started)
                # Ticks before --from were read and not sent, so there the time says where to go on.
                where = f"--skip {skip + sender.outcome.sent}" if how.from_ is None else _from_hint(last_msc, how.from_)
                err.print(f"Continue with the same command and {where}", markup=False, soft_wrap=True)
            if isinstance(exc, KeyboardInterrupt):
                raise typer.Exit(INTERRUPTED) from exc
            raise
        sender.outcome.add_skipped(ticks.skipped, ticks.reasons)
    report(sender.outcome, "ticks", time.monotonic() - started)
    return sender.outcome


def missing_symbol(file: ColumnFile[Any]) -> str:
    """What to do about a file that does not tell its symbol; empty when it does."""
    if file.symbol is not None or "symbol" in file.dialect.column_of:
        return ""
    return f"neither a column nor the name of {file.path} tells the symbol; pass --symbol"


def _selected(ticks: Iterator[FileTick | None], skip: int, from_: datetime | None) -> Iterator[FileTick | None]:
    """The ticks that are to be sent; each None, a pause of the feed, is passed on, and one comes before an error."""
    skipped = 0
    first_ms = None if from_ is None else epoch_ms(from_)
    try:
        for tick in ticks:
            if tick is not None and skipped < skip:
                skipped += 1
            elif tick is None or first_ms is None or tick.time_msc >= first_ms:
                yield tick
    except TickpipeError:
        yield None  # what was read before it is sent
        raise


def _selected_at_once(ticks: Iterator[FileTick], skip: int, from_: datetime | None) -> Iterator[FileTick]:
    """Like `_selected`, of a file that does not pause."""
    ticks = islice(ticks, skip, None) if skip else ticks
    if from_ is None:
        return ticks
    first_ms = epoch_ms(from_)
    return (tick for tick in ticks if tick.time_msc >= first_ms)


class _Form:
    """What the ticks so far say about all of them: decimals, size of a point, resolution of the times.

    Of a file, the first ticks are inspected before any is sent; of a live feed, those that have arrived.
    """

    def __init__(self, ticks: TickFile, point: float | None) -> None:
        self._file, self._point = ticks, point
        #: Whether all times are whole seconds.
        self.coarse = True

    def ticks(self) -> Iterator[FileTick | None]:
        """All ticks; None where a live feed pauses."""
        return live(self._file) if self._file.is_live else self.all()

    def all(self) -> Iterator[FileTick]:
        """All ticks of a file that does not pause."""
        sample: list[FileTick] = []
        damage: DataFileError | None = None
        try:
            for tick in islice(self._file, _SAMPLE_TICKS):
                sample.append(tick)
        except DataFileError as exc:
            damage = exc  # for when those before it were sent
        self.learn(sample)
        return chain(sample, self._rest(damage))

    def _rest(self, damage: DataFileError | None) -> Iterator[FileTick]:
        if damage is not None:
            raise damage
        yield from self._file

    def learn(self, ticks: Sequence[FileTick]) -> None:
        """Take the ticks that are sent next into account."""
        self.coarse = self.coarse and all(tick.time_msc % 1000 == 0 for tick in ticks)

    def of(self, symbol: str) -> PriceForm:
        """How the prices of a symbol are written."""
        digits = self._file.digits_of(symbol)
        return PriceForm(digits, float(f"1e-{digits}") if self._point is None and digits is not None else self._point)


def _from_hint(last_msc: int | None, from_: datetime) -> str:
    # The ticks of the last millisecond may be sent again: a resend adds nothing.
    return f"--from {iso_utc(from_ if last_msc is None else moment_of(last_msc))}"
