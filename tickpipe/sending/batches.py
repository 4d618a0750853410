"""Cuts the ticks of a file or of a live feed into the batches that are posted, and posts while more are read."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Final, Generic, Self, TypeVar

from marketdata.errors import TickpipeError
from tickpipe.sending.blocks import FileTick

#: Ticks of one time beyond which a batch is cut all the same.
_MOST_EQUAL = 10_000

#: A live feed that is silent for so long ends the batch; ticks of one burst are closer together. A feed that never
#: pauses is cut after the second time, so that every tick is posted within a second (seconds).
_PAUSE_SECONDS, _LONGEST_WAIT_SECONDS = 0.05, 0.5

#: Ticks that are read ahead of a slow producer.
_READ_AHEAD_TICKS = 10_000

#: Batches that are read ahead of the one that is on its way: enough that neither the reading nor the server waits.
_READ_AHEAD: Final = 2

#: How long one wait for an answer takes at most (seconds).
_POLL_SECONDS: Final = 0.5

Batch = TypeVar("Batch")


def batches(
    ticks: Iterable[FileTick | None],
    size: int,
    speed: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[list[FileTick]]:
    """Batches of `size` ticks, in order; speed 0 is as fast as they come, 1 is real time, 60 is a minute a second.

    Ticks of one time stay together, and make a batch larger: the fold may take equal ones that begin a request for a
    resend of those that ended the one before. None among the ticks ends the batch, whatever its size.
    At a given speed a tick is sent as soon as it is due and never before: whatever is due together makes one batch.
    Ticks whose time goes back are due at once.
    """
    batch: list[FileTick] = []
    start, first_ms = clock(), None
    for tick in ticks:
        if tick is None:
            if batch:
                yield batch
                batch = []
            continue
        if speed > 0:
            if first_ms is None:
                start, first_ms = clock(), tick.time_msc
            due = start + (tick.time_msc - first_ms) / 1000 / speed
            if due > clock():
                if batch:
                    yield batch
                    batch = []
                if (early_seconds := due - clock()) > 0:
                    sleep(early_seconds)
        if len(batch) >= size and (tick.time_msc != batch[-1].time_msc or len(batch) >= _MOST_EQUAL):
            yield batch
            batch = []
        batch.append(tick)
    if batch:
        yield batch


def batches_at_once(ticks: Iterator[FileTick], size: int) -> Iterator[list[FileTick]]:
    """Like `batches` at speed 0, for ticks that never pause, in a fraction of the time.

    Raises:
        TickpipeError: as the ticks, after the batch of those before it.
    """
    # A tick that is taken from the iterator to see its time begins the next batch.
    batch: list[FileTick] = []
    while True:
        begun = len(batch)
        try:
            batch.extend(islice(ticks, size - begun))
            if len(batch) < size:
                break
            for tick in ticks:
                if tick.time_msc != batch[-1].time_msc or len(batch) >= _MOST_EQUAL:
                    break
                batch.append(tick)
            else:
                break
        except TickpipeError:
            if batch:
                yield batch
            raise
        yield batch
        batch = [tick]
    if batch:
        yield batch


def live(ticks: Iterable[FileTick]) -> Iterator[FileTick | None]:
    """The ticks of a feed that may pause, with None wherever nothing more has arrived and the batch should be sent.

    A thread reads, because only a read shows whether more has arrived. It ends with the process: a read from a pipe
    cannot be interrupted.

    Raises:
        Exception: what reading raises, after the ticks that were read before it.
    """
    arrived: queue.Queue[FileTick | Exception | None] = queue.Queue(_READ_AHEAD_TICKS)

    def read() -> None:
        try:
            for tick in ticks:
                arrived.put(tick)
        except Exception as exc:
            arrived.put(exc)
        else:
            arrived.put(None)

    threading.Thread(target=read, name="reader", daemon=True).start()
    cut_at = None
    while True:
        # Never without a limit: on Windows, Ctrl-C does not wake a thread that waits for ever.
        timeout = _LONGEST_WAIT_SECONDS
        if cut_at is not None:
            timeout = max(0.0, min(_PAUSE_SECONDS, cut_at - time.monotonic()))
        try:
            arrival = arrived.get(timeout=timeout)
        except queue.Empty:
            cut_at = None
            yield None
            continue
        if arrival is None:
            return
        if isinstance(arrival, Exception):
            raise arrival
        if cut_at is None:
            cut_at = time.monotonic() + _LONGEST_WAIT_SECONDS
        yield arrival


class Posting(Generic[Batch]):
    """Posts one batch after the other; ahead of time, more are read while one is on its way.

    Args:
        post: posts one batch.
        is_ahead: whether to return before the answer is there.
    """

    def __init__(self, post: Callable[[Batch], None], *, is_ahead: bool = True) -> None:
        self._post, self._is_ahead = post, is_ahead
        self._waiting: queue.Queue[Batch | None] = queue.Queue(_READ_AHEAD)
        self._thread = threading.Thread(target=self._post_waiting, name="posting", daemon=True)
        self._error: Exception | None = None

    def __enter__(self) -> Self:
        if self._is_ahead:
            self._thread.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        # What was read before a damaged line is still posted; whoever presses Ctrl-C does not wait for it.
        if exc_type is not None and issubclass(exc_type, Exception):
            with suppress(TickpipeError):
                self.finish()

    def add(self, batch: Batch) -> None:
        """Post the batch, after those before it.

        Raises:
            As `Sender.send`, for this batch or an earlier one.
        """
        if self._is_ahead:
            self._put(batch)
        else:
            self._post(batch)

    def finish(self) -> None:
        """Wait until everything was answered.

        Raises:
            As `Sender.send`.
        """
        if not self._is_ahead:
            return
        self._put(None)
        # Never without a limit: on Windows, Ctrl-C does not wake a thread that waits for ever.
        while self._thread.is_alive():
            self._thread.join(_POLL_SECONDS)
        self._check()

    def _put(self, batch: Batch | None) -> None:
        while True:
            self._check()
            try:
                self._waiting.put(batch, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _post_waiting(self) -> None:
        while (batch := self._waiting.get()) is not None:
            try:
                self._post(batch)
            except Exception as exc:
                self._error = exc
                return
