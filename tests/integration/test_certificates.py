"""Caddy with the deployment's own Caddyfile gets its certificate by itself from an ACME server, pebble.

Pebble is Let's Encrypt's small server for tests: `go install github.com/letsencrypt/pebble/v2/cmd/pebble@latest`. It
asks for proof on the port of TLS, as Let's Encrypt does on 443.
"""

import json
import os
import re
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import Popen
from threading import Thread

import pytest

from tests import tools
from tests.certificates import Authority
from tests.ports import free_port
from tests.waiting import wait_until

CADDYFILE = Path(__file__).parents[2] / "compose" / "caddy" / "Caddyfile"


class Upstream(BaseHTTPRequestHandler):
    """Stands for the producer."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"the producer")

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def process(*command: str | Path, log: Path, **variables: str) -> Iterator[None]:
    with log.open("wb") as file, Popen(command, stdout=file, stderr=file, env=os.environ | variables) as running:
        try:
            yield
        finally:
            running.terminate()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def acme_server(folder: Path, authority: Authority, tls_port: int) -> Iterator[tuple[str, str]]:
    """The addresses of its directory and of its root certificate."""
    certificate, key = authority.signed("pebble")
    listening, management = free_port(), free_port()
    settings = {
        "listenAddress": f"127.0.0.1:{listening}", "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(certificate), "privateKey": str(key), "httpPort": free_port(), "tlsPort": tls_port,
        "ocspResponderURL": "", "externalAccountBindingRequired": False,
    }  # fmt: skip
    (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
    command = (tools.find("pebble"), "-config", folder / "pebble.json")
    with process(*command, log=folder / "pebble.log", PEBBLE_VA_NOSLEEP="1", PEBBLE_WFE_NONCEREJECT="0"):
        wait_until(lambda: listens(listening) and listens(management), what="pebble")
        yield f"https://127.0.0.1:{listening}/dir", f"https://127.0.0.1:{management}/roots/0"


@pytest.mark.full
def test_the_certificate_comes_by_itself_and_is_trusted(tmp_path: Path) -> None:
    caddy = tools.find("caddy")
    authority = Authority(tmp_path / "authority")
    producer = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    tls_port, dashboard_port, health_port = free_port(), free_port(), free_port()
    # Names and ports are the containers' own; everything else is as it is deployed.
    text = CADDYFILE.read_text().replace("producer:18001", f"127.0.0.1:{producer.server_port}")
    for theirs, ours in ((8443, tls_port), (9443, dashboard_port), (2015, health_port)):
        text, count = re.subn(rf"\b{theirs}\b", str(ours), text)
        assert count == 1
    (tmp_path / "Caddyfile").write_text(text)
    with ExitStack() as stack:
        Thread(target=producer.serve_forever, daemon=True).start()
        stack.callback(producer.shutdown)
        directory, root = stack.enter_context(acme_server(tmp_path, authority, tls_port))
        # Without a certificate and without an authority of its own TLS is empty; only who is asked differs here.
        where = f"tls {{\n\tca {directory}\n\tca_root {authority.certificate}\n}}"
        stack.enter_context(
            process(
                caddy,
                "run",
                "--config",
                tmp_path / "Caddyfile",
                "--adapter",
                "caddyfile",
                log=tmp_path / "caddy.log",
                HOST="localhost",
                TLS=where,
                XDG_DATA_HOME=str(tmp_path),
                XDG_CONFIG_HOME=str(tmp_path),
            )
        )
        certificates = tmp_path / "caddy" / "certificates"
        wait_until(lambda: [*certificates.glob("*/localhost/localhost.crt")], what="a certificate")
        pebbles = ssl.create_default_context(cafile=authority.certificate)
        with urllib.request.urlopen(root, context=pebbles) as answer:  # noqa: S310 - its own address
            trusting = ssl.create_default_context(cadata=answer.read().decode())
        with urllib.request.urlopen(f"https://localhost:{tls_port}/health", context=trusting) as answer:
            assert answer.read() == b"the producer"
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            urllib.request.urlopen(f"https://localhost:{tls_port}/health")
    producer.server_close()
