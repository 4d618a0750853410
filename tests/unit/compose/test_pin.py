"""`make pin` asks the registry for digests; a registry of this machine answers here."""

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from tests import tools
from tests.architecture import ROOT
from tests.waiting import PATIENCE_SECONDS

_TYPE = "application/vnd.oci.image.index.v1+json"


class Registry(BaseHTTPRequestHandler):
    """Has every image, under a digest that its name and tag decide."""

    protocol_version = "HTTP/1.1"
    #: Asked by digest, it has to give what it gave under the tag.
    given: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        """The index of the image."""
        body = index_of(self.path)
        self.send_response(200)
        self.send_header("Content-Type", _TYPE)
        self.send_header("Docker-Content-Digest", digest_of(body))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def log_message(self, *_: object) -> None:
        """Nothing."""


def index_of(path: str) -> bytes:
    if "sha256:" in path:
        return Registry.given[path.rpartition("/")[2]]
    body = json.dumps({"schemaVersion": 2, "mediaType": _TYPE, "manifests": [], "annotations": {"of": path}}).encode()
    Registry.given[digest_of(body)] = body
    return body


def digest_of(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


@pytest.fixture
def registry() -> Iterator[str]:
    """Its host and port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_every_image_is_pinned_by_tag_and_digest_and_pinned_again(registry: str, tmp_path: Path) -> None:
    tools.probe("docker", [tools.find("docker"), "buildx", "version"])
    shutil.copytree(ROOT / "compose", tmp_path / "compose")
    file = tmp_path / "compose" / "compose.yaml"
    images = dict(re.findall(r"\$\{(TICKPIPE_[A-Z_]*IMAGE):-([\w./-]+:[\w.-]+)\}", file.read_text()))
    images.pop("TICKPIPE_IMAGE")
    text = re.sub(r"(TICKPIPE_[A-Z_]+_IMAGE:-)", rf"\g<1>{registry}/", file.read_text())
    file.write_text(text)
    env = tmp_path / ".env"
    env.write_text("TICKPIPE_API_KEY=stays\nTICKPIPE_KAFKA_IMAGE=apache/kafka:4.0.0@sha256:00\n")

    for _ in range(2):
        subprocess.run([tmp_path / "compose" / "pin.sh"], check=True, capture_output=True, timeout=PATIENCE_SECONDS)

        first, *pinned = env.read_text().splitlines()
        assert first == "TICKPIPE_API_KEY=stays"
        assert len(pinned) == len(images) > 8
        for line in pinned:
            variable, _, image = line.partition("=")
            name, _, tag = images[variable].rpartition(":")
            digest = digest_of(index_of(f"/v2/{name}/manifests/{tag}"))
            assert image == f"{registry}/{name}:{tag}@{digest}"
