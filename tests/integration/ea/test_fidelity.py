"""The EA's ticks and its broker's bars through the whole pipeline: all equal, and with a single fault in what it posts
exactly that fault is named.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from typing import Any, Final

import httpx
import pytest

from marketdata.tick import MINUTE_MS, Tick, period_of
from runtime.settings import Settings
from sink.queries import different_minutes
from tests import plainhttp
from tests.conftest import API_KEY
from tests.days import DAYS, Day
from tests.integration.ea.conftest import StartTerminal
from tests.integration.ea.scenario import NOW_MS
from tests.scripted import Request, scripted_server
from tests.services import Service, running
from tests.waiting import PATIENCE_SECONDS, eventually
from tickpipe.connection import open_database
from tickpipe.fidelity import Cause, diagnose

pytestmark = [pytest.mark.long(240), pytest.mark.full, pytest.mark.timeout(1800)]

#: Of the day: a clock that is an hour off needs more than two hours to be seen.
MINUTES: Final = 150
DEAL_MINUTES: Final = 30
#: So many minutes of a source are compared, with a clock that is an hour off as well.
LEAST: Final = MINUTES - 60
#: A minute in the middle.
FAULTY: Final = NOW_MS + 15 * MINUTE_MS

Posted = list[Request]
Item = dict[str, Any]


def deals() -> list[Tick]:
    """Each third is a deal, whose price and volume the quotes behind it repeat, as MetaTrader has them."""
    ticks, last, lots = [], 0.0, 0.0
    for n in range(1, DEAL_MINUTES * 60 + 30):
        bid = 27.5 + n * n % 41 / 100
        is_deal = n % 3 == 1
        if is_deal:
            last, lots = bid + 0.01, float(100 + n % 7)
        ticks.append(Tick(NOW_MS + n * 1_000, bid, bid + 0.02, last, lots, 56 if is_deal else 6))
    return ticks


def posted_by_the_ea(start_terminal: StartTerminal, day: Day) -> Posted:
    """What it posts of the day."""
    end = NOW_MS + MINUTES * MINUTE_MS + 30_000
    with scripted_server() as server:
        terminal = start_terminal()
        terminal("allow", server.url)
        for symbol, ticks, options in (
            ("EURUSD", [tick for tick in day.ticks if NOW_MS < tick.time_msc < end], {}),
            ("PETR4", deals(), {"digits": 2, "point": 0.01, "mode": "last"}),
        ):
            terminal.symbol(symbol, **options)  # type: ignore[arg-type]
            terminal.ticks(symbol, ticks)
        terminal.inputs(RelayUrl=server.url, SendBars=True)
        terminal.start(NOW_MS - 10_000)
        terminal.run(MINUTES * 60 + 120, step_ms=5_000)
        return list(server.requests)


def items_of(posted: Posted, route: str, symbol: str) -> Iterator[tuple[list[Item], Item]]:
    """The items of a symbol, each with the list that holds it."""
    for request in posted:
        if request.path == route:
            yield from ((request.items, item) for item in list(request.items) if item["symbol"] == symbol)


def ticks_in(posted: Posted, symbol: str = "EURUSD") -> list[tuple[list[Item], Item]]:
    return list(items_of(posted, "/ingest/tick", symbol))


def bar_of(posted: Posted) -> tuple[list[Item], Item]:
    [found] = [pair for pair in items_of(posted, "/ingest", "EURUSD") if time_of(pair[1]) == FAULTY]
    return found


def time_of(item: Item) -> int:
    return int(item.get("time_msc") or item["time"] * 1000)


def of_faulty_minute(posted: Posted) -> list[tuple[list[Item], Item]]:
    return [pair for pair in ticks_in(posted) if period_of(time_of(pair[1])) == FAULTY]


def nothing(_: Posted) -> None:
    pass


def clock_an_hour_off(posted: Posted) -> None:
    for request in posted:
        if request.path == "/ingest/tick":
            request.body["utc_offset_s"] = request.body.get("utc_offset_s", 0) - 3_600


def lost_tick(posted: Posted) -> None:
    items, item = of_faulty_minute(posted)[5]
    items.remove(item)


def doubled_tick(posted: Posted) -> None:
    items, item = of_faulty_minute(posted)[5]
    items.insert(items.index(item), item)


def no_ticks(posted: Posted) -> None:
    for items, item in of_faulty_minute(posted):
        items.remove(item)


def no_bar(posted: Posted) -> None:
    items, bar = bar_of(posted)
    items.remove(bar)


def open_bar(posted: Posted) -> None:
    begun = [item["bid"] for _, item in of_faulty_minute(posted)][:3]
    _, bar = bar_of(posted)
    bar |= {"high": max(begun), "low": min(begun), "close": begun[-1], "tick_volume": 3}


def spread_in_other_units(posted: Posted) -> None:
    for _, bar in items_of(posted, "/ingest", "EURUSD"):
        bar["spread"] = 0


def no_flags(posted: Posted) -> None:
    for _, item in ticks_in(posted, "PETR4"):
        del item["flags"]


def no_chart_mode(posted: Posted) -> None:
    for _, item in ticks_in(posted, "PETR4"):
        del item["mode"]


def no_volume_of_deals(posted: Posted) -> None:
    for _, item in ticks_in(posted, "PETR4"):
        item |= {"volume": 0, "volume_real": 0}


#: Twenty minutes or more: what is wrong in all of them. At the ends a minute is not complete.
ALL: Final = 20

#: Each fault, in the source of its name; what is named, and in how many minutes.
FAULTS: Final[dict[Callable[[Posted], None], dict[tuple[str, Cause], int]]] = {
    nothing: {},
    clock_an_hour_off: {("EURUSD", Cause.CLOCK): ALL},
    lost_tick: {("EURUSD", Cause.FEWER_TICKS): 1},
    doubled_tick: {("EURUSD", Cause.MORE_TICKS): 1},
    no_ticks: {("EURUSD", Cause.NO_TICKS): 1},
    no_bar: {("EURUSD", Cause.NO_BAR): 1},
    open_bar: {("EURUSD", Cause.OPEN_BAR): 1},
    spread_in_other_units: {("EURUSD", Cause.SPREAD): ALL},
    no_flags: {("PETR4", Cause.DEALS): ALL},
    no_chart_mode: {("PETR4", Cause.CHART): ALL},
    no_volume_of_deals: {("PETR4", Cause.REAL_VOLUME): ALL},
}


def post(producer: Service, source: str, posted: Posted) -> None:
    headers = {"X-API-Key": API_KEY, "X-Source": source}
    with httpx.Client(
        base_url=producer.url, headers=headers, verify=plainhttp.NOBODY, timeout=PATIENCE_SECONDS
    ) as client:
        for request in posted:
            if request.items:
                assert client.post(request.path, json=request.body).status_code == 200


def post_with(fault: Callable[[Posted], None], producer: Service, posted: Posted) -> None:
    faulty = deepcopy(posted)
    fault(faulty)
    post(producer, fault.__name__, faulty)


async def named(settings: Settings) -> dict[str, dict[tuple[str, Cause], int]]:
    """What is named in each source, and in how many minutes."""
    async with await open_database(settings) as connection:
        cursor = await connection.execute(
            "SELECT source FROM bar_fidelity GROUP BY source HAVING count(*) >= %s", [LEAST]
        )
        found: dict[str, dict[tuple[str, Cause], int]] = {source: {} async for (source,) in cursor}
        for each in diagnose(await different_minutes(connection, None, None, None)):
            found.setdefault(each.source, {})[each.symbol, each.cause] = min(len(each.minutes), ALL)
    return found


@pytest.mark.parametrize("day", DAYS, ids=str)
async def test_exactly_the_fault_is_named(settings: Settings, start_terminal: StartTerminal, day: Day) -> None:
    # Arrange
    posted = await asyncio.to_thread(posted_by_the_ea, start_terminal, day)
    expected = {fault.__name__: causes for fault, causes in FAULTS.items()}

    # Act
    with running(settings, "producer", "stream_app", "sink") as (producer, _, _):
        # Side by side: each source waits for its own answers alone.
        await asyncio.gather(*(asyncio.to_thread(post_with, fault, producer, posted) for fault in FAULTS))

        async def is_complete() -> bool:
            return await named(settings) == expected

        with suppress(AssertionError):
            await eventually(is_complete, what="the faults")

        # Assert
        assert await named(settings) == expected
