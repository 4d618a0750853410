"""One fetch for each round of candles: the next one is sent when the round's pause is about to end.

Kafka answers an open fetch with the first record that comes. What it brings waits for the next round anyway, and so
does what comes after it; two or three fetches a round, each of them handed from Faust's thread to the main one, were a
quarter of a live worker's processor time.
"""

import asyncio
import contextlib
from typing import Final

#: The fetch is sent this long before the pause ends, so that the round has what it brings (seconds).
FETCH_AHEAD_SECONDS: Final = 0.003

#: No fetch waits longer (seconds): with many symbols the pause is longer, and what comes in it is folded meanwhile. And
#: whatever holds up the rounds does not hold up reading.
_MOST_SECONDS: Final = 0.05


class FetchGate:
    """Shut when a fetch has brought records, opened for each round.

    `pass_through` and `shut` are called in the loop of the consumer's thread, the rest in that of the worker.
    """

    def __init__(self) -> None:
        #: A worker that is behind reads as fast as it folds: then the gate stays open.
        self.is_live = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_shut = False
        self._opened = asyncio.Event()
        self._opened.set()

    async def pass_through(self) -> None:
        """Wait until the next fetch may be sent."""
        if not self._opened.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_MOST_SECONDS):
                    await self._opened.wait()

    def shut(self) -> None:
        """Note that a fetch has brought records."""
        if self.is_live:
            self._loop = asyncio.get_running_loop()
            self._opened.clear()
            self._is_shut = True

    def open(self) -> None:
        """Let the next fetch be sent."""
        if self._is_shut and self._loop is not None:
            self._is_shut = False
            with contextlib.suppress(RuntimeError):  # the consumer's thread has ended
                self._loop.call_soon_threadsafe(self._opened.set)
