"""The one door to PostgreSQL for writing: a connection that comes back, and work that is repeated until it is done."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential

from sink.statements import SQL

log = structlog.get_logger(__name__)

Connection = AsyncConnection[Any]
Result = TypeVar("Result")

#: A host that vanished without a word is noticed after this long, not after the kernel's quarter of an hour.
_SESSION_OPTIONS: Final[dict[str, str | int | None]] = {
    "application_name": "tickpipe",
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}

#: The database's refusals of a value: the same row is refused for ever.
REFUSALS = (psycopg.DataError, psycopg.IntegrityError, UnicodeEncodeError)


def is_outage(exc: BaseException) -> bool:
    """Whether the same work may succeed later: connection lost, locks, deadlock, disk full, a standby."""
    return isinstance(
        exc, (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction, OSError)
    )


class Database:
    """A connection of its own to the database, opened when needed and again when lost.

    `on_state` is told whether the database answers. `stopping` ends every wait.
    """

    def __init__(
        self, conninfo: str, stopping: asyncio.Event, on_state: Callable[[bool], None] = lambda _: None
    ) -> None:
        self._conninfo = conninfo
        self._stopping = stopping
        self._on_state = on_state
        self._connection: Connection | None = None

    async def run(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """The result of `work`, called with a connection in autocommit mode; after an outage it is called again.

        Work must be safe to repeat: a connection lost during a commit does not say whether it was done.

        Raises:
            psycopg.OperationalError: when the service is told to stop while the database is away.
            psycopg.Error: whatever does not pass by waiting.
        """
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(lambda exc: is_outage(exc) or getattr(exc, "retriable", False)),
            wait=wait_exponential(0.1, max=5),
            stop=lambda _: self._stopping.is_set(),
            sleep=self._sleep,
            before_sleep=self._say_that_we_wait,
            reraise=True,
        ):
            with attempt:
                result = await work(await self.connection())
                self._on_state(True)
        return result

    async def connection(self) -> Connection:
        """The connection, opened anew if it was lost."""
        if self._connection is None or self._connection.closed:
            self._connection = await connect(self._conninfo)
        return self._connection

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    def _say_that_we_wait(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if error is not None and is_outage(error):
            self._on_state(False)
        log.warning(
            "The work for the database cannot be done now; it is tried again, nothing is lost.",
            action="database_wait", attempt=state.attempt_number, error=str(error).strip(),
        )  # fmt: skip


async def connect(conninfo: str) -> Connection:
    """A connection in autocommit mode with this project's timeouts and staging tables.

    Raises:
        psycopg.OperationalError: when the database does not answer.
    """
    # What the URL says itself goes first.
    options: dict[str, Any] = {**_SESSION_OPTIONS, **conninfo_to_dict(conninfo)}
    connection = await AsyncConnection.connect(make_conninfo("", **options), autocommit=True)
    try:
        for name in ("prepare_session", "create_incoming_candles", "create_incoming_bars"):
            await connection.execute(SQL[name])
    except BaseException:
        await connection.close()
        raise
    return connection
