"""The application in front of a gateway without Kafka."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import cache

import httpx
import pytest

from marketdata.tick import Frame
from marketdata.wire import decode_frame
from producer.app import create_app
from producer.fills import WantedIndex
from producer.metrics import Metrics
from producer.senders import ReferenceData
from runtime.settings import Settings, load_settings
from tests.unit.producer.gateway import InMemoryGateway

KEY = "key-of-the-broker"
ANY_KEY = "key-of-everybody"


@dataclass
class Bench:
    """One application and what came out of it."""

    client: httpx.AsyncClient
    gateway: InMemoryGateway
    metrics: Metrics
    reference: ReferenceData
    wanted: WantedIndex
    headers: dict[str, str] = field(default_factory=lambda: {"X-API-Key": KEY})

    async def post(self, path: str, body: object, **headers: str) -> httpx.Response:
        """Post a body as JSON, or as it is when it is bytes."""
        sent = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, bytes):
            return await self.client.post(path, content=body, headers=sent)
        return await self.client.post(path, json=body, headers=sent)

    @property
    def frames(self) -> list[Frame]:
        """The frames that were published."""
        return [decode_frame(record.value) for record in self.gateway.records if record.topic == "ticks"]


def new_settings(**overrides: object) -> Settings:
    """Settings with two keys: one of a source, one that may speak for any."""
    return load_settings(**{"_env_file": None, "api_keys": {"Broker-Demo": KEY, "*": ANY_KEY}, **overrides})


_usual_settings = cache(new_settings)


def new_bench(**overrides: object) -> Bench:
    """An application of its own."""
    gateway, metrics, reference, wanted = InMemoryGateway(), Metrics(), ReferenceData(), WantedIndex()
    settings = new_settings(**overrides) if overrides else _usual_settings()
    app = create_app(settings, gateway=gateway, metrics=metrics, reference=reference, wanted=wanted)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    client = httpx.AsyncClient(transport=transport, base_url="http://producer")
    return Bench(client, gateway, metrics, reference, wanted)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = new_bench()
    async with made.client:
        yield made
