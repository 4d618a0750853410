"""Any record anywhere in the log counts exactly once: partitions are added under way, producers disagree about them."""

from collections import Counter

import psycopg
from aiokafka.admin import NewPartitions

from marketdata.tick import Frame, Tick
from marketdata.wire import encode, frame_key
from runtime.kafka import admin_client, new_producer
from runtime.settings import Settings
from runtime.topics import ensure_topics
from sink.verify import verify
from tests.kafka_log import group_lag
from tests.services import running
from tests.waiting import eventually

#: 2019-02-04 10:00 UTC.
START_MS = 1_549_274_400_000

SYMBOLS = [f"SYM{number:02}" for number in range(12)]
MINUTES = 3
TICKS_A_MINUTE = 20


def frames(symbol: str, minute: int) -> list[Frame]:
    """The distinct ticks of one minute, a frame each."""
    return [
        Frame(
            v=1, source="S", symbol=symbol, mode="bid", point=0.00001, request=f"{symbol}-{minute}-{n}",
            received=START_MS + minute * 60_000 + n * 2_500,
            ticks=[Tick(START_MS + minute * 60_000 + n * 2_500, 1.1 + n / 1000, 1.2 + n / 1000, 0.0, 0.0, 6)],
        )
        for n in range(TICKS_A_MINUTE)
    ]  # fmt: skip


async def send(settings: Settings, partitions: int, records: list[tuple[Frame, int | None]]) -> Counter[int]:
    """Publish each frame to the partition that is given, or where its key belongs; how many went where.

    `partitions` are those that the topic has: a broker hears of new ones a moment after they were added.
    """
    producer = new_producer(settings, linger_ms=5, metadata_max_age_ms=500)
    await producer.start()

    async def knows_all() -> bool:
        return len(await producer.partitions_for(settings.ticks_topic)) == partitions

    try:
        await eventually(knows_all, what=f"{partitions} partitions")
        sent = [
            await producer.send(
                settings.ticks_topic, encode(frame), key=frame_key(frame.source, frame.symbol), partition=partition
            )
            for frame, partition in records
        ]
        return Counter([(await each).partition for each in sent])
    finally:
        await producer.stop()


async def test_every_record_counts_once_wherever_it_lies(settings: Settings) -> None:
    settings = settings.model_copy(update={"kafka_partitions": 1})
    await ensure_topics(settings)
    with running(settings, "stream_app", "sink"):
        # Arrange: half of each symbol's ticks while there is one partition
        halves = {(s, m): (frames(s, m)[::2], frames(s, m)[1::2]) for s in SYMBOLS for m in range(MINUTES)}
        await send(settings, 1, [(frame, None) for first, _ in halves.values() for frame in first])

        # Act: partitions are added; the other half comes from producers of which each partitions in its own way
        async with admin_client(settings) as client:
            await client.create_partitions({settings.ticks_topic: NewPartitions(total_count=4)})
        rest: list[tuple[Frame, int | None]] = []
        for (symbol, _), (_, second) in halves.items():
            match SYMBOLS.index(symbol) % 3:
                case 0:  # knows four partitions
                    rest += [(frame, None) for frame in second]
                case 1:  # still believes that there is one
                    rest += [(frame, 0) for frame in second]
                case _:  # asks no key
                    rest += [(frame, n % 4) for n, frame in enumerate(second)]
        where = await send(settings, 4, rest)
        assert len(where) == 4

        async def settled() -> bool:
            lags = [
                await group_lag(settings, settings.stream_group, settings.ticks_topic),
                await group_lag(settings, settings.sink_group, settings.candles_topic),
            ]
            return sum(lags) == 0 and not sql(settings, "SELECT 1 FROM pending_refolds LIMIT 1")

        await eventually(settled, what="a settled pipeline")

    # Assert
    volumes = sql(settings, "SELECT symbol, volume, closed FROM market_data ORDER BY symbol, ts")
    assert volumes == [(symbol, TICKS_A_MINUTE, True) for symbol in SYMBOLS for _ in range(MINUTES)]
    prices = sql(settings, "SELECT DISTINCT open, high, low, close FROM market_data")
    assert prices == [(1.1, 1.1 + 19 / 1000, 1.1, 1.1 + 19 / 1000)]
    report = await verify(settings, complete=True)
    assert report.missing == []
    assert (report.checked, report.equal) == (len(volumes), len(volumes)), report
    spread = sql(
        settings,
        "SELECT count(DISTINCT r.partition) FROM market_data, proof_ranges(offsets) AS r WHERE symbol = 'SYM02'",
    )
    assert spread == [(4,)]


def sql(settings: Settings, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        return connection.execute(query.encode()).fetchall()
