"""One-minute candles with Bytewax: a tumbling window in event time, folded.

Arguments: bootstrap, topic of ticks, topic of candles.
"""

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSinkMessage
from bytewax.connectors.kafka import operators as kafka
from bytewax.dataflow import Dataflow
from bytewax.operators.windowing import EventClock, TumblingWindower, fold_window
from bytewax.run import cli_main

Tick = tuple[str, int, float]
Candle = list[Any]

started = False


def tick_of(message: Any) -> tuple[str, Tick]:
    """Key, and symbol, time (ms) and bid of the one tick of a record."""
    global started  # noqa: PLW0603 - the flag of a script
    if not started:
        started = True
        print("first", flush=True)
    frame = json.loads(message.value)
    time_msc, bid = frame["ticks"][0][:2]
    return message.key.decode(), (frame["symbol"], time_msc, bid)


def added(candle: Candle, tick: Tick) -> Candle:
    """Symbol, minute, open, high, low, close, volume with one tick more."""
    symbol, time_msc, bid = tick
    if not candle:
        return [symbol, time_msc // 60_000 * 60_000, bid, bid, bid, bid, 1]
    candle[3] = max(candle[3], bid)
    candle[4] = min(candle[4], bid)
    candle[5] = bid
    candle[6] += 1
    return candle


def merged(one: Candle, other: Candle) -> Candle:
    """Of two windows that turn out to be one, which tumbling windows never do."""
    raise AssertionError(f"two tumbling windows were merged: {one} {other}")


def published(closed: tuple[str, tuple[int, Candle]]) -> KafkaSinkMessage[bytes, bytes]:
    """The record of a closed window."""
    key, (_, candle) = closed
    names = ("symbol", "ts", "open", "high", "low", "close", "volume")
    return KafkaSinkMessage(key.encode(), json.dumps(dict(zip(names, candle, strict=True))).encode())


def main() -> None:
    """Run until killed."""
    bootstrap, ticks, candles = sys.argv[1:]
    flow = Dataflow("candles")
    source = kafka.input("ticks", flow, brokers=[bootstrap], topics=[ticks])
    keyed = op.map("tick", source.oks, tick_of)
    clock: Any = EventClock(
        ts_getter=lambda tick: datetime.fromtimestamp(tick[1] / 1000, UTC),
        wait_for_system_duration=timedelta(seconds=5),
    )
    windows = TumblingWindower(length=timedelta(minutes=1), align_to=datetime(2019, 1, 1, tzinfo=UTC))
    folded = fold_window("fold", keyed, clock, windows, list, added, merged)
    kafka.output("candles", op.map("publish", folded.down, published), brokers=[bootstrap], topic=candles)
    cli_main(flow)


if __name__ == "__main__":
    main()
