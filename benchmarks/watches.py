"""When ticks that a benchmark posts are seen on their way: in the answer, the topic, the stream and the table."""

import asyncio
import itertools
import time
from datetime import datetime

import msgspec
import psycopg

from marketdata.wire import decode_candle
from runtime.kafka import new_consumer
from runtime.settings import load_settings

STAGES = ("answered", "chosen", "published", "stream", "row")

#: The reader of rows looks this often (seconds), and each watcher waits this long for the last ticks.
LOOK_SECONDS = 0.003
PATIENCE_SECONDS = 15.0

#: Newest tick of each symbol that a reader sees; the bound on ts spares what is older.
VISIBLE = """
SELECT symbol, (extract(epoch FROM max(last_tick)) * 1000)::bigint FROM market_data
WHERE timeframe = 'M1' AND ts >= now() - interval '2 minutes' GROUP BY symbol
"""


class Watch:
    """When each tick was seen at one stage."""

    def __init__(self) -> None:
        #: Posted and not yet seen, by symbol: time in the tick (epoch milliseconds), planned moment (epoch seconds).
        self.waiting: dict[str, list[tuple[int, float]]] = {}
        self.latencies: list[float] = []
        self.counts_from = 0.0

    def saw(self, symbol: str, newest_ms: int, at: float) -> None:
        """Every tick of the symbol up to `newest_ms` is there since `at` (epoch seconds)."""
        if not (waiting := self.waiting.get(symbol)):
            return
        seen = 0
        for time_msc, planned in waiting:
            if time_msc > newest_ms:
                break
            seen += 1
            if planned >= self.counts_from:
                self.latencies.append(at - planned)
        del waiting[:seen]

    @property
    def is_done(self) -> bool:
        """Whether every posted tick was seen."""
        return not any(self.waiting.values())


class Watches:
    """A watch for each stage."""

    def __init__(self) -> None:
        self.of = {stage: Watch() for stage in STAGES}

    def begin(self, counts_from: float) -> None:
        """Count ticks planned from a moment on (epoch seconds)."""
        for watch in self.of.values():
            watch.waiting.clear()
            watch.latencies.clear()
            watch.counts_from = counts_from

    def posted(self, symbol: str, time_msc: int, planned: float) -> None:
        """Wait for this tick at every later stage."""
        for stage in STAGES[1:]:
            self.of[stage].waiting.setdefault(symbol, []).append((time_msc, planned))

    async def until_seen(self) -> None:
        """Wait until every tick was seen at every stage.

        Raises:
            SystemExit: when some stay away.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while missing := [stage for stage, watch in self.of.items() if not watch.is_done]:
            if time.monotonic() > deadline:
                raise SystemExit(f"ticks were posted that did not reach {' and '.join(missing)}")
            await asyncio.sleep(0.02)

    def percentiles(self) -> dict[str, tuple[float, float, float]]:
        """50th, 99th and 99.9th of each stage (seconds)."""
        found = {}
        for stage, watch in self.of.items():
            ordered = sorted(watch.latencies)
            p50, p99, p999 = (ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.99, 0.999))
            found[stage] = (p50, p99, p999)
        return found


async def watch_rows(database_url: str, watch: Watch) -> None:
    """Until cancelled."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        while True:
            newest = await (await connection.execute(VISIBLE)).fetchall()
            now = time.time()
            for symbol, visible_ms in newest:
                watch.saw(symbol, visible_ms, now)
            await asyncio.sleep(LOOK_SECONDS)


async def watch_topic(kafka_bootstrap: str, chosen: Watch, published: Watch) -> None:
    """Until cancelled."""
    settings = load_settings(kafka_bootstrap=kafka_bootstrap)
    consumer = new_consumer(settings, settings.candles_topic, auto_offset_reset="latest")
    await consumer.start()
    try:
        while True:
            polled = await consumer.getmany(timeout_ms=1_000)
            now = time.time()
            for record in itertools.chain.from_iterable(polled.values()):
                candle = decode_candle(record.value)
                published.saw(candle.symbol, candle.last_tick, now)
                chosen.saw(candle.symbol, candle.last_tick, candle.emitted / 1000)
    finally:
        await consumer.stop()


class _Event(msgspec.Struct):
    symbol: str = ""
    last_tick: datetime | None = None


async def watch_stream(port: int, watch: Watch) -> None:
    """Until cancelled."""
    incoming, outgoing = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    outgoing.write(b"GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    decode = msgspec.json.Decoder(_Event).decode
    try:
        while line := await incoming.readline():
            if line.startswith(b"data: ") and b'"last_tick"' in line:
                event = decode(line[6:])
                if event.last_tick is not None:
                    watch.saw(event.symbol, round(event.last_tick.timestamp() * 1000), time.time())
    finally:
        outgoing.close()
