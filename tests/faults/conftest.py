"""How often the fault cases repeat what they do.

`TICKPIPE_FAULT_ROUNDS` says how often a case repeats its fault, `TICKPIPE_FAULT_SEED` repeats a run.
"""

import os
import random
from collections.abc import Iterator

import pytest

from tests.conftest import FULL, NewDataDir, started_servers
from tests.containers import ContainerServers
from tests.servers import EmbeddedServers


@pytest.fixture
def seed() -> int:
    return int(os.environ.get("TICKPIPE_FAULT_SEED", random.SystemRandom().randrange(2**32)))


@pytest.fixture
def rounds() -> int:
    return int(os.environ.get("TICKPIPE_FAULT_ROUNDS", "10" if FULL else "1"))


@pytest.fixture(scope="session")
def servers(new_data_dir: NewDataDir) -> Iterator[EmbeddedServers | ContainerServers]:
    """Servers of this process alone, whose tests do them harm."""
    with started_servers(new_data_dir) as started:
        yield started
