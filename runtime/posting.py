"""What a server's answer means for the sender: accepted, retry, split, or refused.

Anything may answer in the server's place: a hotel's Wi-Fi page with 200, a proxy with a redirect or a 401. Only an
answer in the contract's form that counts what was sent confirms it, and no single answer ends sending.

::

    TickpipeError
    ├── ServerUnavailable       the server did not take a request yet (retriable)
    │   └── NoAnswer            nothing came back at all
    │       └── NotTrusted      who answers cannot prove to be the server
    ├── ServerRefused           nothing is taken from here until somebody puts something right (retriable)
    │   ├── KeyRefused          401, 403
    │   ├── NoSuchEndpoint      404
    │   └── ForeignAnswer       something else than a Tickpipe server answers
    ├── SourceRefused           403: the key may not speak for the source that this request names
    ├── BodyTooLarge            413: the body has to be split
    └── BodyRefused             400 without details: some item of the body spoils it
"""

import email.utils
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple, TypeVar

import msgspec
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, stop_when_event_set
from tenacity.stop import stop_base
from tenacity.wait import wait_random_exponential

from marketdata.errors import TickpipeError

Item = TypeVar("Item")

#: Longest pause before the next try when the server does not say, and the longest that it may ask for (seconds).
_LONGEST_PAUSE_SECONDS: Final = 30.0
_LONGEST_ASKED_SECONDS: Final = 300.0

#: So many refusals in a row end the tries of who has limited patience.
_MOST_REFUSALS: Final = 3

#: An event that ends a pause is looked at so often: Windows delivers Ctrl-C between waits only (seconds).
_SLICE_SECONDS: Final = 0.5

#: Of what something else than our server said, so much is quoted (characters).
_QUOTED: Final = 80

_wait_exponential: Final = wait_random_exponential(multiplier=0.25, max=_LONGEST_PAUSE_SECONDS)


class ServerUnavailable(TickpipeError):
    """The server has not accepted the request yet (network, 408, 429, 5xx); send it again."""

    retriable = True
    #: The kind of trouble, as a word for metrics.
    cause: ClassVar[str] = "unavailable"

    def __init__(self, message: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class NoAnswer(ServerUnavailable):
    """Nothing came back: the server is down, or the network is. It may have taken the request all the same."""

    cause = "no_answer"


class NotTrusted(NoAnswer):
    """The certificate is not one that this machine trusts for this address."""


class ServerRefused(TickpipeError):
    """The server accepts nothing from this sender; correct what the message names, and sending resumes."""

    retriable = True
    cause: ClassVar[str] = "refused"


class KeyRefused(ServerRefused):
    """The server does not know the key, or the key may not speak for the source (401, 403)."""

    cause = "key"


class NoSuchEndpoint(ServerRefused):
    """The server has no such path (404)."""

    cause = "no_endpoint"


class ForeignAnswer(ServerRefused):
    """Something answers that is no Tickpipe server: a network's login page, a proxy, a redirect."""

    cause = "foreign_answer"


#: Every `cause`.
CAUSES: Final = tuple(
    error.cause for error in (ServerUnavailable, NoAnswer, ServerRefused, KeyRefused, NoSuchEndpoint, ForeignAnswer)
)


class SourceRefused(TickpipeError):
    """The key may not speak for the source that this request names; for others it may be right (403 FORBIDDEN)."""


class BodyTooLarge(TickpipeError):
    """413: the body has to be split."""


class BodyRefused(TickpipeError):
    """400 that does not say which item is wrong: halve the body until it is found."""


class Reply(NamedTuple):
    """What came back; the body is empty when it was longer than an answer of ours can be."""

    status: int
    url: str
    reason_phrase: str
    headers: Mapping[str, str]
    body: bytes


class Result(NamedTuple):
    """The confirmation of a request."""

    #: How many items were sent, and how many of them the server refused for good.
    sent: int
    errors: int
    #: Why, by index of the item; a long body's reasons stop at the first hundred.
    reasons: dict[int, str]


def result_of(reply: Reply, sent: int | None) -> Result:
    """What became of the `sent` items of a request that the server took, wholly, in part or (400) not at all.

    `sent` is None where the sender does not know how many items its body has.

    Raises:
        ServerUnavailable: it may be sent again, and has to be.
        ServerRefused: likewise, once somebody has put the key (KeyRefused), the address (NoSuchEndpoint) or the network
            (ForeignAnswer) right.
        SourceRefused: the key is not that of the source that the request names.
        BodyTooLarge, BodyRefused: it has to be split.
    """
    status, url = reply.status, reply.url
    answer = answer_in(reply)
    is_ours = isinstance(answer.get("error"), str) and isinstance(answer.get("code"), str)
    if _is_confirmation(status, answer, sent) or (status == 409 and is_ours):
        count = sent or _count(answer, "received") or 0
        return Result(count, min(count, _count(answer, "errors") or 0), _reasons(answer))
    said = str(answer.get("error") or reply.reason_phrase)[:_QUOTED]
    if status in (408, 429) or status >= 500:
        raise ServerUnavailable(f"{url} answers {status}: {said}", _retry_after_seconds(reply))
    if status == 413 and sent != 1:
        raise BodyTooLarge(said)
    if status == 404:
        raise NoSuchEndpoint(f"{url} answers 404: {said}; is this the address of a Tickpipe producer?")
    # Gateways and login pages have statuses as well; what costs ticks or asks for a cure must be said in our words.
    if not is_ours:
        raise ForeignAnswer(f"{url} answers {_told(reply)}, which no Tickpipe server does: {_FOREIGN_CURE}")
    if status == 413:
        raise BodyTooLarge(said)
    if status == 400:
        if not (reasons := _reasons(answer)):
            raise BodyRefused(said)
        count = sent or len(reasons)
        return Result(count, count, reasons)
    if status == 403 and answer["code"] == "FORBIDDEN":
        raise SourceRefused(f"{url} refuses the source ({said})")
    if status in (401, 403):
        raise KeyRefused(f"{url} refuses the key ({status}: {said})")
    raise ServerRefused(f"{url} answers {status}: {said}; is this the address of a Tickpipe producer?")


_FOREIGN_CURE: Final = "is a login page or a proxy between, or is the address wrong?"


def answer_in(reply: Reply) -> dict[str, Any]:
    """The JSON object in a reply; empty when there is none."""
    try:
        answer = msgspec.json.decode(reply.body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _is_confirmation(status: int, answer: Mapping[str, Any], sent: int | None) -> bool:
    """Whether the answer counts what was sent. Older relays say `queued`, without a number."""
    if status == 409:
        return sent is not None and sent in (_count(answer, "received"), _count(answer, "duplicates"))
    if not 200 <= status < 300:
        return False
    if "received" in answer:
        received = _count(answer, "received")
        return bool(received) and sent in (None, received)
    return answer.get("ok") is True and answer.get("queued") is True


def _count(answer: Mapping[str, Any], name: str) -> int | None:
    number = answer.get(name)
    return number if isinstance(number, int) and not isinstance(number, bool) and number >= 0 else None


def _reasons(answer: Mapping[str, Any]) -> dict[int, str]:
    details = answer.get("details")
    return {
        detail["index"]: f"{detail.get('field')}: {detail.get('message')}"
        for detail in (details if isinstance(details, list) else ())
        if isinstance(detail, dict) and _count(detail, "index") is not None
    }


def _told(reply: Reply) -> str:
    """The answer of something foreign, in a few words."""
    if target := reply.headers.get("location"):
        return f"{reply.status} with a redirect to {target[:_QUOTED]!r}"
    kind = reply.headers.get("content-type", "no type").partition(";")[0][:_QUOTED]
    text = reply.body[: 4 * _QUOTED].decode("utf-8", "replace")[:_QUOTED]
    return f"{reply.status} ({kind}) {text!r}" if text else f"{reply.status} ({kind})"


def new_retrying(
    *,
    patience_seconds: float | None,
    on_wait: Callable[[BaseException, float], None],
    stop: threading.Event | None = None,
) -> Retrying:
    """Retries what may succeed later, at growing intervals or as the server asks; the last error is raised.

    Args:
        patience_seconds: for how long, and no more than some refusals in a row; None is for ever.
        on_wait: told the error and the pause before the next try (seconds).
        stop: ends the tries, and a pause at once.
    """
    stop = stop or threading.Event()
    ends: stop_base = stop_when_event_set(stop)
    if patience_seconds is not None:
        ends = ends | stop_after_delay(patience_seconds) | _Refusals()
    return Retrying(
        retry=retry_if_exception(lambda exc: isinstance(exc, TickpipeError) and exc.retriable),
        wait=_pause,
        stop=ends,
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
    send: Callable[[Sequence[Item]], Result],
    halves: Callable[[Sequence[Item]], Sequence[Sequence[Item]]],
) -> Iterator[tuple[Sequence[Item], Result | BodyTooLarge | BodyRefused]]:
    """Send items in order, in halves where one request is too large (413) or spoilt by an item that is not named.

    Yields what went in each request with its answer, or with the error where `halves` gives nothing smaller.
    """
    try:
        answer = send(items)
    except (BodyTooLarge, BodyRefused) as exc:
        # tenacity leaves the error in a cycle with its frames, and those hold the body until the collector comes.
        refusal = exc.with_traceback(None)
        parts = halves(items)
        if len(parts) < 2:
            yield items, refusal
            return
        for part in parts:
            yield from send_split(part, send, halves)
        return
    yield items, answer


class _Refusals(stop_base):
    """Stops at so many refusals in a row: one alone may be of something that stood between for a moment."""

    def __init__(self) -> None:
        self._in_row = 0

    def __call__(self, retry_state: RetryCallState) -> bool:
        if retry_state.attempt_number == 1:
            self._in_row = 0
        exc = retry_state.outcome.exception() if retry_state.outcome is not None else None
        self._in_row = self._in_row + 1 if isinstance(exc, ServerRefused) else 0
        return self._in_row >= _MOST_REFUSALS


def _pause(state: RetryCallState) -> float:
    exc = state.outcome.exception() if state.outcome is not None else None
    asked = exc.retry_after_seconds if isinstance(exc, ServerUnavailable) else 0.0
    return max(min(_LONGEST_ASKED_SECONDS, asked), _wait_exponential(state))


def _tell(state: RetryCallState, on_wait: Callable[[BaseException, float], None]) -> None:
    exc = state.outcome.exception() if state.outcome is not None else None
    if exc is not None and state.next_action is not None:
        on_wait(exc, state.next_action.sleep)


def _retry_after_seconds(reply: Reply) -> float:
    """Retry-After in either of its forms: seconds, or the date of the next try."""
    text = reply.headers.get("Retry-After", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
