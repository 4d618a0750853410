"""The OpenAPI of the ingest routes. The schemas are those of the structs that are read and written."""

from typing import Any, Final

from msgspec.json import schema_components

from marketdata.contract.answers import Refused, Taken
from marketdata.contract.bar import PostedBar
from marketdata.contract.tick import PostedTick

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


#: Answers of both routes.
ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "Everything is accepted and confirmed by Kafka.", "content": _json(_TAKEN, _TAKEN_EXAMPLE)},
    207: {
        "description": "Some items cannot be used; the others are accepted and confirmed by Kafka.",
        "content": _json(
            _TAKEN,
            _TAKEN_EXAMPLE | {"received": 3, "inserted": 2, "errors": 1, "total": 3, "details": _DETAILS_EXAMPLE},
        ),
    },
    400: _refusal("Nothing in the body can be used.", "VALIDATION_ERROR", details=_DETAILS_EXAMPLE),
    401: _refusal("No API key, or a wrong one.", "UNAUTHORIZED"),
    403: _refusal("The key may not speak for the source in X-Source.", "FORBIDDEN"),
    413: _refusal("The body is too large: split it and send the parts.", "PAYLOAD_TOO_LARGE"),
    415: _refusal("Another Content-Encoding than gzip.", "UNSUPPORTED_ENCODING"),
    429: _refusal("Too many requests of this key; see Retry-After.", "RATE_LIMITED"),
    503: _refusal("Kafka is away, or too much waits for it; see Retry-After.", "KAFKA_UNAVAILABLE"),
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


def _operation(schema: dict[str, Any], examples: dict[str, object]) -> dict[str, Any]:
    return {
        "security": [{"ApiKey": []}, {"Bearer": []}],
        "parameters": [
            {
                "name": name, "in": "header", "required": False, "schema": {"type": "string", "maxLength": 64},
                "description": description,
            }
            for name, description in (
                ("X-Source", "name of the feed; only with a key that may speak for any source"),
                ("X-Dry-Run", "1: answer as always, with the source that the ticks would get, and store nothing"),
                ("X-Trace-Id", "taken into logs and record headers"),
                ("traceparent", "W3C trace context; the record headers carry it on"),
            )
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
)

#: POST /ingest.
BAR_OPERATION: Final = _operation(
    _forms("items", {"anyOf": [_BAR, _TICK]}), {"bars": {"items": [_BAR_EXAMPLE]}, "array": [_BAR_EXAMPLE]}
)

_, _SCHEMAS = schema_components((PostedTick, PostedBar, Taken, Refused), ref_template="#/components/schemas/{name}")

#: What the routes refer to, and how a request says who it is.
COMPONENTS: Final[dict[str, dict[str, Any]]] = {
    "schemas": _SCHEMAS,
    "securitySchemes": {
        "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "Bearer": {"type": "http", "scheme": "bearer"},
    },
}
