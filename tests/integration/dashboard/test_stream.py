"""The live stream over a real Kafka: what moves arrives, what is old does not, and the end is an end."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest

from runtime import clock
from tests.integration.dashboard.market import MINUTE_MS, Market
from tests.ports import free_port
from tests.services import Service, running
from tests.waiting import PATIENCE_SECONDS, eventually

#: What is looked at of an event.
MOVED = ("symbol", "source", "ts", "bar", "bar_end", "open", "high", "low", "close")

#: A Wednesday, 13:30 UTC (epoch milliseconds).
MOMENT = 1_700_055_000_000


async def events(
    url: str, *kinds: str, last_event_id: str | None = None
) -> AsyncGenerator[dict[str, Any]]:  # fmt: skip
    """Events of these kinds as they come, each with its `id`; the first is the `ping` with which a stream begins."""
    timeout = httpx.Timeout(10, read=60)
    headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    async with (
        httpx.AsyncClient(timeout=timeout, headers=headers) as client,
        client.stream("GET", url) as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        kind, event_id = "", None
        async for line in response.aiter_lines():
            if line.startswith("id: "):
                event_id = line.removeprefix("id: ")
            elif line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: ") and kind in ("ping", *kinds):
                yield {"event": kind, "id": event_id} | json.loads(line.removeprefix("data: "))


async def first(stream: AsyncGenerator[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The next event of a kind."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for event in stream:
            if event["event"] == kind:
                return event
    raise AssertionError("the stream ended")


def moment(ts: int) -> str:
    return f"{datetime.fromtimestamp(ts / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def proof(market: Market, symbol: str, ts: int) -> dict[str, Any]:
    """The minute with its proof, as it is stored."""
    (row,) = market.get(f"/candles?symbol={symbol}&from={ts}&to={ts + MINUTE_MS}&proof=true").json()["candles"]
    return dict(row)


async def test_moving_candle_arrives_with_the_bar_that_it_belongs_to(market: Market) -> None:
    url = f"{market.url}/stream?symbol=MOVES&timeframe=H1"
    async with aclosing(events(url, "candle")) as stream:
        await first(stream, "ping")
        await market.publish(market.candle("MOVES", MOMENT, (1.0, 1.2, 0.9, 1.1), ticks=5))
        candle = await first(stream, "candle")
        assert {name: candle[name] for name in MOVED} == {
            "symbol": "MOVES", "source": "Live", "ts": "2023-11-15T13:30:00Z", "bar": "2023-11-15T13:00:00Z",
            "bar_end": "2023-11-15T14:00:00Z",
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


async def test_late_ticks_are_told_when_the_table_holds_the_whole_minute(market: Market) -> None:
    """20 ticks, then 40 late ones from a worker that does not hold the minute any more: two folds, one minute of 60."""
    ts = MOMENT - MOMENT % MINUTE_MS
    times = [
        *(ts + n * 100 for n in range(20)),
        *(ts + n * MINUTE_MS for n in range(11, 23)),
        *(ts + 30_000 + n * 100 for n in range(40)),
    ]
    logged = await market.log_ticks("LATE", times)
    async with aclosing(events(f"{market.url}/stream?symbol=LATE&timeframe=H1", "candle", "stale")) as stream:
        await first(stream, "ping")
        await market.publish(*market.flow.candles(logged[:20]))
        assert (await first(stream, "candle"))["volume"] == 20
        newer = market.flow.candles(logged[20:32])
        await market.publish(*newer)
        await market.stored("LATE", 13)
        await market.publish(*market.flow.candles(logged[32:]))
        while (candle := await first(stream, "candle"))["volume"] != 60:
            # Never the forty alone.
            assert (candle["ts"], candle["volume"]) != (moment(ts), 40)
    told = (candle["ts"], candle["bar"], candle["stored"])
    assert told == (moment(ts), moment(ts - ts % (60 * MINUTE_MS)), True)
    assert (candle["log"], candle["offsets"]) == (market.flow.own_log, proof(market, "LATE", ts)["offsets"])
    # What was told is what is read now, of every timeframe.
    (hour,) = market.get(f"/candles?symbol=LATE&timeframe=H1&from={ts - ts % (60 * MINUTE_MS)}").json()["candles"]
    assert hour["volume"] == 60 + 12


async def test_stream_goes_on_after_the_event_that_came_last(market: Market) -> None:
    url = f"{market.url}/stream?symbol=RESUMED"
    async with aclosing(events(url, "candle", "pipeline")) as stream:
        await first(stream, "ping")
        await market.publish(market.candle("RESUMED", MOMENT, (1.0, 1.0, 1.0, 1.0), ticks=3))
        await first(stream, "candle")
        seen = (await first(stream, "pipeline"))["id"]
    await market.publish(
        market.candle("RESUMED", MOMENT + MINUTE_MS, (1.0, 1.0, 1.0, 1.0), ticks=4),
        market.candle("RESUMED", MOMENT + 2 * MINUTE_MS, (1.0, 1.0, 1.0, 1.0), ticks=5),
    )
    await market.stored("RESUMED", 3)
    for resumed_url, header in ((f"{url}&since={seen}", None), (url, seen)):
        async with aclosing(events(resumed_url, "candle", last_event_id=header)) as stream:
            came = [await first(stream, "candle") for _ in range(2)]
        assert [candle["volume"] for candle in came] == [4, 5]
    async with aclosing(events(f"{url}&since=0-1", "candle", "resync")) as stream:
        await first(stream, "resync")


async def test_state_of_the_pipeline_is_told(market: Market) -> None:
    async with aclosing(events(f"{market.url}/stream?symbol=STATE", "pipeline", "candle")) as stream:
        await first(stream, "ping")
        now = clock.now_ms() // MINUTE_MS * MINUTE_MS
        live = market.candle("STATE", now, (1.0, 1.5, 1.0, 1.5), ticks=50)
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
    # Tests before it may have had some rejected; the next one counts.
    assert state["rejected"].keys() == {"ticks", "candles"}
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

    await eventually(counted, what="one more record that waits and two more that were rejected")


async def test_one_stream_too_many_is_refused(market: Market) -> None:
    narrow = market.settings.model_copy(update={"dashboard_max_streams": 1, "dashboard_port": free_port()})
    with running(narrow, "dashboard") as (dashboard,):
        async with aclosing(events(f"{dashboard.url}/stream")) as stream:
            await first(stream, "ping")
            async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client:
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
        async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE_SECONDS) as client:

            async def answers() -> httpx.Response | None:
                with suppress(httpx.TransportError):
                    return await client.get("/candles?symbol=EURUSD&limit=1")
                return None

            found = await eventually(answers, what="an answer")
            assert found is not None
            assert len(found.json()["candles"]) == 1
            assert (await client.get("/ready")).json()["checks"]["kafka"] is False
            assert (await client.get("/pipeline")).json()["kafka"] is False
    finally:
        assert service.stop() == 0


async def test_an_impossible_candle_is_not_shown(market: Market) -> None:
    async with aclosing(events(f"{market.url}/stream?symbol=WRONG", "candle")) as stream:
        await first(stream, "ping")
        impossible = market.candle("WRONG", MOMENT, (1.0, 0.9, 1.1, 1.0), ticks=3)  # high below low
        await market.publish(impossible, market.candle("WRONG", MOMENT + MINUTE_MS, (1.0, 1.2, 0.9, 1.1), ticks=3))
        assert (await first(stream, "candle"))["close"] == 1.1
