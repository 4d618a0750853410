"""The relay's errors; each sentence says what the reader can do.

::

    TickpipeError
    ├── StoreUnavailable    the database cannot be written now: full disk, lock (retriable)
    └── StoreUnusable       the file is no database of ticks

Those of the server are in runtime/posting.py.
"""

from marketdata.errors import TickpipeError


class StoreUnavailable(TickpipeError):
    """The database cannot be written now; nothing was stored, send again."""

    retriable = True

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class StoreUnusable(TickpipeError):
    """The file is no database of ticks; name another with --db."""

    is_wrong_use = True
