"""A real Kubernetes API server with etcd and the operators' CRDs; no controllers, so nothing is scheduled.

`k8s/apiserver/build.sh` builds the server, and without its folder the tests are skipped.
"""

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests import tools
from tests.ports import free_port
from tests.waiting import PATIENCE_SECONDS, wait_until

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("TICKPIPE_KUBERNETES", Path.home() / ".cache" / "tickpipe" / "kubernetes"))

#: The Prometheus operator's kinds. Its CRDs are in no Go module, so `make test-k8s` alone checks their fields.
_UNCHECKED = ("PodMonitor", "PrometheusRule", "ServiceMonitor")


class Cluster:
    """`with Cluster(folder) as cluster:` starts and stops both servers."""

    def __init__(self, folder: Path) -> None:
        if not (CACHE / "kube-apiserver").exists() or not (CACHE / "crds").exists():
            tools.unavailable("kube-apiserver", f"is not built in {CACHE}: k8s/apiserver/build.sh")
        self._folder = folder
        self._token = secrets.token_urlsafe(24)
        self._port, etcd, peer = (free_port() for _ in range(3))
        key = folder / "service-accounts.pem"
        subprocess.run([tools.find("openssl"), "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        (folder / "tokens.csv").write_text(f'{self._token},admin,admin,"system:masters"\n')
        url, between = f"http://127.0.0.1:{etcd}", f"http://127.0.0.1:{peer}"
        self._commands: tuple[Sequence[str], ...] = (
            (
                tools.find("etcd"), "--data-dir", str(folder / "etcd"), "--unsafe-no-fsync",
                "--listen-client-urls", url, "--advertise-client-urls", url,
                "--listen-peer-urls", between, "--initial-advertise-peer-urls", between,
                "--initial-cluster", f"default={between}",
            ),
            (
                str(CACHE / "kube-apiserver"), "--etcd-servers", url, "--bind-address", "127.0.0.1",
                "--secure-port", str(self._port), "--cert-dir", str(folder / "certificates"),
                "--service-cluster-ip-range", "10.0.0.0/24", "--service-account-issuer", "https://tests",
                "--service-account-signing-key-file", str(key), "--service-account-key-file", str(key),
                "--authorization-mode", "RBAC", "--token-auth-file", str(folder / "tokens.csv"),
            ),
        )  # fmt: skip
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Cluster":
        try:
            for command in self._commands:
                with (self._folder / f"{Path(command[0]).name}.log").open("wb") as log:
                    self._processes.append(subprocess.Popen(command, stdout=log, stderr=log))
            wait_until(self._is_ready, what="an API server that is ready")
            self._install_kinds()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _is_ready(self) -> bool:
        for process, command in zip(self._processes, self._commands, strict=True):
            assert process.poll() is None, (self._folder / f"{Path(command[0]).name}.log").read_text()[-3_000:]
        return self.run("get", "--raw", "/readyz", check=False).returncode == 0

    def _install_kinds(self) -> None:
        for kind in _UNCHECKED:
            plural = f"{kind.lower()}s"
            anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
            self.apply_text(
                json.dumps({
                    "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                    "metadata": {"name": f"{plural}.monitoring.coreos.com"},
                    "spec": {
                        "group": "monitoring.coreos.com", "scope": "Namespaced",
                        "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
                        "versions": [
                            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}}
                        ],
                    },
                })
            )  # fmt: skip
        # Larger than what the annotation of a client-side apply may hold.
        self.run("apply", "--server-side", "-f", str(CACHE / "crds"))
        self.run("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")

    def run(self, *arguments: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """`kubectl ARGUMENTS`."""
        command = (
            str(CACHE / "kubectl"), "--server", f"https://127.0.0.1:{self._port}", "--insecure-skip-tls-verify",
            "--token", self._token, "--kubeconfig", "/dev/null", "--cache-dir", str(self._folder / "discovery"),
            *arguments,
        )  # fmt: skip
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=180, check=False)
        assert not check or done.returncode == 0, f"{arguments}\n{done.stdout[-3_000:]}{done.stderr[-3_000:]}"
        return done

    def apply_text(self, text: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Apply documents, refusing fields that their schemas do not have."""
        return self.run("apply", "--validate=strict", "-f", "-", *arguments, stdin=text, check=check)

    def get(self, *arguments: str) -> dict[str, Any]:
        """An object or a list as the server has it."""
        found: dict[str, Any] = json.loads(self.run("get", "-o", "json", *arguments).stdout)
        return found


class Overlay:
    """A copy of an overlay with secrets of its own, as its operator has it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        shutil.copytree(ROOT / "k8s", folder, ignore=shutil.ignore_patterns("secrets.env", "reader.login"))
        self._path = folder / "overlays" / name
        subprocess.run([folder / "secrets.sh", name], check=True, capture_output=True)

    def text(self) -> str:
        """Its documents."""
        done = subprocess.run([CACHE / "kubectl", "kustomize", self._path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def documents(self) -> list[dict[str, Any]]:
        """The same, read."""
        return list(yaml.safe_load_all(self.text()))

    def change(self, **parts: Any) -> None:
        """Set fields of its kustomization, as an operator edits the file."""
        file = self._path / "kustomization.yaml"
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | parts))

    def set(self, name: str, value: str) -> None:
        """Give the services a setting by the overlay's ConfigMap."""
        found = yaml.safe_load((self._path / "kustomization.yaml").read_text()).get("configMapGenerator")
        (settings,) = found or [{"name": "tickpipe-settings", "behavior": "merge"}]
        self.change(configMapGenerator=[settings | {"literals": [f"{name}={value}"]}])
