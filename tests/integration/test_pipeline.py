"""The whole pipeline as processes: a day of ticks over HTTP, rows in the database, equal to bars of another hand."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import psycopg
import pytest

from runtime import clock
from runtime.settings import Settings
from sink.refolds import QUIET_SECONDS
from sink.verify import verify
from tests.conftest import API_KEY
from tests.days import DAYS, Day, iso_time
from tests.kafka_log import group_lag
from tests.services import Service, running
from tests.waiting import PATIENCE_SECONDS, eventually

pytestmark = pytest.mark.long(40)

BATCH = 200

Row = tuple[float, float, float, float, int]


class Pipeline:
    """A running pipeline and what a user sees of it."""

    def __init__(self, settings: Settings, services: list[Service]) -> None:
        self.settings = settings
        self.producer, self.stream, self.sink = services
        self.http = httpx.AsyncClient(
            base_url=self.producer.url, headers={"X-API-Key": API_KEY}, timeout=PATIENCE_SECONDS
        )

    async def post(self, items: list[dict[str, object]]) -> None:
        answer = await self.http.post("/ingest/tick", json={"ticks": items})
        assert answer.status_code == 200, answer.text
        assert answer.json()["inserted"] == len(items)

    async def post_day(self, day: Day) -> None:
        for batch in batched(eurusd_items(day)):
            await self.post(batch)

    async def lag(self) -> int:
        """Records that the stream app or the sink have not committed."""
        groups = [
            (self.settings.stream_group, self.settings.ticks_topic),
            (self.settings.sink_group, self.settings.candles_topic),
        ]
        return sum([await group_lag(self.settings, group, topic) for group, topic in groups])

    async def settled(self) -> None:
        """Wait until everything that was sent is stored and nothing waits to be refolded."""

        async def done() -> bool:
            return await self.lag() == 0 and not self.sql("SELECT 1 FROM pending_refolds LIMIT 1")

        await eventually(done, what="a settled pipeline")

    def sql(self, query: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.settings.database_url.get_secret_value()) as connection:
            return connection.execute(query.encode()).fetchall()

    def proofs(self) -> list[tuple[datetime, int]]:
        """Each row's minute and the end of its offsets."""
        with psycopg.connect(self.settings.database_url.get_secret_value()) as connection:
            return connection.execute("SELECT ts, upper(offsets) FROM market_data").fetchall()

    def rows(self, symbol: str) -> dict[int, Row]:
        with psycopg.connect(self.settings.database_url.get_secret_value()) as connection:
            found = connection.execute(
                "SELECT (extract(epoch FROM ts) * 1000)::bigint, open, high, low, close, volume FROM market_data"
                " WHERE symbol = %s AND timeframe = 'M1'",
                [symbol],
            ).fetchall()
        return {ts: (open_, high, low, close, volume) for ts, open_, high, low, close, volume in found}

    async def assert_proven(self, rows: int) -> None:
        report = await verify(self.settings)
        assert (report.checked, report.equal) == (rows, rows), report


def batched(items: list[dict[str, object]]) -> list[list[dict[str, object]]]:
    return [items[i : i + BATCH] for i in range(0, len(items), BATCH)]


def eurusd_items(day: Day) -> list[dict[str, object]]:
    return [
        {
            "ts": datetime.fromtimestamp(tick.time_msc // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "ts_msc": tick.time_msc, "symbol": "EURUSD", "bid": tick.bid, "ask": tick.ask, "last": 0.0, "volume": 0,
            "flags": 6, "digits": 5, "point": 0.00001, "spread": tick.ask - tick.bid,
            "meta": {"ea": "PDC", "ver": "1.65", "src": "tick", "acct": 1, "srv": "Demo", "build": 3850},
        }
        for tick in day.ticks
    ]  # fmt: skip


def assert_is_the_day(day: Day, rows: dict[int, Row]) -> None:
    assert {ts: row[:4] for ts, row in rows.items()} == day.bars
    assert sum(row[4] for row in rows.values()) == len(day.ticks)


@pytest.fixture
async def pipeline(settings: Settings) -> AsyncIterator[Pipeline]:
    with running(settings, "producer", "stream_app", "sink") as services:
        pipeline = Pipeline(settings, services)
        yield pipeline
        await pipeline.http.aclose()


# A whole day twice takes 40 s of a processor; that of integration/test_stack.py is whole. The real one shows no more
# kinds of ticks than the generated one.
@pytest.mark.parametrize(
    "day",
    [
        DAYS[0].beginning(8),
        *(pytest.param(day, marks=[pytest.mark.full, pytest.mark.long(80)]) for day in DAYS),
    ],
    ids=str,
)
async def test_a_day_equals_its_bars_and_sent_twice_changes_nothing(pipeline: Pipeline, day: Day) -> None:
    records = -(-len(day.ticks) // BATCH)
    await pipeline.post_day(day)
    await pipeline.settled()
    once = pipeline.rows("EURUSD")
    assert_is_the_day(day, once)
    await pipeline.assert_proven(len(day.bars))
    refolded_before = pipeline.sink.metric("tickpipe_sink_refold_records_total")
    began = time.monotonic()

    await pipeline.post_day(day)
    await pipeline.settled()
    seconds = time.monotonic() - began

    assert pipeline.rows("EURUSD") == once
    # The offsets grew: each row now proves both copies.
    assert [ts for ts, end in pipeline.proofs() if end <= records] == []
    await pipeline.assert_proven(len(day.bars))
    # A pass reads both copies at most, and there is one for each quiet moment while the second copy arrives: the slower
    # the machine, the more of them. Minute by minute it would be a thousand times as many records.
    passes = 1 + seconds / QUIET_SECONDS
    assert pipeline.sink.metric("tickpipe_sink_refold_records_total") - refolded_before <= passes * 2 * records


@pytest.mark.parametrize("day", [DAYS[0], *(pytest.param(day, marks=pytest.mark.full) for day in DAYS[1:])], ids=str)
async def test_sparse_quotes_give_candles_only_where_there_are_ticks(pipeline: Pipeline, day: Day) -> None:
    items: list[dict[str, object]] = [
        {"time": iso_time(tick), "symbol": "USDJPY", "bid": tick.bid, "ask": tick.ask} for tick in day.sparse
    ]
    for batch in batched(items):
        await pipeline.post(batch)
    await pipeline.settled()

    rows = pipeline.rows("USDJPY")
    assert {ts: row[4] for ts, row in rows.items()} == day.sparse_minutes
    await pipeline.assert_proven(len(day.sparse_minutes))


@pytest.mark.fault
async def test_live_candles_are_stored_within_seconds(pipeline: Pipeline) -> None:
    now_ms = clock.now_ms()
    await pipeline.post([{"ts_msc": now_ms, "symbol": "EURUSD", "bid": 1.1, "ask": 1.2}])

    async def stored() -> bool:
        return bool(pipeline.rows("EURUSD"))

    await eventually(stored, what="the open candle")
    assert pipeline.sql("SELECT open, close, volume, closed, origin, source FROM market_data") == [
        (1.1, 1.1, 1, False, "ticks", "default")
    ]


async def test_live_ticks_are_timed_stage_by_stage_and_a_replay_is_not(pipeline: Pipeline) -> None:
    def timed() -> dict[str, float]:
        services = {"received": pipeline.producer, "logged": pipeline.producer, "folded": pipeline.stream,
                    "published": pipeline.stream, "stored": pipeline.sink}  # fmt: skip
        return {stage: one.metric("tickpipe_stage_seconds_count", stage=stage) for stage, one in services.items()}

    now_ms = clock.now_ms()
    await pipeline.post([{"ts_msc": now_ms, "symbol": "EURUSD", "bid": 1.1, "ask": 1.2}])

    async def stored() -> bool:
        return timed()["stored"] == 1

    await eventually(stored, what="a stored candle that is timed")
    assert timed() == dict.fromkeys(timed(), 1)

    # The worker begins again with the open minute, whose tick waits since long before: nothing of it is timed.
    await asyncio.to_thread(pipeline.stream.kill)
    pipeline.stream.start().wait_ready()

    async def stored_again() -> bool:
        return pipeline.sink.metric("tickpipe_sink_rows_total") >= 2

    await eventually(stored_again, what="the minute folded and judged again")
    assert timed() == {"received": 1, "logged": 1, "folded": 0, "published": 0, "stored": 1}
