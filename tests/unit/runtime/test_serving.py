"""What a connection may take before anybody is known to be behind it; real servers and plain sockets."""

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from runtime import serving
from runtime.serving import HEAD_BYTES, Connections, owner_of, server_config
from tests.waiting import PATIENCE_SECONDS

Dial = Callable[..., Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]

#: With httptools, and with h11, which Windows has.
BOTH = pytest.mark.parametrize("extensions", [True, False], ids=["httptools", "h11"])


async def answer_ok(scope: Any, receive: Any, send: Any) -> None:
    """ASGI: 200 and the size of the body when all of it has come; `/early` is answered before."""
    size, is_whole = 0, scope["path"] == "/early"
    while not is_whole:
        message = await receive()
        size += len(message.get("body", b""))
        is_whole = not message.get("more_body")
    headers = [(b"content-length", b"2"), (b"size", b"%d" % size)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def served(*, extensions: bool = True, limit: int = 100) -> AsyncIterator[int]:
    """A server in this loop; its port."""
    config = server_config(
        answer_ok, "127.0.0.1", 0, graceful_seconds=1, extensions=extensions, max_connections=limit, lifespan="off"
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        running = asyncio.create_task(server.serve([listening]))
        yield listening.getsockname()[1]
        server.should_exit = True
        await running


@pytest.fixture
async def dial() -> AsyncIterator[Dial]:
    """Opens connections that end with the test."""
    opened: list[asyncio.StreamWriter] = []

    async def open_connection(port: int, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, **options)
        opened.append(writer)
        return reader, writer

    yield open_connection
    for writer in opened:
        await close(writer)


async def close(writer: asyncio.StreamWriter) -> None:
    """Close, whoever was first."""
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def told(reader: asyncio.StreamReader) -> bytes:
    """Everything up to the end of the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while part := await asyncio.wait_for(reader.read(4096), PATIENCE_SECONDS):
            received += part
    return received


async def write_all(writer: asyncio.StreamWriter, part: bytes, count: int) -> int:
    """Write the part so often, or until the server closes; how many were written."""
    for number in range(count):
        if writer.transport.is_closing():
            return number
        writer.write(part)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        await asyncio.sleep(0)
    return count


@BOTH
async def test_a_head_of_any_form_is_bounded(dial: Dial, extensions: bool) -> None:
    async with served(extensions=extensions) as port:
        for start, more in (
            (b"POST /x HTTP/1.1\r\n", b"a: b\r\n" * 100),
            (b"POST /x HTTP/1.1\r\na: ", b"b" * 1000),
            (b"POST /", b"x" * 1000),
            (b"", b"G" * 1000),
        ):
            reader, writer = await dial(port)
            writer.write(start)
            assert await write_all(writer, more, 10 * HEAD_BYTES // len(more)) < 10 * HEAD_BYTES // len(more)
            assert (await told(reader))[:12] in (b"HTTP/1.1 431", b"HTTP/1.1 400", b"")


async def test_trailers_and_what_frames_chunks_are_bounded(dial: Dial) -> None:
    async with served() as port:
        for more in (b"a: b\r\n" * 100, b"1;ext=" + b"x" * 500 + b"\r\nb\r\n"):
            reader, writer = await dial(port)
            writer.write(b"POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
            if more.startswith(b"a"):
                writer.write(b"2\r\nok\r\n0\r\n")
            assert await write_all(writer, more, 5_000) < 5_000
            assert await told(reader) == b""


@BOTH
async def test_usual_bodies_are_taken_whatever_their_size_and_pieces(dial: Dial, extensions: bool) -> None:
    async with served(extensions=extensions) as port:
        reader, writer = await dial(port)
        for _ in range(3):
            writer.write(b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
            assert await write_all(writer, b"x" * 1000, 1000) == 1000
            assert b"200 OK" in await reader.readuntil(b"ok")
            writer.write(b"POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
            assert await write_all(writer, (b"40\r\n" + b"x" * 64 + b"\r\n") * 100, 120) == 120
            writer.write(b"0\r\ntrailer: 1\r\n\r\n")
            assert b"200 OK" in await reader.readuntil(b"ok")
        # Requests that come together, more of them than one head may have bytes.
        one = b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n"
        writer.write(one * 2_500)
        for _ in range(2_500):
            await asyncio.wait_for(reader.readuntil(b"ok"), PATIENCE_SECONDS)


@BOTH
async def test_a_head_that_does_not_come_is_not_awaited(
    dial: Dial, extensions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "HEAD_SECONDS", 0.5)
    async with served(extensions=extensions) as port:
        silent, _ = await dial(port)
        slow, slow_writer = await dial(port)
        later, later_writer = await dial(port)
        later_writer.write(b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n")
        await later.readuntil(b"ok")
        # A second request on a connection that was used has no more time than the first.
        for writer in (slow_writer, later_writer):
            writer.write(b"GET /x HTTP/1.1\r\na")
        ended = asyncio.gather(told(silent), told(slow), told(later))
        while not ended.done():
            for writer in (slow_writer, later_writer):
                if not writer.transport.is_closing():
                    writer.write(b"a")
            await asyncio.sleep(0.05)
        assert list(await ended) == [b""] * 3


@BOTH
async def test_a_body_may_take_longer_than_a_head(
    dial: Dial, extensions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "HEAD_SECONDS", 0.2)
    async with served(extensions=extensions) as port:
        reader, writer = await dial(port)
        writer.write(b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\n")
        for _ in range(6):
            writer.write(b"x")
            await asyncio.sleep(0.1)
        assert b"200 OK" in await reader.readuntil(b"ok")
        # What is answered early is read on for a while, so that the answer arrives.
        writer.write(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\n")
        for _ in range(6):
            writer.write(b"x")
            await asyncio.sleep(0.1)
        assert b"200 OK" in await reader.readuntil(b"ok")


POST = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n"
OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEA\r\n\r\n"


@BOTH
@pytest.mark.parametrize("pause_at", [0, len(POST + OFFER)], ids=["at once", "head first"])
async def test_the_offer_of_another_protocol_costs_no_body(dial: Dial, extensions: bool, pause_at: int) -> None:
    async with served(extensions=extensions) as port:
        reader, writer = await dial(port)
        for _ in range(2):
            request = POST + OFFER + b"body"
            writer.write(request[:pause_at])
            await asyncio.sleep(0.05 * bool(pause_at))
            writer.write(request[pause_at:])
            assert b"size: 4\r\n" in await asyncio.wait_for(reader.readuntil(b"ok"), PATIENCE_SECONDS)


@BOTH
@pytest.mark.parametrize("between", [b"\r\n", b"\n", b"\r\n\r\n"])
async def test_a_line_end_around_a_request_is_not_part_of_it(dial: Dial, extensions: bool, between: bytes) -> None:
    async with served(extensions=extensions) as port:
        reader, writer = await dial(port)
        one = POST + b"\r\nbody"
        writer.write(between + one + between + one + between)
        for _ in range(2):
            assert b"size: 4\r\n" in await asyncio.wait_for(reader.readuntil(b"ok"), PATIENCE_SECONDS)
        writer.write(between + one)
        assert b"size: 4\r\n" in await asyncio.wait_for(reader.readuntil(b"ok"), PATIENCE_SECONDS)


@BOTH
async def test_a_sender_that_only_listens_any_more_is_answered(dial: Dial, extensions: bool) -> None:
    async with served(extensions=extensions) as port:
        reader, writer = await dial(port)
        writer.write(POST + b"\r\nbody")
        writer.write_eof()
        assert (await told(reader)).endswith(b"\r\n\r\nok")
        reader, writer = await dial(port)
        writer.write(POST + b"\r\nbo")
        writer.write_eof()
        assert await told(reader) == b""


@BOTH
async def test_what_is_no_http_is_told_the_cure(dial: Dial, extensions: bool) -> None:
    async with served(extensions=extensions) as port:
        reader, writer = await dial(port)
        writer.write(b"\x16\x03\x01\x02\x00\r\n\r\n")
        assert (answer := await told(reader)).startswith(b"HTTP/1.1 400")
        assert b'"code":"NO_HTTP"' in answer
        # A length of four for more bytes: the request is answered, what is behind it ends the connection.
        reader, writer = await dial(port)
        writer.write(POST + b"\r\nbody-and-more\r\n\r\n")
        assert (await told(reader)).startswith(b"HTTP/1.1 200 OK")


async def test_one_address_leaves_room_and_places_are_given_back(dial: Dial) -> None:
    async with served(limit=8) as port:
        for _ in range(3):
            opened = [await dial(port) for _ in range(4)]
            refused, _ = await dial(port)
            answer = await told(refused)
            assert answer.startswith(b"HTTP/1.1 503")
            assert b'"code":"CROWDED"' in answer
            # Another address of this machine.
            reader, writer = await dial(port, local_addr=("127.0.0.2", 0))
            writer.write(b"GET /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert b"200 OK" in await told(reader)
            for _, each in opened:
                await close(each)
            await asyncio.sleep(0.1)


async def test_all_connections_together_are_bounded() -> None:
    bounded = Connections(4)
    assert [bounded.enter(owner) for owner in "AABBC"] == [True, True, True, True, False]
    bounded.leave("A")
    assert [bounded.enter(owner) for owner in "BC"] == [False, True]


def test_the_limit_leaves_descriptors_for_kafka_and_the_database() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert Connections(10).limit == 10
        enough = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert enough == resource.RLIM_INFINITY or enough >= 138
        assert Connections(hard + 1_000).limit == hard - 128
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_connections_count_for_who_owns_the_address() -> None:
    assert owner_of("2001:db8::1") == owner_of("2001:db8::ffff:1") != owner_of("2001:db8:0:1::1")
    assert owner_of("192.0.2.1") == owner_of("::ffff:192.0.2.1") != owner_of("192.0.2.2")
    assert owner_of("") is None
