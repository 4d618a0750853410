"""The wall clock as UTC epoch milliseconds, and pauses in long work."""

import asyncio
import time
from typing import Final

#: Others have a tenth of the time that a piece of long work took; a short piece does not count (seconds).
_SHARE: Final = 0.1
_SHORT_SECONDS: Final = 0.005


def now_ms() -> int:
    """The current time."""
    return time.time_ns() // 1_000_000


class Pauses:
    """Pauses in long work on the event loop, in which requests and answers of servers go on.

    `sleep(0)` lets each task do one step. What takes several, such as a request or a question to Kafka, then waits for
    as many pieces of the long work, and a server whose answer lies unread for so long is taken for dead.
    """

    def __init__(self) -> None:
        self._since = time.perf_counter()

    async def rest(self) -> None:
        """Give way after a piece of the work."""
        worked = time.perf_counter() - self._since
        if worked < _SHORT_SECONDS:
            await asyncio.sleep(0)
            return
        await asyncio.sleep(worked * _SHARE)
        self._since = time.perf_counter()
