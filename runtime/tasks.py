"""Waiting for several things at once, and leaving none of them behind."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

Result = TypeVar("Result")


async def unless_set(stopping: asyncio.Event, work: Awaitable[Result]) -> Result | None:
    """The result of `work`, or None when `stopping` is set before; then it is cancelled."""
    task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        await cancel(task, stopped)


async def until_first_ends(*work: Awaitable[None]) -> None:
    """Run all of them until all have ended, or one has raised: that cancels the others, and is raised here."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        await cancel(*tasks)


async def cancel(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel the tasks and return when they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
