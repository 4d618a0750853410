"""Bounds what works at once: heavy requests, of which clients take turns, and open streams."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from dashboard.answers import Refusal


class Turns:
    """`at_once` requests work; the others wait, each client in a queue of its own, and the queues take turns.

    Args:
        at_once: requests that work at the same time.
        what: what they do, for the one that is refused.
        patience_seconds: how long one may wait.
    """

    def __init__(self, at_once: int, what: str, *, patience_seconds: float) -> None:
        self._at_once = at_once
        self._what = what
        self._patience_seconds = patience_seconds
        self._working = 0
        #: The client whose turn is next comes first.
        self._waiting: OrderedDict[object, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, client: object) -> AsyncIterator[None]:
        """Work within, when it is this client's turn.

        Raises:
            Refusal: 429 when the others do not finish in time.
        """
        if self._working < self._at_once:
            self._working += 1
        else:
            await self._wait(client)
        try:
            yield
        finally:
            self._hand_on()

    async def _wait(self, client: object) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(mine)
        try:
            async with asyncio.timeout(self._patience_seconds):
                await mine
        except BaseException as exc:
            if mine.done() and not mine.cancelled():
                # The turn came at the moment at which this one gave up.
                self._hand_on()
            else:
                mine.cancel()
            if isinstance(exc, TimeoutError):
                raise Refusal(
                    429, "TOO_MANY_READS",
                    f"{self._at_once} requests {self._what} already; ask again, or for fewer at a time",
                    Retry_After="5",
                ) from exc  # fmt: skip
            raise

    def _hand_on(self) -> None:
        """Let the next one work: the first of the next client."""
        while self._waiting:
            client, queue = self._waiting.popitem(last=False)
            mine = queue.popleft()
            if queue:
                self._waiting[client] = queue
            if not mine.done():
                mine.set_result(None)
                return
        self._working -= 1


class Places:
    """At most `most` open streams, half of them to one client; `what` they are, for the one that is refused."""

    def __init__(self, most: int, what: str) -> None:
        self._most = most
        self._what = what
        self._taken: Counter[object] = Counter()

    @contextmanager
    def place(self, client: object) -> Iterator[None]:
        """Be open within; without a client there is no share to hold to.

        Raises:
            Refusal: 503 when there are as many as may be, or half of them are this client's.
        """
        of_client = client is not None and self._taken[client] >= max(1, self._most // 2)
        if of_client or self._taken.total() >= self._most:
            whose = "half of them are this address's" if of_client else "close some or raise it"
            raise Refusal(
                503, "TOO_MANY_STREAMS",
                f"TICKPIPE_DASHBOARD_MAX_STREAMS bounds the {self._what}, here {self._most}; {whose}",
                Retry_After="10",
            )  # fmt: skip
        self._taken[client] += 1
        try:
            yield
        finally:
            self._taken[client] -= 1
            if not self._taken[client]:
                del self._taken[client]
