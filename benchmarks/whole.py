"""The whole way from a body of ticks to the rows of its candles, against the database that does the whole job alone.

`python -m benchmarks.whole` gives both the same bodies, 200 ticks of one symbol each. Tickpipe takes them over HTTP,
and producer, Kafka, one stream worker, sink and PostgreSQL are processes of their own. Alone means that a client
decodes the bodies, copies batches of 10,000 ticks into PostgreSQL and folds each batch by one upsert, as an expert
would write it, once with the ticks stored for good and once without. QuestDB alone is sent them in its line protocol,
and its materialised view holds the candles. All must equal a plain fold of the ticks, minute by minute.

The notes say what each holds when bodies are sent again, as a sender does that lost the answer.
"""

import argparse
import asyncio
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import psutil
import psycopg

from benchmarks.fold import until_counted
from benchmarks.ingest import post_all
from benchmarks.memory import variables
from benchmarks.peers.ticks import SYMBOLS, Bars, closing_tick, expected_bars, ticks_of_a_symbol
from benchmarks.questdb import VERSION, Held, QuestDb, line_of, questdb
from benchmarks.rounds import Contender, Measured, NotMeasured, cpu_seconds, peak_bytes, run_rounds
from benchmarks.services import serving
from marketdata.tick import DAY_MS, Tick
from tests.days import EURUSD_COUNT
from tests.servers import EmbeddedServers

SERVICES = ("producer", "stream_app", "sink")
TICKS = 200
BATCH = 10_000
#: The rows are looked at so often (seconds).
_LOOK_SECONDS = 0.05

QUESTDB = f"QuestDB {VERSION} alone, ticks stored"

_TABLES = """
    DROP TABLE IF EXISTS bare_ticks, bare_candles;
    CREATE TABLE bare_ticks (
        n int8, symbol text NOT NULL, time_msc int8 NOT NULL, bid float8 NOT NULL, ask float8 NOT NULL, flags int4
    );
    CREATE TABLE bare_candles (
        symbol text, ts timestamptz, open float8 NOT NULL, high float8 NOT NULL, low float8 NOT NULL,
        close float8 NOT NULL, volume int8 NOT NULL, PRIMARY KEY (symbol, ts)
    );
    CREATE TEMP TABLE batch (LIKE bare_ticks);
"""
_UPSERT = """
    INSERT INTO bare_candles AS stored (symbol, ts, open, high, low, close, volume)
    SELECT symbol, to_timestamp(time_msc / 60000 * 60), (array_agg(bid ORDER BY n))[1], max(bid), min(bid),
           (array_agg(bid ORDER BY n DESC))[1], count(*)
    FROM batch GROUP BY 1, 2
    ON CONFLICT (symbol, ts) DO UPDATE SET
        high = greatest(stored.high, EXCLUDED.high), low = least(stored.low, EXCLUDED.low),
        close = EXCLUDED.close, volume = stored.volume + EXCLUDED.volume
"""
_STORED = """
    SELECT symbol, (extract(epoch FROM ts) * 1000)::int8, open, high, low, close, volume FROM {} WHERE ts < %s
"""


class _Item(msgspec.Struct):
    symbol: str
    time_msc: int
    bid: float
    ask: float
    flags: int


class _Body(msgspec.Struct):
    ticks: list[_Item]


class Bodies:
    """The bodies of a round: those of the day, in turn by symbol, and at the end one tick that closes each symbol."""

    def __init__(self, ticks: Sequence[Tick], day: int) -> None:
        shifted = [Tick(tick.time_msc + day * DAY_MS, tick.bid, tick.ask, 0.0, 0.0, 6) for tick in ticks]
        #: The first moment that is not compared (epoch milliseconds).
        self.end_ms = closing_tick(shifted).time_msc // 60_000 * 60_000
        self.bars: Bars = expected_bars(shifted)
        self.first_ms = min(minute for _, minute in self.bars)
        self.count = self.sent = len(shifted) * len(SYMBOLS)
        parts = [shifted[start : start + TICKS] for start in range(0, len(shifted), TICKS)]
        self.all = [_body(symbol, part) for part in (*parts, [closing_tick(shifted)]) for symbol in SYMBOLS]


def _body(symbol: str, ticks: Sequence[Tick]) -> bytes:
    return msgspec.json.encode(
        {
            "ticks": [
                {"symbol": symbol, "time_msc": t.time_msc, "bid": t.bid, "ask": t.ask, "flags": t.flags, "digits": 5}
                for t in ticks
            ]
        }
    )


#: Sends or stores the bodies.
Way = Callable[[Bodies], None]


def alone(connection: psycopg.Connection, *, stores_ticks: bool) -> Way:
    """The database alone, the candles and, where it stores them, the ticks in one transaction a batch."""
    decode = msgspec.json.Decoder(_Body).decode
    numbers = itertools.count()

    def store(bodies: Bodies) -> None:
        items = (item for body in bodies.all for item in decode(body).ticks)
        while batch := tuple(itertools.islice(items, BATCH)):
            with connection.transaction(), connection.cursor() as cursor:
                cursor.execute("TRUNCATE batch")
                with cursor.copy("COPY batch FROM STDIN") as copy:
                    copy.write("".join(map(_line, numbers, batch)))
                cursor.execute(_UPSERT)
                if stores_ticks:
                    cursor.execute("INSERT INTO bare_ticks SELECT * FROM batch")

    return store


def _line(number: int, item: _Item) -> str:
    return f"{number}\t{item.symbol}\t{item.time_msc}\t{item.bid!r}\t{item.ask!r}\t{item.flags}\n"


def in_questdb(server: QuestDb) -> Way:
    """QuestDB alone: ticks in batches, until its view holds all of them."""
    decode = msgspec.json.Decoder(_Body).decode

    def store(bodies: Bodies) -> None:
        items = (item for body in bodies.all for item in decode(body).ticks)
        server.write((line_of(item.symbol, item.time_msc, item.bid, item.ask, item.flags) for item in items), BATCH)
        server.wait_for(bodies.first_ms, bodies.end_ms, bodies.sent)

    return store


#: What one of them holds of the time of the bodies.
Look = Callable[[Bodies], Held]


def in_table(connection: psycopg.Connection, table: str) -> Look:
    """What a table holds."""

    def look(bodies: Bodies) -> Held:
        rows = connection.execute(_STORED.format(table), [_moment(bodies.end_ms)])
        return {(symbol, minute): tuple(bar) for symbol, minute, *bar in rows if minute >= bodies.first_ms}

    return look


def quest_candles(server: QuestDb) -> Look:
    """What the view holds."""
    return lambda bodies: server.held(bodies.first_ms, bodies.end_ms)


def difference(found: Held, bodies: Bodies) -> str | None:
    """What is found that a plain fold does not make, or the other way round; None when they are equal."""
    wrong = [key for key in bodies.bars.keys() | found.keys() if bodies.bars.get(key) != found.get(key)]
    if not wrong:
        return None
    key = min(wrong)
    return (
        f"{len(wrong)} of {len(bodies.bars)} candles differ; {key} should be {bodies.bars.get(key)} and is "
        f"{found.get(key)}"
    )


def _moment(ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime(ms // 1000))


def _waits_for_rows(connection: psycopg.Connection, bodies: Bodies) -> None:
    """Until every tick is in a closed row."""
    period = [_moment(bodies.first_ms), _moment(bodies.end_ms)]

    def stored() -> float:
        row = connection.execute(
            "SELECT coalesce(sum(volume), 0) FROM market_data"
            " WHERE closed AND timeframe = 'M1' AND ts >= %s AND ts < %s",
            period,
        ).fetchone()
        return float(row[0]) if row else 0.0

    until_counted(stored, bodies.count, every_seconds=_LOOK_SECONDS)


class Bench:
    """What the contenders share: the servers, and a day of its own for each round."""

    def __init__(self, connection: psycopg.Connection, ticks: Sequence[Tick], port: int) -> None:
        self._connection, self._ticks, self._port = connection, ticks, port
        self._days = itertools.count()

    def tickpipe(self, bodies: Bodies) -> None:
        """Post every body, then wait for the rows."""
        asyncio.run(post_all(self._port, "/ingest/tick", bodies.all))
        _waits_for_rows(self._connection, bodies)

    def measured(self, way: Way, look: Look, processes: Sequence[psutil.Process], *, client: bool) -> Contender:
        """Rounds of one way; `client` counts this process as well, which is the client of the database alone."""
        own = psutil.Process()

        def cpu() -> float:
            return sum(map(cpu_seconds, processes)) + (cpu_seconds(own, alone=True) if client else 0)

        def run() -> Measured:
            bodies = Bodies(self._ticks, 2 * next(self._days))
            before, began = cpu(), time.monotonic()
            way(bodies)
            wall, used = time.monotonic() - began, cpu() - before
            if wrong := difference(look(bodies), bodies):
                raise NotMeasured(wrong)
            peak = sum(map(peak_bytes, processes)) + (peak_bytes(own, alone=True) if client else 0)
            return Measured(wall, used, peak, bodies.count)

        return run

    def resent(self, way: Way, look: Look) -> str:
        """What is held when a tenth of the bodies is sent once more at the end."""
        bodies = Bodies(self._ticks, 2 * next(self._days))
        last = len(SYMBOLS)
        again = bodies.all[:-last]
        bodies.all[-last:-last] = (twice := again[-len(again) // 10 :])
        bodies.sent += sum(len(msgspec.json.decode(body, type=_Body).ticks) for body in twice)
        way(bodies)
        return difference(look(bodies), bodies) or "every candle is right"


@contextmanager
def bench(ticks: Sequence[Tick], port: int) -> Iterator[tuple[Bench, psycopg.Connection, list[psutil.Process]]]:
    """Servers and services; the processes are Kafka's and PostgreSQL's (two), then the services'."""
    ports = {service: port + n for n, service in enumerate(SERVICES)}
    own = psutil.Process()
    with tempfile.TemporaryDirectory() as directory:
        before = set(own.children())
        with EmbeddedServers(Path(directory) / "servers", short_lived=False) as servers:
            started = [one for one in own.children() if one not in before]
            postgres = next(one for one in started if "postgres" in one.name())
            others = [one for one in started if one != postgres]
            with (
                serving(ports, variables(servers, Path(directory), ports)) as processes,
                psycopg.connect(servers.database_url, autocommit=True) as connection,
            ):
                connection.execute("SET TimeZone TO 'UTC'")
                connection.execute(_TABLES)
                yield Bench(connection, ticks, port), connection, [postgres, *others, *processes.values()]


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds after the warm-up (default: 5)")
    parser.add_argument(
        "--ticks", type=int, default=EURUSD_COUNT, help=f"ticks of each of the 8 symbols (default: {EURUSD_COUNT})"
    )
    parser.add_argument("--port", type=int, default=18_995, help="of the producer; two more follow (default: 18995)")
    options = parser.parse_args()
    with (
        bench(ticks_of_a_symbol(options.ticks), options.port) as (shared, connection, processes),
        tempfile.TemporaryDirectory() as directory,
        ExitStack() as others,
    ):
        bare, rows, postgres = in_table(connection, "bare_candles"), in_table(connection, "market_data"), processes[:1]
        ours = "Tickpipe, the whole way"
        ways: dict[str, tuple[Way, Look, Sequence[psutil.Process]]] = {
            "the database alone": (alone(connection, stores_ticks=False), bare, postgres),
            "the database alone, ticks stored": (alone(connection, stores_ticks=True), bare, postgres),
        }
        try:
            quest = others.enter_context(questdb(Path(directory), options.port + len(SERVICES)))
        except NotMeasured as exc:
            held = [f"Not measured: {QUESTDB} ({exc})."]
        else:
            held, ways[QUESTDB] = [], (in_questdb(quest), quest_candles(quest), [quest.process])
        ways[ours] = shared.tickpipe, rows, processes
        held += [
            f"{name}, a tenth of the bodies sent twice: {shared.resent(way, look)}."
            for name, (way, look, _) in ways.items()
        ]
        run_rounds(
            "whole",
            {
                name: shared.measured(way, look, measured, client=name != ours)
                for name, (way, look, measured) in ways.items()
            },
            rounds=options.rounds,
            unit="ticks",
            packages=("aiokafka", "faust-streaming", "msgspec", "psycopg"),
            versions={"questdb": VERSION},
            notes=held,
        )


if __name__ == "__main__":
    main()
