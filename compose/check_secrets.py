"""`secrets-check`: ends with 1 before anything else starts when a secret or a setting cannot be used as it is, or the
volume of the ticks belongs to another deployment.
"""

import os
import re
import sys
from pathlib import Path

from marketdata.errors import SettingsError
from runtime.settings import load_settings

#: What `.env.example` holds in place of every secret.
_PLACEHOLDER = "change-me"

_SHORTEST = 12

#: The Kafka of the deployment, which speaks neither TLS nor asks for a login.
_OWN_KAFKA = "kafka:9092"

_INSTEAD = "TICKPIPE_BIND and TICKPIPE_PORT publish the producer, TICKPIPE_DASHBOARD_BIND and _PORT the chart"


def complaints(environment: dict[str, str]) -> list[str]:
    """One sentence for each variable that must not be used as it is."""
    found = []
    for name in environment["SECRETS"].split():
        value = environment.get(name, "")
        if _PLACEHOLDER in value:
            found.append(f"{name} is still the example's `{_PLACEHOLDER}`")
        elif len(value) < _SHORTEST:
            found.append(f"{name} is empty or shorter than {_SHORTEST} characters")
    return found + [
        f"{name} has no effect here, compose.yaml decides it; remove it from .env and the shell ({_INSTEAD})"
        for name in environment.get("OVERRULED", "").split()
    ]


def foreign_volume(environment: dict[str, str], kafka_data: Path) -> list[str]:
    """One sentence when the volume holds the log of another cluster than the one that `.env` names."""
    try:
        text = (kafka_data / "meta.properties").read_text()
    except OSError:  # it is new, or only Kafka may read it, and then Kafka will say the same
        return []
    found = re.search(r"^cluster\.id=(\S+)$", text, re.MULTILINE)
    wanted = environment.get("TICKPIPE_KAFKA_CLUSTER_ID", "")
    if found is None or found[1] == wanted:
        return []
    return [
        f"the volume of the ticks holds the log {found[1]}, TICKPIPE_KAFKA_CLUSTER_ID in .env is {wanted}: "
        "this .env belongs to another deployment. Put back the one that was here, or give this deployment "
        "a COMPOSE_PROJECT_NAME of its own"
    ]


def main() -> int:
    """The exit code; complaints go to stderr."""
    found = complaints(dict(os.environ)) + foreign_volume(dict(os.environ), Path("/kafka-data"))
    try:
        settings = load_settings()
        if settings.kafka_bootstrap == _OWN_KAFKA and (settings.uses_tls or settings.uses_sasl):
            found.append(
                "TICKPIPE_KAFKA_SECURITY_PROTOCOL is for a Kafka elsewhere: set TICKPIPE_KAFKA_BOOTSTRAP as well"
            )
    except SettingsError as exc:
        found.append(str(exc))
    for complaint in found:
        print(complaint, file=sys.stderr)
    if found:
        print("Nothing was started. Where there is no .env, `make env` writes one with fresh secrets.", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
