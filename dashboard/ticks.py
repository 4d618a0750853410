"""Queries of ticks: the request, the page that answers it, and its forms."""

import asyncio
import csv
import io
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from dashboard.answers import Refusal, encode, load_pyarrow
from dashboard.candles import check_names, epoch_ms, parse_time
from dashboard.database import Database
from marketdata.refold import TickRow, columns_of, iso_milliseconds, shown
from marketdata.tick import MAX_TIME_MSC, period_of
from runtime import clock
from runtime.foreign import cell
from runtime.settings import Settings
from sink.ticks import ArrowTicks, TickRange, TickReader, missing_spans

DEFAULT_LIMIT: Final = 10_000
#: A day of most symbols; more comes page by page.
MAX_LIMIT: Final = 200_000

#: Ticks that are folded in one pass: while it is prepared no other request is served, for some 20 ms.
_PASS_TICKS: Final = 20_000

#: Ticks that are rendered in one go, some 2 ms.
_SLICE_ROWS: Final = 500


@dataclass(frozen=True)
class Cursor:
    """Where a page goes on: behind so many ticks of a millisecond, or, raw, of a minute.

    Ticks that arrive meanwhile stand behind those of their millisecond that were there, so nothing shifts.
    """

    time_msc: int
    given: int

    def __str__(self) -> str:
        return f"{self.time_msc}-{self.given}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """The cursor that `next` of an answer contains.

        Raises:
            Refusal: 400 for anything else.
        """
        time_msc, _, given = text.partition("-")
        if not (text.isascii() and time_msc.isdecimal() and given.isdecimal() and len(text) < 40):
            raise _unusable("cursor", "take it from `next` of an answer, or leave it out")
        return cls(min(int(time_msc), MAX_TIME_MSC), int(given))


@dataclass(frozen=True)
class TickRequest:
    """The ticks of one source and symbol from `first_ms` up to, not including, `end_ms` (UTC epoch milliseconds)."""

    symbol: str
    source: str | None
    first_ms: int
    end_ms: int
    limit: int = DEFAULT_LIMIT
    raw: bool = False
    cursor: Cursor | None = None

    def __post_init__(self) -> None:
        """Refuse names that no record has, and times that leave nothing between them."""
        check_names(self.symbol, self.source)
        if self.first_ms < 0:
            raise _unusable("from", "ticks begin in 1970")
        if self.first_ms >= self.end_ms:
            raise _unusable("from", "`from` must be before `to`")

    @classmethod
    def parse(cls, *, from_: str | None, to: str | None, cursor: str | None, **others: Any) -> "TickRequest":
        """The request that the query parameters describe; without `to` up to now.

        Raises:
            Refusal: 400 naming the parameter that cannot be used and what is accepted.
        """
        if from_ is None:
            raise _unusable("from", "say from when on; a day is from=2019-02-04&to=2019-02-05")
        end_ms = clock.now_ms() + 1 if to is None else epoch_ms(parse_time("to", to))
        at = None if cursor is None else Cursor.parse(cursor)
        return cls(first_ms=epoch_ms(parse_time("from", from_)), end_ms=end_ms, cursor=at, **others)

    def place_of(self, row: TickRow) -> int:
        """What a cursor names: the tick's millisecond, or the minute that raw ticks are ordered by."""
        time_msc: int = row[0]
        return period_of(time_msc) if self.raw else time_msc


@dataclass
class Page:
    """The first ticks of a request, at most `limit`."""

    request: TickRequest
    rows: list[TickRow] = field(default_factory=list)
    #: Minutes that the log lost, as far as the page reaches.
    gone: list[int] = field(default_factory=list)
    has_more: bool = False

    def take(self, rows: Sequence[TickRow]) -> None:
        """Add the ticks of one minute, from the cursor on."""
        if (cursor := self.request.cursor) is not None and rows and not self.rows:
            # Reading begins at what the cursor names, so what was given already comes first.
            given = sum(self.request.place_of(row) == cursor.time_msc for row in rows)
            rows = rows[min(given, cursor.given) :]
        self.rows += rows
        if len(self.rows) > self.request.limit:
            del self.rows[self.request.limit :]
            self.has_more = True

    @property
    def following(self) -> str | None:
        """The URL of the page that follows, relative to where the API begins; None when this is the last."""
        if not self.has_more:
            return None
        request = self.request
        at = request.place_of(self.rows[-1])
        given = sum(1 for row in self.rows if request.place_of(row) == at)
        if request.cursor is not None and request.cursor.time_msc == at:
            given += request.cursor.given
        query = {
            "symbol": request.symbol, "source": request.source or "", "from": request.first_ms, "to": request.end_ms,
            "limit": request.limit, "cursor": Cursor(at, given),
        }  # fmt: skip
        return "ticks?" + urlencode(query | ({"raw": "true"} if request.raw else {}))

    @property
    def gone_spans(self) -> list[dict[str, str]]:
        """The minutes that the log lost, as spans."""
        return [{"from": iso_milliseconds(a), "to": iso_milliseconds(b)} for a, b in missing_spans(self.gone)]


async def read_page(settings: Settings, database: Database, request: TickRequest) -> Page:
    """The ticks that the request asks for, which names its source.

    Raises:
        KafkaUnavailable: when no broker answers.
        Refusal: when the database does not.
    """
    page = Page(request)
    first_ms = request.first_ms
    if request.cursor is not None:
        first_ms = max(first_ms, request.cursor.time_msc)
    if first_ms >= request.end_ms:
        return page
    wanted = TickRange(request.source or "", request.symbol, first_ms, request.end_ms)
    reader = TickReader(
        settings, database.reading, wanted, raw=request.raw, pass_ticks=min(_PASS_TICKS, request.limit)
    )  # fmt: skip
    async with aclosing(reader.minutes()) as minutes:
        async for minute in minutes:
            if minute.is_gone:
                page.gone.append(minute.ts)
            page.take(minute.rows)
            if page.has_more:
                break
    return page


async def render_page(name: str, page: Page, following: str | None) -> bytes:
    """The page as `json`, `csv` or `arrow`; `following` is the URL of the page that follows.

    Some hundred ticks at a time, and in between the other requests are served. In a thread it would hold them up for
    longer: they and the thread would hand each other the interpreter lock at every turn.

    Raises:
        Refusal: 406 for Arrow where pyarrow is not installed.
    """
    form = _FORMS[name](page, following)
    for begin in range(0, len(page.rows), _SLICE_ROWS):
        form.add(page.rows[begin : begin + _SLICE_ROWS])
        await asyncio.sleep(0)
    return form.content()


class _Json:
    def __init__(self, page: Page, following: str | None) -> None:
        request = page.request
        self._columns = columns_of(raw=request.raw)
        self._parts: list[bytes] = []
        self._frame = encode({
            "symbol": request.symbol,
            "source": request.source,
            "from": iso_milliseconds(request.first_ms),
            "to": iso_milliseconds(request.end_ms),
            "gone": page.gone_spans,
            "next": following,
        })  # fmt: skip

    def add(self, rows: list[TickRow]) -> None:
        columns = self._columns
        self._parts.append(encode([dict(zip(columns, shown(row), strict=True)) for row in rows])[1:-1])

    def content(self) -> bytes:
        return self._frame[:-1] + b',"ticks":[' + b",".join(self._parts) + b"]}"


class _Csv:
    def __init__(self, page: Page, _following: str | None) -> None:
        self._text = io.StringIO()
        self._raw = page.request.raw
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._writer.writerow(columns_of(raw=page.request.raw))

    def add(self, rows: list[TickRow]) -> None:
        # Of a tick itself nothing is text; of a record the request's id is, and its sender chose it.
        self._writer.writerows([cell(one) for one in shown(row)] if self._raw else shown(row) for row in rows)

    def content(self) -> bytes:
        return self._text.getvalue().encode()


class _Arrow:
    def __init__(self, page: Page, _following: str | None) -> None:
        pa = load_pyarrow()
        self._arrow = ArrowTicks(raw=page.request.raw)
        self._sink = io.BytesIO()
        self._writer = pa.ipc.new_stream(self._sink, self._arrow.schema)

    def add(self, rows: list[TickRow]) -> None:
        self._writer.write_batch(self._arrow.batch(rows))

    def content(self) -> bytes:
        self._writer.close()
        return self._sink.getvalue()


_FORMS: Final[dict[str, type[_Json | _Csv | _Arrow]]] = {"json": _Json, "csv": _Csv, "arrow": _Arrow}


def _unusable(name: str, message: str) -> Refusal:
    return Refusal(400, "INVALID_PARAMETER", f"{name}: {message}")
