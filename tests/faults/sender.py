"""An expert advisor as the fault tests need it: it trades under faults and knows of each tick what it was told."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from marketdata.tick import Tick
from tests import plainhttp

#: Monday 2024-03-04 00:00 UTC: the minutes are long over, so that they close when the flow ends.
START_MS = 1_709_510_400_000

#: An EA gives up on an answer sooner than the producer on Kafka (10 s), so that many answers stay unknown (seconds).
ANSWER_SECONDS = 4.0

#: How often an EA that got no answer is itself restarted and forgets what it had not delivered (probability).
FORGETS = 0.02


@dataclass
class Sender:
    """Trades one symbol; what was not confirmed is sent again with newer ticks appended.

    Every tick has a price of its own, so that each can be found in the log and counted in the table.
    """

    symbol: str
    rng: random.Random
    #: Event time runs so much faster than the clock: more minutes, and later ones, in a short test.
    speed: float = 20.0
    clock: Callable[[], float] = time.time
    start_ms: int | None = START_MS
    acknowledged: list[Tick] = field(default_factory=list)
    #: Not acknowledged, and in at least one request whose answer is not known.
    unknown: set[Tick] = field(default_factory=set)
    #: In requests only that certainly did not arrive.
    failed: set[Tick] = field(default_factory=set)
    requests: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("acknowledged", "unknown", "failed"), 0))
    number: int = 0
    _pending: list[Tick] = field(default_factory=list)
    _began: float = 0.0
    _traded: float = 0.0

    @property
    def ticks(self) -> int:
        """Ticks that were sent at least once."""
        return len(self.acknowledged) + len(self.unknown) + len(self.failed)

    @property
    def may_have_arrived(self) -> set[Tick]:
        """All but those that certainly did not."""
        return set(self.acknowledged) | self.unknown

    async def trade(self, urls: str | Sequence[str], api_key: str, stopping: asyncio.Event) -> None:
        """Trade until told to stop, then deliver what is pending; each request goes to any of the producers."""
        urls = [urls] if isinstance(urls, str) else urls
        async with httpx.AsyncClient(
            headers={"X-API-Key": api_key, "X-Source": "EA"},
            timeout=ANSWER_SECONDS,
            verify=plainhttp.NOBODY,
        ) as client:
            while not stopping.is_set() or self._pending:
                if not stopping.is_set():
                    self._quote()
                await self._post(client, self.rng.choice(urls))
                await asyncio.sleep(self.rng.uniform(0.05, 0.15))

    def _quote(self) -> None:
        now = self.clock()
        self._began = self._began or now
        since, self._traded = now - (self._traded or now), now
        event_ms = (
            int(now * 1000) if self.start_ms is None else self.start_ms + int((now - self._began) * 1000 * self.speed)
        )
        for _ in range(self.rng.randint(1, 3) + min(20, int(since / 0.2))):
            self.number += 1
            bid = price(self.number)
            before_ms = self._pending[-1].time_msc if self._pending else 0
            self._pending.append(Tick(max(event_ms, before_ms), bid, bid + 0.0001, 0.0, 0.0, 6))

    async def _post(self, client: httpx.AsyncClient, url: str) -> None:
        sent = list(self._pending)
        outcome = await self._outcome(client, url, {"ticks": [item(self.symbol, tick) for tick in sent]})
        self.requests[outcome] += 1
        if outcome == "acknowledged":
            self.acknowledged += sent
            self.unknown -= set(sent)
            self.failed -= set(sent)
            self._pending.clear()
        elif outcome == "unknown":
            self.unknown |= set(sent)
            self.failed -= set(sent)
            if self.rng.random() < FORGETS:
                self._pending.clear()
        else:
            self.failed |= set(sent) - self.unknown

    async def _outcome(self, client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> str:
        try:
            answer = await client.post(f"{url}/ingest/tick", json=body)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            return "failed"  # there was no connection that a byte could have gone through
        except httpx.HTTPError:
            return "unknown"
        # 503 claims nothing: the records may be on their way to Kafka.
        assert answer.status_code in (200, 503), answer.text
        return "acknowledged" if answer.status_code == 200 else "unknown"


def price(number: int) -> float:
    """The bid of the sender's tick of this number; later ticks have higher ones."""
    return 1.0 + number / 100_000


def item(symbol: str, tick: Tick, **more: object) -> dict[str, object]:
    """A tick as an EA posts it."""
    return {
        "ts_msc": tick.time_msc, "symbol": symbol, "bid": tick.bid, "ask": tick.ask, "last": tick.last,
        "volume": tick.volume, "flags": tick.flags, "point": 0.00001, **more,
    }  # fmt: skip
