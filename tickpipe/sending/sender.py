"""Posting ticks or bars as an EA does: cut into batches, in order, over one connection, until all are taken."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from types import TracebackType
from typing import Any, ClassVar, Final, Generic, NamedTuple, Self, TypeVar

import msgspec
from msgspec import UNSET

from marketdata.contract.bar import PostedBar
from marketdata.contract.body import OFFSET
from marketdata.contract.http import BARS_ROUTE, TICKS_ROUTE, source_header
from marketdata.contract.tick import PostedTick, iso_instant, iso_second, middle_change, posted_ticks, skipped_line
from marketdata.errors import SettingsError, TickpipeError
from marketdata.tick import ChartMode
from runtime.exchange import Connection, address_of
from runtime.posting import (
    BodyTooLarge,
    KeyRefused,
    NoAnswer,
    Result,
    ServerRefused,
    SourceRefused,
    new_retrying,
    result_of,
    send_split,
)
from tickpipe.sending.blocks import FileTick
from tickpipe.sending.columnfile import BadLine, Timed
from tickpipe.sending.document import Written
from tickpipe.sending.history import Bar

Item = TypeVar("Item")
TimedItem = TypeVar("TimedItem", bound=Timed)

#: How many reasons of rejections a report quotes.
_QUOTED: Final = 5


@dataclass
class Outcome:
    """What became of the items that were sent."""

    accepted: int = 0
    rejected: int = 0
    #: The first reasons of rejections, each with the number of the item within the run.
    reasons: list[str] = field(default_factory=list)
    #: Lines of the file that were skipped; the first of them are among the reasons.
    skipped: int = 0

    @property
    def sent(self) -> int:
        return self.accepted + self.rejected

    def add_skipped(self, lines: int, reasons: Sequence[str]) -> None:
        """Count lines of a file that were skipped, with the reasons of the first of them."""
        self.skipped += lines
        self.reasons += reasons


OnWait = Callable[[str, float], None]


class Sender(ABC, Generic[Item]):
    """Posts items one batch after the other; the next is sent only after the previous one was answered."""

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
        self._url = f"{address_of(url)}{self.route}"
        self._patience_seconds = patience_seconds
        self._on_wait = on_wait
        headers = {
            "X-API-Key": api_key, "Content-Type": "application/json", "User-Agent": user_agent, **source_header(source),
        }  # fmt: skip
        self._connection = Connection(address_of(url), headers)
        self._encoder = msgspec.json.Encoder()

    @abstractmethod
    def _body(self, items: Sequence[Item]) -> bytes:
        """The body of one request."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._connection.close()

    def send(self, items: Sequence[Item]) -> None:
        """Post `items` and count what became of them in `outcome`.

        Raises:
            ServerUnavailable: when it did not take them for `patience_seconds`; they may be sent again.
            ServerRefused: when it never will.
            SettingsError: when the key or the address is wrong.
        """
        retrying = new_retrying(
            patience_seconds=self._patience_seconds, on_wait=lambda exc, seconds: self._on_wait(str(exc), seconds)
        )
        with keys_cure():
            for sent, result in send_split(items, lambda part: retrying(self._post, part), self._halves):
                if isinstance(result, TickpipeError):
                    status = 413 if isinstance(result, BodyTooLarge) else 400
                    raise ServerRefused(f"{self._url} refuses a single {self.noun} ({status}: {result})") from result
                self._count(sent, result)

    def _post(self, items: Sequence[Item]) -> Result:
        return post(self._connection, self._url, self._body(items), len(items))

    @abstractmethod
    def _halves(self, items: Sequence[Item]) -> Sequence[Sequence[Item]]:
        """The items in two parts, or in one where they cannot be parted."""

    def _count(self, items: Sequence[Item], result: Result) -> None:
        outcome = self.outcome
        for index, reason in result.reasons.items():
            if len(outcome.reasons) < _QUOTED:
                outcome.reasons.append(f"{self.noun} {outcome.sent + index + 1:,}: {reason}")
        outcome.accepted += len(items) - result.errors
        outcome.rejected += result.errors


def halved(items: Sequence[TimedItem]) -> Sequence[Sequence[TimedItem]]:
    """The items in two parts where the time changes; one is a part of its own."""
    if len(items) == 1:
        return (items,)
    middle = middle_change([item.time_msc for item in items])
    return items[:middle], items[middle:]


class PriceForm(NamedTuple):
    """How the prices of a symbol are written."""

    digits: int | None = None
    #: Size of a point.
    point: float | None = None


class TickSender(Sender[FileTick]):
    """Posts ticks in order: the fold recognises a resend by time that goes back.

    Args:
        form_of: how the prices of a symbol are written, as far as that is known when they are sent.
    """

    route = TICKS_ROUTE
    noun = "tick"

    def __init__(
        self, url: str, api_key: str, form_of: Callable[[str], PriceForm] = lambda symbol: PriceForm(), **options: Any
    ) -> None:
        super().__init__(url, api_key, **options)
        self._form_of = form_of
        self.set_form()

    def set_form(self, *, coarse: bool = False, are_instants: bool = False, mode: ChartMode | None = None) -> None:
        """Set what the times of the following ticks are, and which price draws their chart where they say it."""
        self._coarse, self._are_instants, self._mode = coarse, are_instants, mode

    def _halves(self, items: Sequence[FileTick]) -> Sequence[Sequence[FileTick]]:
        return halved(items)

    def _body(self, items: Sequence[FileTick]) -> bytes:
        forms = {symbol: self._form_of(symbol) for symbol in {tick.symbol for tick in items}}
        ticks: list[PostedTick] = []
        # Ticks in a row are of one symbol, and of one second or the next.
        for symbol, of_one in groupby(items, attrgetter("symbol")):
            digits, point = forms[symbol]
            ticks += posted_ticks(
                of_one, symbol, digits=digits, point=point, coarse=self._coarse, is_instant=self._are_instants
            )
        if self._mode is not None:
            for posted in ticks:
                posted.mode = self._mode
        return self._encoder.encode({"ticks": ticks})


class BarSender(Sender[Bar]):
    """Posts the bars of one timeframe that the broker computed."""

    route = BARS_ROUTE
    noun = "bar"

    def __init__(self, url: str, api_key: str, timeframe: str, *, are_instants: bool = False, **options: Any) -> None:
        super().__init__(url, api_key, **options)
        self._timeframe, self._are_instants = timeframe, are_instants

    def _body(self, items: Sequence[Bar]) -> bytes:
        bars = [
            PostedBar(
                bar.symbol, self._timeframe, self._opening(bar), bar.open, bar.high, bar.low, bar.close,
                tick_volume=bar.tick_volume,
                real_volume=UNSET if bar.real_volume is None else bar.real_volume,
                spread=UNSET if bar.spread is None else bar.spread,
            )
            for bar in items
        ]  # fmt: skip
        return self._encoder.encode({"items": bars})

    def _halves(self, items: Sequence[Bar]) -> Sequence[Sequence[Bar]]:
        return halved(items)

    def _opening(self, bar: Bar) -> str:
        return iso_instant(bar.time_msc, coarse=True) if self._are_instants else iso_second(bar.time_msc)


class ItemSender(Sender[bytes]):
    """Posts items as somebody else has written them.

    Args:
        utc_offset_seconds: of the clock of whoever wrote them, where that was said.
    """

    noun = "item"

    def __init__(
        self, url: str, api_key: str, route: str, *, utc_offset_seconds: int | None = None, **options: Any
    ) -> None:
        self.route = route  # type: ignore[misc]  # of this sender, not of its class
        super().__init__(url, api_key, **options)
        offset = b"" if utc_offset_seconds is None else b'"%b":%d,' % (OFFSET.encode(), utc_offset_seconds)
        self._begin = b'{%b"%b":[' % (offset, b"ticks" if route == TICKS_ROUTE else b"items")

    def _body(self, items: Sequence[bytes]) -> bytes:
        text = items.text if isinstance(items, Written) else b",".join(items)
        return b"%b%b]}" % (self._begin, text)

    def _halves(self, items: Sequence[bytes]) -> Sequence[Sequence[bytes]]:
        middle = len(items) // 2
        return (items[:middle], items[middle:]) if middle else (items,)


class BadLineSender(Sender[BadLine]):
    """Posts lines that are no ticks or bars, so that the server stores them with its rejected records.

    Args:
        file: the name of the file that they stand in.
    """

    route = TICKS_ROUTE
    noun = "line"

    def __init__(self, url: str, api_key: str, file: str, **options: Any) -> None:
        super().__init__(url, api_key, **options)
        self._file = file

    def _body(self, items: Sequence[BadLine]) -> bytes:
        lines = [skipped_line(self._file, line.number, line.text, line.reason) for line in items]
        return self._encoder.encode({"ticks": lines})

    def _halves(self, items: Sequence[BadLine]) -> Sequence[Sequence[BadLine]]:
        middle = len(items) // 2
        return (items[:middle], items[middle:]) if middle else (items,)


def post(connection: Connection, url: str, body: bytes, sent: int | None) -> Result:
    """What became of one request; see `runtime.posting.result_of` for `sent` and the errors."""
    try:
        return result_of(connection.post(url, body), sent)
    except NoAnswer as exc:
        raise NoAnswer(f"{exc}; is the producer up?") from exc


@contextmanager
def keys_cure() -> Iterator[None]:
    """Turns a refusal of the key into wrong use, with what to do about it."""
    try:
        yield
    except (KeyRefused, SourceRefused) as exc:
        raise SettingsError(f"{exc}; pass the right one with --key or TICKPIPE_API_KEYS") from exc
