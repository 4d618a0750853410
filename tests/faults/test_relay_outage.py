"""The server is away while trading goes on: whatever happens on the PC, every tick is on the server once afterwards.

Simulated trading of 8 symbols with 20 ticks a second each, sent as fast as the machine takes them. Meanwhile the
network is cut, the relay is killed again and again in the middle of requests, and the PC's clock jumps. Five minutes by
default; `make outage` cuts an hour, 576,000 ticks with ten kills.
"""

import asyncio
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import httpx
import pytest

from marketdata.tick import Frame, Tick, period_of
from runtime.settings import Settings
from tests import oracle
from tests.conftest import API_KEY
from tests.faked_clock import FakedClock
from tests.faults.truth import read_log
from tests.integration.relay.process import RelayProcess
from tests.network import Cable
from tests.services import running
from tests.waiting import eventually

pytestmark = [pytest.mark.fault, pytest.mark.full, pytest.mark.timeout(1800)]

MINUTES = int(os.environ.get("TICKPIPE_OUTAGE_MINUTES", "5"))
SEED = int(os.environ.get("TICKPIPE_OUTAGE_SEED", str(random.SystemRandom().randrange(2**32))))
KILLS = 3 if MINUTES < 60 else 10

#: Two EAs of four charts each.
ADVISORS = [("EURUSD", "GBPUSD", "USDJPY", "XAUUSD"), ("USDCHF", "AUDUSD", "EURGBP", "US500")]
SYMBOLS = [symbol for symbols in ADVISORS for symbol in symbols]
TICKS_A_SECOND = 20

#: Seconds of trading with the server there, before the cable is pulled.
BEFORE_SECONDS = 20

#: Monday 2024-03-04, 10:00 UTC: the simulated time has nothing to do with anybody's clock.
BEGIN_MS = 1_709_546_400_000

#: What the PC's clock shows after each kill and between them.
JUMPS = ["+30d", "-2h", "-400d", "+0", "+90m", "-1s", "+700d"]

#: Most seconds of trading in one request: EAs keep what was not answered and append to it.
MOST_SECONDS = 60


@dataclass
class ExpertAdvisor:
    """Posts the ticks of its symbols second by second; what was not answered goes again, with newer ones appended."""

    symbols: tuple[str, ...]
    rng: random.Random
    second: int = 0
    waiting: list[tuple[str, Tick]] = field(default_factory=list)
    sent: dict[str, list[Tick]] = field(default_factory=dict)
    #: Of each second of trading, when the relay had it (epoch seconds).
    answered: dict[int, float] = field(default_factory=dict)
    resends: int = 0

    def trade(self) -> None:
        """One more second of ticks. Now and then a tick equals the one before in all its fields, and counts as well."""
        for symbol in self.symbols:
            ticks = self.sent.setdefault(symbol, [])
            for n in range(TICKS_A_SECOND):
                if n and self.rng.random() < 0.05:
                    tick = ticks[-1]
                else:
                    time_msc = BEGIN_MS + self.second * 1000 + n * 1000 // TICKS_A_SECOND
                    bid = round(1 + self.rng.random() / 100, 5)
                    tick = Tick(time_msc, bid, round(bid + 0.0001, 5), 0.0, 0.0, 6)
                ticks.append(tick)
                self.waiting.append((symbol, tick))
        self.second += 1

    async def post(self, client: httpx.AsyncClient) -> bool:
        """Whether everything that waits was answered."""
        items = [
            {"ts_msc": t.time_msc, "symbol": symbol, "bid": t.bid, "ask": t.ask, "flags": 6, "point": 0.00001}
            for symbol, t in self.waiting
        ]
        with suppress(httpx.TransportError):
            answer = await client.post("/ingest/tick", json={"ticks": items})
            # No 503 either: the disk has space and nobody holds the file.
            assert answer.status_code == 200, answer.text
            assert answer.json()["inserted"] == len(items)
            self.waiting.clear()
            self.answered[self.second - 1] = time.time()
            return True
        self.resends += 1
        return False

    async def trade_until(self, second: int, client: httpx.AsyncClient, *, pause_seconds: float = 0.0) -> None:
        """Trade and post, with a pause after each second of trading; a relay that is down is asked again and again."""
        while self.second < second or self.waiting:
            if self.second < second and len(self.waiting) < MOST_SECONDS * TICKS_A_SECOND * len(self.symbols):
                self.trade()
            answered = await self.post(client)
            await asyncio.sleep(pause_seconds if answered else 0.05)


class Pc:
    """The trading PC: its relay, its clock and its EAs."""

    def __init__(self, relay: RelayProcess, clock: FakedClock, rng: random.Random) -> None:
        self.relay, self.clock, self.rng = relay, clock, rng
        self.advisors = [ExpertAdvisor(symbols, random.Random(rng.random())) for symbols in ADVISORS]
        self.kills = 0
        self._jumps = iter(JUMPS * KILLS)

    @property
    def sent(self) -> dict[str, list[Tick]]:
        return {symbol: ticks for advisor in self.advisors for symbol, ticks in advisor.sent.items()}

    async def trade(self, until_second: int, *, pause_seconds: float = 0.0) -> None:
        async with httpx.AsyncClient(base_url=self.relay.url, timeout=20) as client:
            await asyncio.gather(
                *(advisor.trade_until(until_second, client, pause_seconds=pause_seconds) for advisor in self.advisors)
            )

    async def kill(self, jump: str | None = None) -> None:
        """`kill -9` at no particular moment; the clock is another when it comes back."""
        await asyncio.sleep(self.rng.uniform(0, 0.05))
        self.relay.kill()
        self.kills += 1
        self.clock.set(jump or next(self._jumps))
        await asyncio.to_thread(self.relay.start)

    async def suffer(self, begin: int, end: int, kills: int) -> None:
        """Kills and jumps spread over the trading between two seconds."""
        for n in range(1, 2 * kills + 1):
            due = begin + (end - begin) * n // (2 * kills + 1)
            while self.advisors[0].second < due:  # noqa: ASYNC110  # no event for each second of trading
                await asyncio.sleep(0.005)
            if n % 2:
                await self.kill()
            else:
                self.clock.set(next(self._jumps))

    async def pending(self) -> int:
        stats = await asyncio.to_thread(self.relay.stats)
        return int(stats["pending"])


@pytest.fixture
async def cable(settings: Settings) -> AsyncIterator[Cable]:
    """Between the relay and a producer."""
    with running(settings, "producer"):
        async with Cable(settings.producer_port) as cable:
            yield cable


@pytest.fixture
def pc(tmp_path: Path, cable: Cable) -> Iterator[Pc]:
    clock = FakedClock(tmp_path)
    relay = RelayProcess(tmp_path / "ea.db", cable.url, key=API_KEY, environment=clock.environment)
    relay.start()
    yield Pc(relay, clock, random.Random(SEED))
    relay.close()


async def test_an_outage_with_kills_and_a_jumping_clock_costs_no_tick(pc: Pc, cable: Cable, settings: Settings) -> None:
    print(f"\nseed {SEED}")
    healed = BEFORE_SECONDS + MINUTES * 60

    # Arrange: some trading reaches the server; then it takes a request whose answer is lost, and the cable is pulled.
    await pc.trade(BEFORE_SECONDS - 1)
    cable.loses_answers = True
    await pc.trade(BEFORE_SECONDS)

    async def an_answer_was_lost() -> bool:
        return cable.lost_bytes > 0

    await eventually(an_answer_was_lost, what="a lost answer")
    await cable.pull()

    # Act: the outage, all kills but one in it.
    before = time.monotonic()
    await asyncio.gather(pc.trade(healed), pc.suffer(BEFORE_SECONDS, healed, KILLS - 1))
    backlog = await pc.pending()
    assert backlog >= MINUTES * 60 * TICKS_A_SECOND * len(SYMBOLS), "the server was not away"
    print(f"{backlog:,} ticks were stored while the server was away, in {time.monotonic() - before:.0f} s")

    # The cable is plugged in, trading goes on at its own pace, and once more everything breaks.
    trading = asyncio.create_task(pc.trade(healed + 3600, pause_seconds=1.0))
    await cable.plug()
    began = time.monotonic()

    async def is_catching_up() -> bool:
        return await pc.pending() < backlog * 0.7

    await eventually(is_catching_up, what="catching up")
    await cable.pull()
    # Ten years later, by its clock, everything that was confirmed would be old.
    await pc.kill(jump="+3650d")
    await cable.plug()

    async def caught_up() -> bool:
        # EAs go on all the time: what is stored while this asks is all that may be pending.
        return await pc.pending() < 3 * TICKS_A_SECOND * len(SYMBOLS)

    await eventually(caught_up, within_seconds=600, what="a relay that has caught up while EAs trade")
    catching_up_seconds = time.monotonic() - began
    await asyncio.sleep(3)
    trading.cancel()
    with suppress(asyncio.CancelledError):
        await trading
    await pc.trade(0)  # what was under way
    await asyncio.to_thread(pc.relay.wait_forwarded)

    # Assert
    assert pc.kills == KILLS
    assert sum(advisor.resends for advisor in pc.advisors) > 0, "the relay was never missed"
    log = (await read_log(settings)).frames
    assert_every_tick_counts_once(log, pc.sent)
    assert_order_was_kept(pc.relay.db, pc.sent)
    report_ages(log, pc, healed, catching_up_seconds)


def assert_every_tick_counts_once(log: dict[int, list[tuple[int, Frame]]], sent: dict[str, list[Tick]]) -> None:
    """Nothing is missing, nothing is strange, and the fold of the log is that of what was sent."""
    written = {symbol: Counter[Tick]() for symbol in SYMBOLS}
    folds = {}
    for frames in log.values():
        for _, frame in frames:
            written[frame.symbol].update(frame.ticks)
        for (source, symbol, minute), ranges in oracle.minutes_in(frames).items():
            folds[symbol, minute] = oracle.fold(frames, source, symbol, minute, ranges)
    for symbol, ticks in sent.items():
        assert not Counter(ticks) - written[symbol], f"ticks of {symbol} are not on the server"
        assert written[symbol].keys() == set(ticks)
    surplus = sum(map(Counter.total, written.values())) - sum(map(len, sent.values()))
    print(f"{sum(map(len, sent.values())):,} ticks were sent; {surplus:,} more are in the log, from resends")
    assert surplus > 0, "nothing was sent twice, so nothing is shown about it"

    expected = {(s, m): candle for s, ticks in sent.items() for m, candle in candles_of(ticks).items()}
    found = {key: (f.open, f.high, f.low, f.close, f.volume) for key, f in folds.items() if f is not None}
    assert found == expected


def candles_of(ticks: list[Tick]) -> dict[int, tuple[float, float, float, float, int]]:
    """Minute to open, high, low, close and number of ticks; the ticks are in order."""
    minutes: dict[int, list[float]] = {}
    for tick in ticks:
        minutes.setdefault(period_of(tick.time_msc), []).append(tick.bid)
    return {minute: (bids[0], max(bids), min(bids), bids[-1], len(bids)) for minute, bids in minutes.items()}


def assert_order_was_kept(db: Path, sent: dict[str, list[Tick]]) -> None:
    """Every row is still there although the clock jumped by years, and in the order in which the EAs sent."""
    with closing(sqlite3.connect(db)) as connection:
        for symbol, ticks in sent.items():
            rows = connection.execute("SELECT ts_ms FROM ticks WHERE symbol = ? ORDER BY id", [symbol]).fetchall()
            first_seen = dict.fromkeys(ts for (ts,) in rows)
            assert list(first_seen) == list(dict.fromkeys(tick.time_msc for tick in ticks))
        stamps = [stamp for (stamp,) in connection.execute("SELECT DISTINCT created_at FROM ticks ORDER BY id")]
    assert stamps != sorted(stamps), "the clock did not jump"


def report_ages(log: dict[int, list[tuple[int, Frame]]], pc: Pc, healed: int, catching_up_seconds: float) -> None:
    """Print how long live ticks were on their way, from the relay's answer to the server, behind a backlog."""
    arrived: dict[int, int] = {}
    for frames in log.values():
        for _, frame in frames:
            for tick in frame.ticks:
                second = (tick.time_msc - BEGIN_MS) // 1000
                if second >= healed:
                    arrived[second] = max(arrived.get(second, 0), frame.received)
    answered = {second: at for advisor in pc.advisors for second, at in advisor.answered.items()}
    ages = [max(0.0, arrived[second] / 1000 - answered[second]) for second in sorted(arrived) if second in answered]
    print(
        f"{MINUTES} minutes of backlog were caught up in {catching_up_seconds:.1f} s, with a cut and a kill in between;"
        f" live ticks were {max(ages):.1f} s old at most, {median(ages):.1f} s in the middle, {ages[-1]:.1f} s at last"
    )
