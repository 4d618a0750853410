"""What the services of the deployment wait for, and how much of each other they can take."""

import ipaddress
import re
import runpy
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from runtime.services import DECLARED
from runtime.settings import load_settings

ROOT = Path(__file__).parents[3]
FILE = ROOT / "compose" / "compose.yaml"


@cache
def services() -> dict[str, dict[str, Any]]:
    read: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text())["services"]
    return read


def waits_for(service: str) -> set[str]:
    """Everything that must be done or healthy, or Compose does not start the service."""
    waited = {
        name
        for name, how in services()[service].get("depends_on", {}).items()
        if how["condition"] != "service_started" and how.get("required", True)
    }
    return waited.union(*(waits_for(name) for name in waited))


def test_no_service_needs_the_database() -> None:
    """Where one waits in vain, Compose starts none of those that it has not come to yet, the producer among them."""
    assert waits_for("producer") == waits_for("stream") == {"topics", "secrets-check"}
    assert not [name for name in services() if "timescaledb" in waits_for(name)]


def test_every_container_is_limited_in_processes() -> None:
    assert [name for name, service in services().items() if not service.get("pids_limit")] == []


def test_readers_at_their_limit_leave_connections_to_the_sink() -> None:
    limits = re.findall(r"CONNECTION LIMIT (\d+)", (FILE.parent / "timescaledb" / "roles.sh").read_text())
    connections = services()["timescaledb"]["environment"]["TS_TUNE_MAX_CONNS"]
    # Three sinks of seven connections each, and three that PostgreSQL reserves.
    assert connections - sum(map(int, limits)) - 3 >= 3 * 7


def test_what_takes_ticks_has_no_way_to_the_database() -> None:
    networks = {name: set(service.get("networks", ())) for name, service in services().items()}
    assert networks["producer"] == networks["stream"] == networks["kafka"] == {"log"}
    assert networks["timescaledb"] == {"data"}
    # Without a network of its own a service is in the one that all share.
    assert [name for name, of in networks.items() if not of and "network_mode" not in services()[name]] == []


def test_each_service_has_the_password_of_its_role_alone() -> None:
    given = {
        name: set(re.findall(r"TICKPIPE_(DB|WRITER|READER)_PASSWORD", str(service.get("environment"))))
        for name, service in services().items()
        if name not in ("secrets-check", "timescaledb")
    }
    assert {name: passwords for name, passwords in given.items() if passwords} == {
        "migrate": {"DB"}, "tickpipe": {"DB"}, "sink": {"WRITER"},
        "dashboard": {"READER"}, "postgres-exporter": {"READER"}, "grafana": {"READER"},
    }  # fmt: skip


def test_the_health_check_knows_each_service(tmp_path: Path) -> None:
    """The image has both files in one folder, and nothing else of the project where the check looks."""
    [copied] = re.findall(r"^COPY (.*) /usr/local/lib/tickpipe/$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for name in copied.split():
        shutil.copy(ROOT / name, tmp_path)
    settings = load_settings()

    ports = runpy.run_path(str(tmp_path / "healthcheck.py"))["_PORTS"]

    assert ports == {
        one.module: (f"TICKPIPE_{one.name.upper()}_PORT", getattr(settings, f"{one.name}_port")) for one in DECLARED
    }


def test_compose_has_each_service() -> None:
    for service in DECLARED:
        assert services()[service.name]["command"] == [service.module]
        host = services()[service.name]["environment"][f"TICKPIPE_{service.name.upper()}_HOST"]
        assert ipaddress.ip_address(host).is_unspecified


def test_prometheus_asks_each_service() -> None:
    folder = FILE.parent / "prometheus"
    targets: list[tuple[str, str]] = []
    for job in yaml.safe_load((folder / "prometheus.yml").read_text())["scrape_configs"]:
        if job.get("relabel_configs") != [{"target_label": "part_of", "replacement": "tickpipe"}]:
            continue
        for looked_up in job.get("dns_sd_configs", ()):
            targets += [(job["job_name"], f"{name}:{looked_up['port']}") for name in looked_up["names"]]
        for pattern in (name for listed in job.get("file_sd_configs", ()) for name in listed["files"]):
            groups = [group for path in folder.glob(pattern) for group in yaml.safe_load(path.read_text())]
            targets += [(group["labels"]["job"], target) for group in groups for target in group["targets"]]

    assert sorted(targets) == sorted((service.name, f"{service.name}:{service.port}") for service in DECLARED)
