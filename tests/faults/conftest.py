"""How often the fault cases repeat what they do.

`TICKPIPE_FAULT_ROUNDS` says how often a case repeats its fault, `TICKPIPE_FAULT_SEED` repeats a run.
"""

import os
import random

import pytest

from tests.conftest import FULL


@pytest.fixture
def seed() -> int:
    return int(os.environ.get("TICKPIPE_FAULT_SEED", random.SystemRandom().randrange(2**32)))


@pytest.fixture
def rounds() -> int:
    return int(os.environ.get("TICKPIPE_FAULT_ROUNDS", "10" if FULL else "1"))
