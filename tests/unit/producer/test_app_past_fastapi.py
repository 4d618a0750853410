"""A request that goes past FastAPI is answered, and published, as one that goes through it."""

import gzip
import json

import httpx
import pytest

from producer.app import create_app
from runtime.batches import Record
from runtime.settings import load_settings
from runtime.telemetry import TRACEPARENT, trace_id_of
from tests.unit.producer.conftest import KEY, new_settings
from tests.unit.producer.gateway import InMemoryGateway

TICK = {"symbol": "EURUSD", "time_msc": 1_760_926_800_417, "bid": 1.1, "ask": 1.2}
BAR = {
    "symbol": "EURUSD", "ts": 1_760_926_800_000, "timeframe": "M1", "open": 1, "high": 2, "low": 1, "close": 2,
    "volume": 9,
}  # fmt: skip

#: Without one each way would begin a trace of its own.
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class _Broken(InMemoryGateway):
    async def publish(self, records: object) -> None:
        raise RuntimeError("a bug")


def _body(value: object) -> bytes:
    return json.dumps(value).encode()


async def _answered(root_path: str, gateway: InMemoryGateway, method: str, path: str, **request: object) -> object:
    """Status, headers and body; with a root path FastAPI's own route answers."""
    app = create_app(new_settings(max_tick_body_bytes=10_000), gateway=gateway)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://producer") as client:
        response = await client.request(method, path, **request)  # type: ignore[arg-type]
    return response.status_code, response.headers.multi_items(), response.content


def _comparable(records: list[Record]) -> list[object]:
    """Everything but the time of receipt and the id of the step, which no two requests share."""

    def plain(record: Record) -> object:
        value = json.loads(record.value)
        if isinstance(value, dict):
            value.pop("received", None)
        headers = [header for header in record.headers if header[0] != TRACEPARENT]
        return record.topic, record.key, value, headers, trace_id_of(record.headers)

    return [plain(record) for record in records]


@pytest.mark.parametrize("path", ["/ingest/tick", "/ingest"])
@pytest.mark.parametrize(
    ("body", "headers"),
    [
        pytest.param(_body({"ticks": [TICK]}), {}, id="a tick"),
        pytest.param(_body([TICK, {**TICK, "symbol": ""}]), {}, id="one of two can be used"),
        pytest.param(_body([{}]), {}, id="none can be used"),
        pytest.param(_body({"items": [BAR, TICK]}), {}, id="a bar and a tick"),
        pytest.param(b"{", {}, id="no JSON"),
        pytest.param(b"", {}, id="nothing"),
        pytest.param(_body({"ticks": [TICK] * 200}), {}, id="too large for ticks"),
        pytest.param(gzip.compress(_body(TICK)), {"Content-Encoding": "gzip"}, id="gzip"),
        pytest.param(_body(TICK), {"Content-Encoding": "br"}, id="another encoding"),
        pytest.param(_body(TICK), {"X-API-Key": "wrong"}, id="a wrong key"),
        pytest.param(_body(TICK), {"X-Source": "Other"}, id="another source"),
    ],
)
async def test_past_fastapi_as_through_it(path: str, body: bytes, headers: dict[str, str]) -> None:
    # Arrange
    sent = {"X-API-Key": KEY, "X-Trace-Id": "trace", TRACEPARENT: TRACE} | headers
    direct, through = InMemoryGateway(), InMemoryGateway()

    # Act
    answers = [
        await _answered(root, gateway, "POST", path, content=body, headers=sent)
        for root, gateway in (("", direct), ("/mounted", through))
    ]

    # Assert
    assert answers[0] == answers[1]
    if body != b"{":
        assert _comparable(direct.records) == _comparable(through.records)


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "OPTIONS"])
async def test_other_methods_are_fastapis(method: str) -> None:
    answers = [await _answered(root, InMemoryGateway(), method, "/ingest/tick") for root in ("", "/mounted")]
    assert answers[0] == answers[1]


async def test_a_bug_is_answered_alike() -> None:
    sent = {"X-API-Key": KEY, "X-Trace-Id": "trace"}
    answers = [
        await _answered(root, _Broken(), "POST", "/ingest/tick", content=_body(TICK), headers=sent)
        for root in ("", "/mounted")
    ]
    assert answers[0] == answers[1]


def test_the_documentation_has_both_routes() -> None:
    paths = create_app(load_settings(api_keys={"*": KEY}), gateway=InMemoryGateway()).openapi()["paths"]
    assert {"/ingest", "/ingest/tick"} <= paths.keys()
