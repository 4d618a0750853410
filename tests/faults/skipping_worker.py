"""`python -m tests.faults.skipping_worker`: a stream worker whose transport once drops a poll, as a fault of it would.

`SKIP_ONCE` names a file that is created when the poll was dropped; once it exists, nothing is dropped any more.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from stream_app.__main__ import main
from stream_app.transport import BatchConsumer, BatchTransport


class SkippingConsumer(BatchConsumer):
    """Drops the first poll that is not the first of a partition."""

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109 - Faust's name
        records, active = await super()._wait_next_records(timeout)
        return ({}, active) if records and _is_to_be_dropped(records.values()) else (records, active)


def _is_to_be_dropped(batches: Iterable[Sequence[Any]]) -> bool:
    done = Path(os.environ["SKIP_ONCE"])
    if done.exists() or not any(batch[0].offset > 0 for batch in batches):
        return False
    done.touch()
    return True


if __name__ == "__main__":
    BatchTransport.Consumer = SkippingConsumer
    main()
