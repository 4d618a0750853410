"""Log lines of every service: a sentence for people, an `action` and fields for machines."""

import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

import structlog
from structlog.typing import Processor

from runtime.foreign import shown_fields
from runtime.settings import Settings

_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
]

#: structlog's processors. A logger holds this list from its first line on, so it is the same one whenever it is filled.
_processors: Final[list[Processor]] = []

#: Libraries that report their ordinary life, such as every rebalance, at INFO.
_CHATTY = ("aiokafka", "faust", "mode", "httpx", "httpcore", "uvicorn.access", "kafka")

#: A log file of this size becomes `NAME.1`, and the one of that name goes (bytes).
MAX_FILE_BYTES: Final = 5_000_000

#: Lines of one wording are counted for so long (seconds).
REPEAT_SECONDS: Final = 30.0

#: Lines of one wording that are written in that time: what is said of each topic or partition comes in a burst. A
#: library that cannot reach a broker says so forty times a second.
BURST: Final = 20
_BURST_OF_LIBRARY: Final = 1

#: Wordings that are remembered; a library that writes numbers into them has as many as it likes (some 200 bytes each).
MAX_WORDINGS: Final = 1_000


@dataclass
class _Wording:
    """Lines of one wording since a point in time."""

    since: float
    written: int = 0
    held_back: int = 0
    #: The time before had more than a burst: while that lasts, one line stands for all.
    is_flood: bool = False


class Unrepeated(logging.Filter):
    """Limits how often lines of one wording are written, whichever logger they come from.

    In `REPEAT_SECONDS` a burst of them passes, and while they go on in greater number one in that time, which tells how
    many were held back. Lines of level DEBUG always pass.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[tuple[str, int, str], _Wording] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        if record.levelno <= logging.DEBUG:
            return True
        wording = self._wording(record)
        burst = 1 if wording.is_flood else _BURST_OF_LIBRARY if record.name.startswith(_CHATTY) else BURST
        if wording.written >= burst:
            wording.held_back += 1
            return False
        wording.written += 1
        return True

    def _wording(self, record: logging.LogRecord) -> _Wording:
        # structlog hands its events over as dictionaries.
        event = record.msg.get("event") if isinstance(record.msg, dict) else record.msg
        key, now = (record.name, record.levelno, str(event)), self._clock()
        found = self._seen.get(key)
        if found is not None and now - found.since < REPEAT_SECONDS:
            return found
        self._seen.pop(key, None)
        while len(self._seen) >= MAX_WORDINGS:
            del self._seen[next(iter(self._seen))]
        is_over = found is None or now - found.since >= 2 * REPEAT_SECONDS
        self._seen[key] = wording = _Wording(now)
        if found is not None and found.held_back:
            _tell(record, found.held_back)
            wording.is_flood = not is_over
        return wording


def _tell(record: logging.LogRecord, held_back: int) -> None:
    if isinstance(record.msg, dict):
        record.msg = {**record.msg, "held_back": held_back}
    else:
        record.msg = f"{record.msg} ({held_back} more like this)"


class LogFile(RotatingFileHandler):
    """A UTF-8 log file that is rotated to `NAME.1` while the program runs, so that it never fills the disk."""

    def __init__(self, path: Path, max_bytes: int = MAX_FILE_BYTES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, maxBytes=max_bytes, encoding="utf-8", errors="backslashreplace")

    def doRollover(self) -> None:  # noqa: N802  # logging's name
        """Start a new file; on Windows one that a viewer holds open cannot be renamed, and grows until it can."""
        self.close()
        with suppress(OSError):
            os.replace(self.baseFilename, f"{self.baseFilename}.1")
        self.stream = self._open()


def configure_logs(settings: Settings, file: Path | None = None) -> None:
    """Send structlog's and the standard library's lines to stderr, or to a file, in one format (TICKPIPE_LOG_FORMAT).

    Raises:
        OSError: when the file cannot be written.
    """
    renderer: Processor
    shared: list[Processor]
    if settings.log_format == "json":
        renderer = structlog.processors.JSONRenderer()
        shared = [*_SHARED, structlog.processors.format_exc_info]
    else:
        # The plain traceback: the rich one prints local variables, and keys and passwords with them.
        renderer = structlog.dev.ConsoleRenderer(
            colors=file is None and sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        # JSON writes control characters out by itself.
        shared = [*_SHARED, shown_fields]
    _processors[:] = [*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter]
    structlog.configure(
        processors=_processors,
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr) if file is None else LogFile(file)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(Unrepeated())
    root = logging.getLogger()
    for before in root.handlers:
        if isinstance(before, LogFile):
            before.close()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
