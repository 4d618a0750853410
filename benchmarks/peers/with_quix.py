"""One-minute candles with Quix Streams: a tumbling window that is emitted when it closes.

Arguments: bootstrap, topic of ticks, topic of candles, consumer group, folder of the state.
"""

import sys
from typing import Any

from quixstreams import Application


def opened(frame: dict[str, Any]) -> dict[str, Any]:
    """The candle of the first tick."""
    bid = frame["ticks"][0][1]
    return {"symbol": frame["symbol"], "open": bid, "high": bid, "low": bid, "close": bid, "volume": 1}


def added(candle: dict[str, Any], frame: dict[str, Any]) -> dict[str, Any]:
    """The candle with one tick more."""
    bid = frame["ticks"][0][1]
    candle["high"] = max(candle["high"], bid)
    candle["low"] = min(candle["low"], bid)
    candle["close"] = bid
    candle["volume"] += 1
    return candle


def main() -> None:
    """Run until killed."""
    bootstrap, ticks, candles, group, state = sys.argv[1:]
    app = Application(
        broker_address=bootstrap,
        consumer_group=group,
        auto_offset_reset="earliest",
        state_dir=state,
        loglevel="WARNING",
    )
    started = False

    def say_first(_: dict[str, Any]) -> None:
        nonlocal started
        if not started:
            started = True
            print("first", flush=True)

    frame = app.dataframe(app.topic(ticks, value_deserializer="json", key_deserializer="str"))
    frame = frame.update(say_first)
    frame = frame.tumbling_window(duration_ms=60_000, grace_ms=5_000).reduce(reducer=added, initializer=opened).final()
    frame = frame.apply(lambda window: window["value"] | {"ts": window["start"]})
    frame.to_topic(app.topic(candles, value_serializer="json", key_serializer="str"))
    app.run()


if __name__ == "__main__":
    main()
