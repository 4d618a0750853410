"""Pages of ticks join without gap or overlap wherever they end, and few requests read the log at once."""

import asyncio
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dashboard.origins
from dashboard.access import Turns
from dashboard.answers import Refusal
from dashboard.origins import reading_the_log
from dashboard.ticks import Cursor, Page, TickRequest, render_page
from marketdata.errors import KafkaUnavailable
from marketdata.refold import TickRow
from marketdata.tick import MINUTE_MS, period_of

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
        if page.following is None:
            break
        query = {name: values[0] for name, values in parse_qs(page.following.partition("?")[2]).items()}
        assert len(page.rows) == limit
        request = TickRequest(
            "EURUSD", "S", int(query["from"]), int(query["to"]), int(query["limit"]),
            query.get("raw") == "true", Cursor.parse(query["cursor"]),
        )  # fmt: skip

    assert found == [row for row in rows if row[0] >= T0 + first]


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


async def test_what_fails_gives_its_turn_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard.origins, "_READING_SECONDS", 0.05)
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
