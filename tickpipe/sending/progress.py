"""What is shown while a file is posted and afterwards, and where an interrupted import goes on."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from runtime.known_log import KNOWN_LOG_FILE, KnownLog
from tickpipe.console import Bar, err, iso_utc, moment_of, out
from tickpipe.sending.columnfile import BadLine
from tickpipe.sending.dialects import Said
from tickpipe.sending.options import Target
from tickpipe.sending.sender import BadLineSender, Outcome
from tickpipe.sending.textfile import on_disk

#: Bad lines that are posted together.
_BAD_LINES: Final = 200

#: How often the place in a file is saved (seconds): what was sent since the last time is sent again, and counts once.
_SAVED_EVERY_SECONDS: Final = 0.2


class Measured(Protocol):
    """A file that is read."""

    @property
    def total_bytes(self) -> int | None:
        """Size on disk; None when it is unknown."""

    @property
    def read_bytes(self) -> int:
        """How much of it was read."""


class FileBar:
    """The progress bar of a file: how far in it, items a second, time left; items are not counted beforehand."""

    def __init__(self, description: str, file: Measured, started: float, noun: str = "ticks") -> None:
        self._file, self._started, self._noun = file, started, noun
        self._bar = Bar(description, file.total_bytes)

    def __enter__(self) -> None:
        self._bar.__enter__()

    def __exit__(self, *exc_info: Any) -> None:
        self._bar.__exit__(*exc_info)

    def update(self, outcome: Outcome, last_msc: int | None = None) -> None:
        """Show what the producer has answered so far."""
        per_second = outcome.sent / max(1e-3, time.monotonic() - self._started)
        reached = "" if last_msc is None else f"  {iso_utc(moment_of(last_msc))}"
        self._bar.update(self._file.read_bytes, f"{outcome.sent:,} {self._noun}  {per_second:,.0f}/s{reached}")


def wait(why: str, seconds: float) -> None:
    """Say why the producer takes nothing at the moment, and when the next try is."""
    err.print(f"{why}; next try in {seconds:.1f} s", markup=False, soft_wrap=True)


def report(outcome: Outcome, noun: str, seconds: float) -> None:
    """Print how many items were sent, accepted and rejected, and why."""
    out.print(
        f"{outcome.sent:,} {noun} sent, {outcome.accepted:,} accepted, {outcome.rejected:,} rejected, {seconds:.1f} s"
        + (f"; {outcome.skipped:,} lines could not be used" if outcome.skipped else ""),
        markup=False,
    )
    for reason in outcome.reasons:
        err.print(f"  {reason}", markup=False, soft_wrap=True)


class BadLines:
    """Posts the lines of a file that cannot be used, for the server to store them with its rejected records.

    Args:
        posted: how many of the first an earlier run has posted.
    """

    def __init__(self, path: Path, target: Target, on_wait: Callable[[str, float], None], posted: int = 0) -> None:
        self.posted = posted
        self._skip = posted
        self._lines: list[BadLine] = []
        self._sender = BadLineSender(
            target.address, target.api_key, path.name, source=target.source, on_wait=on_wait,
            patience_seconds=target.patience_seconds, user_agent="tickpipe-import",
        )  # fmt: skip

    def __enter__(self) -> "BadLines":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._sender.__exit__(*exc_info)

    def take(self, line: BadLine) -> None:
        """Post the line, together with others."""
        if self._skip:
            self._skip -= 1
            return
        self._lines.append(line)
        if len(self._lines) >= _BAD_LINES:
            self.flush()

    def flush(self) -> None:
        """Post what was taken so far."""
        lines, self._lines = self._lines, []
        if lines:
            self._sender.send(lines)
            self.posted += len(lines)


class SavedPlace:
    """How far a file was posted, saved in the data directory so that the same command goes on there.

    The file has to be the same in size and time of change, and posted to the same address in the same way. Where the
    stack of the directory has begun another log since, its items are posted from the first.
    """

    def __init__(self, directory: Path, path: Path, target: Target, said: Said) -> None:
        file = on_disk(path).stat()
        log = KnownLog(directory / KNOWN_LOG_FILE).name
        identity = (str(path.resolve()), file.st_size, file.st_mtime_ns, target.address, target.source, repr(said), log)
        name = hashlib.sha256(repr(identity).encode()).hexdigest()[:32]
        self._path = directory / "imports" / f"{name}.json"
        self.items, self.bad_lines = self._load()
        self._saved_at = time.monotonic()

    def reached(self, items: int, bad_lines: int) -> None:
        """So many items and lines are on the server."""
        if time.monotonic() - self._saved_at >= _SAVED_EVERY_SECONDS:
            self.save(items, bad_lines)

    def interrupted(self, items: int, bad_lines: int) -> None:
        """The run ends here: save the place and say so, if there is anything to go on from."""
        if items or bad_lines:
            self.save(items, bad_lines)
            err.print(f"{items:,} items are on the server; the same command continues there.", markup=False)

    def save(self, items: int, bad_lines: int) -> None:
        """Save the place now."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps({"items": items, "bad_lines": bad_lines}))
        os.replace(temporary, self._path)
        self._saved_at = time.monotonic()

    def forget(self) -> None:
        """The file was posted to its end, or is to be posted from its beginning."""
        self.items = self.bad_lines = 0
        self._path.unlink(missing_ok=True)

    def _load(self) -> tuple[int, int]:
        try:
            saved = json.loads(self._path.read_bytes())
            return int(saved["items"]), int(saved["bad_lines"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0, 0
