"""Who may read, and when it is their turn.

A dashboard that has a password is read by those who show it, or a key with the right `read`. Wrong ones are counted by
address, and an address that has shown too many is refused for a while whatever it shows, for otherwise the right one
would stand out. A browser that was let in before has a cookie that exempts it from that, so that nobody can lock out
those who share an address with him, behind a proxy for example. The cookie lets nobody in.
"""

import asyncio
import hmac
import secrets
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from hashlib import sha256
from math import ceil
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboard.answers import Refusal
from dashboard.metrics import Metrics
from marketdata.contract import http
from runtime.api_keys import ApiKeys, Rates
from runtime.pages import ASK_FOR_KEY, password_in
from runtime.serving import owner_of

#: Paths that need no password: probes and Prometheus ask for them, and they hold no prices.
_OPEN_PATHS: Final = frozenset({"/health", "/ready", "/metrics"})

#: Wrong passwords that an address may show at once, and how long one of them counts (seconds).
_WRONG_AT_ONCE: Final = 10
_FORGET_SECONDS: Final = 6.0

#: Addresses that are remembered.
_MAX_ADDRESSES: Final = 10_000

_COOKIE: Final = "tickpipe_known"


class Access:
    """ASGI middleware that asks for the password (HTTP basic, any user name) or a key that may read."""

    def __init__(self, app: ASGIApp, password: str, keys: ApiKeys, metrics: Metrics) -> None:
        self._app = app
        # Digests have one length, so the time of a comparison does not reveal the password's.
        self._digest = sha256(password.encode()).digest()
        self._keys = keys
        self._rates = Rates()
        self._metrics = metrics
        self._guesses = Guesses()
        self._token = secrets.token_urlsafe(24)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["path"] in _OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        was_let_in = hmac.compare_digest(
            cookie_parser(headers.get("cookie", "")).get(_COOKIE, "").encode(), self._token.encode()
        )
        try:
            self._admit(headers, None if was_let_in else str(owner_of((scope.get("client") or ("",))[0])))
        except Refusal as refusal:
            await refusal.response()(scope, receive, send)
            return

        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                cookie = f"{_COOKIE}={self._token}; Path=/; HttpOnly; SameSite=Strict"
                MutableHeaders(scope=message).append("Set-Cookie", cookie)
            await send(message)

        await self._app(scope, receive, send if was_let_in else send_with_cookie)

    def _admit(self, headers: Headers, address: str | None) -> None:
        """Let in who may read; `address` is what wrong passwords count for, None where they do not."""
        password = password_in(headers.get("authorization", ""))
        given = http.key_in(dict(headers.raw)) if password is None else password
        if given and address is not None:
            self._guesses.check(address)
        if password is not None and hmac.compare_digest(sha256(password).digest(), self._digest):
            return
        try:
            key = self._keys.authorise(given, http.Right.READ)
            self._metrics.count_key(key.name)
            self._rates.request(key)
        except http.Refusal as exc:
            if exc.code != "UNAUTHORIZED":
                more = {} if exc.retry_after_seconds is None else {"Retry_After": str(exc.retry_after_seconds)}
                raise Refusal(exc.status, exc.code, exc.message, **more) from exc
            if given and address is not None:
                self._guesses.note(address)
            raise Refusal(
                401, "UNAUTHORIZED",
                "send the password of TICKPIPE_DASHBOARD_PASSWORD, or a key that may read, with any user name "
                "(HTTP basic)", **ASK_FOR_KEY,
            ) from exc  # fmt: skip


class Guesses:
    """Counts wrong passwords by address."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: Until when those of an address count, one after the other; the address of the latest is the last.
        self._until: OrderedDict[str, float] = OrderedDict()

    def check(self, address: str) -> None:
        """Look whether one more may be shown.

        Raises:
            Refusal: 429 when too many were wrong.
        """
        ahead = self._until.get(address, 0.0) - self._clock()
        if ahead > (_WRONG_AT_ONCE - 1) * _FORGET_SECONDS:
            wait = ceil(ahead - (_WRONG_AT_ONCE - 1) * _FORGET_SECONDS)
            raise Refusal(
                429, "TOO_MANY_GUESSES", "too many wrong passwords came from this address; try again later",
                Retry_After=str(wait),
            )  # fmt: skip

    def note(self, address: str) -> None:
        """Count a wrong one."""
        now = self._clock()
        self._until[address] = max(now, self._until.pop(address, now)) + _FORGET_SECONDS
        if len(self._until) > _MAX_ADDRESSES:
            self._until.popitem(last=False)


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
