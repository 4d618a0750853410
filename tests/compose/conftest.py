"""The deployment that the tests of this folder share; collected only by run.sh, which prepares the engine."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tools
from tests.compose.deployment import Deployment, new_folder

collect_ignore_glob = [] if os.environ.get("TICKPIPE_COMPOSE_TEST") else ["test_*.py"]


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The stack after `make env` and `docker compose up -d --wait`; taken down with its volumes at the end."""
    tools.probe("docker", [tools.find("docker"), "info"])
    folder = new_folder(tmp_path_factory.mktemp("deployment"))
    deployment = Deployment(folder)
    deployment.make_env()
    try:
        deployment.up()
        yield deployment
    finally:
        deployment.write_logs(Path(os.environ.get("TICKPIPE_COMPOSE_LOGS", folder / "logs.txt")))
        deployment.delete()
