"""What Compose makes of the files by the variables that are set: what is published, and what is elsewhere."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def services(tmp_path: Path) -> Any:
    """The services as Compose reads them, by the variables that are set."""
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
        found: dict[str, Any] = json.loads(done.stdout)["services"]
        return found

    return read


def test_the_database_is_published_only_when_the_user_says_so(services: Any) -> None:
    assert "ports" not in services()["timescaledb"]

    published = services(TICKPIPE_POSTGRES_BIND="192.168.1.5", TICKPIPE_POSTGRES_PORT="5433")["timescaledb"]

    (port,) = published["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("192.168.1.5", "5433", 5432)
    # By these rules one role gets in from there.
    assert published["command"] == ["postgres", "-c", "hba_file=/etc/tickpipe/pg_hba.conf"]
    assert "/etc/tickpipe/pg_hba.conf" in [volume["target"] for volume in published["volumes"]]


def test_servers_elsewhere_take_the_place_of_those_here(services: Any) -> None:
    here = services()
    assert {"kafka", "timescaledb"} <= here.keys()

    found = services(TICKPIPE_KAFKA_BOOTSTRAP="kafka1:9092", TICKPIPE_DATABASE_URL="postgresql://w:p@db/market")

    assert here.keys() - found.keys() == {"kafka", "timescaledb"}
    assert {name: one["environment"].get("TICKPIPE_KAFKA_BOOTSTRAP") for name, one in found.items()} == dict.fromkeys(
        found, "kafka1:9092"
    )
    urls = {"migrate": "TICKPIPE_DATABASE_URL", "sink": "TICKPIPE_DATABASE_URL"}
    for name, variable in (urls | {"dashboard": "TICKPIPE_DASHBOARD_DATABASE_URL"}).items():
        assert found[name]["environment"][variable] == "postgresql://w:p@db/market"
