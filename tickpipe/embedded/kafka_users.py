"""Who may log in to the embedded Kafka, and what each user may do there.

Services and commands log in by SCRAM, so a program that takes the broker's port while it restarts learns no password.
Only the broker itself and the stack that sets up the users log in by PLAIN, with a password made for each start of the
broker.
"""

import secrets
from collections.abc import Mapping
from typing import Final

from marketdata.errors import KafkaRefused, KafkaUnavailable, StackError
from runtime.aiokafka_internals import send_request
from runtime.kafka import admin_client
from runtime.kafka_errors import kafka_errors
from runtime.kafka_protocol import AclEntry, AclsRequest, ScramCredentialsRequest
from runtime.rights import Kind, Operation, Service, rights_of
from runtime.security_settings import scram_login
from runtime.services import DECLARED
from runtime.settings import Settings, load_settings
from runtime.topics import topics
from sink.progress import SINK_GROUP_PREFIX
from tickpipe.embedded.state import KAFKA_ADMINISTRATOR

#: The users of our own services, by the names that the stack gives these.
SERVICE_USERS: Final = {service.name: Service(service.title) for service in DECLARED}

_BROKER: Final = "broker"

#: Of Kafka's protocol (org.apache.kafka.common.acl and resource).
_RESOURCES: Final = {Kind.TOPIC: 2, Kind.GROUP: 3}
_CLUSTER: Final = 4
_LITERAL: Final = 3
_PREFIXED: Final = 4
_ALLOW: Final = 3

_PROPERTIES: Final = """\
listener.name.broker.sasl.enabled.mechanisms=SCRAM-SHA-256,PLAIN
listener.name.broker.scram-sha-256.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.broker.plain.sasl.jaas.config={plain}
listener.name.controller.sasl.enabled.mechanisms=PLAIN
listener.name.controller.plain.sasl.jaas.config={plain}
sasl.mechanism.inter.broker.protocol=PLAIN
sasl.mechanism.controller.protocol=PLAIN
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:{broker};User:{administrator}
"""

_COMMAND_CONFIG: Final = """\
# Written by tickpipe at every start.
security.protocol=SASL_PLAINTEXT
sasl.mechanism=SCRAM-SHA-256
sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \
username="{user}" password="{password}";
"""


class KafkaUsers:
    """The users of one stack's Kafka. Those of its services get other passwords at each start of the stack."""

    def __init__(self, administrator_password: str) -> None:
        self._passwords = {name: secrets.token_urlsafe(24) for name in SERVICE_USERS}
        self._passwords[KAFKA_ADMINISTRATOR] = administrator_password
        self._broker_password = ""

    def properties(self) -> str:
        """Lines of the broker's configuration for its next start, with a new password of its own in them."""
        self._broker_password = secrets.token_urlsafe(24)
        plain = (
            "org.apache.kafka.common.security.plain.PlainLoginModule required "
            f'username="{_BROKER}" password="{self._broker_password}" user_{_BROKER}="{self._broker_password}";'
        )
        return _PROPERTIES.format(plain=plain, broker=_BROKER, administrator=KAFKA_ADMINISTRATOR)

    def command_config(self) -> str:
        """The file with which Kafka's own tools log in as the administrator (`--command-config`)."""
        return _COMMAND_CONFIG.format(user=KAFKA_ADMINISTRATOR, password=self._passwords[KAFKA_ADMINISTRATOR])

    def login(self, user: str) -> dict[str, str]:
        """Settings with which the user logs in, by their names."""
        return scram_login(user, self._passwords[user])

    async def set_up(self, bootstrap: str, cluster_id: str) -> bool:
        """Create the users and grant each its rights; False while the broker of this cluster is not ready.

        The cluster's id is told after a login alone, so whoever else listens on the port does not know it, and gets no
        password of a user.

        Raises:
            StackError: when the broker refuses a user.
        """
        own = scram_login(_BROKER, self._broker_password) | {"kafka_sasl_mechanism": "PLAIN"}
        settings = load_settings(kafka_bootstrap=bootstrap, kafka_replication=1, **own)
        try:
            async with admin_client(settings) as client:
                with kafka_errors(settings):
                    if (await client.describe_cluster())["cluster_id"] != cluster_id:
                        return False
                    answer = await send_request(client, ScramCredentialsRequest(self._passwords))
                    refused = [(user, message) for user, code, message, _ in answer.results if code]
                    answer = await send_request(client, AclsRequest(_entries(settings)))
                    refused += [("", message) for code, message in answer.creation_responses if code]
                if refused:
                    raise StackError(f"Kafka refuses its users: {refused}")
        except (KafkaUnavailable, KafkaRefused):
            return False
        return True


def _entries(settings: Settings) -> list[AclEntry]:
    """The least rights of each service, and what creates a topic again that somebody deleted."""
    # The database tells the rest of its name to the sinks.
    groups: Mapping[str, str] = {} if settings.sink_group else {"sink_group": SINK_GROUP_PREFIX}
    known = settings.model_copy(update=dict(groups))
    entries: list[AclEntry] = []
    for name, service in SERVICE_USERS.items():
        principal = f"User:{name}"
        for right in rights_of(known, service):
            pattern = _PREFIXED if right.name in groups.values() else _LITERAL
            entries.append((_RESOURCES[right.kind], right.name, pattern, principal, "*", right.operation, _ALLOW))
        for topic in topics(settings):
            entries.append(
                (_RESOURCES[Kind.TOPIC], topic.name, _LITERAL, principal, "*", Operation.CREATE, _ALLOW)
            )  # fmt: skip
    # How much room the volumes have.
    entries.append((_CLUSTER, "kafka-cluster", _LITERAL, "User:producer", "*", Operation.DESCRIBE, _ALLOW))
    return entries
