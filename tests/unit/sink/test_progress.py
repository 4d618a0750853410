"""What was published counts as stored once the progress of every partition has reached its end."""

from collections.abc import Mapping

import pytest

from runtime.kafka import Ends
from sink.progress import wait_until_stored

PUBLISHED: Ends = {0: (0, 10), 1: (5, 5), 2: (3, 8)}


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        pytest.param([{0: 10, 2: 8}], True, id="stored, and nothing was published to partition 1"),
        pytest.param([{0: 9, 2: 8}, {0: 12, 2: 8}], True, id="stored while it is waited for"),
        pytest.param([{0: 10}], False, id="nothing is known of partition 2"),
        pytest.param([{}], False, id="no sink has read this log"),
    ],
)
async def test_the_sink_is_waited_for(answers: list[Mapping[int, int]], expected: bool) -> None:
    asked = 0

    async def ask() -> Mapping[int, int]:
        nonlocal asked
        asked += 1
        return answers[min(asked, len(answers)) - 1]

    assert await wait_until_stored(ask, PUBLISHED, timeout_seconds=0.3) is expected
    assert asked == 1 if expected and len(answers) == 1 else asked > 1
