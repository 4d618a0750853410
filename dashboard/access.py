"""Who may read a dashboard that has a password: those who show it, or a key with the right `read`.

Wrong ones are counted by address, and an address that has shown too many is refused for a while whatever it shows, for
otherwise the right one would stand out. A browser that was let in before has a cookie that exempts it from that, so
that nobody can lock out those who share an address with him, behind a proxy for example. The cookie lets nobody in.
"""

import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
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
