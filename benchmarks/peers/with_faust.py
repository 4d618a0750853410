"""One-minute candles with Faust's own windowed table, which publishes every update.

Faust's example of windowed aggregation publishes when a window expires. On history that gives wrong candles: windows
expire while their ticks still come. Here they never expire.

Arguments: bootstrap, topic of ticks, topic of candles, application id, folder of the state.
"""

import sys
from datetime import timedelta
from typing import Any

import faust

NAMES = ("open", "high", "low", "close", "volume")


def main() -> None:
    """Run until killed."""
    bootstrap, ticks, candles, group, state = sys.argv[1:]
    app = faust.App(
        group, broker=f"kafka://{bootstrap}", datadir=state, topic_partitions=1, web_enabled=False,
        worker_redirect_stdouts=False,
    )  # fmt: skip
    source = app.topic(ticks, key_type=str, key_serializer="raw", value_serializer="json")
    sink = app.topic(candles, key_type=str, key_serializer="raw", value_serializer="json")

    table = app.Table("windows", default=list, partitions=1)
    windows = table.tumbling(60.0, expires=timedelta(days=36_500)).relative_to_stream()
    started = False

    @app.agent(source)
    async def fold(stream: Any) -> None:
        nonlocal started
        async for frame in stream:
            if not started:
                started = True
                print("first", flush=True)
            symbol, (time_msc, bid, *_) = frame["symbol"], frame["ticks"][0]
            candle = windows[symbol].value()
            if candle:
                opened, high, low, _, volume = candle
                candle = [opened, max(high, bid), min(low, bid), bid, volume + 1]
            else:
                candle = [bid, bid, bid, bid, 1]
            windows[symbol] = candle
            about = {"symbol": symbol, "ts": time_msc // 60_000 * 60_000}
            await sink.send(key=symbol, value=about | dict(zip(NAMES, candle, strict=True)))

    faust.Worker(app, loglevel="WARNING").execute_from_commandline()


if __name__ == "__main__":
    main()
