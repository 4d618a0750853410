"""What senders that can fill are asked for, and what they report on POST /fills."""

from typing import Any

import pytest

from marketdata.wire import Fill, QuoteSessions, Report, decode_report, encode, frame_key, names_in
from producer.fills import WantedIndex
from runtime import clock
from tests.unit.producer.conftest import Bench

#: 2025-10-20 02:20:00 UTC.
T = 1_760_926_800_000
MINUTE, HOUR = 60_000, 3_600_000

TICK = {"ts_msc": T + 417, "symbol": "EURUSD", "bid": 1.1, "ask": 1.2, "flags": 6}
RANGE = {"symbol": "EURUSD", "from": T, "to": T + HOUR}


def reports(bench: Bench) -> list[Report]:
    found = [record for record in bench.gateway.records if record.topic == "fills"]
    decoded = [decode_report(record.value) for record in found]
    assert [record.key for record in found] == [frame_key(one.source, one.symbol) for one in decoded]
    return decoded


def samples(bench: Bench, name: str) -> dict[str, float]:
    found = bench.metrics.registry.get_sample_value
    return {source: found(name, {"source": source}) or 0.0 for source in ("Broker-Demo", "Other")}


async def wanted(bench: Bench, **headers: str) -> Any:
    response = await bench.post("/ingest/tick", {"ticks": [TICK]}, **headers)
    assert response.status_code == 200
    return response.json().get("wanted")


async def test_only_a_sender_that_can_fill_is_asked_and_only_for_its_source(bench: Bench) -> None:
    bench.wanted.set("Broker-Demo", "EURUSD", [(T, T + HOUR)])
    bench.wanted.set("Other", "GOLD", [(T, T + MINUTE)])

    assert await wanted(bench) is None
    assert await wanted(bench, X_Can_Fill="candles") is None
    assert await wanted(bench, X_Can_Fill="ticks") == [RANGE]
    bench.wanted.set("Broker-Demo", "EURUSD", [])
    assert await wanted(bench, X_Can_Fill="ticks") is None


async def test_a_part_of_a_body_that_cannot_be_used_is_answered_with_what_is_wanted_too(bench: Bench) -> None:
    bench.wanted.set("Broker-Demo", "EURUSD", [(T, T + HOUR)])

    response = await bench.post("/ingest/tick", {"ticks": [TICK, {}]}, X_Can_Fill="ticks")

    assert (response.status_code, response.json()["wanted"]) == (207, [RANGE])


def test_the_newest_eight_ranges_of_all_symbols_are_asked_for() -> None:
    index = WantedIndex()
    index.set("A", "one", [(T + hour * HOUR, T + (hour + 1) * HOUR) for hour in (20, 10, 9, 8, 7, 6, 5, 4)])
    index.set("A", "two", [(T + hour * HOUR, T + (hour + 1) * HOUR) for hour in (15, 3, 2)])

    asked = index.newest("A")

    assert [(one.symbol, (one.from_ms - T) // HOUR) for one in asked] == [
        ("one", 20), ("two", 15), ("one", 10), ("one", 9), ("one", 8), ("one", 7), ("one", 6), ("one", 5)
    ]  # fmt: skip
    assert index.newest("B") == []


def test_what_the_sink_says_without_knowing_a_report_asks_for_nothing_twice() -> None:
    now = [1_000.0]
    index = WantedIndex(lambda: now[0])
    index.set("A", "one", [(T + HOUR, T + 2 * HOUR), (T, T + HOUR)])

    index.reported("A", "one", T + HOUR, T + 2 * HOUR)
    # Older than the report; then after candles of a part of it, and a hole that was found meanwhile.
    index.clear()
    index.set("A", "one", [(T + HOUR, T + 2 * HOUR), (T, T + HOUR)])
    assert [one.from_ms - T for one in index.newest("A")] == [0]
    index.set("A", "one", [(T + 4 * HOUR, T + 5 * HOUR), (T + HOUR + MINUTE, T + HOUR + 3 * MINUTE), (T, T + HOUR)])
    assert [one.from_ms - T for one in index.newest("A")] == [4 * HOUR, 0]

    # By now it does know, and it has not said anything else.
    index.set("A", "one", [(T + HOUR, T + 2 * HOUR)])
    assert index.newest("A") == []
    now[0] += 121
    assert [one.from_ms - T for one in index.newest("A")] == [HOUR]


def test_what_the_sink_says_nothing_of_after_a_report_is_asked_for_no_more() -> None:
    now = [1_000.0]
    index = WantedIndex(lambda: now[0])
    index.set("A", "one", [(T, T + HOUR)])

    index.reported("A", "one", T, T + HOUR)
    now[0] += 1_000

    assert index.newest("A") == []


@pytest.mark.parametrize("outcome", [{"ticks": 12}, {"ticks": 0}, {"error": "no answer"}])
async def test_what_was_reported_is_not_asked_again_until_the_sink_says_so(
    bench: Bench, outcome: dict[str, object]
) -> None:
    bench.wanted.set("Broker-Demo", "EURUSD", [(T + HOUR, T + 2 * HOUR), (T, T + HOUR)])

    response = await bench.post("/fills", {"fills": [RANGE | outcome]})

    assert (response.status_code, response.json()) == (200, {"ok": True, "received": 1})
    assert [one["from"] for one in await wanted(bench, X_Can_Fill="ticks")] == [T + HOUR]
    [report] = reports(bench)
    assert isinstance(report, Fill)
    assert (report.source, report.from_ms, report.to_ms) == ("Broker-Demo", T, T + HOUR)
    assert (report.ticks, report.error) == (outcome.get("ticks"), outcome.get("error", ""))


async def test_sessions_are_reported_by_symbol_with_the_clock_of_the_broker(bench: Bench) -> None:
    friday = {"symbol": "EURUSD", "day": 5, "from": 0, "to": 1380}
    sessions = [friday, friday | {"day": 1, "from": 5, "to": 1440}]

    response = await bench.post("/fills", {"utc_offset_s": 7200, "sessions": sessions})

    assert response.status_code == 200
    [report] = reports(bench)
    assert isinstance(report, QuoteSessions)
    assert (report.utc_offset_s, report.sessions) == (7200, [(1, 5, 1440), (5, 0, 1380)])


async def test_a_symbol_with_a_session_that_cannot_be_read_keeps_those_that_were_known(bench: Bench) -> None:
    good = {"symbol": "EURUSD", "day": 1, "from": 5, "to": 1440}
    other = good | {"symbol": "GOLD"}

    response = await bench.post("/fills", {"sessions": [good, other, good | {"day": 7}]})

    assert response.status_code == 207
    assert [detail["index"] for detail in response.json()["details"]] == [2]
    assert [report.symbol for report in reports(bench)] == ["GOLD"]


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({"symbol": "EURUSD", "from": T + 1, "to": T + HOUR, "ticks": 1}, "from"),
        ({"symbol": "EURUSD", "from": T, "to": T, "ticks": 1}, "to"),
        ({"symbol": "EURUSD", "from": T, "to": T + 25 * HOUR, "ticks": 1}, "to"),
        ({"symbol": "EURUSD", "from": T, "to": T + HOUR}, "ticks"),
        ({"symbol": "EURUSD", "from": T, "to": T + HOUR, "ticks": 1, "error": "x"}, "ticks"),
        ({"symbol": "EURUSD", "from": T, "to": T + HOUR, "ticks": -1}, "ticks"),
        ({"symbol": " ", "from": T, "to": T + HOUR, "ticks": 1}, "symbol"),
        ({"symbol": "EURUSD", "to": T + HOUR, "ticks": 1}, ""),
        (5, ""),
    ],
)
async def test_a_report_that_says_nothing_certain_is_refused(bench: Bench, item: object, field: str) -> None:
    alone = await bench.post("/fills", {"fills": [item]})
    beside = await bench.post("/fills", {"fills": [RANGE | {"ticks": 1}, item]})

    assert (alone.status_code, beside.status_code) == (400, 207)
    assert [(one["index"], one["field"]) for one in beside.json()["details"]] == [(1, field)]
    assert len(reports(bench)) == 1


async def test_a_range_that_is_not_over_yet_cannot_be_done(bench: Bench) -> None:
    now = clock.now_ms() // MINUTE * MINUTE

    ahead = await bench.post("/fills", {"fills": [{"symbol": "A", "from": now, "to": now + 3 * MINUTE, "ticks": 0}]})

    assert (ahead.status_code, ahead.json()["details"][0]["field"]) == (400, "to")


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"fills":5}', b"[" * 100_000, b'{"fills":[],"utc_offset_s":1}'])
async def test_a_body_without_reports_is_a_clear_400(bench: Bench, body: bytes) -> None:
    response = await bench.post("/fills", body)

    assert (response.status_code, response.json()["code"]) == (400, "VALIDATION_ERROR")


async def test_reports_need_a_key_and_kafka_and_a_dry_run_stores_none(bench: Bench) -> None:
    body = {"fills": [RANGE | {"ticks": 1}]}

    assert (await bench.post("/fills", body, X_API_Key="wrong-key")).status_code == 401
    assert (await bench.post("/fills", body, X_Dry_Run="1")).status_code == 200
    bench.gateway.is_open = False
    refused = await bench.post("/fills", body)
    assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
    assert reports(bench) == []


async def test_ticks_that_fill_are_counted_apart_and_tell_nothing_of_the_feed(bench: Bench) -> None:
    late = clock.now_ms() - 7_200_000
    for _ in range(3):
        await bench.post("/ingest/tick", {"ticks": [TICK | {"ts_msc": late}]}, X_Fill="ticks")
    await bench.post("/fills", {"fills": [RANGE | {"ticks": 3}]})

    assert samples(bench, "tickpipe_producer_ticks_filled_total")["Broker-Demo"] == 3
    assert samples(bench, "tickpipe_producer_ticks_accepted_total")["Broker-Demo"] == 0
    value = bench.metrics.registry.get_sample_value
    assert value("tickpipe_producer_tick_age_seconds_count") == 0
    feed = {"source": "Broker-Demo", "symbol": "EURUSD"}
    assert value("tickpipe_producer_last_received_timestamp_seconds", feed) is None
    assert value("tickpipe_producer_fills_total", {"source": "Broker-Demo", "outcome": "ticks"}) == 1
    assert len(bench.frames) == 3


def test_a_key_tells_its_names_again() -> None:
    assert names_in(frame_key("A/B 100%", "[SP500]/x%2F")) == ("A/B 100%", "[SP500]/x%2F")


def test_ranges_are_written_as_pairs() -> None:
    assert encode([(T, T + HOUR)]) == b"[[%d,%d]]" % (T, T + HOUR)
