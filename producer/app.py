"""The FastAPI application: routes, lifespan, and the answers to what no route takes."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import structlog
from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from marketdata.contract.request import BARS_ROUTE, TICKS_ROUTE, route_of
from producer.auth import Keyring
from producer.documentation import ANSWERS, BAR_OPERATION, COMPONENTS, TICK_OPERATION
from producer.ingest import Ingest, json_response
from producer.metrics import Metrics
from producer.publisher import Gateway, Publisher
from producer.reference import ReferenceData
from producer.reference_writer import ReferenceWriter
from producer.windows import add_windows_kit
from runtime.health import Guard, Health
from runtime.settings import Settings
from runtime.telemetry import start_telemetry

log = structlog.get_logger(__name__)

#: Answers one request.
Take = Callable[[Request], Awaitable[Response]]

_CODES = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}


class ProducerApp(FastAPI):
    """FastAPI, except that the routes of `direct` are answered before its middlewares, whose work is not needed there.

    Of the processor time of a request with one tick FastAPI and Starlette take a quarter (measured), for body limits,
    exit stacks, telemetry and routing. Everything else, and the documentation, is FastAPI's.
    """

    def __init__(self, guard: Guard, **options: Any) -> None:
        super().__init__(**options)
        #: Watches over its background tasks.
        self.guard = guard
        #: What answers POST on a path.
        self.direct: dict[str, Take] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        take = None
        if scope["type"] == "http" and (route := route_of(scope["path"])) in self.direct:
            if route != scope["path"]:
                scope = {**scope, "path": route}
            take = self.direct[route] if scope["method"] == "POST" else None
        if take is None or scope.get("root_path"):
            await super().__call__(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await take(request)
        except Exception as exc:
            failed = self.exception_handlers[Exception]
            await (await failed(request, exc))(scope, receive, send)  # type: ignore[misc]  # ours is a coroutine
            # As Starlette does: the server may know more about it.
            raise
        await response(scope, receive, send)


def create_app(
    settings: Settings,
    *,
    gateway: Gateway | None = None,
    metrics: Metrics | None = None,
    guard: Guard | None = None,
    reference: ReferenceData | None = None,
) -> ProducerApp:
    """The application; without `gateway` it publishes to the Kafka of the settings, once its lifespan has begun.

    `guard` watches over its background tasks; without one, the failure of any ends the process. `reference` is filled
    from requests, and written to Kafka where ticks are.

    Raises:
        SettingsError: when no API key is configured.
    """
    metrics = metrics or Metrics(sources=settings.api_keys)
    guard = guard or Guard(Health("kafka"))
    reference = reference or ReferenceData()
    writer = ReferenceWriter(settings, reference) if gateway is None else None
    gateway = gateway or Publisher(settings, metrics)
    ingest = Ingest(settings, gateway, metrics, start_telemetry(settings, "producer"), reference)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # Not awaited: without Kafka the process lives, says so, and goes on by itself when Kafka comes.
        work = {"publisher": gateway.run()}
        if writer is not None:
            work["reference"] = writer.run()
        async with guard.running(**work):
            yield

    app = ProducerApp(
        guard,
        title="Tickpipe producer",
        description="MetaTrader 5 ticks and bars in; every accepted one is in Kafka before it is answered.",
        version=version("tickpipe"),
        lifespan=lifespan,
        redoc_url=None,
    )
    _add_ingest(app, ingest)
    _add_probes(app, gateway, metrics, guard.health)
    _add_errors(app, metrics)
    add_windows_kit(app, Keyring(settings))
    return app


def _add_ingest(app: ProducerApp, ingest: Ingest) -> None:
    # Bodies are read from the raw bytes; models would cost more than all the rest.
    def route(path: str, take: Take, summary: str, operation: dict[str, Any]) -> None:
        app.direct[path] = take
        # There to be documented, and for a server that mounts the application under another path.
        app.add_api_route(
            path, take, methods=["POST"], summary=summary, responses=ANSWERS, openapi_extra=operation,
            response_class=Response, tags=["ingest"],
        )  # fmt: skip

    route(TICKS_ROUTE, ingest.ticks, "Ticks", TICK_OPERATION)
    route(BARS_ROUTE, ingest.bars, "Bars, and ticks among them", BAR_OPERATION)

    generate: Callable[[], dict[str, Any]] = app.openapi

    def openapi() -> dict[str, Any]:
        schema = generate()
        components = schema.setdefault("components", {})
        for kind, named in COMPONENTS.items():
            components.setdefault(kind, {}).update(named)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the schema


def _add_probes(app: FastAPI, gateway: Gateway, metrics: Metrics, health: Health) -> None:
    @app.head("/health", include_in_schema=False)
    @app.get("/health", tags=["probes"])
    async def healthy(_request: Request) -> Response:
        """Every part of the process runs."""
        return json_response(*health.health())

    @app.get("/ready", tags=["probes"])
    async def ready(_request: Request) -> Response:
        """The process can reach Kafka."""
        health.set("kafka", gateway.is_open)
        return json_response(*health.ready())

    @app.get("/metrics", tags=["probes"])
    async def show_metrics(_request: Request) -> Response:
        """Metrics in Prometheus's text format."""
        return Response(generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _add_errors(app: FastAPI, metrics: Metrics) -> None:
    @app.exception_handler(HTTPException)
    async def not_taken(_request: Request, exc: HTTPException) -> Response:
        metrics.answered("other", exc.status_code).inc()
        code = _CODES.get(exc.status_code, "HTTP_ERROR")
        return json_response(
            exc.status_code, {"error": str(exc.detail), "code": code}, dict(exc.headers) if exc.headers else None
        )

    @app.exception_handler(Exception)
    async def failed(request: Request, exc: Exception) -> Response:
        metrics.answered("other", 500).inc()
        log.error("A request failed; this is a bug.", action="internal_error", path=request.url.path, exc_info=exc)
        return json_response(500, {"error": "an internal error; it is in the log", "code": "INTERNAL"})
