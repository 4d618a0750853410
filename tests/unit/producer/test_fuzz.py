"""Whatever is posted is answered by the contract, and the fast path reads what the slow path reads."""

import json
import math
from datetime import tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import assume, example, given
from hypothesis import strategies as st

from marketdata.contract.body import decode
from marketdata.contract.tick import read_tick
from marketdata.contract.times import Clock, offset_zone
from marketdata.errors import InvalidItem
from producer.bulk import decode_bulk, read_bulk
from producer.records import TicksBySymbol
from runtime.request_body import TURN_BYTES
from tests.conftest import fewer_examples
from tests.unit.producer.conftest import Bench, new_bench

NOW_MS = 1760926800417

FIELDS = (
    "symbol", "bid", "ask", "last", "volume", "volume_real", "flags", "digits", "point", "mode", "chart_mode", "ts",
    "time", "ts_msc", "time_msc", "open", "high", "low", "close", "timeframe", "kind", "meta", "tick_volume",
    "real_volume", "spread",
)  # fmt: skip

TIMES = st.sampled_from(
    [
        "2025-10-20T02:20:00Z", "2025-10-20T02:20:00.417Z", "2025-10-20T02:20:00+02:00", "2025-10-26T03:30:00", "",
        "soon", NOW_MS, NOW_MS + 0.5, NOW_MS // 1000 * 1000, 0, None, 10**12, 2**63, -1, True,
    ]
)  # fmt: skip
NUMBERS = st.sampled_from([0, 1, 1.5, 1.16512, -0.0, 5, 6.0, -1, 2**63, 10**30, None, "1", True, 1e308])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.text(st.characters(), max_size=3)
)


def objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    names = st.one_of(st.sampled_from((*FIELDS, "ticks", "items", "utc_offset_s")), st.text(max_size=4))
    return st.dictionaries(names, values, max_size=8)


JSON = st.recursive(SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=4), objects(inner)), max_leaves=12)


#: Things that are nearly ticks.
ITEMS = st.fixed_dictionaries(
    {"symbol": st.sampled_from(["EURUSD", "A", "US 500"]), "bid": NUMBERS, "ask": NUMBERS},
    optional={
        "last": NUMBERS, "volume": NUMBERS, "volume_real": NUMBERS, "flags": NUMBERS, "digits": NUMBERS,
        "point": NUMBERS, "ts": TIMES, "time": TIMES, "ts_msc": TIMES, "time_msc": TIMES,
        "mode": st.sampled_from(["bid", "last", None, "ask"]), "chart_mode": st.sampled_from(["last", None, 1]),
        "open": NUMBERS, "meta": st.just({"ea": "PDC"}), "spread": NUMBERS,
    },
)  # fmt: skip


PRICE = st.sampled_from([0, 1, 1.5, 1.16512, 6.0, -0.0, -37.63])
VOLUME = st.sampled_from([0, 1, 1.5, 6.0, -0.0])
MILLISECONDS = st.sampled_from([0, NOW_MS, NOW_MS + 1, NOW_MS // 1000 * 1000, NOW_MS - 7_000_000])
ISO = st.none() | st.sampled_from(
    ["2025-10-20T02:20:00Z", "2025-10-20T02:20:00.417Z", "2025-10-20T02:20:00+02:00", "2025-10-20T02:20:00,5", ""]
)
MODE = st.sampled_from(["bid", "last", None])

#: Ticks as EAs send them, with any of their fields missing, empty or 0.
USUAL_ITEMS = st.fixed_dictionaries(
    {"symbol": st.sampled_from(["EURUSD", "A", "US 500"]), "bid": PRICE, "ask": PRICE},
    optional={
        "last": PRICE, "volume": VOLUME, "volume_real": st.none() | VOLUME, "flags": st.sampled_from([0, 6, 1030]),
        "digits": st.sampled_from([None, 0, 2, 5]), "point": st.sampled_from([None, 0, 0.01, 1]), "ts": ISO,
        "time": ISO, "ts_msc": MILLISECONDS, "time_msc": MILLISECONDS, "mode": MODE, "chart_mode": MODE,
        "meta": st.just({"ea": "PDC", "bid": 9}), "spread": NUMBERS, "open": st.none(), "timeframe": st.just("tick"),
    },
).filter(lambda item: any(map(item.get, ("time_msc", "ts_msc", "time", "ts"))))  # fmt: skip

#: The sender's clock: UTC, ahead, behind, and a zone with summer time.
ZONES = st.sampled_from([None, offset_zone(7_200), offset_zone(-12_600), ZoneInfo("Europe/Athens")])


@given(value=JSON)
@example(value={"ticks": [{"symbol": "\ud800"}]})
@example(value=[math.nan, math.inf])
async def test_any_json_is_answered_by_the_contract(bench: Bench, value: Any) -> None:
    body = json.dumps(value).encode()
    for path in ("/ingest/tick", "/ingest"):
        response = await bench.post(path, body)
        assert response.status_code in (200, 207, 400)
        assert response.json()
    assert bench.frames is not None  # every published frame can be read


@given(body=st.binary(max_size=60))
async def test_any_bytes_are_answered_by_the_contract(bench: Bench, body: bytes) -> None:
    response = await bench.post("/ingest/tick", body)

    assert response.status_code in (200, 207, 400)


@given(
    items=st.lists(USUAL_ITEMS, min_size=1, max_size=4) | st.lists(USUAL_ITEMS | ITEMS, min_size=1, max_size=2),
    zone=ZONES,
    offset_s=st.sampled_from([None, 7_200, -12_600]),
    bare=st.booleans(),
)
@example(items=[{"symbol": "A", "bid": 0, "ask": 0, "last": 0, "ts_msc": NOW_MS}], zone=None, offset_s=None, bare=True)
def test_the_fast_path_reads_what_the_slow_path_reads(
    items: list[Any], zone: tzinfo | None, offset_s: int | None, bare: bool
) -> None:
    body = json.dumps(items if bare else {"ticks": items, "utc_offset_s": offset_s}).encode()
    bulk = decode_bulk(body)
    assume(bulk is not None)  # only what it takes is an example
    assert bulk is not None
    fast = TicksBySymbol()
    count = read_bulk(bulk, Clock(zone, NOW_MS), fast)

    plain, careful, clock = decode(body), TicksBySymbol(), Clock(zone, NOW_MS)
    for item in plain.items[:count]:
        read = read_tick(item)
        careful.add(read, clock.utc_ms(read.time, read.symbol))
    # Where it stops is no item that the slow path takes with ease: it stopped for a reason.
    assert count == len(plain.items) or cannot_be_read(plain.items[count], clock)
    assert shown(fast) == shown(careful)
    assert bulk.utc_offset_seconds == plain.utc_offset_seconds


@given(tick=ITEMS)
def test_a_tick_that_is_read_obeys_the_limits(tick: Any) -> None:
    try:
        read = read_tick(tick)
        time_msc = Clock(None, NOW_MS).utc_ms(read.time)
    except InvalidItem:
        return
    for amount in (read.bid, read.ask, read.last, read.volume):
        assert math.isfinite(amount)
    assert read.volume >= 0
    assert 31_536_000_000 <= time_msc <= NOW_MS + 86_400_000
    assert read.flags >= 0


@fewer_examples
@given(
    items=st.lists(USUAL_ITEMS | ITEMS, min_size=1, max_size=8),
    offset_s=st.sampled_from([None, 7_200, 1e9]),
    wrapper=st.sampled_from(["ticks", "items", None]),
)
async def test_a_large_body_is_answered_as_a_small_one_with_the_same_items(
    items: list[Any], offset_s: float | None, wrapper: str | None
) -> None:
    body = json.dumps(items if wrapper is None else {wrapper: items, "utc_offset_s": offset_s}).encode()
    answers = []
    long = body.replace(b"[", b"[" + b" " * TURN_BYTES, 1)
    for sent in (body, long, b" " + long + b"\r\n" * TURN_BYTES + b"\0"):
        bench = new_bench()
        async with bench.client:
            response = await bench.post("/ingest/tick", sent)
        frames = [(frame.symbol, frame.mode, frame.point, frame.coarse, frame.ticks) for frame in bench.frames]
        rejects = [record.value for record in bench.gateway.records if record.topic == "ticks.rejected"]
        answers.append((response.status_code, response.json(), frames, rejects if frames else len(rejects)))

    assert answers[1:] == answers[:1] * 2


def cannot_be_read(item: Any, clock: Clock) -> bool:
    try:
        read = read_tick(item)
        clock.utc_ms(read.time, read.symbol)
    except InvalidItem:
        return True
    return False


def shown(by_symbol: TicksBySymbol) -> object:
    return {symbol: (of.values, of.point, of.mode, of.coarse) for symbol, of in by_symbol.symbols.items()}
