"""One request to the producer: a tick in the EA's words, and every answer as a result or an error with its cure."""

import email.utils
import sys
import time
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, Final

import httpx
import msgspec

from marketdata.errors import SettingsError, TickpipeError
from marketdata.tick import Tick

#: The producer waits 10 s for Kafka before it answers 503; less would give up on answers that are on their way.
_ANSWER_SECONDS: Final = 30.0
_CONNECT_SECONDS: Final = 5.0


class ProducerUnavailable(TickpipeError):
    """The producer did not take the ticks yet (network, 429, 5xx); is it running, and can it reach Kafka?"""

    retriable = True

    def __init__(self, message: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class ProducerRefused(TickpipeError):
    """The producer will never take this request as it is; the message carries its answer."""


class TooLarge(TickpipeError):
    """413: the body has to be split."""


class PostedTick(msgspec.Struct, gc=False, omit_defaults=True):
    """A tick as DataCollectorPRO 1.65 posts it."""

    ts: str
    symbol: str
    bid: float
    ask: float
    last: float
    volume: float
    flags: int
    ts_msc: int | None = None
    digits: int | None = None
    point: float | None = None
    spread: float | None = None
    meta: dict[str, str | int] | None = None


def new_client(url: str, headers: dict[str, str]) -> httpx.Client:
    """A client of one kept-alive connection; a proxy from the environment is not asked for this machine's own ports."""
    try:
        host = httpx.URL(url).host
    except httpx.InvalidURL as exc:
        raise SettingsError(f"{url!r} is no address of a producer; use one such as http://127.0.0.1:18001") from exc
    return httpx.Client(
        headers=headers,
        timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
        limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
        trust_env=not _is_this_machine(host),
    )


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def posted(
    tick: Tick, symbol: str, *, digits: int | None = None, point: float | None = None, coarse: bool = False
) -> PostedTick:
    """The tick in the EA's words; `ts` is in whole seconds, `ts_msc` has the milliseconds.

    `coarse` is for times that are known to the second only: no milliseconds are claimed, so that the fold takes equal
    ticks in a row for what they are.
    """
    return PostedTick(
        ts=_iso_second(tick.time_msc // 1000), symbol=symbol, bid=tick.bid, ask=tick.ask, last=tick.last,
        volume=tick.volume, flags=tick.flags, digits=digits, point=point,
        ts_msc=None if coarse and tick.time_msc % 1000 == 0 else tick.time_msc,
    )  # fmt: skip


def _iso_second(epoch_seconds: int) -> str:
    return datetime.fromtimestamp(epoch_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def post(client: httpx.Client, url: str, body: bytes) -> dict[str, Any]:
    """The producer's answer to one request that it took, wholly, in part (207) or whose every item it rejected (400).

    Raises:
        ProducerUnavailable, ProducerRefused, SettingsError: as `TickSender.send`.
        TooLarge: when the body has to be split.
    """
    try:
        response = client.post(url, content=body)
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as exc:
        raise SettingsError(f"{url!r} is no address of a producer; use one such as http://127.0.0.1:18001") from exc
    except httpx.TransportError as exc:
        raise ProducerUnavailable(f"{url} does not answer ({exc or type(exc).__name__}); is the producer up?") from exc
    status = response.status_code
    if status < 300 or status == 409:
        return _json_of(response)
    answer = _json_of(response)
    said = str(answer.get("error") or response.reason_phrase)
    if status == 400 and answer.get("details"):
        # Nothing was usable: every item is an error, though a long body's details stop at the first hundred.
        return {**answer, "errors": sys.maxsize}
    if status in (401, 403):
        raise SettingsError(
            f"{url} refuses the key ({status}: {said}); pass the right one with --key or TICKPIPE_API_KEYS"
        )
    if status == 413:
        raise TooLarge(said)
    if status in (408, 429) or status >= 500:
        raise ProducerUnavailable(f"{url} answers {status}: {said}", _retry_after_seconds(response))
    raise ProducerRefused(f"{url} answers {status}: {said}; is this the address of a Tickpipe producer?")


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
