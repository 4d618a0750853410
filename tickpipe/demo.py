"""A simulated EA: random walks of EURUSD and GBPUSD, posted to a producer over HTTP exactly as DataCollectorPRO posts.

Run it as `python -m tickpipe.demo --url http://127.0.0.1:18001` with the key in TICKPIPE_DEMO_KEY.
"""

import argparse
import os
import random
import time
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import msgspec
import structlog

from marketdata.contract.http import TICKS_ROUTE, source_header
from marketdata.contract.tick import PostedTick, posted_tick
from marketdata.errors import TickpipeError
from marketdata.tick import Tick
from runtime import clock
from runtime.exchange import Connection, address_of
from runtime.logs import configure_logs
from runtime.process import exit_on_stop_signal
from runtime.settings import load_settings
from tickpipe.sending.sender import post

log = structlog.get_logger(__name__)

#: How often the EA posts what it has (seconds).
_POST_INTERVAL_SECONDS: Final = 1.0

#: Ticks that are buffered while the producer does not take them: about two hours; the oldest make room for the newest.
_RING_TICKS: Final = 50_000

#: Ticks of one request, far below the producer's limit of 5 MB.
_REQUEST_TICKS: Final = 2_000

#: The server is the source as well: wherever its candles are shown, they are called simulated.
_ACCOUNT, _SERVER, _BUILD, _VERSION = 12345, "Simulated", 3850, "1.65"

#: The history that a new demo begins with, and how much of it is made at once (milliseconds).
_HISTORY_MS: Final = 24 * 3_600_000
_HISTORY_STEP_MS: Final = 3_600_000

#: MT5: TICK_FLAG_BID, TICK_FLAG_ASK.
_BID_CHANGED, _ASK_CHANGED = 2, 4


@dataclass(frozen=True)
class Instrument:
    """What the random walk of one symbol looks like; prices and spreads in points of `digits` decimals."""

    symbol: str
    start_points: int
    digits: int = 5
    #: Standard deviation of one step.
    step_points: float = 1.6
    usual_spread_points: int = 6


INSTRUMENTS: Final = (
    Instrument("EURUSD", 116_512),
    Instrument("GBPUSD", 134_118, step_points=2.1, usual_spread_points=9),
)


class RandomWalk:
    """Ticks of one symbol, 1 to 5 a second with quiet and busy spells; the same seed gives the same walk."""

    def __init__(self, instrument: Instrument, seed: int, start_msc: int) -> None:
        self.instrument = instrument
        self._random = random.Random(f"{seed}/{instrument.symbol}")  # noqa: S311  # a market, not a secret
        self._bid_points = float(instrument.start_points)
        self._quote = (0, 0)
        self._ticks_per_second = 2.5
        self._next_msc = start_msc

    def until(self, time_msc: int) -> Iterator[Tick]:
        """The ticks up to `time_msc` that were not given out yet."""
        rng = self._random
        while self._next_msc <= time_msc:
            yield self._tick(self._next_msc)
            self._ticks_per_second = min(5.0, max(1.0, self._ticks_per_second * rng.lognormvariate(0.0, 0.08)))
            self._next_msc += max(1, round(1000 * rng.expovariate(self._ticks_per_second)))

    def _tick(self, time_msc: int) -> Tick:
        rng, instrument = self._random, self.instrument
        # A pull back to the start keeps a demo of several days within the range of a real week.
        drift = (instrument.start_points - self._bid_points) * 0.00005
        self._bid_points += rng.gauss(drift, instrument.step_points)
        bid = max(1, round(self._bid_points))
        widening = rng.expovariate(0.05) if rng.random() < 0.03 else 0.0
        ask = bid + max(1, round(rng.gauss(instrument.usual_spread_points, 1.5) + widening))
        flags = (_BID_CHANGED if bid != self._quote[0] else 0) | (_ASK_CHANGED if ask != self._quote[1] else 0)
        self._quote = (bid, ask)
        scale = 10**instrument.digits
        return Tick(time_msc, bid / scale, ask / scale, 0.0, 0.0, flags or _BID_CHANGED | _ASK_CHANGED)


class ExpertAdvisor:
    """Posts its walks' ticks about once a second; what was not taken is buffered and sent again, oldest first."""

    def __init__(self, connection: Connection, url: str, walks: list[RandomWalk]) -> None:
        self._connection, self._url = connection, f"{address_of(url)}{TICKS_ROUTE}"
        self._walks = walks
        #: What the producer has not taken yet, oldest first.
        self.unsent: deque[PostedTick] = deque(maxlen=_RING_TICKS)
        self._troubled = False

    def collect(self, time_msc: int) -> None:
        """Take the ticks up to `time_msc` from the market, in the order of their times."""
        fresh = [(tick, walk.instrument) for walk in self._walks for tick in walk.until(time_msc)]
        fresh.sort(key=lambda entry: entry[0].time_msc)
        self.unsent.extend(_as_posted(tick, instrument) for tick, instrument in fresh)

    def flush(self) -> bool:
        """Post the buffer; False when something is left for the next time."""
        while self.unsent:
            batch = [self.unsent[index] for index in range(min(_REQUEST_TICKS, len(self.unsent)))]
            try:
                result = post(self._connection, self._url, msgspec.json.encode({"ticks": batch}), len(batch))
            except TickpipeError as exc:
                self._warn_once(str(exc) or type(exc).__name__)
                return False
            if result.errors:
                reasons = list(result.reasons.values())
                log.warning("The producer rejected ticks.", action="demo_rejected", reasons=reasons)
            for _ in batch:
                self.unsent.popleft()
        if self._troubled:
            self._troubled = False
            log.info("The producer took the buffered ticks.", action="demo_recovered")
        return True

    def _warn_once(self, error: str) -> None:
        # Once, not every second: the ring holds the ticks, and recovery has a line of its own.
        if not self._troubled:
            self._troubled = True
            log.warning("Ticks were not taken; they are buffered and sent again.", action="demo_buffered", error=error)


def send_history(ea: ExpertAdvisor, from_msc: int, to_msc: int) -> None:
    """Post the market of a time that is over, an hour after the other; waits while the producer does not take it."""
    for time_msc in (*range(from_msc, to_msc, _HISTORY_STEP_MS), to_msc):
        ea.collect(time_msc)
        while not ea.flush():
            time.sleep(_POST_INTERVAL_SECONDS)


def _as_posted(tick: Tick, instrument: Instrument) -> PostedTick:
    posted = posted_tick(tick, instrument.symbol, digits=instrument.digits, point=10**-instrument.digits)
    posted.spread = round(tick.ask - tick.bid, instrument.digits)
    posted.meta = {"ea": "PDC", "ver": _VERSION, "src": "tick", "acct": _ACCOUNT, "srv": _SERVER, "build": _BUILD}
    return posted


def user_agent() -> str:
    """The User-Agent that DataCollectorPRO sends."""
    return (
        f"DataCollectorPRO/PDC/{_VERSION} (Account:{_ACCOUNT}; Server:{_SERVER}; Build:{_BUILD}; "
        f"Symbols:{len(INSTRUMENTS)}; trace_id:{uuid.uuid4().hex})"
    )


def main(arguments: list[str] | None = None) -> NoReturn:
    """Post ticks until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tickpipe.demo", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:18001", help="the producer (default: %(default)s)")
    parser.add_argument("--source", default=_SERVER, help="the source to speak for (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same walk (default: 1)")
    parser.add_argument(
        "--history", type=Path, metavar="FILE", help="begin with a day of history, unless FILE says that it was sent"
    )
    options = parser.parse_args(arguments)
    key = os.environ.get("TICKPIPE_DEMO_KEY")
    if not key:
        parser.error("no key: put the producer's key into the environment variable TICKPIPE_DEMO_KEY")
    configure_logs(load_settings())
    exit_on_stop_signal()
    headers = {
        "X-API-Key": key,
        "Content-Type": "application/json",
        "User-Agent": user_agent(),
        **source_header(options.source),
    }
    now = clock.now_ms()
    is_new = options.history is not None and not options.history.exists()
    start = now - _HISTORY_MS if is_new else now
    with Connection(options.url, headers) as connection:
        ea = ExpertAdvisor(connection, options.url, [RandomWalk(item, options.seed, start) for item in INSTRUMENTS])
        log.info("The simulated EA trades.", action="demo_started", url=options.url, source=options.source)
        if is_new:
            send_history(ea, start, now)
            options.history.touch()
            log.info("A day of simulated history was sent.", action="demo_history_sent")
        while True:
            ea.collect(clock.now_ms())
            ea.flush()
            time.sleep(_POST_INTERVAL_SECONDS)


if __name__ == "__main__":
    main()
