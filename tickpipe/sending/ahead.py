"""Posting one group of items in a thread, so that the next is read meanwhile."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Generic, TypeVar

from marketdata.errors import TickpipeError

Item = TypeVar("Item")

#: On Windows, Ctrl-C does not wake a thread that waits without a limit (seconds).
_SLICE_SECONDS: Final = 0.5


def posted_ahead(groups: Iterable[list[Item]], post: Callable[[Sequence[Item]], None]) -> Iterator[list[Item]]:
    """Post the groups in order, one at a time, and give out each when it was posted; meanwhile the next is read.

    Args:
        post: posts one group, and returns when the server has answered. It is called in another thread.

    Raises:
        Exception: what posting raised, or what reading did, after the groups before it.
    """
    posting: _Posting[Item] | None = None
    try:
        for group in groups:
            done, posting = posting, None
            if done is not None:
                yield done.wait()
            posting = _Posting(group, post)
    except TickpipeError:
        if posting is not None:
            yield posting.wait()
        raise
    if posting is not None:
        yield posting.wait()


def posted_in_turn(groups: Iterable[list[Item]], post: Callable[[Sequence[Item]], None]) -> Iterator[list[Item]]:
    """As `posted_ahead`, but the next group is read when one was posted."""
    for group in groups:
        post(group)
        yield group


class _Posting(Generic[Item]):
    """One group that is being posted."""

    def __init__(self, group: list[Item], post: Callable[[Sequence[Item]], None]) -> None:
        self._group, self._post = group, post
        self._error: Exception | None = None
        # It ends with the process: a request cannot be interrupted.
        self._thread = threading.Thread(target=self._run, name="poster", daemon=True)
        self._thread.start()

    def wait(self) -> list[Item]:
        """The group, when it was posted.

        Raises:
            Exception: what posting raised.
        """
        while self._thread.is_alive():
            self._thread.join(_SLICE_SECONDS)
        if self._error is not None:
            raise self._error
        return self._group

    def _run(self) -> None:
        try:
            self._post(self._group)
        except Exception as exc:
            self._error = exc
