"""What the deployment publishes of its database: nothing, unless the user says so."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def database(tmp_path: Path) -> Any:
    """The database's service as Compose reads it, by the variables that are set."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("Docker Compose is not there")
    shutil.copytree(ROOT / "compose", tmp_path / "compose")
    shutil.copy(ROOT / "compose.yaml", tmp_path)
    (tmp_path / ".env").write_text((ROOT / ".env.example").read_text().replace("change-me", "a-secret-of-a-test"))

    def read(**variables: str) -> dict[str, Any]:
        done = subprocess.run(
            [docker, "compose", "config", "--format", "json"],
            cwd=tmp_path, env=os.environ | variables, capture_output=True, text=True, check=True,
        )  # fmt: skip
        service: dict[str, Any] = json.loads(done.stdout)["services"]["timescaledb"]
        return service

    return read


def test_the_database_is_published_only_when_the_user_says_so(database: Any) -> None:
    assert "ports" not in database()

    published = database(TICKPIPE_POSTGRES_BIND="192.168.1.5", TICKPIPE_POSTGRES_PORT="5433")

    (port,) = published["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("192.168.1.5", "5433", 5432)
    # By these rules one role gets in from there.
    assert published["command"] == ["postgres", "-c", "hba_file=/etc/tickpipe/pg_hba.conf"]
    assert "/etc/tickpipe/pg_hba.conf" in [volume["target"] for volume in published["volumes"]]
