"""The producer with the routes that `benchmarks.ingest` compares it with, in a process that holds nothing else."""

import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from producer.__main__ import server_config
from producer.app import create_app
from producer.auth import Keyring
from producer.ingest import taken
from producer.metrics import Metrics
from producer.publisher import Publisher
from runtime.batches import Record
from runtime.settings import load_settings


def measured_app() -> FastAPI:
    """The producer with the two routes that it is compared with."""
    settings, metrics = load_settings(), Metrics()
    gateway, keyring = Publisher(settings, metrics), Keyring(load_settings())
    app = create_app(settings, gateway=gateway, metrics=metrics)

    @app.post("/empty")
    async def empty() -> None:
        """Nothing: what a request costs in FastAPI itself."""

    async def unparsed(request: Request) -> Response:
        _, source = keyring.identify(dict(request.scope["headers"]))
        body = await request.body()
        await gateway.publish([Record(settings.candles_topic, (source or "").encode(), body, None, [])])
        return taken(0, (), 0)

    app.direct["/unparsed"] = unparsed
    return app


if __name__ == "__main__":
    uvicorn.Server(server_config(measured_app(), load_settings())).run()
