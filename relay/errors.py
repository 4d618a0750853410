"""The relay's errors; each sentence says what the reader can do.

::

    TickpipeError
    ├── StoreUnavailable    the database cannot be written now: full disk, lock (retriable)
    ├── StoreUnusable       the file is no database of ticks
    ├── ServerUnavailable   the server did not take a batch yet (retriable)
    ├── ServerRefused       the server refuses the key or the address; nothing is sent until that is put right
    │   └── NoSuchEndpoint  404: the server does not have the path
    ├── BodyTooLarge        413: the batch has to be split
    └── BodyRefused         400 without details: some item of the batch spoils it
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


class ServerUnavailable(TickpipeError):
    """The server did not take the ticks yet; they are kept and sent again."""

    retriable = True

    def __init__(self, message: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class ServerRefused(TickpipeError):
    """The server will not take ticks from here; put the key or the address right and start again."""


class NoSuchEndpoint(ServerRefused):
    """The server has no such path (404)."""


class BodyTooLarge(TickpipeError):
    """413: the batch has to be split."""


class BodyRefused(TickpipeError):
    """400 that does not say which item is wrong: the batch is halved until it is found."""
