"""How much of the fault suite runs: a short selection in `make test`, all of it in `make faults`.

`TICKPIPE_FAULT_ROUNDS` says how often a case repeats its fault, `TICKPIPE_FAULT_SEED` repeats a run.
"""

import os
import random

import pytest

#: Set by `make faults`.
FULL = os.environ.get("TICKPIPE_FAULTS") == "full"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: a fault case of `make faults`, too long for `make test`")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [] if FULL else [item for item in items if item.get_closest_marker("full")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def seed() -> int:
    return int(os.environ.get("TICKPIPE_FAULT_SEED", random.SystemRandom().randrange(2**32)))


@pytest.fixture
def rounds() -> int:
    return int(os.environ.get("TICKPIPE_FAULT_ROUNDS", "10" if FULL else "2"))
