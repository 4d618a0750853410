"""The proof of a candle and the broker's bars beside it, as the API tells them and the page shows them."""

from typing import Any

import psycopg
import pytest
import pytest_asyncio

from marketdata.candle import BrokerBar, Candle
from tests.integration.dashboard.market import MINUTE_MS, Market
from tests.integration.dashboard.test_page import HISTORY_START
from tests.waiting import eventually

pytestmark = pytest.mark.long(15)

MINUTES = 30
#: No ticks came in it, though the broker has a bar.
SILENT = 20
#: The broker's bar is another.
OTHER = 10
#: A tick of it is received after all others.
LATE = 5


def minute_ms(minute: int) -> int:
    return HISTORY_START + minute * MINUTE_MS


def path_of(minute: int, query: str = "") -> str:
    return f"/candles/{minute_ms(minute)}/proof?symbol=PROVEN{query}"


@pytest_asyncio.fixture(scope="module")
async def proven(market: Market) -> list[Candle]:
    """Half an hour of PROVEN out of a real log, with the broker's bars; its candles in order of time."""
    times = [minute_ms(n) + second * 1000 for n in range(MINUTES) if n != SILENT for second in (1, 20, 40)]
    logged = await market.log_ticks("PROVEN", times)
    logged += await market.log_ticks("PROVEN", [minute_ms(LATE) + 50_000], received=minute_ms(MINUTES + 60))
    candles = sorted(market.flow.candles(logged), key=lambda candle: candle.ts)
    await market.publish(*candles)
    await market.stored("PROVEN", MINUTES - 1)
    bars = [bar_of(candle) for candle in candles]
    bars.insert(SILENT, bar_of(candles[SILENT], ts=minute_ms(SILENT)))
    bars[OTHER] = bar_of(candles[OTHER], high=candles[OTHER].high + 0.0001, volume=7)
    await market.flow.send_bars(bars)

    async def are_stored() -> bool:
        answer = market.get(f"/compared?symbol=PROVEN&from={minute_ms(0)}")
        return len(answer.json()["bars"]) == MINUTES

    await eventually(are_stored, what="the broker's bars of PROVEN")
    return candles


def bar_of(candle: Candle, **others: Any) -> BrokerBar:
    """The broker's bar that agrees with the candle."""
    agreeing: dict[str, Any] = {
        "ts": candle.ts, "open": candle.open, "high": candle.high, "low": candle.low, "close": candle.close,
        "volume": candle.volume, "spread": candle.spread,
    }  # fmt: skip
    return BrokerBar(
        source=candle.source, symbol=candle.symbol, timeframe="M1", received=candle.received, **agreeing | others
    )


def test_proof_names_the_records_and_the_times(market: Market, proven: list[Candle]) -> None:
    candle = proven[LATE]
    proof = market.get(path_of(LATE)).json()
    assert (proof["minutes"], proof["ticks"], proof["broker_minutes"], proof["verified"]) == (1, 4, 0, None)
    ranges = [list(each) for each in candle.offsets]
    assert proof["logs"] == [{"log": market.flow.own_log, "is_current": True, "ranges": ranges}]
    assert (proof["first_tick"], proof["last_tick"]) == ("2023-11-16T09:05:01Z", "2023-11-16T09:05:50Z")
    assert proof["received_at"] == "2023-11-16T10:30:00Z"
    assert proof["stored_at"] > proof["folded_at"] > proof["received_at"]
    hour = market.get(path_of(0, "&timeframe=H1")).json()
    # The broker's bar stands in for the minute without ticks.
    assert (hour["minutes"], hour["broker_minutes"], hour["ticks"]) == (MINUTES, 1, 3 * MINUTES + 1)
    assert hour["to"] == "2023-11-16T10:00:00Z"


def test_candle_is_verified_on_the_spot(market: Market, proven: list[Candle]) -> None:
    for query, minutes in (("", 1), ("&timeframe=D1", MINUTES - 1)):
        verified = market.get(path_of(LATE, f"{query}&verify=true")).json()["verified"]
        assert verified == {
            "verdict": "equal", "checked": minutes, "equal": minutes, "unprovable": 0, "pending": 0, "differences": [],
        }  # fmt: skip


def test_row_that_is_not_the_fold_is_different(market: Market, proven: list[Candle]) -> None:
    with psycopg.connect(market.settings.database_url.get_secret_value(), autocommit=True) as connection:
        about = ("PROVEN", minute_ms(1) / 1000)
        change = b"UPDATE market_data SET volume = volume + %s WHERE symbol = %s AND ts = to_timestamp(%s)"
        connection.execute(change, (5, *about))
        verified = market.get(path_of(1, "&verify=true")).json()["verified"]
        connection.execute(change, (-5, *about))
    assert verified["verdict"] == "different"
    assert [(d["field"], d["stored"], d["folded"]) for d in verified["differences"]] == [("volume", 8, 3)]


def test_records_that_the_log_does_not_hold_prove_nothing(market: Market) -> None:
    # The day's candles were published with offsets of records that were never sent.
    market.get("/candles?symbol=EURUSD&source=S&limit=1")
    verified = market.get("/candles/2019-02-04T12:00Z/proof?symbol=EURUSD&source=S&verify=true").json()["verified"]
    assert (verified["verdict"], verified["checked"], verified["unprovable"]) == ("unprovable", 0, 1)


def test_brokers_bars_stand_beside_ours(market: Market, proven: list[Candle]) -> None:
    bars = market.get(f"/compared?symbol=PROVEN&from={minute_ms(0)}").json()["bars"]
    counts = [(bar["equal"], bar["differs"], bar["no_bar"], bar["no_candle"]) for bar in bars]
    expected = [(1, 0, 0, 0)] * MINUTES
    expected[OTHER], expected[SILENT] = (0, 1, 0, 0), (0, 0, 0, 1)
    assert counts == expected
    assert bars[OTHER]["volume"] == 7
    (hour,) = market.get(f"/compared?symbol=PROVEN&from={minute_ms(0)}&timeframe=H1").json()["bars"]
    assert (hour["open"], hour["high"], hour["close"]) == (
        bars[0]["open"], max(bar["high"] for bar in bars), bars[-1]["close"],
    )  # fmt: skip
    assert (hour["equal"], hour["differs"], hour["no_candle"]) == (MINUTES - 2, 1, 1)
