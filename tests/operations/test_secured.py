"""A Kafka that encrypts and wants a login: clients get in with the right settings and are told why with others."""

import asyncio
import base64
import json
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from aiokafka.protocol.admin import CreateAclsRequest

from marketdata.errors import KafkaRefused
from runtime.aiokafka_internals import send_request
from runtime.kafka import admin_client
from runtime.settings import Settings, load_settings
from runtime.topics import ensure_topics, topics
from tests.certificates import Authority
from tests.ports import free_port
from tests.servers import EmbeddedServers
from tests.services import Service
from tests.unit.sink.candles import MINUTE
from tests.waiting import wait_until
from tickpipe.embedded import kafka as embedded_kafka

pytestmark = pytest.mark.long(25)

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
listener.name.login.sasl.enabled.mechanisms=PLAIN,OAUTHBEARER
listener.name.login.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \\
  user_admin="right" user_nobody="right" user_producer="right" user_stream_app="right" user_sink="right";
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
def servers(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, ports: dict[str, int]
) -> Iterator[EmbeddedServers]:
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
        with EmbeddedServers(tmp_path_factory.mktemp("secured")) as servers:
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


async def test_a_password_in_a_file_a_token_and_a_certificate_let_in(
    login: dict[str, Any], authority: Authority, ports: dict[str, int], tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("right\n")
    assert await ensure_topics(
        load_settings(**login | {"kafka_sasl_password": "", "kafka_sasl_password_file": str(password)})
    )

    claims = {"sub": "admin", "iat": time.time() - 5, "exp": time.time() + 600}
    token = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "none"}, claims)
    )
    command = shlex.join([sys.executable, "-c", f"print('{token}.')"])
    by_token = {"kafka_sasl_mechanism": "OAUTHBEARER", "kafka_sasl_token_command": command}
    assert await ensure_topics(load_settings(**login | NO_LOGIN | by_token))

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
        ("LOGIN", {"kafka_sasl_mechanism": "SCRAM-SHA-256"}, "does not accept the login .*UnsupportedSaslMechanism"),
        ("LOGIN", {"kafka_ssl_ca_file": ""}, "is not signed by the system's .*TICKPIPE_KAFKA_SSL_CA_FILE"),
        ("LOGIN", {"kafka_security_protocol": "PLAINTEXT", "kafka_ssl_ca_file": ""} | NO_LOGIN, "encrypts .*SASL_SSL"),
        ("LOGIN", {"kafka_security_protocol": "SSL"} | NO_LOGIN, "wants a login; set .*=SASL_SSL"),
        ("TLS", {"kafka_security_protocol": "SSL"} | NO_LOGIN, "TICKPIPE_KAFKA_SSL_CERTIFICATE_FILE"),
        ("EXPIRED", {"kafka_security_protocol": "SSL"} | NO_LOGIN, "has expired"),
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
TOPIC, GROUP, LITERAL, ALLOW = 2, 3, 3, 3
READ, WRITE, DESCRIBE, DESCRIBE_CONFIGS = 3, 4, 8, 10

#: The least rights of each service, as docs/deploy/kafka.md lists them.
READS = {
    "stream_app": ("ticks_topic",),
    "sink": ("ticks_topic", "candles_topic", "broker_candles_topic", "reference_topic"),
}
WRITES = {
    "producer": ("ticks_topic", "broker_candles_topic", "reference_topic", "ticks_rejected_topic"),
    "stream_app": ("candles_topic", "ticks_rejected_topic"),
    "sink": ("candles_rejected_topic",),
}
GROUPS = {"stream_app": "stream_group", "sink": "sink_group"}


async def grant(settings: Settings, service: str) -> None:
    """Give the user of that name what the service needs, and nothing else."""
    values = settings.model_dump()
    wanted = [(TOPIC, topic.name, right) for topic in topics(settings) for right in (DESCRIBE, DESCRIBE_CONFIGS)]
    wanted += [(TOPIC, values[name], READ) for name in READS.get(service, ())]
    wanted += [(TOPIC, values[name], WRITE) for name in WRITES[service]]
    wanted += [(GROUP, values[GROUPS[service]], READ)] if service in GROUPS else []
    wanted += [(GROUP, settings.stream_group, DESCRIBE)] if service == "sink" else []
    async with admin_client(settings) as client:
        for kind, name, right in wanted:
            request = CreateAclsRequest(kind, name, LITERAL, f"User:{service}", "*", right, ALLOW)
            answer = await send_request(client, request)
            assert [code for code, _ in answer.creation_responses] == [0]


def test_a_tick_becomes_a_row_over_tls_with_the_least_rights(
    settings: Settings, login: dict[str, Any], tmp_path: Path
) -> None:
    async def arrange() -> None:
        await ensure_topics(settings)
        for name in WRITES:
            await grant(settings, name)

    asyncio.run(arrange())
    services = [
        Service(name, load_settings(**login | {"kafka_sasl_username": name}), log=tmp_path / name) for name in WRITES
    ]
    try:
        for service in services:
            service.start()
        for service in services:
            service.wait_ready()
        ticks = [{"symbol": "EURUSD", "ts_msc": MINUTE + i * 60_000, "bid": 1.1, "ask": 1.2} for i in range(3)]
        assert services[0].post({"ticks": ticks}, X_Source="Broker-Demo").status_code == 200

        def stored() -> bool:
            with psycopg.connect(settings.database_url.get_secret_value()) as connection:
                row = connection.execute("SELECT count(*) FROM market_data WHERE timeframe = 'M1'").fetchone()
            return row is not None and row[0] == len(ticks)

        wait_until(stored, what="a row for each minute")
        for service in services:
            assert "uthoriz" not in service.said()
            assert "Traceback" not in service.said()
    finally:
        for service in services:
            service.close()


def test_a_user_without_rights_is_named_what_is_missing_and_the_services_end(
    settings: Settings, login: dict[str, Any], tmp_path: Path
) -> None:
    nobody = load_settings(**login | {"kafka_sasl_username": "nobody"})
    for module in ("stream_app", "sink"):
        service = Service(module, nobody, log=tmp_path / f"{module}.log").start()
        try:
            assert service.wait() == 1
        finally:
            service.close()
        said = service.said()
        assert "Traceback" not in said
        (line,) = (line for line in said.splitlines() if "_refused" in line)
        assert any(f"the topic {topic.name} " in line for topic in topics(settings))
        assert "DESCRIBE" in line
        assert "kafka-acls" in line
