"""The client's end of the contract: one connection, and every answer as a result or as an error.

::

    TickpipeError
    ├── ServerUnavailable   the server did not take a request yet (retriable)
    │   └── NoAnswer        nothing came back at all
    ├── ServerRefused       the server takes nothing from here until somebody puts something right
    │   ├── KeyRefused      401, 403
    │   └── NoSuchEndpoint  404
    ├── SourceRefused       403: the key may not speak for the source that this request names
    ├── BodyTooLarge        413: the body has to be split
    └── BodyRefused         400 without details: some item of the body spoils it
"""

import email.utils
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Final, TypeVar

import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_delay,
    stop_any,
    stop_when_event_set,
    wait_random_exponential,
)

from marketdata.contract.request import BARS_ROUTE, TICKS_ROUTE
from marketdata.errors import SettingsError, TickpipeError

Item = TypeVar("Item")

#: The producer waits 10 s for Kafka before it answers 503; less would give up on answers that are on their way.
_ANSWER_SECONDS: Final = 30.0
_CONNECT_SECONDS: Final = 5.0

#: Longest pause before the next try when the server does not say, and the longest that it may ask for (seconds).
_LONGEST_PAUSE_SECONDS: Final = 30.0
_LONGEST_ASKED_SECONDS: Final = 300.0

#: An event that ends a pause is looked at so often: Windows delivers Ctrl-C between waits only (seconds).
_SLICE_SECONDS: Final = 0.5

_wait_exponential: Final = wait_random_exponential(multiplier=0.25, max=_LONGEST_PAUSE_SECONDS)


class ServerUnavailable(TickpipeError):
    """The server did not take the request yet (network, 408, 429, 5xx); send it again."""

    retriable = True

    def __init__(self, message: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class NoAnswer(ServerUnavailable):
    """Nothing came back: the server is down, or the network is. It may have taken the request all the same."""


class ServerRefused(TickpipeError):
    """The server will not take ticks from here; put the key or the address right and start again."""


class KeyRefused(ServerRefused):
    """The server does not know the key, or the key may not speak for the source (401, 403)."""


class NoSuchEndpoint(ServerRefused):
    """The server has no such path (404)."""


class SourceRefused(TickpipeError):
    """The key may not speak for the source that this request names; for others it may be right (403 FORBIDDEN)."""


class BodyTooLarge(TickpipeError):
    """413: the body has to be split."""


class BodyRefused(TickpipeError):
    """400 that does not say which item is wrong: halve the body until it is found."""


def new_client(url: str, headers: Mapping[str, str]) -> httpx.Client:
    """A client of one kept-alive connection; a proxy from the environment is not asked for this machine's own ports.

    Raises:
        SettingsError: when `url` is no address.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as exc:
        raise _no_address(url) from exc
    if not parsed.host or parsed.scheme not in ("http", "https"):
        raise _no_address(url)
    return httpx.Client(
        # Names of sources may have letters of any language.
        headers=httpx.Headers(headers, encoding="utf-8"),
        timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
        limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
        trust_env=not is_this_machine(url),
    )


def address_of(url: str) -> str:
    """The server's address without a slash at its end, and without a route that somebody pasted with it."""
    address = url.rstrip("/")
    for route in (TICKS_ROUTE, BARS_ROUTE):
        if address.lower().endswith(route):
            return address[: -len(route)].rstrip("/")
    return address


def is_this_machine(url: str) -> bool:
    """Whether the address is one of this machine alone."""
    host = httpx.URL(url).host
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def post(client: httpx.Client, url: str, body: bytes, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """Whatever came back; `result_of` tells what it means.

    Raises:
        NoAnswer: when nothing did.
        SettingsError: when `url` is no address.
    """
    try:
        return client.post(url, content=body, headers=httpx.Headers(headers, encoding="utf-8"))
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as exc:
        raise _no_address(url) from exc
    except httpx.RequestError as exc:
        raise NoAnswer(f"{url} does not answer ({exc or type(exc).__name__})") from exc


def result_of(response: httpx.Response) -> dict[str, Any]:
    """The answer to a request that the server took, wholly, in part (207) or whose every item it rejected (400).

    Raises:
        ServerUnavailable: it may be sent again, and has to be.
        ServerRefused: the key (KeyRefused) or the address is wrong.
        SourceRefused: the key is not that of the source that the request names.
        BodyTooLarge, BodyRefused: it has to be split.
    """
    status, url = response.status_code, response.url
    answer = _json_of(response)
    if status < 300 or status == 409:
        return answer
    said = str(answer.get("error") or response.reason_phrase)
    if status == 400:
        if not answer.get("details"):
            raise BodyRefused(said)
        # Nothing was usable: every item is an error, though a long body's details stop at the first hundred.
        return {**answer, "errors": sys.maxsize}
    if status == 413:
        raise BodyTooLarge(said)
    if status == 403 and answer.get("code") == "FORBIDDEN":
        raise SourceRefused(f"{url} refuses the source ({said})")
    if status in (401, 403):
        raise KeyRefused(f"{url} refuses the key ({status}: {said})")
    if status in (408, 429) or status >= 500:
        raise ServerUnavailable(f"{url} answers {status}: {said}", _retry_after_seconds(response))
    error = NoSuchEndpoint if status == 404 else ServerRefused
    raise error(f"{url} answers {status}: {said}; is this the address of a Tickpipe producer?")


def new_retrying(
    *,
    patience_seconds: float | None,
    on_wait: Callable[[BaseException, float], None],
    stop: threading.Event | None = None,
) -> Retrying:
    """Tries again, longer and longer apart or as the server asks, what may succeed later; the last error is raised.

    Args:
        patience_seconds: for how long; None is for ever.
        on_wait: told the error and the pause before the next try (seconds).
        stop: ends the tries, and a pause at once.
    """
    stop = stop or threading.Event()
    ends = stop_when_event_set(stop)
    return Retrying(
        retry=retry_if_exception(lambda exc: isinstance(exc, TickpipeError) and exc.retriable),
        wait=_pause,
        stop=ends if patience_seconds is None else stop_any(ends, stop_after_delay(patience_seconds)),
        sleep=lambda seconds: wait_for(stop, seconds),
        before_sleep=lambda state: _tell(state, on_wait),
        reraise=True,
    )


def wait_for(event: threading.Event, seconds: float) -> None:
    """Return when the event is set, or after `seconds`."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and not event.wait(min(left, _SLICE_SECONDS)):
        pass


def send_split(
    items: Sequence[Item],
    send: Callable[[Sequence[Item]], dict[str, Any]],
    halves: Callable[[Sequence[Item]], Sequence[Sequence[Item]]],
) -> Iterator[tuple[Sequence[Item], dict[str, Any] | BodyTooLarge | BodyRefused]]:
    """Send items in order, in halves where one request is too large (413) or spoilt by an item that is not named.

    Yields what went in each request with its answer, or with the error where `halves` gives nothing smaller.
    """
    try:
        answer = send(items)
    except (BodyTooLarge, BodyRefused) as exc:
        parts = halves(items)
        if len(parts) < 2:
            yield items, exc
            return
        for part in parts:
            yield from send_split(part, send, halves)
        return
    yield items, answer


def _pause(state: RetryCallState) -> float:
    exc = state.outcome.exception() if state.outcome is not None else None
    asked = exc.retry_after_seconds if isinstance(exc, ServerUnavailable) else 0.0
    return max(min(_LONGEST_ASKED_SECONDS, asked), _wait_exponential(state))


def _tell(state: RetryCallState, on_wait: Callable[[BaseException, float], None]) -> None:
    exc = state.outcome.exception() if state.outcome is not None else None
    if exc is not None and state.next_action is not None:
        on_wait(exc, state.next_action.sleep)


def _no_address(url: str) -> SettingsError:
    return SettingsError(
        f"{url!r} is no address of a producer; use one such as https://ticks.example.com or http://127.0.0.1:18001"
    )


def _json_of(response: httpx.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _retry_after_seconds(response: httpx.Response) -> float:
    """Retry-After in either of its forms: seconds, or the date of the next try."""
    text = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0
