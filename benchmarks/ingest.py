"""What the producer acknowledges a second, against the same server without our part of the work.

`python -m benchmarks.ingest` starts Kafka and one process of the producer, with three more routes beside its own:
/empty, which FastAPI serves as it serves any function that does nothing; /unparsed, which authenticates as the producer
does and writes the body as it came, as one record, before it answers; /decoded, which decodes the body, does nothing
with its ticks, and writes the frames of the first body again. Bodies of one tick go to /ingest/tick and /empty, bodies
of 200 ticks to /ingest/tick, /unparsed and /decoded, over 64 keep-alive connections. All write through the same
gateway. What measures shares the machine: the rates are what a contender reaches with it, and the CPU seconds those of
the server alone.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.rounds import Contender, Measured, cpu_seconds, peak_bytes, run_rounds
from benchmarks.services import serving
from tests.days import eurusd_ticks
from tests.servers import EmbeddedServers

CONNECTIONS = 64
TICKS = 200
KEY = "benchmark"

#: A tick as DataCollectorPRO posts it: number of the symbol, bid, ask, time, spread.
_TICK = (
    b'{"ts":"2025-10-20T02:20:00Z","symbol":"SYM%d","bid":%.6f,"ask":%.6f,"last":0.000000,"volume":0,"flags":6,'
    b'"ts_msc":%d,"digits":5,"point":0.000010,"spread":%.6f,"meta":{"ea":"PDC","ver":"1.65","src":"tick",'
    b'"acct":12345,"srv":"Broker-Demo","build":3850}}'
)
FIRST_MSC = 1_760_926_800_000

#: The module that serves the routes.
SERVER = "benchmarks.ingest_server"


def variables(kafka_bootstrap: str, port: int) -> dict[str, str]:
    """What the server has to know."""
    return {
        "TICKPIPE_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "TICKPIPE_API_KEYS": f'{{"bench": "{KEY}"}}',
        "TICKPIPE_PRODUCER_HOST": "127.0.0.1",
        "TICKPIPE_PRODUCER_PORT": str(port),
        "TICKPIPE_LOG_LEVEL": "ERROR",
    }


def tick_of(symbol: int, time_msc: int) -> bytes:
    """One tick; the prices are those of some tick of the day, since what never changes takes no time to compress."""
    quotes = eurusd_ticks()
    quote = quotes[time_msc % len(quotes)]
    return _TICK % (symbol, quote.bid, quote.ask, time_msc, quote.ask - quote.bid)


def body_of(number: int, ticks: int) -> bytes:
    """A body of so many ticks of 8 symbols; no two have the same times."""
    first = number * ticks
    return b'{"ticks":[%b]}' % b",".join([tick_of((first + n) % 8, FIRST_MSC + first + n) for n in range(ticks)])


def request_of(body: bytes, path: str = "/ingest/tick") -> bytes:
    """The bytes of a POST to one of the routes."""
    head = b"POST %b HTTP/1.1\r\nHost: bench\r\nX-API-Key: %b\r\nContent-Length: %d\r\n\r\n"
    return head % (path.encode(), KEY.encode(), len(body)) + body


async def post_all(port: int, path: str, bodies: list[bytes]) -> None:
    """Every body once, over the connections, each after the answer to the one before."""
    left = iter(bodies)

    async def post() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for body in left:
            writer.write(request_of(body, path))
            await read_answer(reader)
        writer.close()

    await asyncio.gather(*(post() for _ in range(CONNECTIONS)))


async def read_answer(reader: asyncio.StreamReader) -> None:
    """Read one answer to its end.

    Raises:
        SystemExit: when it is not 200.
    """
    answer = await reader.readuntil(b"\r\n\r\n")
    if not answer.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"the producer answered {answer.decode()}")
    await reader.readexactly(int(answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]))


def posting(process: psutil.Process, port: int, path: str, bodies: list[bytes], ticks: int = 1) -> Contender:
    """Bodies of so many ticks to one route of the running server."""

    def run() -> Measured:
        cpu, began = cpu_seconds(process), time.monotonic()
        asyncio.run(post_all(port, path, bodies))
        wall = time.monotonic() - began
        return Measured(wall, cpu_seconds(process) - cpu, peak_bytes(process), len(bodies) * ticks)

    return run


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000, help="of one tick in a round (default: 20000)")
    parser.add_argument("--bodies", type=int, default=3_000, help="of 200 ticks in a round (default: 3000)")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (default: 5)")
    parser.add_argument("--port", type=int, default=18_994, help="of the measured server (default: 18994)")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        EmbeddedServers(Path(directory)) as servers,
        serving({SERVER: options.port}, variables(servers.kafka_bootstrap, options.port)) as processes,
    ):
        process = processes[SERVER]
        bodies = [body_of(number, 1) for number in range(options.requests)]
        contenders = {
            "an empty FastAPI route": posting(process, options.port, "/empty", bodies),
            "one tick a request": posting(process, options.port, "/ingest/tick", bodies),
        }
        run_rounds("ingest-one", contenders, rounds=options.rounds, unit="requests")
        bodies = [body_of(number, TICKS) for number in range(options.bodies)]
        contenders = {
            "the same bodies unparsed": posting(process, options.port, "/unparsed", bodies, TICKS),
            "the same bodies decoded only": posting(process, options.port, "/decoded", bodies, TICKS),
            "bodies of 200 ticks": posting(process, options.port, "/ingest/tick", bodies, TICKS),
        }
        run_rounds("ingest-bodies", contenders, rounds=options.rounds, unit="ticks")


if __name__ == "__main__":
    main()
