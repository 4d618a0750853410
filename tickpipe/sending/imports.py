"""Files to be imported: what each holds, what a dry run shows of it, and how bars and archives are sent."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import msgspec
import typer

from marketdata.contract.http import BARS_ROUTE
from marketdata.contract.times import time_of
from marketdata.errors import InvalidItem, TickpipeError
from tickpipe.console import INTERRUPTED, err, iso_utc, moment_of, out, print_table
from tickpipe.sending.archives import ArchiveFile, Origin, Posted, is_archive
from tickpipe.sending.batches import Posting
from tickpipe.sending.columnfile import BadLine, ColumnFile, kind_of
from tickpipe.sending.dialects import Kind, Said, UnknownForm
from tickpipe.sending.document import Written
from tickpipe.sending.history import Bar, BarFile, TickFile
from tickpipe.sending.options import Target
from tickpipe.sending.progress import BadLines, FileBar, SavedPlace, report, wait
from tickpipe.sending.sender import BarSender, ItemSender, Outcome
from tickpipe.sending.ticks import missing_symbol

ARCHIVE: Final = "archive"

#: Bars of one request: far below the producer's limit of 64 MB.
_BATCH_BARS: Final = 1_000

#: First rows that a dry run shows as they were read.
_SHOWN_ROWS: Final = 3

#: Options that are called otherwise than what they say.
_OPTION_OF: Final = {"time_form": "--date-format", "closes": "--bar-times"}


@dataclass(frozen=True)
class Import:
    """A file and what it holds."""

    path: Path
    #: A `Kind`, or ARCHIVE.
    kind: str
    said: Said
    #: What is shown: `ticks`, `M1 bars`.
    holds: str
    symbol: str = ""
    timeframe: str | None = None
    #: What has to be said before it can be sent; empty when nothing has.
    missing: str = ""


def recognised(path: Path, said: Said) -> Import:
    """The file with what it holds.

    Raises:
        UnknownForm, DataFileError: when that cannot be recognised.
        typer.BadParameter: when the options do not fit such a file.
    """
    if is_archive(path):
        _check_said_of_archive(path, said)
        return Import(path, ARCHIVE, said, "archive of requests")
    if kind_of(path, said) is Kind.TICKS:
        with TickFile(path, said) as ticks:
            return Import(path, Kind.TICKS, said, "ticks", _symbol(ticks), missing=missing_symbol(ticks))
    with BarFile(path, said) as bars:
        missing = missing_symbol(bars)
        if bars.timeframe is None and not missing:
            missing = f"neither the name nor the opening times of {path} tell the timeframe; pass --timeframe"
        holds = f"{bars.timeframe or 'unknown'} bars"
        if bars.timeframe_from == "by its opening times":
            holds += ", by their opening times"
        return Import(path, Kind.BARS, said, holds, _symbol(bars), bars.timeframe, missing)


def _check_said_of_archive(path: Path, said: Said) -> None:
    """Raises UnknownForm for what cannot be said of JSON, whose items the server reads as an EA's."""
    if said.zone is not None:
        why = f"{path} is an archive, whose times the server reads by the zone of the source"
        raise typer.BadParameter(why, param_hint="--zone")
    without_effect = replace(said, symbol=None, timeframe=None)
    unused = [each.name for each in fields(Said) if getattr(without_effect, each.name) != each.default]
    if unused:
        options = ", ".join(_OPTION_OF.get(name, f"--{name.replace('_', '-')}") for name in unused)
        raise UnknownForm(f"{path}: it is JSON, of which {options} can say nothing; import it by itself, without")


def preview(each: Import) -> tuple[object, ...]:
    """Show how the file is read, and read all of it; the row of the summary that says what it holds."""
    if each.kind == ARCHIVE:
        return _preview_archive(each)
    file: ColumnFile[Any] = TickFile(each.path, each.said) if each.kind == Kind.TICKS else BarFile(each.path, each.said)
    count, first, last = 0, None, None
    with file as items:
        out.print(f"{each.path}: {each.holds}", markup=False, soft_wrap=True)
        for name, value in items.dialect.described():
            out.print(f"  {name:<14}{value}", markup=False, soft_wrap=True)
        shown = list(islice(items, _SHOWN_ROWS))
        _print_items(shown)
        for item in chain(shown, items):
            count += 1
            last = item.time_msc
            first = last if first is None else first
    for reason in [each.missing, *file.reasons] if each.missing else file.reasons:
        err.print(f"  {reason}", markup=False, soft_wrap=True)
    return (each.path, each.holds, each.symbol, count, _time(first), _time(last), file.skipped)


def send_bars(each: Import, target: Target, place: SavedPlace, is_strict: bool) -> Outcome:
    """Post a file of bars and report.

    Raises:
        DataFileError: when the file cannot be read beyond some line.
        ServerUnavailable, ServerRefused, SettingsError: as the sender.
    """
    started = time.monotonic()
    bad = BadLines(each.path, target, wait, place.bad_lines)
    with bad, BarFile(each.path, each.said, on_bad=bad.take, is_strict=is_strict) as bars:
        sender = BarSender(
            target.address, target.api_key, each.timeframe or "", are_instants=bars.are_instants, source=target.source,
            patience_seconds=target.patience_seconds, on_wait=wait, user_agent="tickpipe-import",
        )  # fmt: skip
        bar = FileBar(each.symbol, bars, started, "bars")
        with _resumable(place, sender.outcome, bad), bar, sender:
            with Posting(sender.send) as posting:
                for group in _groups(islice(bars, place.items, None)):
                    posting.add(group)
                    bar.update(sender.outcome, group[-1].time_msc)
                    place.reached(place.items + sender.outcome.sent, bad.posted)
                posting.finish()
            bad.flush()
        sender.outcome.add_skipped(bars.skipped, bars.reasons)
    report(sender.outcome, "bars", time.monotonic() - started)
    return sender.outcome


def send_archive(each: Import, target: Target, place: SavedPlace, is_strict: bool) -> Outcome:
    """Post an archive's items as they were posted before, and report; what is there already changes nothing.

    Raises:
        As `send_bars`.
    """
    started = time.monotonic()
    outcome = Outcome()
    bad = BadLines(each.path, target, wait, place.bad_lines)
    with bad, _archive(each, bad.take, is_strict) as archive:
        bar = FileBar(each.path.name, archive, started, "items")
        with _resumable(place, outcome, bad), ExitStack() as senders, bar:
            opened: dict[Origin, ItemSender] = {}

            def post(request: Posted) -> None:
                if request.origin not in opened:
                    opened[request.origin] = senders.enter_context(_item_sender(target, request.origin, outcome))
                opened[request.origin].send(request.items)

            with Posting(post) as posting:
                for request in _rest(archive, place.items):
                    posting.add(request)
                    bar.update(outcome)
                    place.reached(place.items + outcome.sent, bad.posted)
                posting.finish()
            bad.flush()
        outcome.add_skipped(archive.skipped, archive.reasons)
    report(outcome, "items", time.monotonic() - started)
    return outcome


def _archive(
    each: Import, on_bad: Callable[[BadLine], None] = lambda line: None, is_strict: bool = False
) -> ArchiveFile:
    said = each.said
    return ArchiveFile(each.path, symbol=said.symbol, timeframe=said.timeframe, on_bad=on_bad, is_strict=is_strict)


def _symbol(file: ColumnFile[Any]) -> str:
    if "symbol" in file.dialect.column_of:
        return file.said.symbol or "its column"
    return file.symbol or "unknown"


def _groups(bars: Iterator[Bar]) -> Iterator[list[Bar]]:
    """The bars of one request after the other; those before an error are given out as well."""
    group: list[Bar] = []
    try:
        for bar in bars:
            group.append(bar)
            if len(group) >= _BATCH_BARS:
                yield group
                group = []
    except TickpipeError:
        if group:
            yield group
        raise
    if group:
        yield group


def _rest(requests: Iterable[Posted], skip: int) -> Iterator[Posted]:
    """The requests without the first items, which an earlier run has posted."""
    for request in requests:
        count = len(request.items)
        if skip < count:
            yield request if not skip else request._replace(items=request.items[skip:])
        skip = max(0, skip - count)


def _item_sender(target: Target, origin: Origin, outcome: Outcome) -> ItemSender:
    sender = ItemSender(
        target.address, target.api_key, origin.route, utc_offset_seconds=origin.utc_offset_seconds,
        source=target.source or origin.source, patience_seconds=target.patience_seconds, on_wait=wait,
        user_agent=origin.agent or "tickpipe-import",
    )  # fmt: skip
    sender.outcome = outcome
    return sender


@contextmanager
def _resumable(place: SavedPlace, outcome: Outcome, bad: BadLines) -> Iterator[None]:
    """Save the place when the work inside ends early."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as exc:
        place.interrupted(place.items + outcome.sent, bad.posted)
        if isinstance(exc, KeyboardInterrupt):
            raise typer.Exit(INTERRUPTED) from exc
        raise


def _preview_archive(each: Import) -> tuple[object, ...]:
    ticks = bars = 0
    symbols: set[str] = set()
    first = last = None
    with _archive(each) as archive:
        for origin, written, _ in archive:
            items = _decoded(written)
            if not ticks + bars:
                for item in items[:_SHOWN_ROWS]:
                    out.print(f"  {json.dumps(item)}", markup=False, soft_wrap=True)
            if origin.route == BARS_ROUTE:
                bars += len(written)
            else:
                ticks += len(written)
            symbols |= {str(item.get("symbol")) for item in items if isinstance(item, dict)}
            times = (time_ms for time_ms in map(_time_msc, items) if time_ms is not None)
            first = next(times, None) if first is None else first
            last = next((time_ms for time_ms in map(_time_msc, reversed(items)) if time_ms is not None), last)
        for reason in archive.reasons:
            err.print(f"  {reason}", markup=False, soft_wrap=True)
        holds = " and ".join(f"{count:,} {noun}" for count, noun in ((ticks, "ticks"), (bars, "bars")) if count)
        return (
            each.path,
            f"archive of {holds or 'nothing'}",
            " ".join(sorted(symbols)),
            ticks + bars,
            _time(first),
            _time(last),
            archive.skipped,
        )


def _decoded(written: Written) -> list[Any]:
    """The items; one that the server will have to mend is left out."""
    items = []
    for item in written:
        with suppress(ValueError, RecursionError):
            items.append(json.loads(item))
    return items


def _time_msc(item: Any) -> int | None:
    try:
        return time_of(item).ms if isinstance(item, dict) else None
    except InvalidItem:
        return None


def _print_items(items: list[Any]) -> None:
    """The first rows as they were read."""
    if items:
        fields = list(msgspec.structs.asdict(items[0]) if isinstance(items[0], msgspec.Struct) else items[0]._fields)
        rows = [[_time(item.time_msc), *(getattr(item, field) for field in fields[1:])] for item in items]
        print_table(["time", *fields[1:]], rows)


def _time(time_ms: int | None) -> str | None:
    return None if time_ms is None else iso_utc(moment_of(time_ms)).removesuffix("Z")
