"""One request through the whole pipeline: its trace in the log lines and, as spans, at a collector."""

import asyncio
import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from runtime import clock
from runtime.settings import Settings
from tests import plainhttp
from tests.conftest import API_KEY
from tests.services import running
from tests.waiting import eventually

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector:
    """Takes OTLP over HTTP as a collector does."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.spans: list[tuple[str, Span]] = []

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = [each.value.string_value for each in resource.resource.attributes if each.key == "service.name"]
            self.spans += [(names[0], span) for scope in resource.scope_spans for span in scope.spans]

    def followed_by(self, service: str) -> set[str]:
        """The traces of the service's spans, and those that they link to."""
        spans = [span for name, span in self.spans if name == service]
        return {span.trace_id.hex() for span in spans} | {link.trace_id.hex() for s in spans for link in s.links}

    def of(self, service: str, trace_id: str) -> list[Span]:
        return [span for name, span in self.spans if name == service and span.trace_id.hex() == trace_id]


@contextmanager
def collecting() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the library's name
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            collector.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


def post(url: str, symbol: str, **headers: str) -> httpx.Response:
    tick = {"ts_msc": clock.now_ms(), "symbol": symbol, "bid": 1.1, "ask": 1.2}
    answer = plainhttp.post(f"{url}/ingest/tick", json=tick, headers={"X-API-Key": API_KEY, **headers})
    assert answer.status_code == 200
    return answer


async def test_a_request_is_followed_to_its_row(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    with collecting() as collector:
        # A pause of two seconds after the first candle, so that the next two requests meet in one.
        changes = {
            "otlp_endpoint": collector.url, "log_level": "DEBUG", "log_format": "json", "emit_interval_seconds": 80.0,
        }  # fmt: skip
        traced = settings.model_copy(update=changes)
        with running(traced, "producer", "stream_app", "sink") as [producer, stream, _]:

            async def joined() -> bool:
                return stream.metric("tickpipe_stream_partitions") > 0

            async def published() -> bool:
                return stream.metric("tickpipe_stream_candles_total") > 0

            await eventually(joined, what="partitions")
            post(producer.url, "EURUSD")
            await eventually(published, what="a candle")
            other = post(producer.url, "EURUSD").headers["X-Trace-Id"]
            await asyncio.sleep(0.3)  # another poll
            post(producer.url, "EURUSD", traceparent=f"00-{TRACE}-{SPAN}-01")

            async def told() -> bool:
                """Each service exports its spans in its own time, and here none is given the time to end."""
                services = ("producer", "stream", "sink")
                return all(collector.of(f"tickpipe-{service}", TRACE) for service in services) and {
                    TRACE,
                    other,
                } <= collector.followed_by("tickpipe-stream")

            await eventually(told, what="the spans of all three")

    [ingest], fold, store = [collector.of(f"tickpipe-{service}", TRACE) for service in ("producer", "stream", "sink")]
    assert (ingest.name, ingest.parent_span_id.hex()) == ("ingest", SPAN)
    assert {span.parent_span_id for span in fold} == {ingest.span_id}
    assert {span.parent_span_id for span in store} <= {span.span_id for span in fold}
    assert all(span.start_time_unix_nano < span.end_time_unix_nano for span in (ingest, *fold, *store))
    # Whether both requests meet in one candle depends on how busy the machine is.
    assert {TRACE, other} <= collector.followed_by("tickpipe-stream")

    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    actions = {line["action"] for line in lines if line.get("trace_id") == TRACE}
    assert {"candle_published", "record_stored"} <= actions


async def test_without_a_collector_the_trace_is_carried_and_nothing_is_loaded(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    logged = settings.model_copy(update={"log_level": "DEBUG", "log_format": "json"})
    with running(logged, "producer", "stream_app", "sink") as [producer, _, sink]:
        post(producer.url, "EURUSD", traceparent=f"00-{TRACE}-{SPAN}-01")

        async def stored() -> bool:
            return sink.metric("tickpipe_sink_rows_total") > 0

        await eventually(stored, what="a row")
        lines: list[dict[str, str]] = []

        async def is_logged() -> bool:
            lines.extend(json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{"))
            actions = {line["action"] for line in lines if line.get("trace_id") == TRACE}
            return {"candle_published", "record_stored"} <= actions

        await eventually(is_logged, what="the trace in the logs of worker and sink")
    assert not [line for line in lines if "opentelemetry" in str(line.get("logger"))]
