"""A copy of the deployment's files in a folder of its own, and what a user does with `docker compose` there."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx

from tests.ports import free_port
from tests.waiting import PATIENCE_SECONDS, wait_until

ROOT = Path(__file__).parents[2]

DOCKER = shutil.which("docker") or "docker"

PROFILES = ("monitoring", "demo", "tls", "tools")

Bar = tuple[float, float, float, float]


def new_folder(folder: Path) -> Path:
    """Fills the folder with the unchanged files of the deployment; containers of any user can read it."""
    for parent in (folder, folder.parent, folder.parent.parent):
        parent.chmod(0o755)
    for name in ("compose.yaml", ".env.example"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "compose", folder / "compose")
    return folder


class ComposeError(AssertionError):
    """`docker compose` ended with another code than 0."""


def docker(*arguments: str) -> str:
    """Standard output of `docker` with the arguments."""
    done = subprocess.run([DOCKER, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}\n{done.stdout}{done.stderr}"
    return done.stdout


class Deployment:
    """One project of `docker compose`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._port = free_port()
        self._prometheus_port = free_port()
        self._dashboard_port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.prometheus_url = f"http://127.0.0.1:{self._prometheus_port}"

    @property
    def project(self) -> str:
        """The name that `make env` has given it."""
        return self.setting("COMPOSE_PROJECT_NAME")

    def make_env(self) -> str:
        """What `make env` does, and free ports; what it said."""
        is_new = not (self.folder / ".env").exists()
        done = subprocess.run([self.folder / "compose" / "env.sh"], check=True, capture_output=True, text=True)
        if not is_new:
            return done.stdout
        with (self.folder / ".env").open("a") as file:
            file.write(f"TICKPIPE_PORT={self._port}\nTICKPIPE_PROMETHEUS_PORT={self._prometheus_port}\n")
            file.write(f"TICKPIPE_DASHBOARD_PORT={self._dashboard_port}\n")
        return done.stdout

    def setting(self, name: str) -> str:
        """The value of a variable in `.env`."""
        lines = (self.folder / ".env").read_text().splitlines()
        return next(line.partition("=")[2] for line in lines if line.startswith(f"{name}="))

    def compose(self, *arguments: str, timeout_seconds: float = 300) -> str:
        """Standard output of `docker compose` with the arguments.

        Raises:
            ComposeError: with all of its output when it fails.
        """
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COMPOSE_")}
        done = subprocess.run(
            [DOCKER, "compose", *arguments],
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=timeout_seconds, check=False,
        )  # fmt: skip
        if done.returncode:
            raise ComposeError(f"docker compose {' '.join(arguments)}\n{done.stdout}{done.stderr}")
        return done.stdout

    def recipe(self, *, heading: str, block: int) -> str:
        """The n-th block of commands below a heading of the page, run in the folder; what it said."""
        page = (ROOT / "docs" / "deploy" / "compose.md").read_text()
        section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
        script = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[block]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COMPOSE_")}
        environment["PATH"] = f"{ROOT}/.venv/bin:{environment['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        if done.returncode:
            raise ComposeError(f"{script}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def up(self, *arguments: str) -> float:
        """Start and wait until everything is healthy; the seconds it took.

        A server that is not healthy in time, on a busy machine, may be so a moment later, and Compose does not wait.
        """
        started = time.monotonic()
        for is_last in (False, False, True):
            try:
                self.compose("up", "--detach", "--wait", "--no-build", *arguments)
                break
            except ComposeError as exc:
                if is_last or "is unhealthy" not in str(exc):
                    raise
        return time.monotonic() - started

    def down(self, *arguments: str) -> None:
        profiles = [option for profile in PROFILES for option in ("--profile", profile)]
        self.compose(*profiles, "down", "--remove-orphans", *arguments)

    def delete(self) -> None:
        """Leave nothing of it, not even the ticks."""
        self.down("--volumes")
        docker("volume", "rm", "--force", f"{self.project}_kafka-data", f"{self.project}_archive-data")

    def containers(self, service: str = "") -> list[dict[str, Any]]:
        """What `docker inspect` says of the project's containers, those that ended included."""
        found: list[dict[str, Any]] = json.loads(docker("inspect", *self._ids(service)))
        return found

    def _ids(self, service: str = "") -> list[str]:
        """The containers of the project or of one service, the newest first, by what Compose labels them with.

        Compose itself takes ten times as long for an answer, for it reads the files of the project.
        """
        labels = [f"project={self.project}", "oneoff=False", *([f"service={service}"] if service else [])]
        filters = [f"--filter=label=com.docker.compose.{label}" for label in labels]
        return docker("ps", "--all", "--quiet", *filters).split()

    def inside(self, service: str, *command: str) -> str:
        """Standard output of a command in the service's oldest container."""
        return docker("exec", self._ids(service)[-1], *command)

    def kill_process(self, service: str, index: int = 0) -> None:
        """SIGKILL to the container's first process: a crash. `docker kill` would count as a wish and not restart it."""
        os.kill(self.containers(service)[index]["State"]["Pid"], signal.SIGKILL)

    def wait_healthy(self, service: str) -> None:
        def healthy() -> bool:
            states = [container["State"] for container in self.containers(service)]
            return all(s["Running"] and s.get("Health", {}).get("Status") == "healthy" for s in states)

        wait_until(healthy, what=f"a healthy {service}")

    def page(self, url: str) -> str:
        """The page as a container of the project sees it."""
        program = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read().decode())"
        return self.inside("producer", "python", "-c", program, url)

    def addresses(self, service: str) -> list[str]:
        """Addresses of the service's containers in the project's network."""
        networks = [container["NetworkSettings"]["Networks"] for container in self.containers(service)]
        return [network["IPAddress"] for by_name in networks for network in by_name.values()]

    def metric(self, address: str, name: str) -> float:
        """The sum of a metric over its labels, from `/metrics` at host:port."""
        lines = self.page(f"http://{address}/metrics").splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def sql(self, query: str, role: str = "tickpipe") -> list[list[str]]:
        """Rows as text; doubles in the shortest form that reads back exactly."""
        psql = (
            "psql",
            f"--username={role}",
            "--dbname=tickpipe",
            "--no-align",
            "--tuples-only",
            "--field-separator=|",
        )
        rows = self.inside("timescaledb", *psql, "--command", query)
        return [line.split("|") for line in rows.splitlines()]

    def bars(self, source: str, symbol: str = "EURUSD") -> dict[int, Bar]:
        rows = self.sql(
            "SELECT (extract(epoch FROM ts) * 1000)::bigint, open, high, low, close FROM market_data"  # noqa: S608
            f" WHERE symbol = '{symbol}' AND source = '{source}' AND timeframe = 'M1'"
        )
        return {int(r[0]): (float(r[1]), float(r[2]), float(r[3]), float(r[4])) for r in rows}

    def ticks(self, source: str) -> int:
        """Ticks in all candles of the source."""
        ((volume,),) = self.sql(
            f"SELECT coalesce(sum(volume), 0) FROM market_data WHERE source = '{source}'"  # noqa: S608
        )
        return int(volume)

    def is_set_back(self) -> bool:
        """Whether the stream workers' group has no members and does not stand at the end of the log."""
        said = self.inside(
            "kafka", "/opt/kafka/bin/kafka-consumer-groups.sh", "--bootstrap-server", "kafka:9092",
            "--group", "tickpipe-stream", "--describe",
        )  # fmt: skip
        lags = re.findall(r"^tickpipe-stream +ticks +\d+ +\d+ +\d+ +(\d+)", said, re.MULTILINE)
        return any(int(lag) for lag in lags)

    def client(self, source: str) -> httpx.Client:
        """An HTTP client that posts as the source."""
        headers = {"X-API-Key": self.setting("TICKPIPE_API_KEY"), "X-Source": source}
        return httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE_SECONDS)

    def log_lines(self, service: str) -> list[str]:
        """What the service's containers wrote, by `docker logs`: Compose adds codes for terminals."""
        return [
            line
            for container in self.containers(service)
            for line in subprocess.run(
                [DOCKER, "logs", container["Id"]],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=True,
            ).stdout.splitlines()
        ]

    def write_logs(self, path: Path) -> None:
        """All containers' logs, for somebody who looks for the cause of a failure."""
        profiles = [option for profile in PROFILES for option in ("--profile", profile)]
        path.write_text(self.compose(*profiles, "logs", "--no-color", "--timestamps"))
