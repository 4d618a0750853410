"""The collector that many run, as it comes: bars still forming every minute, ticks in whole seconds, an outage.

It posts, for each of its symbols, the bar still forming on the chart's timeframe, stamped with the minute of the
collection, and the ticks of one symbol. In an outage its requests become files, which are replayed beside live ones;
what no file holds its exporter sends, newest page first.
"""

import json
import random
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from runtime.settings import Settings
from tests.conftest import API_KEY
from tests.integration.test_pipeline import Pipeline
from tests.services import running
from tests.waiting import PATIENCE_SECONDS

pytestmark = [pytest.mark.full, pytest.mark.long(60)]

MINUTE = 60
HOUR = 3_600

#: 2025-10-20T02:00:00Z, on the grid of H1 and not of H4.
BEGIN = 1_760_925_600
LIVE, OUTAGE, AFTER = HOUR, 2 * HOUR, 10 * MINUTE
END = BEGIN + LIVE + OUTAGE + AFTER

TICKING = "EURUSD"
SYMBOLS = [TICKING, *(f"SYM{n:02}" for n in range(1, 28))]

#: Nothing ticks here since Friday.
STALE = "SYM27"
FRIDAY = BEGIN - 2 * 86_400 - 5 * HOUR - 2

TIMEFRAMES = {"M1": 60, "M5": 300, "M15": 900, "M30": 1_800, "H1": HOUR, "H4": 4 * HOUR, "D1": 24 * HOUR}

USER_AGENT = "DataCollectorPRO/PDC/1.65 (Account:12345; Server:Broker-Demo; Build:3850; Symbols:28; trace_id:0f)"
SOURCE = "Broker-Demo"

Item = dict[str, Any]


class Quote(NamedTuple):
    second: int
    bid: float


class Bar(NamedTuple):
    open: float
    high: float
    low: float
    close: float
    volume: int


class Collector(NamedTuple):
    """One way to set it up: the chart's timeframe, and what its time stamp and its meta say."""

    timeframe: str
    stamps_tick_time: bool
    says_bar_time: bool


COLLECTORS = [
    Collector("H1", stamps_tick_time=False, says_bar_time=True),
    Collector("M1", stamps_tick_time=False, says_bar_time=True),
    Collector("H1", stamps_tick_time=True, says_bar_time=False),
    Collector("H4", stamps_tick_time=False, says_bar_time=False),
    Collector("M5", stamps_tick_time=True, says_bar_time=True),
    Collector("M15", stamps_tick_time=False, says_bar_time=False),
    Collector("M30", stamps_tick_time=True, says_bar_time=False),
    Collector("D1", stamps_tick_time=False, says_bar_time=True),
]


def collector_of(symbol: str) -> Collector:
    return COLLECTORS[SYMBOLS.index(symbol) % len(COLLECTORS)]


def iso(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def quotes_of(rng: random.Random, every: float) -> list[Quote]:
    """A walk in steps of a point; the quote often stands still, so that ticks of one second are equal."""
    found, price = [], 116_512
    for second in range(BEGIN, END):
        for _ in range(rng.choices([0, 1, 2, 4], [1 - every, every / 2, every / 3, every / 6])[0]):
            price += rng.choice([-1, 0, 0, 1])
            found.append(Quote(second, price / 100_000))
    return found


def bars_of(quotes: Sequence[Quote], seconds: int) -> dict[int, Bar]:
    by_period: dict[int, list[float]] = {}
    for second, bid in quotes:
        by_period.setdefault(second - second % seconds, []).append(bid)
    return {begin: Bar(bids[0], max(bids), min(bids), bids[-1], len(bids)) for begin, bids in sorted(by_period.items())}


def tick_item(quote: Quote) -> Item:
    return {
        "ts": iso(quote.second), "symbol": TICKING, "bid": quote.bid, "ask": quote.bid + 0.00006, "last": 0.0,
        "volume": 0, "flags": 6, "digits": 5, "spread": 0.00006,
        "meta": {"ea": "PDC", "ver": "1.0", "src": "tick", "acct": 12345, "srv": SOURCE, "build": 3850},
    }  # fmt: skip


def exported(quote: Quote) -> Item:
    return {
        "symbol": TICKING, "ts": quote.second * 1000, "timeframe": "tick", "open": quote.bid, "low": quote.bid,
        "high": quote.bid + 0.00006, "close": 0.0, "volume": 0, "kind": "tick", "meta": tick_item(quote),
    }  # fmt: skip


def forming(symbol: str, quotes: Sequence[Quote], now: int) -> Item:
    """The item of one symbol, collected a second after a minute has begun."""
    timeframe, stamps_tick_time, says_bar_time = collector_of(symbol)
    seconds = TIMEFRAMES[timeframe]
    last = quotes[-1]
    begin = last.second - last.second % seconds
    bar = bars_of([quote for quote in quotes if quote.second >= begin], seconds)[begin]
    meta: Item = {"last_tick": iso(last.second), "collected_at": iso(now), "srv": SOURCE}
    if says_bar_time:
        meta["bar_time"] = iso(begin)
    return {
        "ts": iso(last.second if stamps_tick_time else now - now % MINUTE), "symbol": symbol, "timeframe": timeframe,
        **bar._asdict(), "spread": 0.00006, "digits": 5, "kind": "bar", "ea_version": "1.65", "meta": meta,
    }  # fmt: skip


def quotes_seen(quotes: Sequence[Quote], now: int) -> Sequence[Quote]:
    return quotes[: bisect_right(quotes, now, key=lambda quote: quote.second)]


def requests_of(quotes: Sequence[Quote], rng: random.Random) -> Iterator[list[Quote]]:
    """Cut anywhere, also within a second and between equal ticks."""
    begin = 0
    while begin < len(quotes):
        end = begin + rng.choice([1, 3, 20, 45])
        yield list(quotes[begin:end])
        begin = end


@pytest.fixture
async def pipeline(settings: Settings) -> AsyncIterator[Pipeline]:
    with running(settings, "producer", "stream_app", "sink") as services:
        pipeline = Pipeline(settings, services)
        await pipeline.http.aclose()
        headers = {"X-API-Key": API_KEY, "User-Agent": USER_AGENT}
        pipeline.http = httpx.AsyncClient(base_url=pipeline.producer.url, headers=headers, timeout=PATIENCE_SECONDS)
        yield pipeline
        await pipeline.http.aclose()


async def send(pipeline: Pipeline, body: bytes, path: str = "/ingest/tick") -> None:
    answer = await pipeline.http.post(path, content=body)
    assert (answer.status_code, answer.json()["errors"]) == (200, 0), answer.text


def rows(pipeline: Pipeline, query: str) -> list[tuple[Any, ...]]:
    return pipeline.sql(query)


def stored_bars(pipeline: Pipeline) -> dict[tuple[str, str], dict[int, tuple[Bar, bool, int | None]]]:
    found: dict[tuple[str, str], dict[int, tuple[Bar, bool, int | None]]] = {}
    for symbol, timeframe, ts, *values, closed, spread in rows(
        pipeline,
        "SELECT symbol, timeframe, extract(epoch FROM ts)::bigint, open, high, low, close, volume, closed, spread"
        " FROM broker_bars",
    ):
        found.setdefault((symbol, timeframe), {})[ts] = (Bar(*values), closed, spread)
    return found


def candles(pipeline: Pipeline, symbol: str, timeframe: str) -> dict[int, Bar]:
    query = f"SELECT * FROM candles('{symbol}', '{timeframe}', '2025-10-01', '2025-11-01')"  # noqa: S608 - our own
    values = "extract(epoch FROM ts)::bigint, open, high, low, close, volume"
    return {ts: Bar(*bar) for ts, *bar in rows(pipeline, f"SELECT {values} FROM ({query}) AS c")}  # noqa: S608 - see above


async def test_three_hours_with_an_outage_are_the_truth_on_every_timeframe(pipeline: Pipeline, tmp_path: Path) -> None:
    rng = random.Random(20_251_020)
    quotes = {symbol: quotes_of(rng, 0.6 if symbol == TICKING else 0.02) for symbol in SYMBOLS}
    quotes[STALE] = [Quote(FRIDAY, 1.1), Quote(FRIDAY + 1, 1.2)]
    flow = quotes[TICKING]
    before = [quote for quote in flow if quote.second < BEGIN + LIVE]
    during = [quote for quote in flow if BEGIN + LIVE <= quote.second < BEGIN + LIVE + OUTAGE]
    after = [quote for quote in flow if quote.second >= BEGIN + LIVE + OUTAGE]

    sent: list[bytes] = []
    for number, request in enumerate(requests_of(before, rng)):
        await send(pipeline, body := json.dumps({"ticks": list(map(tick_item, request))}).encode())
        if request[0].second < request[-1].second:
            sent.append(body)
        if number % 40 == 39:
            await send(pipeline, sent[-2])  # its answer was lost

    # Minutes 30 to 60 of the outage are on no file: the disk was full.
    files = []
    for number, request in enumerate(requests_of(during, rng)):
        if not BEGIN + LIVE + 30 * MINUTE <= request[0].second < BEGIN + LIVE + 60 * MINUTE:
            files.append(tmp_path / f"{number:06}.json")
            files[-1].write_text(json.dumps({"ticks": list(map(tick_item, request))}))
    live = [json.dumps({"ticks": list(map(tick_item, request))}).encode() for request in requests_of(after, rng)]
    assert len(files) > len(live) > 20
    for number, file in enumerate(files):
        await send(pipeline, file.read_bytes())
        if number < len(live):
            await send(pipeline, live[number])

    pages = [during[max(0, end - 200) : end] for end in range(len(during), 0, -200)]
    assert list(chain(*reversed(pages))) == during
    for page in pages:
        await send(pipeline, json.dumps(list(map(exported, page))).encode())

    collected: dict[tuple[str, str], dict[int, Bar]] = {}
    for now in range(BEGIN + MINUTE + 1, END, MINUTE):
        items = [forming(symbol, seen, now) for symbol, own in quotes.items() if (seen := quotes_seen(own, now))]
        for item in items:
            symbol, timeframe = item["symbol"], item["timeframe"]
            begin = quotes_seen(quotes[symbol], now)[-1].second // TIMEFRAMES[timeframe] * TIMEFRAMES[timeframe]
            collected.setdefault((symbol, timeframe), {})[begin] = Bar(*(item[name] for name in Bar._fields))
        # A bar is a bar by either way in.
        await send(pipeline, json.dumps({"items": items}).encode(), "/ingest" if now % 120 > 60 else "/ingest/tick")
    await pipeline.settled()

    # Ticks: nothing lost, nothing twice, on M1 and on every timeframe above.
    assert candles(pipeline, TICKING, "M1") == bars_of(flow, MINUTE)
    for timeframe, seconds in TIMEFRAMES.items():
        assert candles(pipeline, TICKING, timeframe) == bars_of(flow, seconds), timeframe
    for timeframe in ("W1", "MN1"):
        assert list(candles(pipeline, TICKING, timeframe).values()) == list(bars_of(flow, 10 * END).values()), timeframe
    await pipeline.assert_proven(len(bars_of(flow, MINUTE)))

    # Bars: where they opened, as they were last collected, and none that there was not.
    stored = stored_bars(pipeline)
    assert {key: {begin: bar for begin, (bar, _, _) in sorted(own.items())} for key, own in stored.items()} == collected
    # Each was still forming, and 0.00006 is 6 points.
    assert {(closed, spread) for own in stored.values() for _, closed, spread in own.values()} == {(False, 6)}

    # None of them is the last word: neither compared with ticks, nor closed where there are no ticks.
    assert rows(pipeline, "SELECT DISTINCT verdict FROM bar_fidelity") in ([], [("no_bar",)])
    on_minutes = {symbol for symbol in SYMBOLS if collector_of(symbol).timeframe == "M1"}
    found = rows(pipeline, "SELECT symbol, origin, closed FROM market_data WHERE timeframe = 'M1'")
    assert set(found) == {
        *((symbol, "broker", False) for symbol in on_minutes), (TICKING, "ticks", True),
    }  # fmt: skip
