"""The project's own services as children of the stack: their commands, settings and readiness."""

import http.client
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marketdata.errors import StackError
from runtime.addresses import reachable_host, url_of
from runtime.api_keys import KEYS_FILE
from runtime.known_log import KNOWN_LOG_FILE
from runtime.security_settings import UNSECURED
from runtime.services import BY_NAME, DECLARED, DeclaredService
from runtime.settings import ANY_SOURCE, load_settings
from tickpipe.connection import archive_of
from tickpipe.embedded.process import ServiceSpec
from tickpipe.embedded.state import HOST, Ports, require_free

#: Everything that a stack can run, in the order in which it is shown.
SERVICES = ("kafka", "postgres", *(service.name for service in DECLARED))

#: The usual port of the page; another is chosen for the time when it is in use.
DASHBOARD_PORT = BY_NAME["dashboard"].port

_PROBE_TIMEOUT_SECONDS = 2.0

_MODULES = {service.name: service.module for service in DECLARED} | {"demo": "tickpipe.demo"}


@dataclass(frozen=True)
class StackConfig:
    """What a stack runs and where.

    `producer_port` 0 takes a free one, `dashboard_port` 0 takes 18080 or, when that is in use, a free one.
    `services` chooses from `SERVICES`; `demo` adds the simulated EA. `stream_workers` are named stream, stream-2 and so
    on. `commands` replaces the argv of a service of ours or of the `demo`, by name; the demo's is followed by
    `--url URL --history FILE`. With `short_lived` Kafka starts a little faster and runs slower.
    """

    data_dir: Path
    producer_host: str = HOST
    producer_port: int = 18001
    dashboard_host: str = HOST
    dashboard_port: int = 0
    #: What the server listens on, its database, and the role that may read it.
    postgres_host: str = HOST
    postgres_database: str = "market"
    postgres_reader: str = "reader"
    demo: bool = False
    stream_workers: int = 1
    services: tuple[str, ...] = SERVICES
    commands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    short_lived: bool = False

    def __post_init__(self) -> None:
        if unknown := set(self.services) - set(SERVICES):
            raise StackError(f"no such service: {', '.join(sorted(unknown))}; choose from {', '.join(SERVICES)}")
        if self.stream_workers < 1:
            raise StackError("a stack needs one stream worker or more")

    def command(self, kind: str) -> tuple[str, ...]:
        """The argv of a service of ours."""
        return self.commands.get(kind) or (sys.executable, "-m", _MODULES[kind])

    def to_json(self) -> str:
        """The configuration as `from_json` reads it; it holds no secret."""
        content = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return json.dumps(content | {"data_dir": str(self.data_dir), "commands": dict(self.commands)})

    @classmethod
    def from_json(cls, text: str) -> "StackConfig":
        """The configuration that `to_json` wrote."""
        content: dict[str, Any] = json.loads(text)
        content["data_dir"] = Path(content["data_dir"])
        content["services"] = tuple(content["services"])
        content["commands"] = {name: tuple(argv) for name, argv in content["commands"].items()}
        return cls(**content)


@dataclass(frozen=True)
class Addresses:
    """Where the services of a stack are found."""

    kafka_bootstrap: str
    database_url: str = field(repr=False)
    #: Of each service of ours, by its name; there may be several stream workers.
    ports: Mapping[str, int]
    stream_ports: tuple[int, ...]
    #: For the role that may only read.
    dashboard_database_url: str = field(default="", repr=False)
    #: Settings with which a service logs in to Kafka, by the kind of the service.
    kafka_logins: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)


def claim_addresses(config: StackConfig, ports: Ports, kafka_bootstrap: str, database_url: str) -> Addresses:
    """The addresses of a stack about to start.

    Raises:
        StackError: when a port that the user chose is in use.
    """
    producer_port = config.producer_port
    if producer_port == 0:
        producer_port = ports.claim("producer")
    elif "producer" in config.services:
        require_free(producer_port, config.producer_host, "--producer-port")
    dashboard_port = config.dashboard_port
    if dashboard_port == 0:
        dashboard_port = ports.choose(DASHBOARD_PORT, config.dashboard_host)
    elif "dashboard" in config.services:
        require_free(dashboard_port, config.dashboard_host, "--dashboard-port")
    stream_ports = tuple(ports.claim(name) for name in stream_names(config))
    found = {"producer": producer_port, "stream": stream_ports[0], "dashboard": dashboard_port}
    found |= {service.name: ports.claim(service.name) for service in DECLARED if service.name not in found}
    return Addresses(kafka_bootstrap, database_url, found, stream_ports)


def stream_names(config: StackConfig) -> list[str]:
    """stream, stream-2, stream-3 and so on."""
    return ["stream", *(f"stream-{number}" for number in range(2, config.stream_workers + 1))]


def service_specs(config: StackConfig, addresses: Addresses, api_key: str) -> list[ServiceSpec]:
    """The chosen services of ours; they start when the servers they need were ready once."""
    env = _environment(config, addresses, api_key)

    hosts = _hosts(config)

    def spec(service: DeclaredService, name: str, port: int) -> ServiceSpec:
        kind, host = service.name, hosts[service.name]
        return ServiceSpec(
            name=name,
            argv=config.command(kind),
            env=env
            | _variables(addresses.kafka_logins.get(kind, UNSECURED))
            | {f"TICKPIPE_{kind.upper()}_HOST": host, f"TICKPIPE_{kind.upper()}_PORT": str(port)}
            # Two workers with the same static member name would fence each other.
            | ({f"TICKPIPE_{kind.upper()}_INSTANCE": name} if service.has_instance else {}),
            ready=answers_ready(reachable_host(host), port),
            log=config.data_dir / "logs" / f"{name}.log",
            after=service.after,
        )

    specs = []
    for service in DECLARED:
        is_off = service.name == "archive" and archive_of(config.data_dir) == "off"
        if service.name not in config.services or is_off:
            continue
        workers = [(service.name, addresses.ports[service.name])]
        if service.name == "stream":
            workers = list(zip(stream_names(config), addresses.stream_ports, strict=True))
        specs += [spec(service, name, port) for name, port in workers]
    if config.demo:
        specs.append(
            ServiceSpec(
                name="demo",
                argv=[
                    *config.command("demo"),
                    "--url",
                    url_of(config.producer_host, addresses.ports["producer"]),
                    "--history",
                    str(config.data_dir / "demo-history-sent"),
                ],
                env=env | {"TICKPIPE_DEMO_KEY": api_key},
                ready=lambda: True,
                log=config.data_dir / "logs" / "demo.log",
                after=("producer",),
            )
        )
    return specs


def answers_ready(host: str, port: int) -> Callable[[], bool]:
    """A probe: whether `GET /ready` is answered 200.

    The standard library's client, because httpx loads the machine's certificates for each client, and this is asked
    ten times a second while everything else starts.
    """

    def probe() -> bool:
        connection = http.client.HTTPConnection(host, port, timeout=_PROBE_TIMEOUT_SECONDS)
        try:
            connection.request("GET", "/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return probe


def any_source_key(own_key: str) -> str:
    """The key that may speak for any source: the user's, where the settings have one, else the stack's own.

    Raises:
        SettingsError: when a setting cannot be understood.
    """
    chosen = load_settings().api_keys.get(ANY_SOURCE)
    return own_key if chosen is None else chosen.get_secret_value()


def _environment(config: StackConfig, addresses: Addresses, api_key: str) -> dict[str, str]:
    """The user's environment with the settings that the stack decides."""
    settings = load_settings()
    user_keys = {source: key.get_secret_value() for source, key in settings.api_keys.items()}
    owned = {
        "KAFKA_BOOTSTRAP": addresses.kafka_bootstrap,
        "KAFKA_REPLICATION": "1",
        "DATABASE_URL": addresses.database_url,
        # Keys that the user set are never replaced.
        "API_KEYS": json.dumps({ANY_SOURCE: api_key} | user_keys),
        "KEYS_FILE": str(settings.keys_file or config.data_dir / KEYS_FILE),
        "KNOWN_LOG_FILE": str(config.data_dir / KNOWN_LOG_FILE),
        "DASHBOARD_DATABASE_URL": addresses.dashboard_database_url,
        "ARCHIVE": archive_of(config.data_dir),
        "DATA_DIR": str(config.data_dir),
    }
    for name, host in _hosts(config).items():
        owned |= {f"{name.upper()}_HOST": host, f"{name.upper()}_PORT": str(addresses.ports[name])}
    return {**os.environ, "PYTHONUNBUFFERED": "1"} | _variables(UNSECURED | owned)


def _hosts(config: StackConfig) -> dict[str, str]:
    """What each service of ours listens on, by its name."""
    chosen = {"producer": config.producer_host, "dashboard": config.dashboard_host}
    return {service.name: chosen.get(service.name, HOST) for service in DECLARED}


def _variables(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"TICKPIPE_{name.upper()}": value for name, value in settings.items()}
