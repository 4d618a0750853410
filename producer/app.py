"""The FastAPI application: routes, lifespan, the answers to what no route takes, and the OpenAPI of the ingest routes.

Its schemas are those of the structs that are read and written.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from itertools import groupby
from typing import Any, Final

import structlog
from fastapi import FastAPI
from msgspec.json import schema_components
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from marketdata.contract.bar import PostedBar
from marketdata.contract.fills import FillsTaken, PostedFill, PostedSession
from marketdata.contract.http import BARS_ROUTE, CAN_FILL, FILL, FILLS_ROUTE, TICKS_ROUTE, Refused, Taken, route_of
from marketdata.contract.tick import PostedTick
from producer.fills import Fills, Publish, WantedIndex, WantedReader
from producer.ingest import Ingest, json_response
from producer.metrics import Metrics
from producer.publisher import Gateway, Publisher
from producer.senders import ReferenceData, ReferenceWriter
from producer.windows import add_windows_kit
from runtime.batches import Record
from runtime.health import Guard, Health
from runtime.kafka import SideWriter
from runtime.service import TaskMetrics
from runtime.settings import Settings
from runtime.telemetry import start_telemetry
from runtime.volumes import VolumeWatch

log = structlog.get_logger(__name__)

#: Answers one request.
Take = Callable[[Request], Awaitable[Response]]

_CODES = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}

#: Said to who asks for another path, as the relay does; an EA's address often lacks the route.
_ROUTES: Final = (
    "there is POST /ingest/tick, /ingest, /fills; GET /health, /ready, /metrics, /docs, /windows/ (the kit for a PC)"
)


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
        if scope["type"] == "http":
            take = self.direct.get(scope["path"])
            if take is None and (route := route_of(scope["path"])) in self.direct:
                scope, take = {**scope, "path": route}, self.direct[route]
        if take is None or scope["method"] != "POST" or scope.get("root_path"):
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
    wanted: WantedIndex | None = None,
) -> ProducerApp:
    """The application; without `gateway` it publishes to the Kafka of the settings, once its lifespan has begun.

    `guard` watches over its background tasks; without one, the failure of any ends the process. `reference` is filled
    from requests, and written to Kafka where ticks are; `wanted` is filled from there.

    Raises:
        SettingsError: when no API key is configured.
    """
    metrics = metrics or Metrics(sources=settings.api_keys)
    guard = guard or Guard(Health("kafka"))
    reference = reference or ReferenceData()
    writer = ReferenceWriter(settings, reference) if gateway is None else None
    gateway = gateway or Publisher(settings, metrics)
    side = SideWriter(settings)
    # A gateway of a test stands for all of Kafka.
    wanted = wanted or WantedIndex()
    fills = Fills(settings, _publish_beside(side) if writer is not None else gateway.publish, metrics, wanted)
    ingest = Ingest(settings, gateway, metrics, start_telemetry(settings, "producer"), reference, fills=fills)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # Not awaited: without Kafka the process lives, says so, and goes on by itself when Kafka comes.
        work = {"publisher": gateway.run()}
        if writer is not None:
            work["reference"] = writer.run()
            work["wanted"] = WantedReader(settings, wanted, lambda: gateway.is_open).run()
            work["volumes"] = VolumeWatch(settings, guard.health, metrics.registry).run(
                asyncio.Event(), TaskMetrics(metrics.registry)
            )
        async with guard.running(**work):
            yield
        await side.stop()

    app = ProducerApp(
        guard,
        title="Tickpipe producer",
        description="MetaTrader 5 ticks and bars in; every accepted one is in Kafka before it is answered.",
        version=version("tickpipe"),
        lifespan=lifespan,
        redoc_url=None,
        # Starlette's redirects name the host that the client sent.
        redirect_slashes=False,
    )
    _add_ingest(app, ingest)
    _add_probes(app, gateway, metrics, guard.health)
    _add_errors(app, metrics)
    add_windows_kit(app, ingest.keyring)
    return app


def _publish_beside(writer: SideWriter) -> Publish:
    async def publish(records: Sequence[Record]) -> None:
        for topic, of_topic in groupby(records, lambda record: record.topic):
            found = list(of_topic)
            await writer.write(topic, [(one.key, one.value) for one in found], headers=found[0].headers)

    return publish


def _add_ingest(app: ProducerApp, ingest: Ingest) -> None:
    # Bodies are read from the raw bytes; models would cost more than all the rest.
    def route(path: str, take: Take, summary: str, operation: dict[str, Any], answers: _Answers) -> None:
        app.direct[path] = take
        # There to be documented, and for a server that mounts the application under another path.
        app.add_api_route(
            path, take, methods=["POST"], summary=summary, responses=answers, openapi_extra=operation,
            response_class=Response, tags=["ingest"],
        )  # fmt: skip

    route(TICKS_ROUTE, ingest.ticks, "Ticks", TICK_OPERATION, ANSWERS)
    route(BARS_ROUTE, ingest.bars, "Bars, and ticks among them", BAR_OPERATION, ANSWERS)
    route(FILLS_ROUTE, ingest.fills, "What became of ranges that were wanted", FILLS_OPERATION, FILLS_ANSWERS)

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

    @app.get(
        "/metrics", tags=["probes"], response_class=Response, responses={200: {"content": {"text/plain": {}}}}
    )  # fmt: skip
    async def show_metrics(_request: Request) -> Response:
        """Metrics in Prometheus's text format."""
        return Response(generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _add_errors(app: FastAPI, metrics: Metrics) -> None:
    @app.exception_handler(HTTPException)
    async def not_taken(_request: Request, exc: HTTPException) -> Response:
        metrics.answered("other", exc.status_code)
        code, headers = _CODES.get(exc.status_code, "HTTP_ERROR"), dict(exc.headers or {})
        said = str(exc.detail)
        if code == "NOT_FOUND":
            said = _ROUTES
        elif allowed := headers.get("Allow"):
            said = f"{allowed} is expected"
        return json_response(exc.status_code, {"error": said, "code": code}, headers or None)

    @app.exception_handler(Exception)
    async def failed(request: Request, exc: Exception) -> Response:
        metrics.answered("other", 500)
        log.error("A request failed; this is a bug.", action="internal_error", path=request.url.path, exc_info=exc)
        return json_response(500, {"error": "an internal error; it is in the log", "code": "INTERNAL"})


_TICK: Final = {"$ref": "#/components/schemas/PostedTick"}
_BAR: Final = {"$ref": "#/components/schemas/PostedBar"}

_TICK_EXAMPLE: Final = {
    "ts": "2025-10-20T02:20:00Z", "symbol": "EURUSD", "bid": 1.16512, "ask": 1.16518, "last": 0.0, "volume": 0,
    "flags": 6, "ts_msc": 1760926800417, "digits": 5, "point": 0.00001, "spread": 0.00006,
    "meta": {"ea": "PDC", "ver": "1.65", "src": "tick", "acct": 12345, "srv": "Broker-Demo", "build": 3850},
}  # fmt: skip

_EXPORTED_EXAMPLE: Final = {
    "symbol": "EURUSD", "ts": 1760926800417, "timeframe": "tick", "open": 1.16512, "high": 1.16518, "low": 1.16512,
    "close": 0.0, "volume": 0, "kind": "tick", "meta": _TICK_EXAMPLE,
}  # fmt: skip

_BAR_EXAMPLE: Final = {
    "ts": "2025-10-20T02:20:00Z", "symbol": "EURUSD", "timeframe": "M1", "open": 1.16512, "high": 1.1652,
    "low": 1.1651, "close": 1.16515, "volume": 42, "spread": 6,
}  # fmt: skip

_TAKEN_EXAMPLE: Final = {"ok": True, "received": 1, "inserted": 1, "duplicates": 0, "errors": 0, "total": 1}
_DETAILS_EXAMPLE: Final = [{"index": 2, "field": "symbol", "message": "missing"}]

_TAKEN: Final = {"$ref": "#/components/schemas/Taken"}
_REFUSED: Final = {"$ref": "#/components/schemas/Refused"}


def _json(schema: object, example: object) -> dict[str, Any]:
    return {"application/json": {"schema": schema, "example": example}}


def _refusal(description: str, code: str, **more: object) -> dict[str, Any]:
    return {"description": description, "content": _json(_REFUSED, {"error": "…", "code": code} | more)}


_Answers = dict[int | str, dict[str, Any]]

#: Answers of both routes of ticks and bars.
ANSWERS: Final[_Answers] = {
    200: {"description": "Everything is accepted and confirmed by Kafka.", "content": _json(_TAKEN, _TAKEN_EXAMPLE)},
    207: {
        "description": "Some items cannot be used; the others are accepted and confirmed by Kafka.",
        "content": _json(
            _TAKEN,
            _TAKEN_EXAMPLE | {"received": 3, "inserted": 2, "errors": 1, "total": 3, "details": _DETAILS_EXAMPLE},
        ),
    },
    400: _refusal("Nothing in the body can be used.", "VALIDATION_ERROR", details=_DETAILS_EXAMPLE),
    401: _refusal("No API key, a wrong one, or one that has ended.", "UNAUTHORIZED"),
    403: _refusal("The key has no right to send, or not for the source in X-Source.", "FORBIDDEN"),
    413: _refusal("The body is too large: split it and send the parts.", "PAYLOAD_TOO_LARGE"),
    415: _refusal("Another Content-Encoding than gzip.", "UNSUPPORTED_ENCODING"),
    429: _refusal("Too many requests, ticks or new symbols of this key; see Retry-After.", "RATE_LIMITED"),
    503: _refusal("Kafka is away, or too much waits for it; see Retry-After.", "KAFKA_UNAVAILABLE"),
}


_FILLED: Final = {"$ref": "#/components/schemas/FillsTaken"}

#: Answers of the route of reports.
FILLS_ANSWERS: Final[_Answers] = ANSWERS | {
    200: {"description": "All reports are confirmed by Kafka.", "content": _json(_FILLED, {"ok": True, "received": 1})},
    207: {
        "description": "Some items cannot be used; the others are confirmed by Kafka.",
        "content": _json(_FILLED, {"ok": True, "received": 3, "details": _DETAILS_EXAMPLE}),
    },
}


def _forms(key: str, item: dict[str, Any]) -> dict[str, Any]:
    items = {"type": "array", "items": item}
    wrapper = {
        "type": "object",
        "required": [key],
        "properties": {
            key: items,
            "utc_offset_s": {"type": "integer", "description": "seconds that the sender's clock is ahead of UTC"},
        },
    }
    return {"anyOf": [wrapper, items, item]}


_HEADERS: Final = (
    ("X-Source", "name of the feed; only with a key that may speak for any source"),
    ("X-Dry-Run", "1: answer as always, with the source that the ticks would get, and store nothing"),
    ("X-Trace-Id", "taken into logs and record headers"),
    ("traceparent", "W3C trace context; the record headers carry it on"),
)
_HEADERS_OF_TICKS: Final = (
    (CAN_FILL, "ticks: the answer asks for ranges of which ticks are missing, if there are any"),
    (FILL, "ticks: these are of such a range"),
)


def _operation(schema: dict[str, Any], examples: dict[str, object], *more_headers: tuple[str, str]) -> dict[str, Any]:
    return {
        "security": [{"ApiKey": []}, {"Bearer": []}],
        "parameters": [
            {
                "name": name, "in": "header", "required": False, "schema": {"type": "string", "maxLength": 64},
                "description": description,
            }
            for name, description in (*_HEADERS, *more_headers)
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": schema,
                    "examples": {name: {"value": value} for name, value in examples.items()},
                }
            },
        },
    }  # fmt: skip


#: POST /ingest/tick.
TICK_OPERATION: Final = _operation(
    _forms("ticks", _TICK),
    {
        "EA": {"ticks": [_TICK_EXAMPLE]},
        "EA with the offset of its clock": {"utc_offset_s": 7200, "ticks": [_TICK_EXAMPLE]},
        "exporter": [_EXPORTED_EXAMPLE],
        "one tick": {"time": "2025-10-20T02:20:00.417Z", "symbol": "EURUSD", "bid": 1.16512, "ask": 1.16518},
    },
    *_HEADERS_OF_TICKS,
)

#: POST /ingest.
BAR_OPERATION: Final = _operation(
    _forms("items", {"anyOf": [_BAR, _TICK]}), {"bars": {"items": [_BAR_EXAMPLE]}, "array": [_BAR_EXAMPLE]}
)

_RANGE: Final = {"symbol": "EURUSD", "from": 1_760_926_800_000, "to": 1_760_930_400_000}

#: POST /fills.
FILLS_OPERATION: Final = _operation(
    {
        "type": "object",
        "properties": {
            "fills": {"type": "array", "items": {"$ref": "#/components/schemas/PostedFill"}},
            "sessions": {"type": "array", "items": {"$ref": "#/components/schemas/PostedSession"}},
            "utc_offset_s": {"type": "integer", "description": "seconds that the broker's clock is ahead of UTC"},
        },
    },
    {
        "all ticks are sent": {"fills": [_RANGE | {"ticks": 1234}]},
        "the broker has none": {"fills": [_RANGE | {"ticks": 0}]},
        "it cannot be read": {"fills": [_RANGE | {"error": "CopyTicksRange: 4401"}]},
        "hours of trading": {"utc_offset_s": 7200, "sessions": [{"symbol": "EURUSD", "day": 1, "from": 5, "to": 1435}]},
    },
)

_POSTED: Final = (PostedTick, PostedBar, PostedFill, PostedSession, FillsTaken, Taken, Refused)
_, _SCHEMAS = schema_components(_POSTED, ref_template="#/components/schemas/{name}")

#: What the routes refer to, and how a request says who it is.
COMPONENTS: Final[dict[str, dict[str, Any]]] = {
    "schemas": _SCHEMAS,
    "securitySchemes": {
        "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "Bearer": {"type": "http", "scheme": "bearer"},
    },
}
