"""The services, each declared once: the stack, users of Kafka, the image's health check and tests take them from here.

Needs nothing but the standard library: the health check reads this file without the rest of the project.
"""

from typing import Final, NamedTuple


class DeclaredService(NamedTuple):
    """One service of ours."""

    #: What the stack, Compose and Kubernetes call it. TICKPIPE_NAME_HOST and TICKPIPE_NAME_PORT say where it listens.
    name: str
    #: `python -m MODULE` runs it.
    module: str
    #: Where it listens by default; pages, health and metrics.
    port: int
    #: What messages call it (`runtime.rights.Service`).
    title: str
    #: The servers that have to be ready once before it starts.
    after: tuple[str, ...] = ("kafka",)
    #: Whether each worker needs a name of its own: TICKPIPE_NAME_INSTANCE.
    has_instance: bool = False


#: In the order in which a stack shows them.
DECLARED: Final = (
    DeclaredService("producer", "producer", 18001, "producer"),
    DeclaredService("stream", "stream_app", 18002, "stream worker", has_instance=True),
    DeclaredService("sink", "sink", 18003, "sink", after=("kafka", "postgres"), has_instance=True),
    DeclaredService("dashboard", "dashboard", 18080, "dashboard", after=("kafka", "postgres")),
    DeclaredService("archive", "archive", 18004, "archiver"),
)

#: The same by their names.
BY_NAME: Final = {service.name: service for service in DECLARED}
