"""Log lines of every service: a sentence for people, an `action` and fields for machines."""

import logging
import sys

import structlog
from structlog.typing import Processor

from marketdata.settings import Settings

_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
]

#: Libraries that report their ordinary life, such as every rebalance, at INFO.
_CHATTY = ("aiokafka", "faust", "mode", "httpx", "httpcore", "uvicorn.access", "kafka")


def configure_logs(settings: Settings) -> None:
    """Send structlog's and the standard library's lines to stderr in one format (TICKPIPE_LOG_FORMAT)."""
    renderer: Processor
    shared: list[Processor]
    if settings.log_format == "json":
        renderer = structlog.processors.JSONRenderer()
        shared = [*_SHARED, structlog.processors.format_exc_info]
    else:
        # The plain traceback: the rich one prints local variables, and keys and passwords with them.
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        shared = _SHARED
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
