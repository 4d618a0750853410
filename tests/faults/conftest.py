"""How often the fault cases repeat what they do.

`TICKPIPE_FAULT_ROUNDS` says how often a case repeats its fault, `TICKPIPE_FAULT_SEED` repeats a run.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import FULL, NewDataDir, started_servers
from tests.servers import EmbeddedServers, formatted

if TYPE_CHECKING:
    from tests.containers import ContainerServers


@pytest.fixture
def seed() -> int:
    return int(os.environ.get("TICKPIPE_FAULT_SEED", random.SystemRandom().randrange(2**32)))


@pytest.fixture
def rounds() -> int:
    return int(os.environ.get("TICKPIPE_FAULT_ROUNDS", "10" if FULL else "1"))


@pytest.fixture(scope="session")
def new_data_dir(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> NewDataDir:
    """As the others', on the disk: hours of faults store more than memory has room for."""
    return lambda name: formatted(tmp_path_factory.mktemp(name), run_folder / "blank")


@pytest.fixture(scope="session")
def servers(new_data_dir: NewDataDir) -> "Iterator[EmbeddedServers | ContainerServers]":
    """Servers of this process alone, whose tests do them harm."""
    with started_servers(new_data_dir) as started:
        yield started
