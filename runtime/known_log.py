"""Which log of ticks this deployment has: what keeps a lost log from being replaced by an empty one.

Kafka cannot tell a cluster that never had the topic from one that lost it. So whoever creates the topic knows the log
by itself: a process while it runs, and the file `TICKPIPE_KNOWN_LOG_FILE` from one start to the next. The database also
knows, but ticks are taken without it (docs/decisions/0019).
"""

from pathlib import Path
from typing import Final

import structlog

from marketdata.errors import LogLost
from runtime.files import replace_file

log = structlog.get_logger(__name__)

#: Its name in the folder of an embedded stack.
KNOWN_LOG_FILE: Final = "known-log"


class KnownLog:
    """The name of the log, `<cluster id>/<topic>/<topic id>`, in memory and, with a path, in a file."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._name = ""

    @property
    def name(self) -> str:
        """The log that was there last; empty when none is known."""
        return self._read() or self._name

    def require_new(self, cluster_id: str, topic: str) -> None:
        """Check that this cluster never had the topic, which is missing now, as far as is known.

        Another cluster is an operator's act, and begins with a log of its own.

        Raises:
            LogLost: when it had it.
        """
        name = self.name
        if name.split("/")[:2] == [cluster_id, topic]:
            raise LogLost(
                f"Kafka has lost the topic {topic}: the log {name} was there, and its ticks are gone. Nothing is "
                "created, and senders keep what they have. Make Kafka's volume whole or restore a backup; or run "
                "`tickpipe topics create --recreate` to begin an empty log"
            )

    def remember(self, name: str) -> None:
        """Know this log from now on; one that takes the place of another is said."""
        before = self.name
        if before and before != name:
            log.warning(
                "Ticks go to another log now: the topic was re-created, or this is another cluster.",
                action="log_recreated", log=name, before=before,
            )  # fmt: skip
        if name != self._name:
            self._write(name)
        self._name = name

    def _read(self) -> str:
        if self._path is None:
            return ""
        try:
            return self._path.read_text().strip()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as exc:
            log.warning("The file of the known log cannot be read.", action="known_log_unread", error=str(exc))
            return ""

    def _write(self, name: str) -> None:
        # Ticks are worth more than the file: without it the log is known until the process ends.
        if self._path is None or self._read() == name:
            return
        try:
            replace_file(self._path, f"{name}\n".encode())
        except OSError as exc:
            log.warning(
                "The known log cannot be written down; it is known until this process ends.",
                action="known_log_unwritten", path=str(self._path), error=str(exc),
            )  # fmt: skip
