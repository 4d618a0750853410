"""What Faust asks of the consumer at odd moments; the rest is tried on real workers."""

import time

import pytest
from faust.types import TP

from stream_app.transport import BatchConsumer


@pytest.mark.contract
def test_a_partition_without_a_position_does_not_end_the_worker() -> None:
    """Faust looks at every assigned partition now and then, also between its assignment and the seek."""
    consumer = BatchConsumer.__new__(BatchConsumer)

    # The thread that has the positions is not there either.
    consumer.verify_event_path(time.monotonic(), TP("ticks", 0))
