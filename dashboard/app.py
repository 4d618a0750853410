"""The FastAPI application: its parts and their lifespan, probes, and errors as answers."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response

from dashboard.access import Access
from dashboard.answers import Refusal, SecurityHeaders, json_response
from dashboard.candles import BarStarts
from dashboard.catalogue import Catalogue
from dashboard.database import Database
from dashboard.hub import Hub
from dashboard.live import LiveReader, Settler
from dashboard.metrics import CountRequests, Gauges, Metrics
from dashboard.origins import add_proof_routes, add_tick_routes
from dashboard.page import add_page
from dashboard.pipeline import Pipeline
from dashboard.routes import add_routes
from dashboard.tick_answers import reading_turns
from dashboard.tick_stream import add_tick_stream
from runtime.api_keys import ApiKeys
from runtime.health import Guard, Health
from runtime.logreader import LogClients
from runtime.settings import Settings

log = structlog.get_logger(__name__)

#: Smaller answers fit into one packet anyway (bytes).
_GZIP_FROM_BYTES = 1_000

_CODES = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}


@dataclass
class Parts:
    """The parts of the dashboard, connected with each other."""

    settings: Settings
    metrics: Metrics = field(default_factory=Metrics)
    gauges: Gauges = field(default_factory=Gauges)
    guard: Guard = field(default_factory=lambda: Guard(Health("kafka", "database")))

    def __post_init__(self) -> None:
        self.hub = Hub(self.metrics.resyncs.inc)
        self.database = Database(self.settings)
        self.log_clients = LogClients(self.settings)
        self.live = LiveReader(self.settings, self.hub, self.gauges, self.metrics)
        self.catalogue = Catalogue(self.database, self.hub)
        self.bars = BarStarts(self.database)
        self.settler = Settler(self.database, self.hub)
        self.pipeline = Pipeline(
            self.settings, metrics=self.metrics, hub=self.hub, gauges=self.gauges, database=self.database,
            catalogue=self.catalogue,
        )  # fmt: skip


def create_app(parts: Parts) -> FastAPI:
    """The application; its lifespan opens the database and reads Kafka."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await parts.database.open()
        # Not awaited: without Kafka or the database the process runs, reports it, and recovers by itself.
        try:
            async with parts.guard.running(
                live=parts.live.run(), settler=parts.settler.run(), pipeline=parts.pipeline.run()
            ):
                yield
        finally:
            await parts.log_clients.aclose()
            await parts.database.close()

    app = FastAPI(
        title="Tickpipe dashboard",
        description="Candles out of the table, live candles as they move, ticks, the state of the pipeline. Read-only.",
        version=version("tickpipe"),
        lifespan=lifespan,
        # FastAPI's pages load scripts from a CDN: a LAN without internet has none, and the CSP forbids it.
        docs_url=None,
        redoc_url=None,
        # Starlette's redirects name the host that the client sent.
        redirect_slashes=False,
    )
    turns = reading_turns()
    add_routes(app, parts)
    add_tick_routes(app, parts, turns)
    add_tick_stream(app, parts)
    add_proof_routes(app, parts, turns)
    _document(app)
    _add_probes(app, parts)
    _add_errors(app)
    add_page(app)
    app.add_middleware(GZipMiddleware, minimum_size=_GZIP_FROM_BYTES)
    if password := parts.settings.dashboard_password.get_secret_value():
        app.add_middleware(Access, password=password, keys=ApiKeys(parts.settings), metrics=parts.metrics)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(CountRequests, metrics=parts.metrics)
    return app


def _document(app: FastAPI) -> None:
    generate: Callable[[], dict[str, Any]] = app.openapi

    def openapi() -> dict[str, Any]:
        schema = generate()
        for operations in schema["paths"].values():
            for operation in operations.values():
                # Invalid parameters are answered 400 here.
                operation["responses"].pop("422", None)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the schema


def _add_probes(app: FastAPI, parts: Parts) -> None:
    health = parts.guard.health

    @app.head("/health", include_in_schema=False)
    @app.get("/health", tags=["probes"])
    async def healthy(_request: Request) -> Response:
        """Every part of the process runs."""
        status, body = health.health()
        return json_response(body, status)

    @app.head("/ready", include_in_schema=False)
    @app.get("/ready", tags=["probes"])
    async def ready(_request: Request) -> Response:
        """Candles can be read from the database, and live ones from Kafka."""
        health.set("kafka", parts.live.is_reading and parts.pipeline.kafka_answers)
        health.set("database", await parts.database.answers())
        status, body = health.ready()
        return json_response(body, status)

    @app.head("/metrics", include_in_schema=False)
    @app.get(
        "/metrics", tags=["probes"], response_class=Response, responses={200: {"content": {"text/plain": {}}}}
    )  # fmt: skip
    async def show_metrics(_request: Request) -> Response:
        """Metrics in Prometheus's text format."""
        parts.metrics.streams.set(len(parts.hub))
        return Response(generate_latest(parts.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refused(_request: Request, exc: Refusal) -> Response:
        return exc.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, exc: RequestValidationError) -> Response:
        message = "; ".join(f"{error['loc'][-1]}: {error['msg']}" for error in exc.errors())
        return Refusal(400, "INVALID_PARAMETER", message).response()

    @app.exception_handler(HTTPException)
    async def not_taken(_request: Request, exc: HTTPException) -> Response:
        code = _CODES.get(exc.status_code, "HTTP_ERROR")
        answer = {"error": str(exc.detail), "code": code}
        return json_response(answer, exc.status_code, dict(exc.headers) if exc.headers else None)

    @app.exception_handler(Exception)
    async def failed(request: Request, exc: Exception) -> Response:
        log.error("A request failed; this is a bug.", action="internal_error", path=request.url.path, exc_info=exc)
        return json_response({"error": "an internal error; it is in the log", "code": "INTERNAL"}, 500)
