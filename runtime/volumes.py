"""How much room Kafka's volumes have, and the watch that tells the operator before they are full.

A full volume stops the broker, so ticks wait with their senders. What the log holds already is not lost.
"""

from typing import ClassVar, Final, NamedTuple

import structlog
from aiokafka.admin import AIOKafkaAdminClient
from prometheus_client import CollectorRegistry, Gauge

from marketdata.errors import KafkaRefused, KafkaUnavailable
from runtime.aiokafka_internals import send_request
from runtime.health import Health
from runtime.kafka import admin_client
from runtime.kafka_errors import kafka_errors
from runtime.kafka_protocol import NOT_SUPPORTED, LogDirsRequest
from runtime.service import PeriodicTask
from runtime.settings import Settings

log = structlog.get_logger(__name__)

#: Less than this share of a volume is little, less than that almost nothing; so many free bytes are always enough.
_LITTLE_SHARE: Final = 0.15
_NO_SHARE: Final = 0.05
_ENOUGH_BYTES: Final = 100 * 10**9

#: What to do about little room.
CURE: Final = "enlarge the volume, or let TICKPIPE_TICKS_RETENTION_DAYS delete (docs/storage.md)"


class Volume(NamedTuple):
    """A volume that records or rows are stored on."""

    name: str
    total_bytes: int
    free_bytes: int

    @property
    def is_low(self) -> bool:
        """Whether somebody should make room within days."""
        return self.free_bytes < min(_ENOUGH_BYTES, _LITTLE_SHARE * self.total_bytes)

    @property
    def is_almost_full(self) -> bool:
        """Whether somebody should make room now."""
        return self.is_low and self.free_bytes < _NO_SHARE * self.total_bytes

    @property
    def room(self) -> str:
        """How much is free, in words."""
        return f"{self.free_bytes / 1e9:,.1f} of {self.total_bytes / 1e9:,.1f} GB are free"


async def log_volumes(client: AIOKafkaAdminClient) -> list[Volume]:
    """The volumes that brokers store records on; none of brokers that do not tell (before 3.3, or to this user).

    Called inside `kafka_errors`.
    """
    found = []
    for broker in (await client.describe_cluster())["brokers"]:
        try:
            answer = await send_request(client, LogDirsRequest(), broker["node_id"])
        except NOT_SUPPORTED:
            continue
        found += [
            Volume(f"broker {broker['node_id']}, {path}", total, usable)
            for code, path, _, total, usable, *_ in answer.results
            if not code and total > 0
        ]
    return found


class VolumeWatch(PeriodicTask[None]):
    """Asks Kafka once a minute, and says in log, `/health` and metrics when there is little room."""

    name: ClassVar[str] = "volumes"
    interval_seconds: ClassVar[float] = 60.0

    def __init__(self, settings: Settings, health: Health, registry: CollectorRegistry) -> None:
        self._settings = settings
        self._health = health
        self._free = Gauge(
            "tickpipe_log_volume_free_bytes", "Free bytes of a volume of Kafka's.", ["volume"], registry=registry
        )
        self._total = Gauge(
            "tickpipe_log_volume_size_bytes", "Size of a volume of Kafka's.", ["volume"], registry=registry
        )
        #: How each low volume was when it was last logged: whether almost full.
        self._told: dict[str, bool] = {}

    async def step(self) -> None:
        """Ask once; a Kafka that is away is reported elsewhere."""
        try:
            async with admin_client(self._settings) as client:
                with kafka_errors(self._settings):
                    self.note(await log_volumes(client))
        except (KafkaUnavailable, KafkaRefused):
            return

    def note(self, volumes: list[Volume]) -> None:
        """Record what Kafka told; each volume is logged once when it becomes low, and when it becomes almost full."""
        for volume in volumes:
            self._free.labels(volume.name).set(volume.free_bytes)
            self._total.labels(volume.name).set(volume.total_bytes)
            if volume.is_low and self._told.get(volume.name) is not volume.is_almost_full:
                write = log.error if volume.is_almost_full else log.warning
                write(
                    "A volume of Kafka has little room; when it is full, ticks wait with their senders.",
                    action="volume_low", volume=volume.name, room=volume.room, cure=CURE,
                )  # fmt: skip
            elif not volume.is_low and volume.name in self._told:
                log.info("A volume of Kafka has room again.", action="volume_has_room", volume=volume.name)
        self._told = {volume.name: volume.is_almost_full for volume in volumes if volume.is_low}
        low = [f"{volume.name}: {volume.room}" for volume in volumes if volume.is_low]
        self._health.warn("disk", f"{'; '.join(low)}; {CURE}" if low else "")
