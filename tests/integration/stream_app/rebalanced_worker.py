"""`python -m tests.integration.stream_app.rebalanced_worker`: a worker whose first poll ends in another generation.

Such a poll is not handed out, for it may be of the positions before; `REBALANCE_ONCE` names a file that then exists.
"""

import os
from pathlib import Path
from typing import Any

from stream_app.__main__ import main
from stream_app.transport import BatchConsumer, BatchTransport


class RebalancedConsumer(BatchConsumer):
    """Learns of a new generation while it waits for the first records."""

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109 - Faust's name
        records, active = await super()._wait_next_records(timeout)
        if records and _is_first():
            self.app.consumer_generation_id += 1
        return records, active


def _is_first() -> bool:
    done = Path(os.environ["REBALANCE_ONCE"])
    if done.exists():
        return False
    done.touch()
    return True


if __name__ == "__main__":
    BatchTransport.Consumer = RebalancedConsumer
    main()
