"""The promise, as the fault tests ask it: the table equals the fold of the log, by the oracle of `tests/oracle.py`."""

from bisect import bisect_left, bisect_right
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

import psycopg

from marketdata.errors import InvalidFrame, TickpipeError
from marketdata.offsets import position, spans
from marketdata.tick import Frame, Tick
from marketdata.wire import decode_frame
from runtime.kafka import log_ends
from runtime.settings import Settings
from sink.progress import with_sink_group
from tests import oracle
from tests.kafka_log import group_lag, read_records

#: Source, symbol and minute (UTC epoch milliseconds).
Key = tuple[str, str, int]


@dataclass
class Log:
    """Every frame of the ticks topic, and how far it reached when it was read."""

    frames: dict[int, list[tuple[int, Frame]]] = field(default_factory=dict)
    ends: dict[int, tuple[int, int]] = field(default_factory=dict)

    def expected(self) -> dict[Key, oracle.OracleCandle]:
        """Every candle that the log proves."""
        candles = {}
        # Frames by symbol and in order of positions: the oracle looks at every frame it is given, for every minute.
        by_symbol: dict[tuple[str, str], list[tuple[int, Frame]]] = {}
        for partition, frames in sorted(self.frames.items()):
            for offset, frame in frames:
                at = position(partition, offset)
                by_symbol.setdefault((frame.source, frame.symbol), []).append((at, frame))
        for (source, symbol), own in by_symbol.items():
            positions = [at for at, _ in own]
            for (_, _, ts), ranges in oracle.minutes_in(own).items():
                near: list[tuple[int, Frame]] = []
                for first, last in spans(ranges):
                    near += own[bisect_left(positions, first) : bisect_right(positions, last)]
                if (candle := oracle.fold(near, source, symbol, ts, ranges)) is not None:
                    candles[source, symbol, ts] = candle
        return candles

    def ticks(self) -> Counter[tuple[str, Tick]]:
        """How often each symbol's tick was written."""
        return Counter(
            (frame.symbol, tick) for frames in self.frames.values() for _, frame in frames for tick in frame.ticks
        )

    @property
    def records(self) -> int:
        """Records that are frames."""
        return sum(map(len, self.frames.values()))


async def read_log(settings: Settings) -> Log:
    """All of the ticks topic, by a reader of its own; what is no frame is skipped, as it promises nothing."""
    log = Log(ends=await log_ends(settings, settings.ticks_topic))
    log.frames = {partition: [] for partition in log.ends}
    for record in await read_records(settings, settings.ticks_topic):
        with suppress(InvalidFrame):
            log.frames[record.partition].append((record.offset, decode_frame(record.value)))
    return log


_ROWS = """
    SELECT source, symbol, (extract(epoch FROM ts) * 1000)::bigint, open, high, low, close, volume, real_volume, spread,
        (extract(epoch FROM first_tick) * 1000)::bigint, (extract(epoch FROM last_tick) * 1000)::bigint,
        (extract(epoch FROM received_at) * 1000)::bigint
    FROM market_data WHERE origin = 'ticks'
"""


async def table(settings: Settings) -> dict[Key, oracle.OracleCandle]:
    """Every row of `market_data` that was folded from ticks.

    Raises:
        psycopg.OperationalError: when the database is away.
    """
    url = settings.database_url.get_secret_value()
    async with await psycopg.AsyncConnection.connect(url, connect_timeout=5) as connection:
        rows = await (await connection.execute(_ROWS)).fetchall()
    return {(source, symbol, ts): oracle.OracleCandle(*values) for source, symbol, ts, *values in rows}


# What is ahead of the clock stays open.
_UNFINISHED = """
    SELECT (SELECT count(*) FROM pending_refolds)
        + (SELECT count(*) FROM market_data WHERE origin = 'ticks' AND NOT closed AND ts < now())
"""


async def unfinished(settings: Settings) -> int:
    """Minutes in the table that are open or wait to be folded again.

    Raises:
        psycopg.OperationalError: when the database is away.
    """
    url = settings.database_url.get_secret_value()
    async with await psycopg.AsyncConnection.connect(url, connect_timeout=5) as connection:
        row = await (await connection.execute(_UNFINISHED)).fetchone()
    assert row is not None
    return int(row[0])


async def lag(settings: Settings) -> int:
    """Records that the stream workers or the sink have not committed."""
    settings = await with_sink_group(settings)
    groups = [(settings.stream_group, settings.ticks_topic), (settings.sink_group, settings.candles_topic)]
    return sum([await group_lag(settings, group, topic) for group, topic in groups])


async def is_settled(settings: Settings) -> bool:
    """Whether nothing is on its way to the table any more; False as well while a server is away."""
    with suppress(psycopg.OperationalError, TickpipeError):
        return await lag(settings) == 0 and await unfinished(settings) == 0
    return False


def miscounted(found: dict[Key, oracle.OracleCandle], expected: dict[Key, oracle.OracleCandle]) -> tuple[int, int]:
    """Ticks that the table has too few, and too many."""
    surplus = [
        (found[key].volume if key in found else 0) - (expected[key].volume if key in expected else 0)
        for key in found.keys() | expected.keys()
    ]
    return sum(-n for n in surplus if n < 0), sum(n for n in surplus if n > 0)


def missing_rows(found: dict[Key, oracle.OracleCandle], expected: dict[Key, oracle.OracleCandle]) -> int:
    """Candles that the log proves and the table does not have; their ticks are among the lost."""
    return len(expected.keys() - found.keys())


def differences(found: dict[Key, oracle.OracleCandle], expected: dict[Key, oracle.OracleCandle]) -> list[str]:
    """The first ten rows that are not as they should be, in words."""
    keys = sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
    return [f"{key}: the table has {found.get(key)}, the log proves {expected.get(key)}" for key in keys[:10]]
