"""A Kafka that encrypts and wants a login: clients get in with the right settings and are told why with others."""

import asyncio
import base64
import json
import shlex
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest

from marketdata.errors import KafkaRefused, KafkaUnavailable, NotAuthorized
from runtime.aiokafka_internals import send_request
from runtime.kafka import admin_client
from runtime.kafka_errors import kafka_errors
from runtime.rights import Kind, Right, Service, check_rights, rights_of
from runtime.settings import Settings, load_settings
from runtime.topics import ensure_topics
from tests import preloaded
from tests.certificates import Authority
from tests.conftest import NewDataDir
from tests.kafka_tool import tool_command
from tests.ports import free_port
from tests.servers import EmbeddedServers
from tests.services import Service as Program
from tests.services import environment
from tests.unit.sink.candles import MINUTE
from tests.waiting import PATIENCE_SECONDS, eventually, wait_until
from tickpipe.embedded import kafka as embedded_kafka

#: A Kafka of its own; unit/runtime has the rights and the words.
pytestmark = [pytest.mark.long(40), pytest.mark.full]

#: The name of each listener, and what it speaks.
PROTOCOLS = {"TLS": "SSL", "LOGIN": "SASL_SSL", "EXPIRED": "SSL", "CLEAR": "SASL_PLAINTEXT"}

_LISTENERS = """
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:admin;User:CN=admin
ssl.keystore.type=PEM
ssl.keystore.location={folder}/kafka.store.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
listener.name.tls.ssl.client.auth=required
listener.name.expired.ssl.keystore.type=PEM
listener.name.expired.ssl.keystore.location={folder}/expired.store.pem
listener.name.login.sasl.enabled.mechanisms=PLAIN,OAUTHBEARER,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.login.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \\
  user_admin="right" user_nobody="right" user_producer="right" user_stream_app="right" user_sink="right" \\
  user_dashboard="right" user_archive="right";
listener.name.login.scram-sha-256.sasl.jaas.config=\\
  org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.login.scram-sha-512.sasl.jaas.config=\\
  org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.login.oauthbearer.sasl.jaas.config=\\
  org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="admin";
listener.name.clear.sasl.enabled.mechanisms=PLAIN
listener.name.clear.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \\
  user_admin="right";
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {name: free_port() for name in PROTOCOLS}


@pytest.fixture(scope="module")
def servers(new_data_dir: NewDataDir, authority: Authority, ports: dict[str, int]) -> Iterator[EmbeddedServers]:
    """Servers of their own, whose Kafka listens in four more ways."""
    authority.keystore("kafka")
    authority.keystore("expired", ended=True)
    added = ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())
    lines = embedded_kafka._SERVER_PROPERTIES.splitlines()
    for start, more in (
        ("listeners=", added), ("advertised.listeners=", added),
        ("listener.security.protocol.map=", ",".join(f"{name}:{spoken}" for name, spoken in PROTOCOLS.items())),
    ):  # fmt: skip
        (index,) = (i for i, line in enumerate(lines) if line.startswith(start))
        lines[index] += f",{more}"
    with pytest.MonkeyPatch.context() as patch:
        properties = "\n".join(lines) + _LISTENERS.format(folder=authority.certificate.parent)
        patch.setattr(embedded_kafka, "_SERVER_PROPERTIES", properties)
        with EmbeddedServers(new_data_dir("secured")) as servers:
            yield servers


@pytest.fixture
def login(settings: Settings, authority: Authority, ports: dict[str, int]) -> dict[str, Any]:
    """Settings with which a client gets in over SASL_SSL; tests spoil one or the other."""
    return settings.model_dump(exclude_unset=True) | {
        "kafka_bootstrap": f"127.0.0.1:{ports['LOGIN']}",
        "kafka_security_protocol": "SASL_SSL",
        "kafka_sasl_mechanism": "PLAIN",
        "kafka_sasl_username": "admin",
        "kafka_sasl_password": "right",
        "kafka_ssl_ca_file": str(authority.certificate),
    }


NO_LOGIN = {"kafka_sasl_mechanism": "", "kafka_sasl_username": "", "kafka_sasl_password": ""}


def by_token(user: str) -> dict[str, Any]:
    """Settings of a login by a token that a command prints."""
    claims = {"sub": user, "iat": time.time() - 5, "exp": time.time() + 600}
    token = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "none"}, claims)
    )
    command = shlex.join([sys.executable, "-c", f"print('{token}.')"])
    return {"kafka_sasl_mechanism": "OAUTHBEARER", "kafka_sasl_token_command": command}


async def test_a_password_in_a_file_a_token_and_a_certificate_let_in(
    login: dict[str, Any], authority: Authority, ports: dict[str, int], tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("right\n")
    assert await ensure_topics(
        load_settings(**login | {"kafka_sasl_password": "", "kafka_sasl_password_file": str(password)})
    )

    assert await ensure_topics(load_settings(**login | NO_LOGIN | by_token("admin")))

    certificate, key = authority.signed("admin")
    by_certificate = {
        "kafka_security_protocol": "SSL",
        "kafka_bootstrap": f"127.0.0.1:{ports['TLS']}",
        "kafka_ssl_certificate_file": str(certificate),
        "kafka_ssl_key_file": str(key),
    }
    assert await ensure_topics(load_settings(**login | NO_LOGIN | by_certificate))


@pytest.mark.parametrize(
    ("listener", "spoiled", "said"),
    [
        ("LOGIN", {"kafka_sasl_password": "wrong"}, "does not accept the login of admin .*TICKPIPE_KAFKA_SASL"),
        ("LOGIN", {"kafka_sasl_mechanism": "SCRAM-SHA-512"}, "does not accept the login of admin .*_KAFKA_SASL"),
        ("LOGIN", {"kafka_ssl_ca_file": ""}, "is not signed by the system's .*TICKPIPE_KAFKA_SSL_CA_FILE"),
        ("LOGIN", {"kafka_security_protocol": "PLAINTEXT", "kafka_ssl_ca_file": ""} | NO_LOGIN, "encrypts .*SASL_SSL"),
        ("LOGIN", {"kafka_security_protocol": "SSL"} | NO_LOGIN, "wants a login; set .*=SASL_SSL"),
        ("TLS", {"kafka_security_protocol": "SSL"} | NO_LOGIN, "TICKPIPE_KAFKA_SSL_CERTIFICATE_FILE"),
        ("EXPIRED", {"kafka_security_protocol": "SSL"} | NO_LOGIN, "has expired"),
        ("CLEAR", {"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_ssl_ca_file": "",
                   "kafka_sasl_mechanism": "SCRAM-SHA-256"}, "does not accept the login .*UnsupportedSaslMechanism"),
        ("CLEAR", {}, "does not encrypt, .*set it to SASL_PLAINTEXT"),
        ("CLEAR", {"kafka_security_protocol": "PLAINTEXT", "kafka_ssl_ca_file": ""} | NO_LOGIN, "=SASL_PLAINTEXT"),
    ],
)  # fmt: skip
async def test_what_keeps_a_client_out_is_said_with_the_cure(
    login: dict[str, Any], ports: dict[str, int], listener: str, spoiled: dict[str, Any], said: str
) -> None:
    address = {"kafka_bootstrap": f"127.0.0.1:{ports[listener]}"}
    with pytest.raises(KafkaRefused, match=said) as caught:
        await ensure_topics(load_settings(**login | address | spoiled))
    assert "is it running" not in str(caught.value)
    assert "\n" not in str(caught.value)


#: Of Kafka's protocol (org.apache.kafka.common.acl and resource).
RESOURCES, LITERAL, ALLOW = {Kind.TOPIC: 2, Kind.GROUP: 3}, 3, 3

#: The module of each service, which is also its user's name.
MODULES = {
    Service.PRODUCER: "producer",
    Service.STREAM: "stream_app",
    Service.SINK: "sink",
    Service.DASHBOARD: "dashboard",
    Service.ARCHIVE: "archive",
}


class Acls:
    """What the users of services may do, changed by the administrator."""

    def __init__(self, settings: Settings, client: AIOKafkaAdminClient) -> None:
        self.settings = settings
        self._client = client

    async def grant(self, service: Service, *, but: Right | None = None) -> None:
        """The least rights of the service, except one."""
        for right in rights_of(self.settings, service):
            if right != but:
                await self.allow(service, right)

    async def allow(self, service: Service, right: Right) -> None:
        request = CreateAclsRequest(*self._entry(service, right), ALLOW)
        answer = await send_request(self._client, request)
        assert [code for code, _ in answer.creation_responses] == [0]

    async def take(self, service: Service, right: Right) -> None:
        answer = await send_request(self._client, DeleteAclsRequest(*self._entry(service, right), ALLOW))
        [(code, _, removed)] = answer.filter_responses
        assert (code, len(removed)) == (0, 1)

    def _entry(self, service: Service, right: Right) -> tuple[int, str, int, str, str, int]:
        return RESOURCES[right.kind], right.name, LITERAL, f"User:{MODULES[service]}", "*", right.operation


@pytest.fixture
async def acls(settings: Settings) -> AsyncIterator[Acls]:
    await ensure_topics(settings)
    async with admin_client(settings) as client:
        yield Acls(settings, client)


#: `make test` takes a service that may not do without any of them, and one that may.
EACH = [pytest.param(one, marks=() if one in (Service.PRODUCER, Service.SINK) else pytest.mark.full) for one in Service]


@pytest.mark.parametrize("service", EACH)
async def test_each_right_that_is_missing_is_named(
    service: Service, settings: Settings, login: dict[str, Any], acls: Acls
) -> None:
    theirs = load_settings(**login | {"kafka_sasl_username": MODULES[service]})
    rights = rights_of(settings, service)
    await acls.grant(service)
    async with admin_client(theirs) as client:

        async def said() -> str:
            with structlog.testing.capture_logs() as lines:
                try:
                    with kafka_errors(theirs):
                        await check_rights(theirs, client, service)
                except KafkaUnavailable:
                    return "a new broker is still making the topic of its groups"
                except NotAuthorized as exc:
                    return f"refused: {exc}"
            return "\n".join(line["event"] for line in lines)

        async def is_content() -> bool:
            return await said() == ""

        for right in rights:
            await eventually(is_content, what="a service that has all its rights")
            await acls.take(service, right)

            line = await eventually(said, what=f"a word about {right}")

            assert line.startswith("Kafka does not allow" if right.loss else "refused: Kafka does not allow"), line
            assert f"user {MODULES[service]}" in line
            assert f": {right}" in line
            assert right.loss in line
            assert "\n" not in line
            assert line.count(" on the ") == 1, "other rights are named as well"
            await acls.allow(service, right)


def vital(*services: Service) -> list[Any]:
    """Every right without which a service cannot work, by its place; `make test` takes one of each service."""
    found = []
    for service in services:
        rights = rights_of(load_settings(sink_group="sinks"), service)
        places = [i for i, right in enumerate(rights) if not right.loss]
        for i in places:
            marks = () if i == places[0] else pytest.mark.full
            found.append(pytest.param(service, i, id=f"{service}-{rights[i]}".replace(" ", "-"), marks=marks))
    return found


@pytest.mark.parametrize(("service", "place"), vital(Service.STREAM, Service.SINK))
async def test_a_service_without_a_right_ends_and_says_which(
    service: Service, place: int, login: dict[str, Any], acls: Acls, tmp_path: Path
) -> None:
    missing = rights_of(acls.settings, service)[place]
    await acls.grant(service, but=missing)
    theirs = load_settings(**login | {"kafka_sasl_username": MODULES[service]})
    process = Program(MODULES[service], theirs, log=tmp_path / "log").start()
    try:
        assert await asyncio.to_thread(process.wait) == 1
    finally:
        process.close()
    (line,) = (line for line in process.said().splitlines() if "_refused" in line)
    assert str(missing) in line
    assert line.count(" on the ") == 1
    assert "Traceback" not in process.said()


@pytest.mark.parametrize(("service", "place"), vital(Service.PRODUCER))
async def test_a_producer_without_a_right_waits_for_it(
    service: Service, place: int, login: dict[str, Any], acls: Acls, tmp_path: Path
) -> None:
    missing = rights_of(acls.settings, service)[place]
    await acls.grant(service, but=missing)
    theirs = load_settings(**login | {"kafka_sasl_username": MODULES[service]})
    producer = Program(MODULES[service], theirs, log=tmp_path / "log").start()
    tick = {"symbol": "EURUSD", "ts_msc": MINUTE, "bid": 1.1, "ask": 1.2}
    try:
        await asyncio.to_thread(producer.wait_alive)
        await asyncio.to_thread(wait_until, lambda: str(missing) in producer.said(), what="the right that is missing")
        refused = await asyncio.to_thread(producer.post, {"ticks": [tick]}, X_Source="Broker-Demo")
        assert refused.status_code == 503

        await acls.allow(service, missing)
        await asyncio.to_thread(producer.wait_ready)
        assert (await asyncio.to_thread(producer.post, {"ticks": [tick]}, X_Source="Broker-Demo")).status_code == 200
    finally:
        producer.close()
    assert producer.said().count(str(missing)) == 1


@pytest.fixture(scope="module")
def scram(servers: EmbeddedServers) -> None:
    """Users that log in by SCRAM, one with each of its kinds."""
    for user, kind in (("stream_app", "SCRAM-SHA-512"), ("dashboard", "SCRAM-SHA-256")):
        command = tool_command(
            "kafka.admin.ConfigCommand", "--bootstrap-server", servers.kafka_bootstrap, "--alter",
            "--add-config", f"{kind}=[password=right]", "--entity-type", "users", "--entity-name", user,
        )  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("scram")
async def test_a_tick_becomes_a_row_over_tls_with_the_least_rights(
    settings: Settings, login: dict[str, Any], acls: Acls, tmp_path: Path
) -> None:
    logins: dict[Service, dict[str, Any]] = {
        Service.PRODUCER: {"kafka_sasl_username": "producer"},
        Service.STREAM: {"kafka_sasl_username": "stream_app", "kafka_sasl_mechanism": "SCRAM-SHA-512"},
        Service.SINK: NO_LOGIN | by_token("sink"),
        Service.DASHBOARD: {"kafka_sasl_username": "dashboard", "kafka_sasl_mechanism": "SCRAM-SHA-256"},
    }
    for service in Service:
        await acls.grant(service)
    services = [
        Program(MODULES[name], load_settings(**login | own), log=tmp_path / name) for name, own in logins.items()
    ]
    await asyncio.to_thread(send_and_look, services, settings)
    for process in services:
        assert "allow" not in process.said()
        assert "Traceback" not in process.said()


def send_and_look(services: Sequence[Program], settings: Settings) -> None:
    """A tick of three minutes; their rows, and their candles on the dashboard."""
    producer, *_, dashboard = services
    try:
        for service in services:
            service.start()
        for service in services:
            service.wait_ready()
        ticks = [{"symbol": "EURUSD", "ts_msc": MINUTE + i * 60_000, "bid": 1.1, "ask": 1.2} for i in range(3)]
        assert producer.post({"ticks": ticks}, X_Source="Broker-Demo").status_code == 200

        def stored() -> bool:
            with psycopg.connect(settings.database_url.get_secret_value()) as connection:
                row = connection.execute("SELECT count(*) FROM market_data WHERE timeframe = 'M1'").fetchone()
            return row is not None and row[0] == len(ticks)

        wait_until(stored, what="a row for each minute")
        asked = dashboard.get(f"/ticks?symbol=EURUSD&from={MINUTE}&to={MINUTE + 180_000}", timeout=PATIENCE_SECONDS)
        assert asked.status_code == 200, asked.text
        pipeline = dashboard.get("/pipeline").json()
        assert pipeline["lag"].keys() == {"stream", "sink"}
        assert None not in pipeline["lag"].values()
    finally:
        for service in services:
            service.close()


@pytest.mark.parametrize(
    ("command", "right"),
    [
        (["topics", "create"], "DESCRIBE on the topic"),
        pytest.param(["replay", "--from=2024-01-01", "--yes"], "DESCRIBE on the topic ticks", marks=pytest.mark.full),
        pytest.param(["rejected", "list"], "DESCRIBE on the topic ticks.rejected", marks=pytest.mark.full),
        pytest.param(["verify", "--complete"], "DESCRIBE on the topic", marks=pytest.mark.full),
        pytest.param(["backup", "--topics", "x.zip"], "DESCRIBE on the topic", marks=pytest.mark.full),
        pytest.param(["status"], "DESCRIBE on the group", marks=pytest.mark.full),
    ],
)  # fmt: skip
async def test_a_command_without_a_right_says_which(
    command: list[str], right: str, settings: Settings, login: dict[str, Any], tmp_path: Path
) -> None:
    nobody = load_settings(**login | {"kafka_sasl_username": "nobody"})
    with chdir(tmp_path):
        done = await asyncio.to_thread(preloaded.run, ["tickpipe", *command], environment=environment(nobody))
    assert done.returncode != 0
    (line,) = (line for line in (done.stdout + done.stderr).splitlines() if "does not allow the user nobody" in line)
    assert right in line


async def test_doctor_says_which_rights_are_missing_and_goes_on(
    settings: Settings, login: dict[str, Any], tmp_path: Path
) -> None:
    nobody = load_settings(**login | {"kafka_sasl_username": "nobody"})
    with chdir(tmp_path):
        done = await asyncio.to_thread(preloaded.run, ["tickpipe", "doctor", "--json"], environment=environment(nobody))
    lines = [line for line in json.loads(done.stdout) if "Kafka" in line["part"]]
    assert {line["level"] for line in lines if line["part"] == "Kafka"} == {"green"}
    said = [line["found"] for line in lines if line["part"] == "rights in Kafka"]
    assert any("nobody lacks WRITE on the topic ticks" in each for each in said), said
    assert any("does not allow the user nobody DESCRIBE on the group" in each for each in said), said
