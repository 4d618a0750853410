"""What a process sets up for itself: stop signals, how it ends when broken, and garbage collection."""

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final

#: A broken process that does not shut down within this long is ended the hard way (seconds): longer than requests
#: under way get to finish, shorter than the patience of a supervisor.
_HARD_END_SECONDS: Final = 20.0

#: The exit code of a process of which a part failed; supervisors start it again.
EXIT_FAILED: Final = 70  # BSD's EX_SOFTWARE


def on_stop_signal(stop: Callable[[], None], *, hang_up: bool = False) -> None:
    """Call `stop` in the running event loop at SIGTERM, at Ctrl-C and, with `hang_up`, when the terminal closes."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, *((signal.SIGHUP,) if hang_up else ())):
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))


def exit_on_stop_signal(exit_code: Callable[[], int] = lambda: 0) -> None:
    """Make SIGTERM and Ctrl-C raise SystemExit in the main thread, with the exit code at that moment.

    uvicorn handles both while it serves and raises them again when it has shut down; a wished end is no failure.
    """

    def leave(_number: int, _frame: FrameType | None) -> None:
        sys.exit(exit_code())

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)


def end_process() -> None:
    """Shut this process down as SIGTERM does, and end it with `EXIT_FAILED` if that hangs. From any thread."""
    hard_end = threading.Timer(_HARD_END_SECONDS, os._exit, [EXIT_FAILED])
    hard_end.daemon = True
    hard_end.start()
    signal.raise_signal(signal.SIGTERM)


def collect_rarely() -> None:
    """Collect garbage after 100,000 new objects instead of 700, and never again examine what exists now.

    A poll decodes to some ten thousand objects that die together without the collector's help. Looking at them over and
    over costs a quarter of the decoding, and half of folding again from the log, which holds many minutes in memory.
    """
    gc.set_threshold(100_000, 20, 20)
    gc.freeze()
