"""The one way to PostgreSQL for writing: a connection that comes back, and work that is repeated until it is done.

Work fails for now for one of three reasons, and each is retried in its own way:

========  ======================================================  =====================================================
away      no server that takes writes: connection refused or      on a new connection, until it is back
          lost, starting, shutting down, a standby, disk full
busy      somebody else is in the way: lock, deadlock             the same again
too slow  a statement ran into its time limit                     not as it is: the caller does less at a time
========  ======================================================  =====================================================
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, Final, TypeVar

import psycopg
import structlog
from psycopg import AsyncConnection
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential, wait_random

from marketdata.errors import ColumnInTheWay
from runtime.kafka_errors import is_retriable
from runtime.service import sleep_unless
from sink.db.schema import forbidden
from sink.db.session import SERVICE_LIMITS, SQL, open_session

log = structlog.get_logger(__name__)

Connection = AsyncConnection[Any]
Result = TypeVar("Result")

#: The database's refusals of a value: the same row is refused for ever.
REFUSALS = (psycopg.DataError, psycopg.IntegrityError, UnicodeEncodeError)

#: A statement ran into its time limit, or somebody cancelled it.
TooSlow = psycopg.errors.QueryCanceled


class Trouble(StrEnum):
    """Why work could not be done now."""

    AWAY = "away"
    BUSY = "busy"
    TOO_SLOW = "too_slow"


#: PostgreSQL's error codes that are not simply "away"; of these psycopg raises OperationalError or InternalError.
_TROUBLES: Final = {
    "55P03": Trouble.BUSY,  # lock_not_available
    "40P01": Trouble.BUSY,  # deadlock_detected
    # serialization_failure: at READ COMMITTED only a standby says so, when the primary's changes end what it does
    "40001": Trouble.AWAY,
    "57014": Trouble.TOO_SLOW,  # query_canceled
    "25006": Trouble.AWAY,  # read_only_sql_transaction: after a failover the old primary is a standby
    "25P03": Trouble.AWAY,  # idle_in_transaction_session_timeout: the server has closed the connection
    "25P04": Trouble.AWAY,  # transaction_timeout: likewise
}


def trouble_of(exc: BaseException) -> Trouble | None:
    """The kind of trouble that an error means; None for an error that waiting does not cure."""
    if isinstance(exc, psycopg.Error) and exc.sqlstate in _TROUBLES:
        return _TROUBLES[exc.sqlstate]
    return Trouble.AWAY if isinstance(exc, (psycopg.OperationalError, psycopg.InterfaceError, OSError)) else None


def cure_of(exc: BaseException) -> str:
    """What cures an error that waiting does not, though it looks as if the database were away; often empty."""
    # libpq gives an error while it connects no code.
    refused = re.search(r'password authentication failed for user "([^"]*)"', str(exc))
    if refused is None:
        return ""
    return (
        f"the password of {refused[1]} is set in the database, not by .env or a variable: put back the former one and "
        "change it with `tickpipe db password`, or set it there as a superuser, ALTER ROLE … PASSWORD …"
    )


class StepSize:
    """How much one transaction does: halved when it was too slow, and doubled again when it was quick.

    `goal_seconds` is what a transaction may take. It should be far below the time limit of a statement, for a step is
    doubled when it took less than half of that.
    """

    def __init__(self, most: int, *, goal_seconds: float, first: int | None = None) -> None:
        self._most = most
        self._goal_seconds = goal_seconds
        self.value = first or most

    def took(self, seconds: float, done: int) -> None:
        """Adapt to a transaction that was done; one far below the limit proves nothing about larger ones."""
        if done * 2 <= self.value:
            return
        if seconds > self._goal_seconds:
            self.value = max(1, self.value // 2)
        elif seconds < self._goal_seconds / 2:
            self.value = min(self._most, self.value * 2)

    def too_slow(self, done: int) -> None:
        """Halve the limit after a transaction that ran out of time."""
        self.value = max(1, min(self.value, done) // 2)


class Database:
    """A connection of its own to the database, opened when needed and again when lost.

    `on_state` is told whether the database takes writes: false when it is away, true when work was done, before which
    every new connection writes. A database that is busy is what it was before. `on_trouble` is told of each time that
    work could not be done; `name` is that of the user of this connection, in log lines and in `pg_stat_activity`.
    `stopping` ends every wait.
    """

    def __init__(
        self,
        conninfo: str,
        stopping: asyncio.Event,
        *,
        name: str = "",
        on_state: Callable[[bool], None] = lambda _: None,
        on_trouble: Callable[[str, Trouble], None] = lambda _name, _trouble: None,
    ) -> None:
        self._conninfo = conninfo
        self.stopping = stopping
        self._name = name
        self._on_state = on_state
        self._on_trouble = on_trouble
        self._connection: Connection | None = None
        #: How long the newest work took that was done, without the attempts before and the waits between (seconds).
        self.took_seconds = 0.0

    async def run(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """The result of `work`, called with a connection in autocommit mode, and again while it is away or busy.

        Work must be safe to repeat: a connection lost during a commit does not say whether it was done.

        Raises:
            TooSlow: when a statement ran into its time limit; the same work would do so again.
            psycopg.OperationalError: when the service is told to stop while the database is away or busy.
            ColumnInTheWay: when it is told to stop while a column of somebody's own refuses every row.
            DatabaseForbids: when the role lacks a right.
            psycopg.Error: whatever does not pass by waiting.
        """
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(_is_to_be_repeated),
            wait=wait_exponential(0.1, max=5) + wait_random(0, 0.1),
            stop=lambda _: self.stopping.is_set(),
            sleep=lambda seconds: sleep_unless(self.stopping, seconds),
            before_sleep=self._log_the_wait,
            reraise=True,
        ):
            with attempt:
                return await self._run_once(work)
        raise AssertionError("unreachable: tenacity returns or raises")

    async def run_patiently(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """As `run`, for work that cannot be made smaller: what is too slow is tried again as well."""
        while True:
            try:
                return await self.run(work)
            except TooSlow:
                if self.stopping.is_set():
                    raise
            await sleep_unless(self.stopping, 1.0)

    async def run_sized(self, work: Callable[[Connection, int], Awaitable[Result]], size: StepSize) -> Result:
        """As `run`, for work of any size; what is too slow is halved.

        Raises:
            TooSlow: when even a step of size 1 is.
        """
        while True:
            is_smallest = size.value == 1
            try:
                return await self._run_step(work, size)
            except TooSlow:
                if is_smallest or self.stopping.is_set():
                    raise

    async def connection(self) -> Connection:
        """The connection, reopened if it was lost."""
        if self._connection is None or self._connection.closed:
            self._connection = await connect(self._conninfo, self._name)
        return self._connection

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _run_step(self, work: Callable[[Connection, int], Awaitable[Result]], size: StepSize) -> Result:
        step = size.value
        try:
            result = await self.run(lambda connection: work(connection, step))
        except TooSlow:
            size.too_slow(step)
            raise
        size.took(self.took_seconds, step)
        return result

    async def _run_once(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        try:
            connection = await self.connection()
            began = time.monotonic()
            result = await work(connection)
        except psycopg.errors.InsufficientPrivilege as exc:
            raise await forbidden(self._conninfo, exc) from exc
        except psycopg.errors.NotNullViolation as exc:
            # What we write has no nulls where our columns forbid them, so no row can be stored, and none is to blame.
            self._on_state(False)
            self._on_trouble(self._name, Trouble.BUSY)
            column, table = exc.diag.column_name, exc.diag.table_name
            raise ColumnInTheWay(
                f"{table} has a column {column}, not Tickpipe's, that must not be null: give it a default or drop it"
            ) from exc
        except Exception as exc:
            trouble = trouble_of(exc)
            if trouble is not None:
                self._on_trouble(self._name, trouble)
            if trouble is Trouble.TOO_SLOW:
                log.warning(
                    "A statement ran into its time limit; less is done at a time.",
                    action="database_too_slow", task=self._name, error=str(exc).strip(),
                )  # fmt: skip
            elif trouble is Trouble.AWAY:
                self._on_state(False)
                # A standby answers for ever, and only a new connection finds the primary.
                await self.close()
            raise
        self.took_seconds = time.monotonic() - began
        self._on_state(True)
        return result

    def _log_the_wait(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        trouble = None if error is None else trouble_of(error)
        cure = {"cure": cure_of(error)} if error is not None and cure_of(error) else {}
        log.warning(
            "The work for the database cannot be done now; it is tried again, nothing is lost.",
            action="database_wait", task=self._name, trouble=trouble and str(trouble), attempt=state.attempt_number,
            error=str(error).strip(), **cure,
        )  # fmt: skip


def _is_to_be_repeated(exc: BaseException) -> bool:
    return trouble_of(exc) in (Trouble.AWAY, Trouble.BUSY) or is_retriable(exc)


async def connect(conninfo: str, name: str = "") -> Connection:
    """A connection in autocommit mode with the limits of a service, to a server that takes writes.

    Raises:
        psycopg.OperationalError: when the database does not answer.
        psycopg.errors.ReadOnlySqlTransaction: when it is a standby.
    """
    connection = await open_session(conninfo, f"tickpipe {name}".strip(), SERVICE_LIMITS)
    try:
        if (row := await (await connection.execute(SQL["is_standby"])).fetchone()) is None or row[0]:
            raise psycopg.errors.ReadOnlySqlTransaction("the server is a standby, which takes no writes")
    except BaseException:
        await connection.close()
        raise
    return connection
