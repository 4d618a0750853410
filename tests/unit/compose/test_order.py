"""What the services of the deployment wait for."""

from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parents[3] / "compose" / "compose.yaml"

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text())["services"]


def waits_for(service: str) -> set[str]:
    """Everything that must be done or healthy before Compose starts the service."""
    waited = {
        name for name, how in SERVICES[service].get("depends_on", {}).items() if how["condition"] != "service_started"
    }
    return waited.union(*(waits_for(name) for name in waited))


def test_no_service_waits_for_the_database() -> None:
    """Where one waits in vain, Compose starts none of those that it has not come to yet, the producer among them."""
    assert waits_for("producer") == waits_for("stream") == {"topics", "kafka", "secrets-check"}
    assert not [name for name in SERVICES if "timescaledb" in waits_for(name)]
