"""`secrets-check`: ends with 1 before anything else starts when a secret or a setting cannot be used as it is."""

import os
import sys

from marketdata.errors import SettingsError
from runtime.settings import load_settings

#: What `.env.example` holds in place of every secret.
_PLACEHOLDER = "change-me"

_SHORTEST = 12

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


def main() -> int:
    """The exit code; complaints go to stderr."""
    found = complaints(dict(os.environ))
    try:
        load_settings()
    except SettingsError as exc:
        found.append(str(exc))
    for complaint in found:
        print(complaint, file=sys.stderr)
    if found:
        print("Nothing was started. Where there is no .env, `make env` writes one with fresh secrets.", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
