"""Whether a stage of the pipeline gets on with what arrives."""

import time
from collections.abc import Callable


class Progress:
    """One stage, seen from outside: it has stopped when its input grows and nothing that it does shows for a while.

    `patience_seconds`: a worker emits every 0.2 s and a sink commits every batch, so that less than 2 s would take a
    pause of the garbage collector for a stop; more delays the word that it was killed.
    """

    def __init__(self, patience_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._input: int | None = None
        self._done: object = None
        self._owed_since: float | None = None

    def note(self, input_end: int, done: object) -> bool:
        """Take how far the input reaches and anything that changes with the work; whether the stage works."""
        now = self._clock()
        if done != self._done or self._input is None:
            self._owed_since = None
        elif input_end != self._input and self._owed_since is None:
            self._owed_since = now
        self._input, self._done = input_end, done
        return self._owed_since is None or now - self._owed_since < self._patience_seconds
