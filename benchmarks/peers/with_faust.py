"""One-minute candles with Faust's own windowed table, as in its example of windowed aggregation.

Arguments: bootstrap, topic of ticks, topic of candles, application id, folder of the state.
"""

import sys
from datetime import timedelta
from typing import Any

import faust

Window = tuple[float, float]


def main() -> None:
    """Run until killed."""
    bootstrap, ticks, candles, group, state = sys.argv[1:]
    app = faust.App(
        group, broker=f"kafka://{bootstrap}", datadir=state, topic_partitions=1, web_enabled=False,
        table_cleanup_interval=1.0,
    )  # fmt: skip
    source = app.topic(ticks, key_type=str, key_serializer="raw", value_serializer="json")
    sink = app.topic(candles, key_type=str, key_serializer="raw", value_serializer="json")

    def publish(key: tuple[str, Window], candle: list[Any]) -> None:
        symbol, (begin, _) = key
        names = ("open", "high", "low", "close", "volume")
        sink.send_soon(key=symbol, value=dict(zip(names, candle, strict=True)) | {"symbol": symbol, "ts": begin * 1000})

    table = app.Table("windows", default=list, partitions=1, on_window_close=publish)
    windows = table.tumbling(60.0, expires=timedelta(seconds=5)).relative_to_stream()
    started = False

    @app.agent(source)
    async def fold(stream: Any) -> None:
        nonlocal started
        async for frame in stream:
            if not started:
                started = True
                print("first", flush=True)
            symbol, bid = frame["symbol"], frame["ticks"][0][1]
            candle = windows[symbol].value()
            if candle:
                opened, high, low, _, volume = candle
                windows[symbol] = [opened, max(high, bid), min(low, bid), bid, volume + 1]
            else:
                windows[symbol] = [bid, bid, bid, bid, 1]

    faust.Worker(app, loglevel="WARNING").execute_from_commandline()


if __name__ == "__main__":
    main()
