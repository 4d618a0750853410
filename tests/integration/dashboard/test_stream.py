"""The live stream over a real Kafka: what moves arrives, what is old does not, and the end is an end."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

import httpx
import msgspec
import pytest

from tests.integration.dashboard.conftest import MINUTE_MS, Market
from tests.ports import free_port
from tests.services import Service, eventually, running

#: A Wednesday, 13:30 UTC (epoch milliseconds).
MOMENT = 1_700_055_000_000


async def events(url: str, *kinds: str) -> AsyncGenerator[dict[str, Any]]:
    """Events of these kinds as they come; the first is the `ping` with which a stream begins."""
    timeout = httpx.Timeout(10, read=60)
    async with httpx.AsyncClient(timeout=timeout) as client, client.stream("GET", url) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        kind = ""
        async for line in response.aiter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: ") and kind in ("ping", *kinds):
                yield {"event": kind} | json.loads(line.removeprefix("data: "))


async def first(stream: AsyncGenerator[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The next event of a kind."""
    async with asyncio.timeout(30):
        async for event in stream:
            if event["event"] == kind:
                return event
    raise AssertionError("the stream ended")


async def test_moving_candle_arrives_with_the_bar_that_it_belongs_to(market: Market) -> None:
    url = f"{market.url}/stream?symbol=MOVES&timeframe=H1"
    async with aclosing(events(url, "candle")) as stream:
        await first(stream, "ping")
        await market.publish(market.candle("MOVES", MOMENT, (1.0, 1.2, 0.9, 1.1), ticks=5))
        candle = await first(stream, "candle")
        assert {name: candle[name] for name in ("symbol", "source", "ts", "bar", "open", "high", "low", "close")} == {
            "symbol": "MOVES", "source": "Live", "ts": "2023-11-15T13:30:00Z", "bar": "2023-11-15T13:00:00Z",
            "open": 1.0, "high": 1.2, "low": 0.9, "close": 1.1,
        }  # fmt: skip
        assert (candle["volume"], candle["closed"], candle["last_tick"]) == (5, False, "2023-11-15T13:30:30Z")

        await market.publish(market.candle("MOVES", MOMENT, (1.0, 1.3, 0.9, 1.3), ticks=9, closed=True))
        moved = await first(stream, "candle")
        assert (moved["close"], moved["volume"], moved["closed"]) == (1.3, 9, True)


async def test_older_fold_and_other_symbols_do_not_arrive(market: Market) -> None:
    async with aclosing(events(f"{market.url}/stream?symbol=KEPT&symbol=ALSO", "candle")) as stream:
        await first(stream, "ping")
        await market.publish(
            market.candle("KEPT", MOMENT, (1.0, 1.0, 1.0, 1.0), ticks=9),
            market.candle("KEPT", MOMENT, (2.0, 2.0, 2.0, 2.0), ticks=4),
            market.candle("OTHER", MOMENT, (3.0, 3.0, 3.0, 3.0), ticks=4),
            market.candle("ALSO", MOMENT, (4.0, 4.0, 4.0, 4.0), ticks=4),
        )
        seen = [await first(stream, "candle"), await first(stream, "candle")]
        assert [(candle["symbol"], candle["close"]) for candle in seen] == [("KEPT", 1.0), ("ALSO", 4.0)]


async def test_new_stream_begins_with_the_candle_that_moves(market: Market) -> None:
    await market.publish(market.candle("KNOWN", MOMENT, (1.0, 1.0, 1.0, 1.0), ticks=3))
    await market.stored("KNOWN", 1)
    async with aclosing(events(f"{market.url}/stream?symbol=KNOWN&source=Live", "candle")) as stream:
        assert (await first(stream, "candle"))["volume"] == 3


async def test_candles_before_a_restart_are_there_after_it(market: Market) -> None:
    await market.publish(market.candle("WARM", MOMENT, (1.0, 1.0, 1.0, 1.0), ticks=3))
    restarted = market.settings.model_copy(update={"dashboard_port": free_port()})
    with running(restarted, "dashboard") as (dashboard,):
        async with aclosing(events(f"{dashboard.url}/stream?symbol=WARM", "candle")) as stream:
            assert (await first(stream, "candle"))["volume"] == 3


async def test_folds_that_do_not_hold_each_other_are_to_be_read_again(market: Market) -> None:
    async with aclosing(events(f"{market.url}/stream?symbol=SPLIT", "candle", "stale")) as stream:
        await first(stream, "ping")
        # In the future of the log, so that the sink takes them for candles of a log that was re-created.
        left = market.candle("SPLIT", MOMENT, (1.0, 1.0, 1.0, 1.0), ticks=3)
        await market.publish(left)
        await first(stream, "candle")
        await market.publish(msgspec.structs.replace(left, offsets=((50, 60),), volume=9))
        stale = await first(stream, "stale")
        assert (stale["symbol"], stale["source"], stale["ts"]) == ("SPLIT", "Live", "2023-11-15T13:30:00Z")


async def test_state_of_the_pipeline_is_told(market: Market) -> None:
    now = time.time_ns() // 1_000_000 // MINUTE_MS * MINUTE_MS
    async with aclosing(events(f"{market.url}/stream?symbol=STATE", "pipeline", "candle")) as stream:
        await first(stream, "ping")
        live = market.candle("STATE", now, (1.0, 1.0, 1.0, 1.5), ticks=50)
        await market.flow.send_live(msgspec.structs.replace(live, last_tick=live.received - 20))
        await first(stream, "candle")
        state = await first(stream, "pipeline")
        while state["ticks_per_second"] < 5 or state["latency_ms"]["stored"] is None:
            state = await first(stream, "pipeline")
    assert (state["kafka"], state["database"]) == (True, True)
    latency = state["latency_ms"]
    assert latency["received"] == {"p50": 20, "p99": 20}
    assert 0 == latency["folded"]["p50"] <= latency["shown"]["p50"] < 60_000
    assert 0 <= latency["stored"]["p50"] < 60_000
    assert state["rejected"] == {"ticks": 0, "candles": 0}
    assert set(state["lag"]) == {"stream", "sink"}
    feeds = {(feed["symbol"], feed["source"]): feed for feed in state["feeds"]}
    assert feeds[("STATE", "Live")]["close"] == 1.5
    assert feeds[("EURUSD", "S")]["last_tick"].startswith("2019-02-04T23:59")
    assert market.get("/pipeline").json()["kafka"] is True


async def test_lag_and_rejected_records_are_counted(market: Market) -> None:
    before = market.get("/pipeline").json()
    await market.flow.send(market.settings.ticks_topic, [(None, b"waits")])
    await market.flow.send(market.settings.ticks_rejected_topic, [(None, b"refused"), (None, b"refused")])

    async def counted() -> bool:
        state = market.get("/pipeline").json()
        return bool(
            state["lag"]["stream"] == before["lag"]["stream"] + 1
            and state["rejected"]["ticks"] == before["rejected"]["ticks"] + 2
        )

    await eventually(counted, within_seconds=30, what="one more record that waits and two more that were rejected")


async def test_one_stream_too_many_is_refused(market: Market) -> None:
    narrow = market.settings.model_copy(update={"dashboard_max_streams": 1, "dashboard_port": free_port()})
    with running(narrow, "dashboard") as (dashboard,):
        async with aclosing(events(f"{dashboard.url}/stream")) as stream:
            await first(stream, "ping")
            async with httpx.AsyncClient() as client:
                refused = await client.get(f"{dashboard.url}/stream")
            assert (refused.status_code, refused.json()["code"]) == (503, "TOO_MANY_STREAMS")
            assert "TICKPIPE_DASHBOARD_MAX_STREAMS" in refused.json()["error"]


@pytest.mark.fault
async def test_open_streams_do_not_hold_up_the_end(market: Market) -> None:
    ending = market.settings.model_copy(update={"dashboard_port": free_port()})
    with running(ending, "dashboard") as (dashboard,):
        async with aclosing(events(f"{dashboard.url}/stream")) as stream:
            await first(stream, "ping")
            assert await asyncio.to_thread(dashboard.stop) == 0
            with pytest.raises(AssertionError, match="the stream ended"):
                await first(stream, "candle")


@pytest.mark.fault
async def test_without_kafka_stored_candles_are_still_read(market: Market) -> None:
    lost = market.settings.model_copy(
        update={"kafka_bootstrap": f"127.0.0.1:{free_port()}", "dashboard_port": free_port()}
    )
    service = Service("dashboard", lost).start()
    try:
        async with httpx.AsyncClient(base_url=service.url, timeout=20) as client:

            async def answers() -> httpx.Response | None:
                with suppress(httpx.TransportError):
                    return await client.get("/candles?symbol=EURUSD&limit=1")
                return None

            found = await eventually(answers, within_seconds=40, what="an answer")
            assert found is not None
            assert len(found.json()["candles"]) == 1
            assert (await client.get("/ready")).json()["checks"]["kafka"] is False
            assert (await client.get("/pipeline")).json()["kafka"] is False
    finally:
        assert service.stop() == 0
