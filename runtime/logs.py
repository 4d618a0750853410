"""Log lines of every service: a sentence for people, an `action` and fields for machines."""

import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

import structlog
from structlog.typing import Processor

from runtime.settings import Settings

_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
]

#: Libraries that report their ordinary life, such as every rebalance, at INFO.
_CHATTY = ("aiokafka", "faust", "mode", "httpx", "httpcore", "uvicorn.access", "kafka")

#: A log file of this size becomes `NAME.1`, and the one of that name goes (bytes).
MAX_FILE_BYTES = 5_000_000

#: A library that cannot reach a broker says so forty times a second; once in so long is enough (seconds).
REPEAT_SECONDS = 30.0

#: Wordings that are remembered; a library that writes numbers into them has as many as it likes.
MAX_WORDINGS = 1_000


class Unrepeated(logging.Filter):
    """Lets a library's line of one wording pass once in a while, with the number of those held back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is to be written."""
        if not record.name.startswith(_CHATTY):
            return True
        key, now = (record.name, str(record.msg)), self._clock()
        written_at, held_back = self._seen.get(key, (-REPEAT_SECONDS, 0))
        if now - written_at < REPEAT_SECONDS:
            self._seen[key] = (written_at, held_back + 1)
            return False
        self._remember(key, now)
        if held_back:
            record.msg = f"{record.msg} ({held_back} more like this)"
        return True

    def _remember(self, key: tuple[str, str], now: float) -> None:
        self._seen.pop(key, None)
        while len(self._seen) >= MAX_WORDINGS:
            del self._seen[next(iter(self._seen))]
        self._seen[key] = (now, 0)


class LogFile(RotatingFileHandler):
    """A log file in UTF-8 that is put aside as `NAME.1` while the program runs, so that it never fills the disk."""

    def __init__(self, path: Path, max_bytes: int = MAX_FILE_BYTES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, maxBytes=max_bytes, encoding="utf-8", errors="backslashreplace")

    def doRollover(self) -> None:  # noqa: N802  # logging's name
        """Begin a file; on Windows one that a viewer holds open cannot be renamed, and grows until it can."""
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
        shared = _SHARED
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
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
