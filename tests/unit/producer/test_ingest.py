"""The HTTP contract, with a gateway that is no Kafka."""

import gc
import gzip
import json
import re
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from marketdata.wire import decode_bar
from producer.app import create_app
from runtime import clock
from runtime.batches import Record
from runtime.telemetry import parse_traceparent
from tests.unit.producer.conftest import ANY_KEY, KEY, Bench, new_bench, new_settings

PRO: dict[str, Any] = {
    "ts": "2025-10-20T02:20:00Z", "symbol": "EURUSD", "bid": 1.16512, "ask": 1.16518, "last": 0.0, "volume": 0,
    "flags": 6, "ts_msc": 1760926800417, "digits": 5, "point": 0.00001, "spread": 0.00006,
    "meta": {"ea": "PDC", "ver": "1.65", "src": "tick", "acct": 12345, "srv": "Broker-Demo", "build": 3850},
}  # fmt: skip
REBUILD = {key: value for key, value in PRO.items() if key not in ("ts_msc", "point")}
DESCRIBED = {
    "time": "2025-10-20T02:20:00.417Z", "time_msc": 1760926800417, "symbol": "EURUSD", "bid": 1.16512, "ask": 1.16518,
}  # fmt: skip
EXPORTED = {
    "symbol": "EURUSD", "ts": 1760926800417, "timeframe": "tick", "open": 1.16512, "high": 1.16518, "low": 1.16512,
    "close": 0.0, "volume": 0, "kind": "tick", "meta": PRO,
}  # fmt: skip
BAR = {
    "ts": "2025-10-20T02:20:00Z", "symbol": "EURUSD", "timeframe": "M1", "open": 1.1, "high": 1.3, "low": 1.0,
    "close": 1.2, "volume": 42, "spread": 6,
}  # fmt: skip

MSC = 1760926800417
SECOND = 1760926800000


def taken(received: int, errors: int = 0) -> dict[str, object]:
    return {
        "ok": True, "received": received, "inserted": received - errors, "duplicates": 0, "errors": errors,
        "total": received,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("item", "time_msc", "flags", "point", "coarse"),
    [
        pytest.param(PRO, MSC, 6, 0.00001, False, id="DataCollectorPRO"),
        pytest.param(REBUILD, SECOND, 6, 0.00001, True, id="DataCollectorRebuild: point from digits"),
        pytest.param(DESCRIBED, MSC, 0, None, False, id="written description"),
        pytest.param(EXPORTED, MSC, 6, 0.00001, False, id="exporter with the original tick"),
        pytest.param(EXPORTED | {"meta": None}, MSC, 0, None, False, id="exporter without it"),
        pytest.param(EXPORTED | {"meta": json.dumps(PRO)}, MSC, 6, 0.00001, False, id="exporter with it as text"),
        pytest.param(EXPORTED | {"meta": {}, "ts": SECOND}, SECOND, 0, None, True, id="exporter, whole second"),
    ],
)
@pytest.mark.parametrize("form", [lambda t: {"ticks": [t]}, lambda t: [t], lambda t: t, lambda t: {"items": [t]}])
@pytest.mark.parametrize("path", ["/ingest/tick", "/ingest"])
async def test_every_sender_in_every_form_becomes_a_frame(
    bench: Bench, *, item: Any, form: Any, path: str, time_msc: int, flags: int, point: float | None, coarse: bool
) -> None:
    response = await bench.post(path, form(item), X_Trace_Id="t-1")

    assert (response.status_code, response.json()) == (200, taken(1))
    [frame] = bench.frames
    assert (frame.source, frame.symbol, frame.mode, frame.request) == ("Broker-Demo", "EURUSD", "bid", "t-1")
    assert (frame.point, frame.coarse) == (point, coarse)
    [tick] = frame.ticks
    assert (tick.time_msc, tick.bid, tick.ask, tick.last, tick.flags) == (time_msc, 1.16512, 1.16518, 0.0, flags)
    [record] = bench.gateway.records
    assert (record.key, record.timestamp_ms) == (b"Broker-Demo/EURUSD", time_msc)
    assert record.headers[0] == ("trace", b"t-1")
    assert parse_traceparent(dict(record.headers)["traceparent"])


async def test_a_batch_of_two_symbols_makes_two_frames_in_the_order_of_the_body(bench: Bench) -> None:
    ticks = [PRO | {"symbol": symbol, "bid": bid} for symbol, bid in [("B", 1.0), ("A", 2.0), ("B", 3.0)]]

    await bench.post("/ingest/tick", {"ticks": ticks})

    assert [(frame.symbol, [tick.bid for tick in frame.ticks]) for frame in bench.frames] == [
        ("B", [1.0, 3.0]),
        ("A", [2.0]),
    ]


async def test_the_good_of_a_mixed_batch_pass_and_the_bad_are_kept(bench: Bench) -> None:
    bad = PRO | {"symbol": "", "note": "kept"}

    response = await bench.post("/ingest/tick", {"ticks": [PRO, bad, PRO]}, X_Trace_Id="t-2")

    assert response.status_code == 207
    answer = response.json()
    [detail] = answer.pop("details")
    assert answer == taken(3, errors=1)
    assert (detail["index"], detail["field"]) == (1, "symbol")
    assert len(bench.frames[0].ticks) == 2
    reject = bench.gateway.records[-1]
    assert (reject.topic, reject.key, json.loads(reject.value)) == ("ticks.rejected", b"Broker-Demo", bad)
    headers = dict(reject.headers)
    assert headers.pop("reason").startswith(b"symbol: ")
    assert headers.pop("traceparent") == dict(bench.gateway.records[0].headers)["traceparent"]
    assert headers == {
        "topic": b"http", "partition": b"-1", "offset": b"1", "source": b"Broker-Demo", "trace": b"t-2",
    }  # fmt: skip


async def test_every_refused_item_is_kept_though_a_hundred_are_told(bench: Bench) -> None:
    response = await bench.post("/ingest/tick", [{"n": n} for n in range(300)])

    assert response.status_code == 400
    answer = response.json()
    assert answer["code"] == "VALIDATION_ERROR"
    assert (len(answer["details"]), answer["details_truncated"]) == (100, True)
    assert [json.loads(record.value)["n"] for record in bench.gateway.records] == list(range(300))


async def test_an_empty_batch_is_done(bench: Bench) -> None:
    response = await bench.post("/ingest/tick", {"ticks": []})

    assert (response.status_code, response.json()) == (200, taken(0))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b" \r\n\x00", "empty"),
        (b"null", "object or an array"),
        (b"5", "object or an array"),
        (b'"ticks"', "object or an array"),
        (b'{"ticks":null}', "must be an array"),
        (b'{"ticks":{"a":1}}', "must be an array"),
        (b'{"ticks":[{]}', "byte 11"),
        (b'{"ticks":[', "not JSON"),
        (b'{"symbol":"\xff"}', "none of the 1 items"),
        (b'{"ticks":[{"symbol":"EURUSD","bid":1,16512,"ask":1,16518}]}', "decimal comma: write 1.16512"),
        (b"data=%7B%22ticks%22%3A%5B%5D%7D", 'form data; post the JSON itself as the body: {"ticks":'),
        (b"[" * 100_000, "nested"),
        (b'{"a":' * 100_000, "nested"),
        (b"[" + b"9" * 10_000 + b"]", "none of the 1 items"),
        (b"[nan" + b"9" * 10_000 + b"]", "not JSON"),
        (b'{"utc_offset_s":"2 h","ticks":[]}', "utc_offset_s"),
        (b'{"utc_offset_s":99999999,"ticks":[]}', "utc_offset_s"),
    ],
)
async def test_an_unusable_body_is_a_clear_400(bench: Bench, body: bytes, says: str) -> None:
    response = await bench.post("/ingest/tick", body)

    assert response.status_code == 400
    assert response.json()["code"] == "VALIDATION_ERROR"
    assert says in response.json()["error"]


async def test_a_body_that_is_no_json_is_kept_in_part(bench: Bench) -> None:
    body = b"{" + b"x" * 100_000

    await bench.post("/ingest/tick", body)

    [record] = bench.gateway.records
    assert (record.topic, record.value, dict(record.headers)["offset"]) == ("ticks.rejected", body[: 64 * 1024], b"-1")


@pytest.mark.parametrize("token", ["NaN", "nan", "-nan(ind)", "Infinity", "-inf", "1e400", "9" * 400])
async def test_what_is_no_number_spoils_only_its_item(bench: Bench, token: str) -> None:
    good = json.dumps(PRO | {"comment": "nan, inf"})
    bad = good.replace("1.16518", token)

    response = await bench.post("/ingest/tick", f'{{"ticks":[{good},{bad}]}}'.encode())

    assert response.status_code == 207
    assert [(d["index"], d["field"]) for d in response.json()["details"]] == [(1, "ask")]
    assert len(bench.frames[0].ticks) == 1


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf"])
async def test_marks_that_senders_leave_around_a_body_are_passed_over(bench: Bench, prefix: bytes) -> None:
    response = await bench.post("/ingest/tick", prefix + json.dumps({"ticks": [PRO]}).encode() + b"\x00")

    assert response.status_code == 200


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"symbol": None}, "symbol"),
        ({"symbol": 5}, "symbol"),
        ({"symbol": "A" * 33}, "symbol"),
        ({"symbol": "A\x00A"}, "symbol"),
        ({"symbol": "\ud800"}, "symbol"),
        ({"bid": "1,1"}, "bid"),
        ({"bid": "1.1.1"}, "bid"),
        ({"bid": ""}, "bid"),
        ({"bid": "nan"}, "bid"),
        ({"bid": True}, "bid"),
        ({"volume": -0.1}, "volume"),
        ({"bid": [1]}, "bid"),
        ({"bid": None, "ask": None, "last": None}, "bid"),
        ({"ask": 10**400}, "ask"),
        ({"last": {}}, "last"),
        ({"volume": "5,5"}, "volume"),
        ({"volume_real": "five"}, "volume_real"),
        ({"flags": 1.5}, "flags"),
        ({"flags": -1}, "flags"),
        ({"flags": 2**70}, "flags"),
        ({"ts_msc": "1760926800"}, "ts_msc"),
        ({"ts_msc": 1760926800}, "ts_msc"),
        ({"ts_msc": 2**62}, "ts_msc"),
        ({"ts_msc": 10**30}, "ts_msc"),
        ({"ts_msc": 0, "ts": "yesterday"}, "ts"),
        ({"ts_msc": 0, "ts": True}, "ts"),
        ({"ts_msc": 0, "ts": "0001-01-01T00:00:00+23:59"}, "ts"),
        ({"ts_msc": 0, "ts": "9999-12-31T23:59:59-23:59"}, "ts"),
        ({"ts_msc": 0, "ts": None}, "ts"),
        ({"ts_msc": None, "ts": None, "time": 176092680}, "time"),
    ],
)
async def test_a_tick_that_cannot_be_used_names_its_field(bench: Bench, change: dict[str, Any], field: str) -> None:
    body = json.dumps({"ticks": [PRO | change]}).encode()

    response = await bench.post("/ingest/tick", body)

    assert response.status_code == 400
    assert [detail["field"] for detail in response.json()["details"]] == [field]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"volume": 3, "volume_real": 0.5}, {"volume": 0.5}),
        ({"volume": 3}, {"volume": 3.0}),
        ({"bid": None, "ask": None, "last": 30.5}, {"bid": 0.0, "last": 30.5}),
        ({"bid": 0, "ask": 0}, {"bid": 0.0, "ask": 0.0}),
        ({"mode": "live", "chart_mode": 1}, {"bid": 1.165120}),
        ({"flags": 1030}, {"flags": 1030}),
        ({"flags": 6.0}, {"flags": 6}),
        ({"flags": None}, {"flags": 0}),
        ({"time_msc": MSC + 5}, {"time_msc": MSC + 5}),
        ({"ts_msc": None, "ts": MSC + 7}, {"time_msc": MSC + 7}),
        ({"ts_msc": 0, "time": "2025-10-20T02:20:00.5Z"}, {"time_msc": SECOND + 500}),
        ({"ts_msc": 0, "ts": "2025-10-20T04:20:00+02:00"}, {"time_msc": SECOND}),
        ({"ts_msc": 0, "ts": "2025-10-20 02:20:00"}, {"time_msc": SECOND}),
    ],
)
async def test_fields_are_read_by_precedence(bench: Bench, change: dict[str, Any], expected: dict[str, Any]) -> None:
    response = await bench.post("/ingest/tick", {"ticks": [PRO | change]})

    assert response.status_code == 200, response.text
    [tick] = bench.frames[0].ticks
    assert {name: getattr(tick, name) for name in expected} == expected


async def test_a_huge_field_is_not_echoed(bench: Bench) -> None:
    response = await bench.post("/ingest/tick", {"ticks": [PRO | {"symbol": "A" * 2_000_000}]})

    assert response.status_code == 400
    assert len(response.content) < 500
    assert len(bench.gateway.records[0].value) == 64 * 1024


async def test_the_chart_mode_comes_from_the_item_then_from_the_settings() -> None:
    bench = new_bench(last_mode_symbols=["WIN*"])
    ticks = [PRO | {"symbol": "WINZ25"}, PRO | {"symbol": "EURUSD"}, PRO | {"symbol": "X", "mode": "last"}]

    await bench.post("/ingest/tick", {"ticks": ticks})

    assert [(frame.symbol, frame.mode) for frame in bench.frames] == [
        ("WINZ25", "last"), ("EURUSD", "bid"), ("X", "last"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("zones", "offset", "expected"),
    [
        ({}, None, MSC),
        ({"Broker-Demo": "+03:00"}, None, MSC - 3 * 3_600_000),
        ({"Broker-Demo": "Europe/Athens"}, None, MSC - 3 * 3_600_000),  # summer time until 26 October
        ({"Broker-Demo": "Europe/Athens"}, 7200, MSC - 2 * 3_600_000),  # the sender knows better
        ({"Other": "+03:00"}, None, MSC),
        ({}, 19_797, MSC - 19_800_000),  # India, as the difference of two clocks
        ({}, -3_603, MSC + 3_600_000),
    ],
)
async def test_the_brokers_wall_clock_becomes_utc(zones: dict[str, str], offset: int | None, expected: int) -> None:
    bench = new_bench(source_zones=zones)

    await bench.post("/ingest/tick", {"utc_offset_s": offset, "ticks": [PRO, DESCRIBED]})

    assert [tick.time_msc for tick in bench.frames[0].ticks] == [expected, expected]


async def test_a_bar_becomes_a_broker_bar(bench: Bench) -> None:
    response = await bench.post("/ingest", {"items": [BAR, PRO]})

    assert (response.status_code, response.json()) == (200, taken(2))
    record = bench.gateway.records[-1]
    assert record.topic == "candles.broker"
    assert record.key == f"Broker-Demo/EURUSD/M1/{SECOND}".encode()
    bar = decode_bar(record.value)
    assert (bar.ts, bar.open, bar.high, bar.low, bar.close) == (SECOND, 1.1, 1.3, 1.0, 1.2)
    assert (bar.volume, bar.real_volume, bar.spread) == (42, None, 6)
    assert len(bench.frames) == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"timeframe": "D1", "ts": "2025-10-20"}, {"ts": SECOND - 8_400_000, "timeframe": "D1"}),
        ({"timeframe": "mn1", "ts": "2025-10-01"}, {"ts": 1_759_276_800_000, "timeframe": "MN1"}),
        ({"tick_volume": 7}, {"volume": 7}),
        ({"volume": 12.0, "real_volume": 2.5}, {"volume": 12, "real_volume": 2.5}),
        ({"spread": None}, {"spread": None}),
        ({"spread": 0.00006}, {"spread": None}),
        ({"volume": 293.76}, {"volume": 0, "real_volume": 293.76}),  # no number of ticks has a fraction
        ({"spread": 1.00, "point": 0.01}, {"spread": 100}),  # gold: a price difference
        ({"spread": 1.00}, {"spread": None}),
        ({"spread": "6"}, {"spread": 6}),
        ({"spread": -1}, {"spread": -1}),  # the ask was below the bid
        ({"timeframe": "PERIOD_H1", "ts": "2025-10-20T02:00:00Z"}, {"timeframe": "H1", "closed": True}),
        ({"open": -37.0, "high": -36.5, "low": -40.32, "close": -39.0, "volume": 120}, {"open": -37.0, "low": -40.32}),
    ],
)
async def test_fields_of_a_bar(bench: Bench, change: dict[str, Any], expected: dict[str, Any]) -> None:
    response = await bench.post("/ingest", [BAR | change])

    assert response.status_code == 200, response.text
    bar = decode_bar(bench.gateway.records[0].value)
    assert {name: getattr(bar, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"high": 1.15}, "high"),
        ({"low": 1.15}, "low"),
        ({"open": 0}, "open"),
        ({"close": "1,2"}, "close"),
        ({"open": -1, "high": -1, "low": -1, "close": -1, "volume": 0}, "low"),
        ({"close": None}, "close"),
        ({"timeframe": "M2"}, "timeframe"),
        ({"timeframe": 2}, "timeframe"),
        ({"volume": None}, "volume"),
        ({"tick_volume": 1.5}, "tick_volume"),
        ({"real_volume": -1}, "real_volume"),
        ({"spread": -(2**31)}, "spread"),
        ({"ts": None}, "ts"),
    ],
)
async def test_a_bar_that_cannot_be_used_names_its_field(bench: Bench, change: dict[str, Any], field: str) -> None:
    response = await bench.post("/ingest", [BAR | change])

    assert response.status_code == 400
    assert [detail["field"] for detail in response.json()["details"]] == [field]


@pytest.mark.parametrize(
    ("headers", "status", "source"),
    [
        ({"X-API-Key": KEY}, 200, "Broker-Demo"),
        ({"Authorization": f"Bearer {KEY}"}, 200, "Broker-Demo"),
        ({"authorization": f"bearer {KEY}"}, 200, "Broker-Demo"),
        ({"X-API-Key": KEY, "X-Source": "Broker-Demo"}, 200, "Broker-Demo"),
        ({"X-API-Key": KEY, "X-Source": "Other"}, 403, None),
        ({"X-API-Key": ANY_KEY}, 200, "Broker-Demo"),  # `srv` in the meta of the tick
        (
            {"X-API-Key": ANY_KEY, "User-Agent": "PDC/1.65 (Account:1; Server:XM.COM-Real 2; Build:9)"},
            200,
            "XM.COM-Real 2",
        ),
        ({"X-API-Key": ANY_KEY, "X-Source": "Mine", "User-Agent": "PDC (Server:Theirs)"}, 200, "Mine"),
        ({"X-API-Key": KEY, "User-Agent": "PDC (Server:Theirs)"}, 200, "Broker-Demo"),
        ({"X-API-Key": ANY_KEY, "X-Source": "My.Feed_1"}, 200, "My.Feed_1"),
        ({"X-API-Key": ANY_KEY, "X-Source": "XM.COM-Real 2"}, 200, "XM.COM-Real 2"),
        ({"X-API-Key": ANY_KEY, "X-Source": ""}, 200, "Broker-Demo"),
        ({"X-API-Key": ANY_KEY, "X-Source": "*"}, 200, "Broker-Demo"),
        ({"X-API-Key": ANY_KEY, "X-Source": "a" * 65}, 400, None),
        ({"X-API-Key": "wrong"}, 401, None),
        ({"X-API-Key": ""}, 401, None),
        ({"Authorization": f"Basic {KEY}"}, 401, None),
        ({}, 401, None),
    ],
)
async def test_the_key_decides_the_source(
    bench: Bench, headers: dict[str, str], status: int, source: str | None
) -> None:
    bench.headers = headers

    response = await bench.post("/ingest/tick", PRO)

    assert response.status_code == status
    assert [frame.source for frame in bench.frames] == ([source] if source else [])
    if status != 200:
        assert response.json()["code"] == {400: "INVALID_SOURCE", 401: "UNAUTHORIZED", 403: "FORBIDDEN"}[status]


async def test_who_names_neither_a_source_nor_a_server_has_the_default_one(bench: Bench) -> None:
    bench.headers = {"X-API-Key": ANY_KEY}

    await bench.post("/ingest/tick", DESCRIBED)

    assert [frame.source for frame in bench.frames] == ["default"]


@pytest.mark.parametrize(("trace", "is_taken"), [("abc-1", True), ("a" * 65, False), ("", False), ("\xfc", False)])
async def test_only_a_sane_trace_id_is_taken(bench: Bench, trace: str, is_taken: bool) -> None:
    headers = httpx.Headers({"X-API-Key": KEY, "X-Trace-Id": trace}, encoding="latin-1")

    response = await bench.client.post("/ingest/tick", json=PRO, headers=headers)

    assert (bench.frames[0].request == trace) is is_taken
    assert bench.frames[0].request == response.headers["X-Trace-Id"]


async def test_a_compressed_body_is_unpacked(bench: Bench) -> None:
    response = await bench.post("/ingest/tick", gzip.compress(json.dumps(PRO).encode()), Content_Encoding="gzip")

    assert response.status_code == 200


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (b"no gzip", "gzip", 400),
        (b"no deflate", "deflate", 400),
        (zlib.compress(b"[]")[:-2], "deflate", 400),
        (gzip.compress(b"[]", mtime=0)[:-4], "gzip", 400),
        (gzip.compress(b"[]", mtime=0) + b"more", "gzip", 400),
        (b"[]", "br", 415),
        (b"[]", "identity", 200),
    ],
)
async def test_other_encodings_are_refused(bench: Bench, body: bytes, encoding: str, status: int) -> None:
    response = await bench.post("/ingest/tick", body, Content_Encoding=encoding)

    assert response.status_code == status


@pytest.mark.parametrize(("compress", "encoding"), [(zlib.compress, "deflate"), (gzip.compress, "gzip")])
async def test_a_body_that_unpacks_to_more_than_the_limit_is_413(
    bench: Bench, compress: Callable[[bytes], bytes], encoding: str
) -> None:
    response = await bench.post("/ingest/tick", compress(b" " * 68_000_000), Content_Encoding=encoding)

    assert response.status_code == 413


@pytest.mark.parametrize("path", ["/ingest/tick", "/ingest"])
async def test_a_body_over_the_limit_is_413(bench: Bench, path: str) -> None:
    limit = 64 * 1024 * 1024
    tick = json.dumps(PRO | {"comment": "x" * 200_000}).encode()
    count = limit // (len(tick) + 1)
    fits = b"[" + b",".join([tick] * count)
    fits += b" " * (limit - len(fits) - 1) + b"]"
    assert (await bench.post(path, fits)).status_code == 200

    response = await bench.post(path, fits + b" ")

    assert (response.status_code, response.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize("count", [10_001, 100_001])
async def test_too_many_items_are_413(bench: Bench, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marketdata.contract.body.MAX_ITEMS", 10_000)
    response = await bench.post("/ingest/tick", b"[" + b"{}," * count + b"{}]")

    assert (response.status_code, response.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")


async def test_kafka_away_is_503_with_retry_after(bench: Bench) -> None:
    bench.gateway.is_open = False

    response = await bench.post("/ingest/tick", PRO)

    assert (response.status_code, response.json()["code"]) == (503, "KAFKA_UNAVAILABLE")
    assert int(response.headers["Retry-After"]) > 0
    assert (await bench.client.get("/ready")).status_code == 503
    assert (await bench.client.get("/health")).status_code == 200


async def test_the_rate_limit_is_429_with_retry_after() -> None:
    bench = new_bench(rate_limit_per_second=0.5)

    statuses = [(await bench.post("/ingest/tick", PRO)).status_code for _ in range(2)]
    response = await bench.post("/ingest/tick", PRO)

    assert statuses == [200, 429]
    assert (response.json()["code"], response.headers["Retry-After"]) == ("RATE_LIMITED", "2")


async def test_too_many_new_symbols_of_a_key_are_429_and_nothing_of_them_is_sent() -> None:
    bench = new_bench(max_new_symbols_per_hour=1)
    tick = {"time_msc": 1_549_238_400_000, "bid": 1.1}

    answers = [await bench.post("/ingest/tick", [tick | {"symbol": symbol}]) for symbol in ("A", "B", "A")]

    assert [answer.status_code for answer in answers] == [200, 429, 200]
    assert answers[1].json()["code"] == "TOO_MANY_SYMBOLS"
    assert 0 < int(answers[1].headers["Retry-After"]) <= 3_600


@pytest.mark.parametrize(
    ("asked", "status", "code", "said"),
    [
        ("GET /nowhere", 404, "NOT_FOUND", "there is POST /ingest/tick"),
        ("POST /", 404, "NOT_FOUND", "there is POST /ingest/tick"),
        ("POST /ingest/ticks", 404, "NOT_FOUND", "there is POST /ingest/tick"),
        ("GET /ingest/tick", 405, "METHOD_NOT_ALLOWED", "POST is expected"),
        ("POST /health", 405, "METHOD_NOT_ALLOWED", "GET is expected"),
    ],
)
async def test_what_no_route_takes(bench: Bench, asked: str, status: int, code: str, said: str) -> None:
    response = await bench.client.request(*asked.split())

    answer = response.json()
    assert (response.status_code, answer["code"]) == (status, code)
    assert answer["error"].startswith(said)


async def test_a_bug_is_a_500_of_the_usual_form(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_records: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(bench.gateway, "publish", fail)

    response = await bench.post("/ingest/tick", PRO)

    assert (response.status_code, response.json()["code"]) == (500, "INTERNAL")


async def test_probes_need_no_key(bench: Bench) -> None:
    assert (await bench.client.get("/health")).json() == {"status": "ok"}
    assert (await bench.client.head("/health")).status_code == 200
    assert (await bench.client.get("/ready")).status_code == 200
    assert (await bench.client.get("/docs")).status_code == 200


async def test_metrics_count_what_happened(bench: Bench) -> None:
    await bench.post("/ingest/tick", [PRO, {}])
    await bench.post("/ingest", [BAR])

    text = (await bench.client.get("/metrics")).text

    for line in (
        'tickpipe_producer_requests_total{route="/ingest/tick",status="207"} 1.0',
        'tickpipe_producer_ticks_accepted_total{source="Broker-Demo"} 1.0',
        'tickpipe_producer_bars_accepted_total{source="Broker-Demo"} 1.0',
        'tickpipe_producer_items_rejected_total{source="Broker-Demo"} 1.0',
        "tickpipe_producer_tick_age_seconds_count 1.0",
        "tickpipe_producer_requests_in_flight 0.0",
    ):
        assert line in text


@pytest.mark.parametrize(
    ("age_ms", "timed", "seconds", "ahead"),
    [
        (250, 1, 0.25, 0),
        (-900, 1, 0.0, 0),  # clocks that NTP keeps differ a little
        (-7_200_000, 0, 0.0, 1),  # an EA in Athens that sends its wall clock as UTC
        (7_200_000, 0, 0.0, 0),  # a zone that is wrong, or a backlog: not timed, but heard
        (90_000_000, 0, 0.0, 0),  # history
    ],
)
async def test_only_ticks_that_come_as_they_happen_are_timed(
    bench: Bench, age_ms: int, timed: int, seconds: float, ahead: int
) -> None:
    await bench.post("/ingest/tick", PRO | {"ts_msc": clock.now_ms() - age_ms})

    value = bench.metrics.registry.get_sample_value
    assert (value("tickpipe_stage_seconds_count", {"stage": "received"}) or 0) == timed
    # Between the two clock readings lies the time of a request, of any length on a busy machine.
    assert seconds <= (value("tickpipe_stage_seconds_sum", {"stage": "received"}) or 0) < seconds + 30
    assert value("tickpipe_stage_seconds_count", {"stage": "logged"}) == 1
    heard = value("tickpipe_producer_last_received_timestamp_seconds", {"source": "Broker-Demo", "symbol": "EURUSD"})
    assert heard is None if age_ms > 86_400_000 else heard == pytest.approx(time.time(), abs=30)
    assert (value("tickpipe_producer_frames_ahead_total", {"source": "Broker-Demo"}) or 0) == ahead


async def test_a_request_goes_on_with_the_trace_that_it_came_with(bench: Bench) -> None:
    given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    response = await bench.post("/ingest", [PRO, BAR], traceparent=given)

    assert response.headers["X-Trace-Id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    for record in bench.gateway.records:
        context = parse_traceparent(dict(record.headers)["traceparent"])
        assert context is not None
        assert (context.trace_id, context.flags) == ("4bf92f3577b34da6a3ce929d0e0e4736", "01")
        assert context.span_id != "00f067aa0ba902b7"


async def test_a_request_without_a_trace_begins_one(bench: Bench) -> None:
    first, second = [await bench.post("/ingest/tick", PRO, traceparent=value) for value in ("", "00-0-0-00")]

    traces = [parse_traceparent(dict(record.headers)["traceparent"]) for record in bench.gateway.records]
    assert [trace and trace.trace_id for trace in traces] == [
        response.headers["X-Trace-Id"] for response in (first, second)
    ]
    assert traces[0] != traces[1]


def test_the_openapi_shows_every_form_of_body() -> None:
    schema = create_app(new_settings()).openapi()

    body = schema["paths"]["/ingest/tick"]["post"]["requestBody"]["content"]["application/json"]
    assert len(body["schema"]["anyOf"]) == 3
    assert {"200", "207", "400", "401", "413", "429", "503"} <= set(schema["paths"]["/ingest"]["post"]["responses"])


async def test_a_dry_run_answers_and_stores_nothing(bench: Bench) -> None:
    answer = await bench.post("/ingest/tick", {"ticks": [PRO]}, X_Dry_Run="1")
    assert answer.status_code == 200
    assert answer.json() == {**taken(1), "dry_run": True, "source": "Broker-Demo"}
    answer = await bench.post("/ingest", {"items": [BAR, {"symbol": "EURUSD"}]}, X_Dry_Run="1")
    assert (answer.status_code, answer.json()["errors"], answer.json()["details"][0]["index"]) == (207, 1, 1)
    assert (await bench.post("/ingest/tick", [{"n": 1}], X_Dry_Run="1")).status_code == 400
    assert (await bench.post("/ingest/tick", b"data=1", X_Dry_Run="1")).status_code == 400
    assert (await bench.post("/ingest/tick", b" " * 6_000_000 + b"[]", X_Dry_Run="1")).status_code == 413
    assert (await bench.post("/ingest/tick", [PRO], X_Dry_Run="1", X_API_Key="wrong")).status_code == 401
    assert bench.gateway.records == []
    assert bench.metrics.registry.get_sample_value(
        "tickpipe_producer_ticks_accepted_total", {"source": "Broker-Demo"}
    ) in (None, 0.0)
    assert (await bench.post("/ingest/tick", [PRO], X_Dry_Run="0")).json() == taken(1)
    assert len(bench.gateway.records) == 1


async def test_the_answers_are_those_that_the_page_of_the_contract_shows(bench: Bench) -> None:
    page = (Path(__file__).parents[3] / "docs/http.md").read_text()
    success, refusal = (json.loads(shown) for shown in re.findall(r"`(\{\"(?:ok|error)\".*?\})`", page))

    taken_one = await bench.post("/ingest/tick", PRO)
    nothing_usable = await bench.post("/ingest/tick", [{}, {}, PRO | {"symbol": ""}])

    assert taken_one.json() == success
    assert (nothing_usable.status_code, set(nothing_usable.json())) == (400, set(refusal))
    assert nothing_usable.json()["code"] == refusal["code"]
    assert nothing_usable.json()["details"][2] | {"message": "…"} == refusal["details"][0]


async def test_ticks_do_not_wait_in_memory_for_kafka(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 137
    left: list[int] = []

    async def publish(_: Sequence[Record]) -> None:
        # Their values are kept as columns.
        left.append(sum(type(one) is list and len(one) == count for one in gc.get_objects()))

    monkeypatch.setattr(bench.gateway, "publish", publish)

    response = await bench.post("/ingest/tick", b'{"ticks":[%b]}' % b",".join([json.dumps(PRO).encode()] * count))

    assert response.json()["inserted"] == count
    assert left == [0]
