"""The hour that a clock shows twice, as it happens: each tick and bar goes by its receipt, whichever way it came."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from marketdata.tick import Tick
from marketdata.wire import decode_bar, decode_frame
from runtime.settings import Settings
from tests.conftest import API_KEY
from tests.faked_clock import FakedClock
from tests.integration.ea.conftest import StartTerminal
from tests.integration.relay.process import RelayProcess
from tests.kafka_log import read_records
from tests.services import Process, environment
from tests.waiting import wait_until

pytestmark = pytest.mark.long(15)

#: Athens goes back from 04:00 to 03:00.
CHANGE: Final = datetime(2025, 10, 26, 1, tzinfo=UTC)
SOURCE: Final = "Athens"
SERVER_ZONE: Final = 1


@pytest.fixture
def clock(tmp_path: Path) -> FakedClock:
    return FakedClock(tmp_path)


@pytest.fixture
def producer(settings: Settings, clock: FakedClock) -> Iterator[Process]:
    """A producer in October 2025 that knows the zone of the source."""
    settings = settings.model_copy(update={"source_zones": {SOURCE: "Europe/Athens"}})
    set_to(clock, CHANGE - timedelta(minutes=1))
    process = Process(["producer"], settings.producer_port, environment(settings) | clock.environment)
    try:
        yield process.start().wait_ready()
    finally:
        process.close()


def set_to(clock: FakedClock, moment: datetime) -> None:
    clock.set(f"{(moment - datetime.now(UTC)).total_seconds():+.1f}")


def has_reached(process: Process, moment: datetime) -> bool:
    """Whether it is so late for the process; it looks at its clock once a second."""
    return parsedate_to_datetime(process.get("/health").headers["Date"]) >= moment.replace(microsecond=0)


def wall(moment: datetime) -> datetime:
    """What the broker's clock shows."""
    return moment + timedelta(hours=3 if moment < CHANGE else 2)


def tick_and_bar(symbol: str, moment: datetime) -> list[dict[str, Any]]:
    """A tick of now and the bar of the minute before."""
    shown = wall(moment)
    opened = wall(moment - timedelta(minutes=1)).replace(second=0, tzinfo=None)
    return [
        {"symbol": symbol, "bid": 1.1, "ask": 1.2, "ts": f"{shown:%Y-%m-%dT%H:%M:%S}Z"},
        {"symbol": symbol, "timeframe": "M1", "ts": f"{opened.isoformat()}Z", "open": 1, "high": 2, "low": 1,
         "close": 2, "volume": 3},
    ]  # fmt: skip


async def test_as_it_happens_each_pass_is_told_by_the_receipt(
    settings: Settings, producer: Process, clock: FakedClock, tmp_path: Path, start_terminal: StartTerminal
) -> None:
    # Arrange: the EA posts through a relay that is in October 2025 as well
    relay = RelayProcess(tmp_path / "ea.db", producer.url, key=API_KEY, environment=clock.environment).start()
    terminal = start_terminal()
    terminal("server", SOURCE)
    terminal("allow", relay.url)
    terminal.inputs(RelayUrl=relay.url, Source="auto", SendBars=False, Clock=SERVER_ZONE)
    terminal.symbol("BTCUSD")
    moments = [CHANGE + timedelta(seconds=second) for second in (-3000, -2, 605, 3605)]
    for moment in moments:
        at_ms = round(wall(moment).timestamp() * 1000)
        terminal.ticks("BTCUSD", [Tick(at_ms, 1.1, 1.2, 0.0, 0.0, 6)], known_ms=round(moment.timestamp() * 1000))
    terminal("offset", 10_800)
    terminal.start(round((moments[0] - timedelta(seconds=10)).timestamp() * 1000))
    terminal.run(1)

    # Act
    try:
        for moment in moments:
            set_to(clock, moment)
            wait_until(partial(has_reached, producer, moment), what=f"a producer that has {moment}")
            terminal("offset", 10_800 if moment < CHANGE else 7_200)
            terminal("now", round(moment.timestamp() * 1000))
            # After a pause two readings must agree.
            terminal.run(6)
            for url, symbol in ((producer, "STRAIGHT"), (relay, "RELAYED")):
                answer = url.post(tick_and_bar(symbol, moment), X_API_Key=API_KEY, X_Source=SOURCE)
                assert answer.json()["inserted"] == 2
            relay.wait_forwarded()
    finally:
        relay.close()

    # Assert
    frames = [decode_frame(record.value) for record in await read_records(settings, settings.ticks_topic)]
    bars = [decode_bar(record.value) for record in await read_records(settings, settings.broker_candles_topic)]
    for symbol in ("BTCUSD", "STRAIGHT", "RELAYED"):
        times = [tick.time_msc for frame in frames if frame.symbol == symbol for tick in frame.ticks]
        assert times == [round(moment.timestamp() * 1000) for moment in moments], symbol
    minutes = [round(moment.timestamp()) // 60 * 60_000 - 60_000 for moment in moments]
    for symbol in ("STRAIGHT", "RELAYED"):
        assert sorted(bar.ts for bar in bars if bar.symbol == symbol) == minutes, symbol
