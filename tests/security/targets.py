"""A producer, a relay and a dashboard on ports of their own, without Kafka and database, and raw requests to them."""

import gzip
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import uvicorn

from dashboard.app import Parts, create_app
from marketdata.contract.http import Right
from producer.__main__ import server_config
from producer.app import create_app as create_producer
from relay.api import Api
from relay.service import http_server
from relay.store import Store
from runtime.api_keys import ApiKey, Secret, digest_of, write_keys
from runtime.asgi import OwnNames
from runtime.serving import server_config as config_of
from runtime.settings import load_settings
from tests.ports import free_port
from tests.unit.producer.gateway import InMemoryGateway
from tests.unit.serving import served

#: By what each is known; none of them may stand in an answer.
SENDER, ANY_SENDER, READER, ENDED, REVOKED, SLOW, DASHBOARD, RELAY = (
    f"the-{name}-secret-0123456789" for name in
    ("sender", "any", "reader", "ended", "revoked", "slow", "dashboard", "relay")
)  # fmt: skip
SECRETS = (SENDER, ANY_SENDER, READER, ENDED, REVOKED, SLOW, DASHBOARD, RELAY)

TICK = {"time_msc": 1760926800417, "symbol": "EURUSD", "bid": 1.1, "ask": 1.2}
BODY = json.dumps({"ticks": [TICK]}).encode()


@cache
def bomb() -> bytes:
    """70 MB, packed."""
    return gzip.compress(b" " * 70_000_000, 1)


@dataclass
class Targets:
    """Where they listen, and what the producer would have written to Kafka."""

    ports: dict[str, int]
    gateway: InMemoryGateway
    store: Store

    def ask(self, target: str, request: bytes) -> tuple[int, str, bytes]:
        """Status, headers (lower case) and body of the answer; status 0 where the connection ends without one."""
        head, _, body = self.exchange(target, request, until=_is_whole).partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/") else 0
        return status, head.decode("latin-1").lower(), body

    def exchange(self, target: str, request: bytes, until: Callable[[bytes], bool] = lambda _: False) -> bytes:
        """What comes back until the server closes, or until that is enough."""
        with socket.create_connection(("127.0.0.1", self.ports[target]), 30) as connection:
            connection.settimeout(30)
            answer = b""
            with suppress(ConnectionError):
                connection.sendall(request)
                while piece := connection.recv(65_536):
                    answer += piece
                    if b"\r\n\r\n" in answer and until(answer):
                        break
            return answer


def _is_whole(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return body.endswith(b"0\r\n\r\n")


def http(method: str, path: str, body: bytes = b"", /, **headers: str) -> bytes:
    """A request; `Host` and `Content-Length` are right unless they are given."""
    given = {"host": "127.0.0.1", "connection": "close"} | ({"content-length": str(len(body))} if body else {})
    given |= {name.lower().replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items() if value), "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def _key(name: str, secret: str, *rights: Right, **more: object) -> ApiKey:
    ends = datetime(2020, 1, 1, tzinfo=UTC) if name == "ended" else None
    stored = (Secret(digest_of(secret.encode()), datetime(2019, 1, 1, tzinfo=UTC), ends),)
    fields = {"name": name, "source": "Broker-Demo", "rights": rights, "secrets": stored} | more
    return ApiKey(**fields)  # type: ignore[arg-type]  # what the test chooses


@contextmanager
def running_targets(folder: Path) -> Iterator[Targets]:
    """All three, while the block lasts."""
    keys = folder / "keys.json"
    write_keys(
        keys,
        [
            _key("sender", SENDER, Right.INGEST), _key("reader", READER, Right.READ),
            _key("ended", ENDED, Right.ADMIN), _key("revoked", REVOKED, Right.ADMIN, revoked_at=datetime.now(UTC)),
            _key("slow", SLOW, Right.INGEST, requests_per_minute=1e-9),
        ],
    )  # fmt: skip
    away = f"127.0.0.1:{free_port()}"
    settings = load_settings(
        api_keys={"*": ANY_SENDER}, keys_file=keys, dashboard_password=DASHBOARD, kafka_bootstrap=away,
        database_url=f"postgresql://nobody:{RELAY}@{away}/none",
        producer_port=free_port(), dashboard_port=free_port(),
    )  # fmt: skip
    gateway, relay_port, open_port = InMemoryGateway(), free_port(), free_port()
    with ExitStack() as stack:
        producer = create_producer(settings, gateway=gateway)
        store = stack.enter_context(Store(folder / "ea.db"))
        stack.enter_context(served(uvicorn.Server(server_config(producer, settings))))
        stack.enter_context(served(http_server(OwnNames(Api(store, settings, key=RELAY), []), "127.0.0.1", relay_port)))
        ports = {"producer": settings.producer_port, "relay": relay_port}
        # With a password, and without one but for its own names alone.
        for name, port, app in (
            ("dashboard", settings.dashboard_port, create_app(Parts(settings))),
            ("open dashboard", open_port, OwnNames(create_app(Parts(load_settings(kafka_bootstrap=away))), [])),
        ):
            config = config_of(app, "127.0.0.1", port, graceful_seconds=1, lifespan="off")
            stack.enter_context(served(uvicorn.Server(config)))
            ports[name] = port
        yield Targets(ports, gateway, store)
