"""Queries of ticks: the request, and the page that answers it."""

from bisect import bisect_left, bisect_right
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from dashboard.answers import Refusal, encode, etag_of
from dashboard.candles import check_names, parse_time
from dashboard.database import Database
from marketdata.errors import LogTruncated
from marketdata.refold import TickRow, iso_milliseconds
from marketdata.tick import MAX_TIME_MSC, MINUTE_MS, Columns, Ticks, joined, period_of
from runtime import clock
from runtime.logreader import LogClients
from runtime.settings import Settings
from sink.ticks import Minute, TickBatch, TickRange, TickReader, missing_spans

DEFAULT_LIMIT: Final = 10_000
#: A day of most symbols; more comes page by page.
MAX_LIMIT: Final = 200_000

#: Ticks that are folded in one pass: while it is prepared no other request is served, for some 20 ms.
_PASS_TICKS: Final = 20_000

#: A page of more ticks than these is sent while it is read, so many at a time.
_WHOLE_TICKS: Final = 10_000
_SENT_TICKS: Final = 2_000

#: So many of those that are columns of the archive already, which take a fraction of the time of the others; as text
#: they take as long, so that the first of them are few.
_TABLE_TICKS: Final = 5_000
_FIRST_TABLE_TICKS: Final = 500

#: Minutes that are taken out of the archive at once.
_PASS_MINUTES: Final = 240

#: Minutes of a page that is sent while it is read, and those whose number of ticks has to be read first.
_MOST_MINUTES: Final = 50_000
_MOST_UNSURE: Final = 10


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
        end_ms = clock.now_ms() + 1 if to is None else clock.millisecond_from(parse_time("to", to))
        at = None if cursor is None else Cursor.parse(cursor)
        first_ms = clock.millisecond_from(parse_time("from", from_))
        return cls(first_ms=first_ms, end_ms=end_ms, cursor=at, **others)

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
    def end(self) -> Cursor | None:
        """Where the page that follows begins; None when this is the last."""
        if not self.has_more:
            return None
        request = self.request
        at = request.place_of(self.rows[-1])
        given = sum(1 for row in self.rows if request.place_of(row) == at)
        if request.cursor is not None and request.cursor.time_msc == at:
            given += request.cursor.given
        return Cursor(at, given)


@dataclass(frozen=True)
class Outline:
    """A page that is known before it is read, from what the table says of its minutes."""

    request: TickRequest
    minutes: Sequence[Minute]
    #: As of a `Page`.
    gone: Sequence[int]
    end: Cursor | None

    def etag(self, form: str) -> str:
        """A weak ETag: the same records make the same ticks."""
        request = self.request
        end_ms = request.end_ms if form == "json" else min(request.end_ms, self.minutes[-1].ts + MINUTE_MS)
        about = (form, request.symbol, request.source, request.first_ms, end_ms, request.limit)
        records = [(minute.ts, minute.ranges) for minute in self.minutes]
        return etag_of(encode([about, str(request.cursor), str(self.end), self.gone, records]))

    def cut(self, batch: TickBatch) -> TickBatch:
        """What of the batch belongs to the page: from the cursor on, and up to where the next page begins."""
        begin, end = self.request.cursor, self.end
        if not ((begin and batch.ts <= begin.time_msc) or (end and batch.rows and batch.rows[-1][0] >= end.time_msc)):
            return batch
        times = [row[0] for row in batch.rows]
        return batch.part(_index(times, begin) if begin else 0, _index(times, end) if end else len(times))


def _index(times: Sequence[int], cursor: Cursor) -> int:
    """How many of these ascending times a cursor leaves behind."""
    first = bisect_left(times, cursor.time_msc)
    return first + min(cursor.given, bisect_right(times, cursor.time_msc) - first)


def following(request: TickRequest, end: Cursor | None) -> str | None:
    """The URL of the page that begins there, relative to where the API begins; None when there is none."""
    if end is None:
        return None
    query = {
        "symbol": request.symbol, "source": request.source or "", "from": request.first_ms, "to": request.end_ms,
        "limit": request.limit, "cursor": end,
    }  # fmt: skip
    return "ticks?" + urlencode(query | ({"raw": "true"} if request.raw else {}))


def spans_of(gone: Iterable[int]) -> list[dict[str, str]]:
    """The minutes that the log lost, as spans."""
    return [{"from": iso_milliseconds(a), "to": iso_milliseconds(b)} for a, b in missing_spans(gone)]


def reader_of(settings: Settings, database: Database, clients: LogClients, request: TickRequest) -> TickReader:
    """The reader of what the request asks for, which names its source; from the cursor on, if it has one."""
    first_ms = request.first_ms if request.cursor is None else max(request.first_ms, request.cursor.time_msc)
    wanted = TickRange(request.source or "", request.symbol, first_ms, max(first_ms, request.end_ms))
    return TickReader(
        settings, database.reading, wanted, raw=request.raw, pass_ticks=min(_PASS_TICKS, request.limit), clients=clients
    )


async def read_page(reader: TickReader, request: TickRequest) -> Page:
    """The ticks that the request asks for.

    Raises:
        KafkaUnavailable: when no broker answers.
        Refusal: when the database does not.
    """
    page = Page(request)
    async with aclosing(reader.batches()) as batches:
        async for batch in batches:
            if batch.is_gone:
                page.gone.append(batch.ts)
            page.take(batch.rows)
            if page.has_more:
                break
    return page


async def outline(reader: TickReader, request: TickRequest) -> Outline | None:
    """The page before it is read; None where it is small, or only reading tells where it ends.

    The table has the number of ticks of each minute, except of a part of one and of the newest, which are read for it,
    and of symbols that are charted by last.

    Raises: as `read_page`.
    """
    if request.raw or request.limit <= _WHOLE_TICKS:
        return None
    minutes: list[Minute] = []
    sure = 0
    async with aclosing(reader.minutes()) as found:
        async for minute in found:
            # From a cursor, or within a minute, begins a part of the first.
            sure += 0 if minute.is_foreign or minute.is_partial or not minutes else minute.ticks
            minutes.append(minute)
            if sure > request.limit or len(minutes) > _MOST_MINUTES:
                break
    gone = await reader.gone(minutes)
    held = [minute for minute in minutes if minute.ts not in gone]
    counts = {minute.ts: minute.ticks for minute in held}
    is_cut = request.cursor is not None or request.first_ms % MINUTE_MS != 0
    unsure = [minute for minute in held if minute.is_partial or (is_cut and minute is held[0])]
    if sure <= _WHOLE_TICKS or len(minutes) > _MOST_MINUTES or not held or len(unsure) > _MOST_UNSURE:
        return None
    counts |= dict.fromkeys([minute.ts for minute in unsure], 0)
    async for batch in reader.read(unsure):
        counts[batch.ts] = len(batch.rows)
        if request.cursor is not None and batch.ts == held[0].ts:
            counts[batch.ts] -= _index([row[0] for row in batch.rows], request.cursor)
    given = 0
    for number, minute in enumerate(held):
        if given + counts[minute.ts] > request.limit:
            # A page that is full at the end of a minute ends within it, behind the last tick.
            last = number if given < request.limit else number - 1
            missing = request.limit - given if last == number else counts[held[last].ts]
            end = await _end_in(reader, held[last], missing) if last > 0 else None
            kept = [ts for ts in sorted(gone) if ts < minute.ts]
            return None if end is None else Outline(request, held[: last + 1], kept, end)
        given += counts[minute.ts]
    # The loop ended before the last minute, for minutes that are gone after all.
    return None if sure > request.limit else Outline(request, held, sorted(gone), None)


async def _end_in(reader: TickReader, minute: Minute, ticks: int) -> Cursor | None:
    """Where a page ends that has so many ticks of its last minute; None when there are fewer."""
    rows = [row async for batch in reader.read([minute]) for row in batch.rows][:ticks]
    if len(rows) < ticks:
        return None
    at = rows[-1][0]
    return Cursor(at, sum(1 for row in rows if row[0] == at))


async def read_outlined(reader: TickReader, page: Outline) -> AsyncGenerator[TickBatch, None]:
    """The ticks of the page, some thousand at a time, the first minute at once.

    Raises:
        LogTruncated: when the log lost records of the page meanwhile, and as `read_page`.
    """
    held: list[Ticks] = []
    count = most = 0
    step = _FIRST_TABLE_TICKS
    async with aclosing(_minutes_of(reader, page.minutes)) as batches:
        async for batch in batches:
            if batch.is_gone:
                raise LogTruncated(f"the log lost records of {iso_milliseconds(batch.ts)} while they were read")
            found = page.cut(batch)
            if found.table is not None or len(found) > _SENT_TICKS:
                if held:
                    yield TickBatch(batch.ts, joined(held))
                    held, count, most = [], 0, _SENT_TICKS
                begin = 0
                while begin < len(found):
                    yield found.part(begin, begin + step)
                    begin, step = begin + step, _TABLE_TICKS
                continue
            held.append(found.ticks if isinstance(found.ticks, Columns) else list(found.ticks))
            count += len(found)
            if count > most:
                yield TickBatch(batch.ts, joined(held), has_deals=found.has_deals)
                held, count, most = [], 0, _SENT_TICKS
    if count:
        yield TickBatch(page.minutes[0].ts, joined(held))


async def _minutes_of(reader: TickReader, minutes: Sequence[Minute]) -> AsyncGenerator[TickBatch, None]:
    # Out of the archive in passes; what is in Kafka is read in one go, because each pass fetches ahead in vain.
    if await reader.is_archived(minutes):
        for begin in range(0, len(minutes), _PASS_MINUTES):
            async for batch in reader.read(minutes[begin : begin + _PASS_MINUTES]):
                yield batch
        return
    async with aclosing(reader.read_in_turn(minutes)) as batches:
        async for batch in batches:
            yield batch


def _unusable(name: str, message: str) -> Refusal:
    return Refusal(400, "INVALID_PARAMETER", f"{name}: {message}")
