"""The progress bar of long work: how much is done, what that is in words, the time left."""

from types import TracebackType
from typing import Self

from tickpipe.console import err


class Bar:
    """A bar on the standard error output, gone when the work is done; use it as `with Bar("exporting") as bar`."""

    def __init__(self, description: str, total: float | None = None) -> None:
        from rich.progress import (  # noqa: PLC0415 - slow to load, and not every command shows a bar
            BarColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"), TimeRemainingColumn(),
            console=err, transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task(description, total=total, said="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, description: str, total: float | None) -> None:
        """The next piece of the work."""
        self._progress.reset(self._task, description=description, total=total, said="")

    def tell(self, completed: float, said: str = "") -> None:
        """So much of the total is done."""
        self._progress.update(self._task, completed=completed, said=said)
