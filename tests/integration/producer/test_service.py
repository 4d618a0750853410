"""The producer as a process, with a real Kafka behind it."""

import asyncio
import gzip
import json
import random
import socket
import string
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import NewTopic
from aiokafka.partitioner import DefaultPartitioner

from marketdata.wire import decode_bar, frame_key
from runtime import clock
from runtime.kafka import admin_client
from runtime.rejected import Which
from runtime.settings import Settings
from tests.integration.producer.service import logging_producer, read_frames
from tests.kafka_log import delete_topic, read_records
from tests.plainhttp import read_status
from tests.rejected import rejected_records
from tests.services import Service
from tests.waiting import eventually

MSC = 1760926800417
PRO: dict[str, Any] = {
    "ts": "2025-10-20T02:20:00Z", "symbol": "EURUSD", "bid": 1.16512, "ask": 1.16518, "last": 0.0, "volume": 0,
    "flags": 6, "ts_msc": MSC, "digits": 5, "point": 0.00001, "spread": 0.00006,
    "meta": {"ea": "PDC", "ver": "1.65", "src": "tick", "acct": 12345, "srv": "Broker-Demo", "build": 3850},
}  # fmt: skip
BAR = {
    "ts": "2025-10-20T02:20:00Z", "symbol": "EURUSD", "timeframe": "M1", "open": 1.1, "high": 1.3, "low": 1.0,
    "close": 1.2, "volume": 42, "spread": 6,
}  # fmt: skip


async def test_bodies_of_every_sender_land_in_ticks(service: Service, settings: Settings) -> None:
    rebuild = {key: value for key, value in PRO.items() if key not in ("ts_msc", "point")}
    described = {"time": "2025-10-20T02:20:00.417Z", "time_msc": MSC, "symbol": "EURUSD", "bid": 1.1, "ask": 1.2}
    exported = {
        "symbol": "EURUSD", "ts": MSC, "timeframe": "tick", "open": 1.1, "high": 1.2, "low": 1.1, "close": 0.0,
        "volume": 0, "kind": "tick", "meta": PRO,
    }  # fmt: skip
    bodies = [{"ticks": [PRO]}, {"ticks": [rebuild, rebuild]}, described, [exported, PRO | {"symbol": "XAUUSD"}]]

    for number, body in enumerate(bodies):
        response = service.post(body, X_Trace_Id=f"t-{number}")
        assert response.status_code == 200, response.text

    records = await read_records(settings, settings.ticks_topic)
    frames = {(frame.request, frame.symbol): frame for frame in await read_frames(settings)}
    assert len(records) == len(frames) == 5
    seen = {key: ([tick.time_msc for tick in frame.ticks], frame.coarse) for key, frame in frames.items()}
    assert seen == {
        ("t-0", "EURUSD"): ([MSC], False),
        ("t-1", "EURUSD"): ([MSC - 417] * 2, True),
        ("t-2", "EURUSD"): ([MSC], False),
        ("t-3", "EURUSD"): ([MSC], False),
        ("t-3", "XAUUSD"): ([MSC], False),
    }
    for record in records:
        assert record.key in (frame_key("Broker-Demo", "EURUSD"), frame_key("Broker-Demo", "XAUUSD"))
        assert record.timestamp in (MSC, MSC - 417)
        assert record.headers[0][0] == "trace"
        partitions = range(settings.kafka_partitions)
        assert record.partition == DefaultPartitioner()(record.key, partitions, partitions)


async def test_a_tick_of_tomorrow_is_stamped_now(service: Service, settings: Settings) -> None:
    ahead = service.post({"utc_offset_s": -36_000, "ticks": [PRO | {"ts_msc": _now_ms()}]})

    assert ahead.status_code == 200, ahead.text
    [record] = await read_records(settings, settings.ticks_topic)
    assert record.timestamp <= _now_ms()


async def test_the_good_are_stored_and_the_bad_are_stored_apart(service: Service, settings: Settings) -> None:
    bad = PRO | {"bid": "1,1"}

    response = service.post({"ticks": [PRO, bad]}, X_Trace_Id="t-1")

    assert response.status_code == 207
    assert len((await read_frames(settings))[0].ticks) == 1
    [record] = await read_records(settings, settings.ticks_rejected_topic)
    assert json.loads(record.value) == bad
    assert record.key == b"Broker-Demo"
    headers = dict(record.headers)
    assert {name: headers[name] for name in ("topic", "partition", "offset", "source", "trace")} == {
        "topic": b"http", "partition": b"-1", "offset": b"1", "source": b"Broker-Demo", "trace": b"t-1",
    }  # fmt: skip


async def test_bars_land_in_their_topic_and_ticks_among_them_in_theirs(service: Service, settings: Settings) -> None:
    response = service.post({"items": [BAR, PRO]}, "/ingest")

    assert response.status_code == 200
    [record] = await read_records(settings, settings.broker_candles_topic)
    assert decode_bar(record.value).high == 1.3
    assert len(await read_frames(settings)) == 1


async def test_a_compressed_body_and_a_large_one_are_stored(service: Service, settings: Settings) -> None:
    ticks = [PRO | {"ts_msc": MSC + n} for n in range(15_000)]
    body = json.dumps({"ticks": ticks}).encode()
    assert 4_000_000 < len(body) < 5_000_000

    assert service.post(body).status_code == 200
    assert service.post(gzip.compress(body), Content_Encoding="gzip").status_code == 200

    assert [len(frame.ticks) for frame in await read_frames(settings)] == [15_000, 15_000]


@pytest.mark.parametrize(
    ("every", "token"),
    [
        pytest.param(0, b"", id="usual"),
        pytest.param(200_000, b"nan", id="one NaN", marks=pytest.mark.full),
        pytest.param(1_000, b"", id="odd items throughout", marks=pytest.mark.full),
        pytest.param(1, b"1.#INF", id="1.#INF throughout", marks=[pytest.mark.full, pytest.mark.long(30)]),
        pytest.param(200_000, b'"\xa3"', id="a byte of Windows-1252", marks=pytest.mark.full),
    ],
)
async def test_a_body_of_64_mb_is_stored_within_300_mb_of_memory(
    service: Service, settings: Settings, every: int, token: bytes
) -> None:
    ticks = [PRO | {"ts_msc": MSC + n // 3, "bid": 1.1 + n / 1e7} for n in range(200_000)]
    for index in range(0, len(ticks), every) if every else ():
        ticks[index] |= {"spread": "odd"} if token else {"flags": "6"}
    body = ('{"ticks":[' + ",".join(map(json.dumps, ticks)) + "]}").encode().replace(b'"odd"', token or b'"odd"')
    assert 60_000_000 < len(body) <= 64 * 1024 * 1024

    began = time.monotonic()
    posting = asyncio.create_task(asyncio.to_thread(service.post, body, timeout=240))
    slowest = 0.0
    while not posting.done():
        started = time.monotonic()
        assert (await asyncio.to_thread(service.get, "/health")).status_code == 200
        slowest = max(slowest, time.monotonic() - started)
    answer = await posting
    took = time.monotonic() - began

    assert answer.status_code == 200, answer.text
    assert answer.json()["total"] == 200_000
    frames = await read_frames(settings)
    # Cut between two milliseconds, so 19,998 ticks and not 20,000.
    assert [len(frame.ticks) for frame in frames] == [*[19_998] * 10, 20]
    assert {frame.request for frame in frames} == {answer.headers["X-Trace-Id"]}
    assert service.peak_memory_mb() < 300
    # In one go the body would hold it nearly all the time, on any machine.
    assert slowest < took / 2


@pytest.mark.full
async def test_three_bodies_of_64_mb_at_once_stay_within_memory_and_lose_nothing(
    service: Service, settings: Settings
) -> None:
    symbols = ("EURUSD", "GBPUSD", "USDJPY")
    ticks = [PRO | {"symbol": symbols[0], "ts_msc": MSC + n, "bid": 1.1 + n / 1e7} for n in range(200_000)]
    first = ('{"ticks":[' + ",".join(map(json.dumps, ticks)) + "]}").encode()
    assert 60_000_000 < len(first) <= 64 * 1024 * 1024
    bodies = [first.replace(b"EURUSD", symbol.encode()) for symbol in symbols]

    # Two keys may fill more of the memory than one.
    keys = ("key-of-the-broker", "key-of-everybody", "key-of-everybody")
    posts = zip(bodies, keys, strict=True)
    await asyncio.gather(*(asyncio.to_thread(service.post_until_taken, body, X_API_Key=key) for body, key in posts))

    counted = Counter[str]()
    for frame in await read_frames(settings):
        counted[frame.symbol] += len(frame.ticks)
    assert counted == dict.fromkeys(symbols, 200_000)
    assert service.peak_memory_mb() < 300


@pytest.mark.parametrize("key", ["wrong", ""])
def test_a_wrong_key_is_401(service: Service, key: str) -> None:
    response = service.post(PRO, X_API_Key=key)

    assert (response.status_code, response.json()["code"]) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize(("size", "key", "status"), [(68_000_000, "key-of-the-broker", 413), (1_000_000, "wrong", 401)])
def test_a_refused_body_leaves_the_connection_usable(service: Service, size: int, key: str, status: int) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        head = f"POST /ingest/tick HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Length: {size}\r\n\r\n"
        connection.sendall(head.encode() + b" " * size)
        assert read_status(connection) == status
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_status(connection) == 200


def test_a_refused_body_in_chunks_leaves_the_connection_usable(service: Service) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(
            b"POST /ingest/tick HTTP/1.1\r\nHost: x\r\nX-API-Key: key-of-the-broker\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(680):
            connection.sendall(b"186a0\r\n" + b" " * 100_000 + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        assert read_status(connection) == 413
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_status(connection) == 200


def test_sigterm_ends_the_process_cleanly(service: Service) -> None:
    service.post(PRO)

    assert service.stop() == 0
    assert "Traceback" not in service.said()


def _now_ms() -> int:
    return clock.now_ms()


async def test_rejected_items_that_outgrow_their_topic_cost_no_tick(settings: Settings, tmp_path: Path) -> None:
    async with admin_client(settings) as client:
        small = NewTopic(settings.ticks_rejected_topic, 1, 1, topic_configs={"max.message.bytes": "2000"})
        await client.create_topics([small])
    bad = PRO | {"bid": "".join(random.Random(1).choices(string.ascii_letters, k=5_000))}
    with logging_producer(settings, tmp_path / "producer.log") as service:
        service.wait_ready()
        statuses = [service.post({"ticks": [PRO, bad]}).status_code for _ in range(2)]
        whole_body = service.post(b"[" * 5_000)
        after = service.post({"ticks": [PRO]})
        log = service.said()

    assert (statuses, whole_body.status_code, after.status_code) == ([207, 207], 400, 200)
    assert len(await read_frames(settings)) == 3
    found = await rejected_records(settings, Which.TICKS)
    assert [(one.value, one.is_whole, one.size_bytes > 5_000) for one in found[:2]] == [(None, False, True)] * 2
    assert "action=kafka_failed" not in log


async def test_a_topic_of_rejected_items_that_was_deleted_is_created_again(
    service: Service, settings: Settings
) -> None:
    await delete_topic(settings, settings.ticks_rejected_topic)
    body = {"ticks": [PRO, PRO | {"bid": "odd"}]}

    async def accepted() -> bool:
        status = await asyncio.to_thread(lambda: service.post(body).status_code)
        assert status in (207, 503)
        return status == 207

    await eventually(accepted, what="an accepted body")
    assert service.post({"ticks": [PRO]}).status_code == 200
    assert len(await rejected_records(settings, Which.TICKS)) >= 1
    assert "action=kafka_failed" not in service.said()
