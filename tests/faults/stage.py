"""Where the fault cases play: real services on real servers, supervised, with senders that trade all the while.

Each case ends with `settle_and_compare`: the senders deliver, lag goes to 0 within a bound, and the whole table equals
the fold of the log.
"""

import asyncio
import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

import httpx
import psycopg
import pytest

from marketdata.errors import TickpipeError
from marketdata.tick import Tick
from runtime.settings import Settings
from runtime.topics import wait_for_kafka
from tests import oracle, plainhttp
from tests.conftest import API_KEY
from tests.faults import truth
from tests.faults.record import Figures, write
from tests.faults.sender import Sender, item
from tests.ports import free_port
from tests.servers import EmbeddedServers
from tests.services import Service

#: After the last fault: restart of everything on a busy machine, session timeouts, the refolds (seconds).
HEAL_SECONDS = 300.0

#: What a supervisor waits before it starts a process again (seconds).
RESTART_SECONDS = 0.3

_WATCH_SECONDS = 0.2


class Stage:
    """Use it as `async with Stage(settings, servers, case="…", seed=…) as stage`."""

    def __init__(
        self,
        settings: Settings,
        servers: EmbeddedServers,
        *,
        case: str,
        seed: int,
        modules: tuple[str, ...] = ("producer", "stream_app", "sink"),
        truth_settings: Settings | None = None,
    ) -> None:
        self.settings = settings
        self.servers = servers
        self.case = case
        self.seed = seed
        self.rng = random.Random(seed)
        self.services = [Service(module, settings) for module in modules]
        self.senders: list[Sender] = []
        #: Faults so far.
        self.rounds = 0
        #: Ticks that `post` sent.
        self.posted = 0
        self._added = 0
        #: Processes that ended by themselves.
        self.ended: list[str] = []
        # The tests' own way to the servers, when the services' is disturbed.
        self._direct = truth_settings or settings
        self._killed: set[int] = set()
        self._stop_trading = asyncio.Event()
        self._trading: list[asyncio.Task[None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._newest = 0
        self._moved_at = 0.0
        self._standstill: float | None = None

    async def __aenter__(self) -> Self:
        print(f"{self.case}: seed {self.seed}")
        try:
            await wait_for_kafka(self.settings)
            for service in self.services:
                service.start()
            for service in self.services:
                await asyncio.to_thread(service.wait_ready)
        except BaseException:
            self._kill_services()
            raise
        self._tasks.append(asyncio.create_task(self._supervise()))
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in (*self._tasks, *self._trading):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._trading, return_exceptions=True)
        self._kill_services()
        await asyncio.to_thread(self.servers.start)

    def _kill_services(self) -> None:
        for service in self.services:
            if service.returncode is None:
                service.send_signal(signal.SIGCONT)
                service.kill()

    async def _supervise(self) -> None:
        while True:
            for service in self.services:
                if (code := service.returncode) is not None:
                    if service.pid in self._killed:
                        self._killed.discard(service.pid)
                    else:
                        self.ended.append(f"{service.command[0]} {code}")
                    await asyncio.sleep(RESTART_SECONDS)
                    service.start()
            await asyncio.sleep(0.1)

    # Senders.

    def trade(self, *symbols: str, **options: object) -> None:
        """Let an EA trade each symbol, and watch the table."""
        for symbol in symbols:
            sender = Sender(symbol, random.Random(self.rng.random()), **options)  # type: ignore[arg-type]
            self.senders.append(sender)
            url = self["producer"].url
            self._trading.append(asyncio.create_task(sender.trade(url, API_KEY, self._stop_trading)))
        if self._standstill is None:
            self._standstill, self._moved_at = 0.0, time.monotonic()
            self._tasks.append(asyncio.create_task(self._watch()))

    async def _watch(self) -> None:
        """Measure how long the table shows nothing newer; prices tell a sender's newest tick."""
        while not self._stop_trading.is_set():
            with suppress(psycopg.OperationalError):
                newest = await self.newest()
                if newest > self._newest:
                    self._newest, self._moved_at = newest, time.monotonic()
            self._standstill = max(self._standstill or 0.0, time.monotonic() - self._moved_at)
            await asyncio.sleep(_WATCH_SECONDS)

    async def newest(self) -> int:
        """Number of the newest tick in the table, of all senders together.

        Raises:
            psycopg.OperationalError: when the database is away.
        """
        url = self._direct.database_url.get_secret_value()
        async with await psycopg.AsyncConnection.connect(url, connect_timeout=2) as connection:
            query = b"SELECT coalesce(sum(n), 0)::bigint FROM (SELECT (max(high) - 1) * 100000 AS n FROM market_data"
            rows = await connection.execute(query + b" WHERE source = 'EA' GROUP BY symbol) AS newest")
            row = await rows.fetchone()
        return int(row[0]) if row else 0

    async def recovered(self, within_seconds: float = HEAL_SECONDS, *, without: Sequence[str] = ()) -> float:
        """Wait until every sender's ticks of after this moment reach the table; returns the seconds that took."""
        began = time.monotonic()
        wanted = {sender.symbol: sender.number + 1 for sender in self.senders if sender.symbol not in without}
        url = self._direct.database_url.get_secret_value()
        while wanted:
            assert time.monotonic() - began < within_seconds, f"no newer tick of {sorted(wanted)} in the table"
            with suppress(psycopg.OperationalError):
                async with await psycopg.AsyncConnection.connect(url, connect_timeout=2) as connection:
                    rows = await connection.execute(
                        b"SELECT symbol, round((max(high) - 1) * 100000) FROM market_data GROUP BY symbol"
                    )
                    for symbol, newest in await rows.fetchall():
                        if symbol in wanted and newest >= wanted[symbol]:
                            del wanted[symbol]
            await asyncio.sleep(_WATCH_SECONDS)
        return time.monotonic() - began

    async def post(self, symbol: str, ticks: Sequence[Tick], *, size: int = 50, **fields: object) -> int:
        """Post ticks in batches as an EA does that repeats each until it is acknowledged; returns the requests."""
        requests = 0
        self.posted += len(ticks)
        async with httpx.AsyncClient(
            base_url=self["producer"].url,
            headers={"X-API-Key": API_KEY, "X-Source": "EA"},
            timeout=30,
            verify=plainhttp.NOBODY,
        ) as client:
            for first in range(0, len(ticks), size):
                body = {"ticks": [item(symbol, tick, **fields) for tick in ticks[first : first + size]]}
                status = 0
                while status != 200:
                    requests += 1
                    with suppress(httpx.HTTPError):
                        status = (await client.post("/ingest/tick", json=body)).status_code
                    if status != 200:
                        await asyncio.sleep(0.5)
        return requests

    # Faults.

    def __getitem__(self, module: str) -> Service:
        return next(service for service in self.services if service.module == module)

    async def kill(self, victim: str) -> None:
        """Kill -9 a service, which its supervisor starts again, or a server, which comes back after a moment."""
        self.rounds += 1
        if victim == "broker":
            await self.without(self.servers.kill_kafka, self.servers.start_kafka)
        elif victim == "database":
            await self.without(self.servers.kill_postgres, self.servers.start_postgres)
        else:
            self.kill_service(self.rng.choice([s for s in self.services if s.module == victim]))

    async def without(self, take: Callable[[], None], give: Callable[[], None]) -> None:
        """Take a server away for a moment."""
        await asyncio.to_thread(take)
        await asyncio.sleep(self.rng.uniform(0, 2))
        await asyncio.to_thread(give)

    def kill_service(self, service: Service) -> None:
        """Kill -9 one process, if it is not dead already."""
        if service.returncode is None:
            self._killed.add(service.pid)
            service.send_signal(signal.SIGKILL)

    def add_worker(self, module: str = "stream_app") -> Service:
        """Start one more stream worker; `module` is what runs in the process."""
        # A name that no worker had before: two that live under one take the partitions from each other.
        self._added += 1
        name = f"{self.settings.stream_instance}-{self._added}"
        more = self.settings.model_copy(update={"stream_port": free_port(), "stream_instance": name})
        worker = Service("stream_app", more, command=[module])
        self.services.append(worker.start())
        return worker

    async def remove_worker(self, worker: Service) -> int:
        """Stop a stream worker for good, by SIGTERM, when it runs; its exit code."""
        # One that ended by itself a moment ago may be starting again.
        await asyncio.to_thread(worker.wait_ready)
        self.services.remove(worker)
        return await asyncio.to_thread(worker.stop)

    # The end of every case.

    async def settle_and_compare(
        self,
        *,
        within_seconds: float = HEAL_SECONDS,
        held: dict[truth.Key, oracle.OracleCandle] | None = None,
        without: Sequence[str] = (),
        is_over: bool = True,
    ) -> truth.Log:
        """Heal, stop the senders, wait for lag 0, hold the whole table against the oracle; write what was measured.

        `held` are candles that a log proved which is gone; symbols of `without` must not be in the table. A case that
        goes on, `is_over=False`, writes nothing yet. Returns the log as it was read.
        """
        await asyncio.to_thread(self.servers.start)
        began = time.monotonic()
        deadline = began + within_seconds
        self._stop_trading.set()
        async with asyncio.timeout(within_seconds):
            await asyncio.gather(*self._trading)
        await self._settled(deadline)
        settled = time.monotonic() - began
        log = await truth.read_log(self._direct)
        expected = {key: candle for key, candle in log.expected().items() if key[1] not in without}
        found = await truth.table(self._direct)
        for key, candle in (held or {}).items():
            # Of a minute of both logs the candle with more ticks stays.
            proven = expected.get(key)
            same = proven is not None and proven.volume == candle.volume and found.get(key) == candle
            if proven is None or candle.volume > proven.volume or same:
                expected[key] = candle

        lost, doubled = truth.miscounted(found, expected)
        # Arithmetic on the side: the ticks of senders are all different, so counting needs no fold.
        written = log.ticks()
        for sender in self.senders:
            if sender.symbol in without:
                continue
            arrived = {tick for symbol, tick in written if symbol == sender.symbol}
            assert arrived <= sender.may_have_arrived, f"{sender.symbol}: ticks in the log that certainly failed"
            lost += len(set(sender.acknowledged) - arrived)
            counted = sum(candle.volume for (_, symbol, _), candle in found.items() if symbol == sender.symbol)
            assert counted == len(arrived) or lost or doubled, "the oracle and plain counting do not agree"
        if is_over:
            write(
                Figures(
                    case=self.case,
                    rounds=self.rounds,
                    ticks=self.posted + sum(sender.ticks for sender in self.senders) or sum(written.values()),
                    unknown=sum(len(sender.unknown) for sender in self.senders),
                    lost=lost,
                    doubled=doubled,
                    candles=len(found),
                    standstill=None if self._standstill is None else round(self._standstill, 1),
                    settled=round(settled, 1),
                    seed=self.seed,
                    ended=self.ended,
                    missing_rows=truth.missing_rows(found, expected),
                )
            )
        if wrong := truth.differences(found, expected):
            pytest.fail("\n".join([f"{len(wrong)} rows or more differ (seed {self.seed})", *wrong]))
        assert (lost, doubled) == (0, 0)
        assert (await truth.read_log(self._direct)).ends == log.ends, "the log grew while it was compared"
        return log

    async def _settled(self, deadline: float) -> None:
        # Twice: a request that its sender gave up may still be on its way through the producer.
        calm = 0
        while calm < 2:
            calm = calm + 1 if await truth.is_settled(self._direct) else 0
            assert time.monotonic() < deadline, f"not settled: {await self._state()} (seed {self.seed})"
            await asyncio.sleep(0.5)

    async def _state(self) -> str:
        with suppress(psycopg.OperationalError, TickpipeError):
            return f"lag {await truth.lag(self._direct)}, unfinished minutes {await truth.unfinished(self._direct)}"
        return "a server is away"
