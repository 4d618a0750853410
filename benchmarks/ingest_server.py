"""The producer with the routes that `benchmarks.ingest` compares it with, in a process that holds nothing else."""

import gc

import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from marketdata.contract.times import Clock
from producer.__main__ import server_config
from producer.app import create_app
from producer.auth import Keyring
from producer.bulk import BulkBody, decode_bulk, read_bulk
from producer.ingest import taken
from producer.metrics import Metrics
from producer.publisher import Publisher
from producer.records import FrameWriter, Origin, TicksBySymbol
from runtime.batches import Record
from runtime.clock import now_ms
from runtime.process import collect_rarely
from runtime.settings import load_settings
from runtime.telemetry import TraceContext


def measured_app() -> FastAPI:
    """The producer with the routes that it is compared with."""
    settings, metrics = load_settings(), Metrics()
    gateway, keyring = Publisher(settings, metrics), Keyring(load_settings())
    app = create_app(settings, gateway=gateway, metrics=metrics)
    writer = FrameWriter(settings)
    prepared: list[Record] = []

    @app.post("/empty")
    async def empty() -> None:
        """Nothing: what a request costs in FastAPI itself."""

    async def unparsed(request: Request) -> Response:
        _, source = keyring.identify(dict(request.scope["headers"]))
        body = await request.body()
        await gateway.publish([Record(settings.candles_topic, (source or "").encode(), body, None, [])])
        return taken(0, (), 0)

    async def decoded(request: Request) -> Response:
        keyring.identify(dict(request.scope["headers"]))
        bulk = decode_bulk(await request.body())
        count = 0 if bulk is None else len(bulk.ticks)
        if bulk is not None and not prepared:
            prepared.extend(frames_of(bulk, writer))
        del bulk  # as where ticks are read, they do not wait for Kafka
        await gateway.publish(prepared)
        return taken(count, (), 0)

    app.direct["/unparsed"] = unparsed
    app.direct["/decoded"] = decoded
    return app


def frames_of(bulk: BulkBody, writer: FrameWriter) -> list[Record]:
    """What the producer writes to Kafka of a body."""
    found, received_ms = TicksBySymbol(), now_ms()
    read_bulk(bulk, Clock(None, received_ms), found)
    context = TraceContext.new()
    return writer.records(found, Origin("bench", context.trace_id, context, received_ms))


def main() -> None:
    """Serve, with the collector of garbage as `producer.__main__` sets it."""
    app = measured_app()
    gc.collect()
    collect_rarely()
    uvicorn.Server(server_config(app, load_settings())).run()


if __name__ == "__main__":
    main()
