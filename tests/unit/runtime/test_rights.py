"""The page that operators grant rights by lists the rights that services check."""

import re
from pathlib import Path

from runtime.rights import Kind, Operation, Right, Service, rights_of
from runtime.settings import load_settings
from runtime.topics import topics

PAGE = (Path(__file__).parents[3] / "docs" / "deploy" / "kafka.md").read_text()

#: Principal, resource, operations and, of what a service can do without, what it cannot do then.
ROW = re.compile(
    r"^\| ([^|]+) \| ((?:topics?|groups?|all topics)[^|]*) \| ([A-Z_, ]+) \|(?: ([^|]+) \|)?$", re.MULTILINE
)

SETTINGS = load_settings(sink_group="of the sinks", ticks_local_retention_days=1)


def listed() -> dict[Service, set[Right]]:
    found: dict[Service, set[Right]] = {service: set() for service in Service}
    for principals, resource, operations, loss in ROW.findall(PAGE):
        kind = Kind.GROUP if resource.startswith("group") else Kind.TOPIC
        names = [name for name in re.findall(r"`([^`]+)`", resource) if not name.startswith("TICKPIPE_")]
        if resource == "all topics":
            names = [topic.name for topic in topics(SETTINGS)]
        if "of the sinks" in resource:
            names.append(SETTINGS.sink_group)
        services = list(Service) if principals == "every service" else [Service(one) for one in principals.split(", ")]
        rights = {Right(Operation[word], kind, name, loss) for word in operations.split(", ") for name in names}
        for service in services:
            found[service] |= rights
    return found


def test_the_page_lists_what_each_service_needs() -> None:
    assert listed() == {service: set(rights_of(SETTINGS, service)) for service in Service}


def test_the_group_of_the_sinks_is_left_out_while_its_name_is_not_known() -> None:
    assert {right.name for right in rights_of(load_settings(), Service.SINK) if right.kind is Kind.GROUP} == {
        "tickpipe-stream"
    }
