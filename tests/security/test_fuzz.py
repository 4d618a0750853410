"""Whatever comes, each reader takes it or refuses it with an error of its own: bodies, records, files, routes.

`make fuzz` runs these for some minutes; `make test` draws a few examples of each.
"""

import io
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from dashboard.app import Parts
from dashboard.app import create_app as create_dashboard
from marketdata.candle import check_candle
from marketdata.errors import InvalidCandle, InvalidFrame, TickpipeError
from marketdata.wire import decode_candle, decode_frame, encode
from relay.api import Api
from relay.store import Store
from runtime.settings import load_settings
from tests.conftest import fewer_examples
from tests.ports import free_port
from tests.security.targets import BODY
from tests.unit.producer.conftest import ANY_KEY, new_bench
from tests.unit.relay.test_api import call
from tickpipe.backup.archive import ArchiveReader, ArchiveWriter, DatabasePart, Manifest
from tickpipe.backup.topics import BlockWriter, LogRecord, read_records
from tickpipe.sending.columnfile import BadLine, kind_of
from tickpipe.sending.dialects import Kind, Said
from tickpipe.sending.history import BarFile, TickFile

#: A record as it is in Kafka, from which the fuzzers of records begin.
FRAME = {
    "v": 1, "source": "S", "symbol": "EURUSD", "mode": "bid", "point": 0.00001, "request": "r",
    "received": 1760926800500, "ticks": [[1760926800417, 1.1, 1.2, 0.0, 0.0, 6]],
}  # fmt: skip
CANDLE = {
    "v": 1, "source": "S", "symbol": "EURUSD", "ts": 1760926800000, "open": 1.1, "high": 1.2, "low": 1.0, "close": 1.1,
    "volume": 1, "real_volume": 0.0, "spread": 2, "first_tick": 1760926800417, "last_tick": 1760926800417, "log": "l",
    "offsets": [[0, 0, 0]], "closed": False, "received": 1760926800500, "emitted": 1760926800600,
}  # fmt: skip

#: Also what JSON can write and a double or a database cannot hold.
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=40),
        st.sampled_from([1e308, 5e-324, -0.0, 253402300800000, "\x1b[2J", "x" * 100]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=8,
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, good: bytes) -> bytes:
    """Good bytes with some of them changed, left out or repeated."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 2)):
            case 0:
                data[at : at + 1] = draw(st.binary(max_size=4))
            case 1:
                del data[at : at + draw(st.integers(1, 40))]
            case _:
                data[at:at] = data[max(0, at - draw(st.integers(1, 40))) : at]
    return bytes(data)


def records(good: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """A record with fields of other values, with other bytes, or of bytes that are none."""
    changes = st.dictionaries(st.sampled_from([*good, "other"]), VALUES, min_size=1, max_size=3)
    changed = changes.map(lambda fields: json.dumps(good | fields).encode())
    return st.one_of(changed, mutated(json.dumps(good).encode()), st.binary(max_size=80))


@given(records(FRAME))
def test_a_record_of_ticks_is_a_frame_or_is_rejected(value: bytes) -> None:
    try:
        frame = decode_frame(value)
    except InvalidFrame:
        return
    assert decode_frame(encode(frame)) == frame


@given(records(CANDLE))
def test_a_record_of_candles_is_a_candle_or_is_rejected(value: bytes) -> None:
    try:
        candle = decode_candle(value)
        check_candle(candle)
    except InvalidCandle:
        return
    assert decode_candle(encode(candle)) == candle


@given(st.one_of(mutated(BODY), st.binary(max_size=200), VALUES.map(lambda value: json.dumps(value).encode())))
async def test_the_producer_answers_whatever_is_posted(body: bytes) -> None:
    bench = new_bench()
    async with bench.client:
        answer = await bench.post("/ingest/tick", body)
    assert answer.status_code in (200, 207, 400)
    assert bool(bench.frames) <= (answer.status_code != 400)


@given(body=st.one_of(mutated(BODY), st.binary(max_size=200), VALUES.map(lambda value: json.dumps(value).encode())))
def test_the_relay_answers_whatever_is_posted(store: Store, body: bytes) -> None:
    status, answer, _ = call(Api(store, load_settings()), body)
    assert status in (200, 207, 400)
    assert status == 400 or answer["inserted"] == answer["received"] - answer["errors"]


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store(tmp_path / "ea.db") as opened:
        yield opened


def _backup() -> bytes:
    database = DatabasePart("plain", (), ())
    manifest = Manifest(
        format=1, tickpipe="0.1.0", created_at=datetime(2026, 1, 1, tzinfo=UTC), database=database, kafka=None,
        members={},
    )  # fmt: skip
    with io.BytesIO() as file:
        with ArchiveWriter(file) as writer:
            with writer.member("ticks") as write:
                blocks = BlockWriter(write)
                blocks.add(LogRecord(0, 1760926800417, b"k", b"v", ()))
                blocks.close()
            writer.finish(manifest)
        return file.getvalue()


def test_the_backup_that_is_damaged_is_a_good_one(tmp_path: Path) -> None:
    path = tmp_path / "backup.zip"
    path.write_bytes(_backup())
    with ArchiveReader(path) as archive:
        assert len(list(read_records(archive.pieces("ticks")))) == 1


@given(content=mutated(_backup()))
def test_a_backup_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "backup.zip"
    path.write_bytes(content)
    with suppress(TickpipeError), ArchiveReader(path) as archive:
        for name in archive.sizes:
            for _ in archive.pieces(name):
                pass


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_blocks_of_records_are_read_or_refused(pieces: list[bytes]) -> None:
    with suppress(TickpipeError):
        list(read_records(pieces))


ROWS = b"timestamp,bid,ask,volume\n" + b"2019-02-04 00:00:01.123,1.14541,1.14555,1.5\n" * 8


@given(content=st.one_of(mutated(ROWS), st.text(max_size=200).map(str.encode)))
def test_a_file_of_rows_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "EURUSD.csv"
    path.write_bytes(content)
    bad: list[BadLine] = []
    with suppress(TickpipeError):
        made = BarFile if kind_of(path, Said()) is Kind.BARS else TickFile
        with made(path, on_bad=bad.append) as file:
            for _ in file:
                pass


def _producer() -> Any:
    return new_bench().client._transport.app  # type: ignore[attr-defined]  # httpx has no public name for it


def _dashboard() -> Any:
    # Nothing listens there: of the routes that read, the refusal is what is documented.
    away = f"127.0.0.1:{free_port()}"
    return create_dashboard(Parts(load_settings(kafka_bootstrap=away, database_url=f"postgresql://a@{away}/b")))


@pytest.mark.parametrize("made", [_producer, _dashboard])
def test_routes_answer_as_their_document_says(made: Callable[[], Any]) -> None:
    import schemathesis  # noqa: PLC0415  # slow to load
    from schemathesis.checks import not_a_server_error  # noqa: PLC0415
    from schemathesis.core.result import Ok  # noqa: PLC0415
    from schemathesis.specs.openapi import checks  # noqa: PLC0415

    must_hold = [
        not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
        checks.response_schema_conformance,
    ]  # fmt: skip
    app = made()

    async def serving(scope: Scope, receive: Receive, send: Send) -> None:
        # For each request the client would start and stop what works in the background.
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await app(scope, receive, send)

    document = schemathesis.openapi.from_asgi("/openapi.json", serving)
    for found in document.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        if operation.path == "/stream":  # it does not end
            continue

        @settings(fewer_examples, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def answers(case: Any) -> None:
            response = case.call(headers={"X-API-Key": ANY_KEY})
            if response.status_code != 503:
                case.validate_response(response, checks=must_hold, headers={"X-API-Key": ANY_KEY})

        answers()
