import asyncio
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry

from marketdata.candle import BrokerBar, Candle
from sink.db.connection import Connection, Database
from sink.maintenance import MAX_SYMBOLS, Comparer
from sink.metrics import Metrics
from tests.integration.sink.fixed import new_writer
from tests.unit.sink.candles import candle


def bar_of(one: Candle, high: float) -> BrokerBar:
    return BrokerBar(
        source=one.source, symbol=one.symbol, timeframe="M1", ts=one.ts, open=one.open, high=high, low=one.low,
        close=one.close, volume=one.volume, received=one.received,
    )  # fmt: skip


async def test_the_minutes_of_the_last_day_are_counted_by_symbol(url: str, connection: Connection) -> None:
    # Arrange: more symbols than have series of their own; of each one minute is equal and one differs
    now_ms = int(datetime.now(UTC).timestamp()) // 60 * 60_000
    symbols = [f"S{number:03}" for number in range(MAX_SYMBOLS + 3)]
    candles = [
        candle(symbol=symbol, ts=now_ms - 60_000 * ago, closed=True) for symbol in symbols for ago in (2, 3, 3_000)
    ]
    await new_writer().write(connection, candles, [bar_of(one, 1.3 + 0.1 * (one.ts % 120_000 > 0)) for one in candles])
    registry = CollectorRegistry()
    database = Database(url, asyncio.Event())

    # Act
    await Comparer(database, Metrics(registry)).step()

    # Assert
    def minutes(symbol: str, verdict: str) -> float | None:
        return registry.get_sample_value("tickpipe_sink_compared_minutes", {"symbol": symbol, "verdict": verdict})

    assert (minutes("S000", "equal"), minutes("S000", "differs"), minutes("S000", "no_bar")) == (1, 1, None)
    assert (minutes("other", "equal"), minutes("other", "differs")) == (3, 3)
    assert minutes(symbols[-1], "equal") is None
    await database.close()
