"""Posting ticks or bars as an EA does: in order, over one connection, again and again until all are taken."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, Final, Generic, Self, TypeVar

import msgspec
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from marketdata.tick import Tick
from runtime.posting import BodyTooLarge, ServerRefused, ServerUnavailable, new_client
from tickpipe.sending.barfile import Bar
from tickpipe.sending.posting import post, posted, posted_bar

Item = TypeVar("Item")

#: Longest pause before the next try, whatever Retry-After says (seconds).
_LONGEST_PAUSE_SECONDS: Final = 30.0

#: How many refused ticks a report quotes.
_QUOTED: Final = 5

_wait_exponential = wait_random_exponential(multiplier=0.25, max=5)


@dataclass
class Outcome:
    """What the producer answered to some items."""

    accepted: int = 0
    rejected: int = 0
    #: The first reasons for a refusal, each with the number of the tick within the run.
    reasons: list[str] = field(default_factory=list)

    @property
    def sent(self) -> int:
        return self.accepted + self.rejected


OnWait = Callable[[str, float], None]


class Sender(ABC, Generic[Item]):
    """Posts items one batch after the other; the next leaves only after the one before was answered."""

    #: Path of the route, and what one item is called.
    route: ClassVar[str]
    noun: ClassVar[str]

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        source: str | None = None,
        patience_seconds: float = 300.0,
        on_wait: OnWait = lambda why, seconds: None,
        user_agent: str = "tickpipe-send",
    ) -> None:
        self.outcome = Outcome()
        self._url = f"{url.rstrip('/')}{self.route}"
        self._patience_seconds = patience_seconds
        self._on_wait = on_wait
        headers = {"X-API-Key": api_key, "Content-Type": "application/json", "User-Agent": user_agent}
        if source is not None:
            headers["X-Source"] = source
        self._client = new_client(url, headers)
        self._encoder = msgspec.json.Encoder()

    @abstractmethod
    def _body(self, items: Sequence[Item]) -> bytes:
        """The body of one request."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._client.close()

    def send(self, items: Sequence[Item]) -> None:
        """Post `items` and count what became of them in `outcome`.

        Raises:
            ServerUnavailable: when it did not take them for `patience_seconds`; they may be sent again.
            ServerRefused: when it never will.
            SettingsError: when the key or the address is wrong.
        """
        retrying = Retrying(
            retry=retry_if_exception(lambda exc: isinstance(exc, ServerUnavailable)),
            wait=_pause,
            stop=stop_after_delay(self._patience_seconds),
            before_sleep=self._tell,
            reraise=True,
        )
        try:
            answer = retrying(self._post, items)
        except BodyTooLarge as exc:
            if len(items) == 1:
                raise ServerRefused(f"a single {self.noun} is too large for {self._url} (413)") from exc
            middle = len(items) // 2
            self.send(items[:middle])
            self.send(items[middle:])
            return
        self._count(items, answer)

    def _post(self, items: Sequence[Item]) -> dict[str, Any]:
        return post(self._client, self._url, self._body(items))

    def _tell(self, state: RetryCallState) -> None:
        if state.outcome is not None and state.next_action is not None:
            self._on_wait(str(state.outcome.exception()), state.next_action.sleep)

    def _count(self, items: Sequence[Item], answer: dict[str, Any]) -> None:
        outcome = self.outcome
        rejected = min(len(items), int(answer.get("errors") or 0))
        for detail in answer.get("details") or ():
            if len(outcome.reasons) < _QUOTED and isinstance(detail, dict):
                number = outcome.sent + int(detail.get("index") or 0) + 1
                outcome.reasons.append(f"{self.noun} {number:,}: {detail.get('field')}: {detail.get('message')}")
        outcome.accepted += len(items) - rejected
        outcome.rejected += rejected


class TickSender(Sender[Tick]):
    """Posts the ticks of one symbol, in order: the fold recognises a resend by time that goes back."""

    route = "/ingest/tick"
    noun = "tick"

    def __init__(
        self,
        url: str,
        api_key: str,
        symbol: str,
        *,
        digits: int | None = None,
        point: float | None = None,
        coarse: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(url, api_key, **options)
        self._symbol, self._digits, self._point, self._coarse = symbol, digits, point, coarse

    def _body(self, items: Sequence[Tick]) -> bytes:
        ticks = [
            posted(tick, self._symbol, digits=self._digits, point=self._point, coarse=self._coarse) for tick in items
        ]
        return self._encoder.encode({"ticks": ticks})


class BarSender(Sender[Bar]):
    """Posts the bars of one symbol and timeframe that the broker computed."""

    route = "/ingest"
    noun = "bar"

    def __init__(self, url: str, api_key: str, symbol: str, timeframe: str, **options: Any) -> None:
        super().__init__(url, api_key, **options)
        self._symbol, self._timeframe = symbol, timeframe

    def _body(self, items: Sequence[Bar]) -> bytes:
        return self._encoder.encode({"items": [posted_bar(bar, self._symbol, self._timeframe) for bar in items]})


def _pause(state: RetryCallState) -> float:
    exc = state.outcome.exception() if state.outcome is not None else None
    asked = exc.retry_after_seconds if isinstance(exc, ServerUnavailable) else 0.0
    return min(_LONGEST_PAUSE_SECONDS, max(asked, _wait_exponential(state)))
