"""Pages of ticks join without gap or overlap wherever they end, and few requests read the log at once."""

import asyncio
from collections.abc import AsyncGenerator
from urllib.parse import parse_qs

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dashboard.tick_answers
from dashboard.access import Turns
from dashboard.answers import Refusal
from dashboard.formats import render_page, tick_form
from dashboard.tick_answers import Head, read_ahead, reading_the_log
from dashboard.ticks import Cursor, Page, TickRequest, following
from marketdata.errors import KafkaUnavailable
from marketdata.refold import TickRow
from marketdata.tick import MINUTE_MS, Tick, period_of
from sink.ticks import TickBatch

T0 = 1_549_238_400_000

#: Minutes of several ticks, of which some are in one millisecond; raw ones are in any order within their minute.
ROWS = st.lists(
    st.builds(lambda minute, ms: T0 + minute * MINUTE_MS + ms, st.integers(0, 2), st.integers(0, 3)), max_size=20
)


def page_of(rows: list[TickRow], request: TickRequest) -> Page:
    """The page as `read_page` makes it: reading begins at the cursor's moment."""
    first_ms = max(request.first_ms, request.cursor.time_msc) if request.cursor else request.first_ms
    page = Page(request)
    for minute in sorted({period_of(row[0]) for row in rows}):
        page.take([row for row in rows if period_of(row[0]) == minute and row[0] >= first_ms])
        if page.has_more:
            break
    return page


@given(ROWS, st.integers(1, 7), st.booleans(), st.integers(0, 2))
def test_pages_join_without_gap_or_overlap(times: list[int], limit: int, raw: bool, first: int) -> None:
    rows = [(time_msc, float(number)) for number, time_msc in enumerate(times if raw else sorted(times))]
    rows.sort(key=lambda row: period_of(row[0]))
    request = TickRequest("EURUSD", "S", T0 + first, T0 + 3 * MINUTE_MS, limit, raw)
    found: list[TickRow] = []

    for _ in range(len(rows) + 1):
        page = page_of(rows, request)
        found += page.rows
        if (url := following(request, page.end)) is None:
            break
        query = {name: values[0] for name, values in parse_qs(url.partition("?")[2]).items()}
        assert len(page.rows) == limit
        request = TickRequest(
            "EURUSD", "S", int(query["from"]), int(query["to"]), int(query["limit"]),
            query.get("raw") == "true", Cursor.parse(query["cursor"]),
        )  # fmt: skip

    assert found == [row for row in rows if row[0] >= T0 + first]


def test_a_tick_before_the_time_that_is_asked_for_is_none_of_it() -> None:
    # Python and pandas write microseconds.
    asked = TickRequest.parse(
        symbol="EURUSD", source="S", from_="2019-02-04T00:00:00.470001Z", to="2019-02-04T00:00:01.929400Z", cursor=None
    )
    assert (asked.first_ms, asked.end_ms) == (T0 + 471, T0 + 1_930)
    exact = TickRequest.parse(symbol="EURUSD", source="S", from_=f"{T0 / 1000 + 0.47}", to=f"{T0 + 1930}", cursor=None)
    assert (exact.first_ms, exact.end_ms) == (T0 + 470, T0 + 1_930)


@pytest.mark.parametrize("text", ["", "-", "5", "x-1", "1-x", "-1-1", "1-1-1", "٣-1", "9" * 39 + "-1"])
def test_a_cursor_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Refusal, match="cursor: take it from `next`"):
        Cursor.parse(text)


async def test_lost_minutes_are_named_as_spans() -> None:
    page = Page(TickRequest("EURUSD", "S", T0, T0 + 1), gone=[T0, T0 + MINUTE_MS, T0 + 3 * MINUTE_MS])
    assert (
        b'"gone":[{"from":"2019-02-04T00:00:00.000Z","to":"2019-02-04T00:02:00.000Z"},'
        b'{"from":"2019-02-04T00:03:00.000Z","to":"2019-02-04T00:04:00.000Z"}]'
    ) in await render_page("json", page, None)


def test_page_that_begins_behind_its_first_minute_is_json() -> None:
    form = tick_form("json", Page(TickRequest("EURUSD", "S", T0, T0 + 1)), None)
    batches = [TickBatch(T0), TickBatch(T0, [Tick(T0, 1.0, 2.0, 0.0, 0.0, 6)]), TickBatch(T0)]
    pieces = [form.begin(), *map(form.add, batches), form.end()]
    assert [tick["bid"] for tick in msgspec.json.decode(b"".join(pieces))["ticks"]] == [1.0]


async def test_what_fails_gives_its_turn_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard.tick_answers, "_READING_SECONDS", 0.05)
    turns = Turns(2, "read ticks", patience_seconds=5)

    async def slow() -> None:
        async with turns.turn("a"), reading_the_log():
            await asyncio.sleep(60)

    async def failing() -> None:
        async with turns.turn("a"), reading_the_log():
            raise KafkaUnavailable("no broker answers")

    for _ in range(3):
        with pytest.raises(Refusal, match="took too long"):
            await slow()
        with pytest.raises(Refusal, match="no broker answers"):
            await failing()


async def test_reading_does_not_wait_for_a_slow_client_and_ends_when_it_is_gone() -> None:
    turns = Turns(1, "read ticks", patience_seconds=0.05)
    read: list[bytes] = []

    async def pieces(most: int) -> AsyncGenerator[Head | bytes, None]:
        async with turns.turn("a"):
            while len(read) < most:
                read.append(b"piece")
                yield b"piece"
                await asyncio.sleep(0)

    # Nobody takes the second piece, and the turn comes back.
    slow = read_ahead(pieces(3))
    assert await anext(slow) == b"piece"
    await asyncio.sleep(0.02)
    assert len(read) == 3
    async with turns.turn("b"):
        pass
    # One that would never end does when it is given up.
    gone = read_ahead(pieces(10**9))
    await anext(gone)
    await gone.aclose()
    count = len(read)
    async with turns.turn("b"):
        await asyncio.sleep(0.01)
    assert len(read) == count
    assert [piece async for piece in slow] == [b"piece"] * 2
