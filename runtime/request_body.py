"""Reads the body of a request within limits of size and time, unpacked, and bounds what all bodies take together."""

import asyncio
import io
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, Final, Self

from marketdata.contract.http import Refusal, TooLarge, Unusable

#: ASGI: a message, a connection, the next message of a request, the way of an answer, an application.
Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

#: A body must arrive in this time (seconds), and in a second more for each so many bytes: 64 MB at half a megabit a
#: second. A sender that is slower, or has gone, frees its place.
_READ_TIMEOUT_SECONDS: Final = 30.0
_LEAST_BYTES_PER_SECOND: Final = 64 * 1024

#: Bodies that may be on their way at once. Most take less memory than a connection (entries).
_MAX_BODIES: Final = 1_024

#: After how many seconds a sender should try again when bodies take too much.
_RETRY_SECONDS: Final = 2

#: zlib: 16 for the gzip header, 15 for the largest window.
_GZIP_WINDOW_BITS: Final = 31

#: zlib: no header at all, the largest window. What HTTP calls deflate has zlib's header, but some send it bare.
_BARE_WINDOW_BITS: Final = -15

#: How much of a body is unpacked at once, and how much of it may come of that: 0.7 ms.
_PACKED_BYTES: Final = 64 * 1024
_PART_BYTES: Final = 256 * 1024

#: Work on so many bytes waits for a turn. That costs a pass or two of the event loop: a sixth of all the work on a body
#: of 200 ticks, which has 43 kB.
TURN_BYTES: Final = 64 * 1024

#: After a turn that was not short, others have so much of its time (seconds).
_SHORT_SECONDS: Final = 0.005
_OTHERS_SHARE: Final = 0.1

#: RFC 1952: a gzip is one member or several in a row, as appending writers make it. What is left of a packed part is
#: copied for each, so their number is bounded.
_MAX_MEMBERS: Final = 10_000

#: What every gzip begins with, and the method of zlib's header.
_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZLIB_METHOD: Final = b"\x78"

_PLAIN: Final = (b"", b"identity")
_GZIP: Final = (b"gzip", b"x-gzip")
_DEFLATE: Final = b"deflate"
_ENCODINGS: Final = (*_PLAIN, *_GZIP, _DEFLATE)


def patience_seconds(size_bytes: int) -> float:
    """How long so much of a body may take to arrive."""
    return _READ_TIMEOUT_SECONDS + size_bytes / _LEAST_BYTES_PER_SECOND


@asynccontextmanager
async def _one_pass() -> AsyncIterator[None]:
    """The turn of a body that shares nothing with others."""
    yield
    await asyncio.sleep(0)


class Intake:
    """Bounds the bodies of all requests in progress: their number and their bytes.

    One sender may have half of the places, and with more than one body three quarters of the memory: bodies that never
    come, or come slowly, leave room for the others. Work on long bodies is done in turn.

    Args:
        limit_bytes: the largest body; two of them have room.
    """

    def __init__(self, limit_bytes: int, *, max_bodies: int = _MAX_BODIES) -> None:
        self.max_bytes: Final = 2 * limit_bytes
        self.max_bodies: Final = max_bodies
        #: Of all bodies.
        self.bytes = 0
        self.bodies = 0
        #: What the bodies of each sender take.
        self.senders: dict[str, Share] = {}
        self.turn = asyncio.Lock()

    def place(self, sender: str) -> "Place":
        """A place for the body of one request, to be entered.

        Args:
            sender: whom it counts for: the holder of the key, or the address where no key is needed.
        """
        return Place(self, sender)


class Share:
    """What the bodies of one sender take."""

    __slots__ = ("bodies", "bytes", "turn")

    def __init__(self) -> None:
        self.bodies = self.bytes = 0
        self.turn = asyncio.Lock()


class Place:
    """The room of one body in an intake; entered, it is taken."""

    __slots__ = ("_bytes", "_intake", "_sender", "_share")

    def __init__(self, intake: Intake, sender: str) -> None:
        self._intake = intake
        self._sender = sender
        self._bytes = 0

    def __enter__(self) -> Self:
        """Take the place.

        Raises:
            Refusal: 503 when there is none.
        """
        intake = self._intake
        if intake.bodies >= intake.max_bodies:
            raise _crowded("too many bodies are on their way")
        share = intake.senders.get(self._sender)
        if share is None:
            share = intake.senders[self._sender] = Share()
        elif share.bodies >= intake.max_bodies // 2:
            raise _crowded("too many bodies of this sender are on their way")
        share.bodies += 1
        intake.bodies += 1
        self._share = share
        return self

    def __exit__(self, *_: object) -> None:
        intake, share = self._intake, self._share
        intake.bodies -= 1
        intake.bytes -= self._bytes
        share.bodies -= 1
        share.bytes -= self._bytes
        if not share.bodies:
            del intake.senders[self._sender]

    def read(self, receive: Receive, headers: Mapping[bytes, bytes], limit_bytes: int) -> Awaitable[bytes]:
        """See `read_body`; 503 also when other bodies leave no room."""
        return read_body(receive, headers, limit_bytes, self._reserve, self.turn)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn of this body's sender, for some milliseconds of work without `await`.

        A pass of the event loop has one turn, so that a request with one tick waits for no more than that. Senders take
        turns, however many bodies each has.
        """
        async with self._share.turn, self._intake.turn:
            began = time.perf_counter()
            yield
            worked = time.perf_counter() - began
            # `sleep(0)` lets each task do one step. What takes several, such as the question whether Kafka is there,
            # would wait for as many turns, and a server whose answer lies unread for so long is taken for dead.
            await asyncio.sleep(worked * _OTHERS_SHARE if worked >= _SHORT_SECONDS else 0)

    def _reserve(self, count: int) -> None:
        intake, share = self._intake, self._share
        if intake.bytes + count > intake.max_bytes:
            raise _crowded("the bodies of other requests fill the memory")
        if share.bodies > 1 and share.bytes + count > intake.max_bytes * 3 // 4:
            raise _crowded("other bodies of this sender fill its share of the memory")
        intake.bytes += count
        share.bytes += count
        self._bytes += count


async def read_body(
    receive: Receive,
    headers: Mapping[bytes, bytes],
    limit_bytes: int,
    reserve: Callable[[int], None] = lambda _: None,
    turn: Callable[[], AbstractAsyncContextManager[None]] = _one_pass,
) -> bytes:
    """The body, unpacked when it came with `Content-Encoding: gzip` or `deflate`.

    A body that is refused half read does the connection no harm: `runtime.asgi` reads the rest before the answer.

    Args:
        headers: with lower-case names, as in ASGI.
        limit_bytes: for the body as it came and unpacked.
        reserve: called with the number of bytes before they are held; may refuse them.
        turn: entered for each part that is unpacked.

    Raises:
        Refusal: 400 when it is cut off or not packed as it says, 408 when it takes too long, 413 when it is longer
            than the limit, 415 for other encodings.
    """
    encoding = headers.get(b"content-encoding", b"")
    if encoding and (encoding := encoding.strip().lower()) not in _ENCODINGS:
        raise Refusal(415, "UNSUPPORTED_ENCODING", "the body may be plain, or `Content-Encoding: gzip` or `deflate`")
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and (len(declared) > 18 or int(declared) > limit_bytes):
        raise _too_large(limit_bytes)
    # A body that has arrived whole is there at once, and the timer that waiting needs would cost a fifth of all the
    # work on a request with one tick.
    call = receive().__await__()
    first: Message | _Begun
    try:
        first = _Begun(call, next(call))
    except StopIteration as done:
        first = done.value
    if not isinstance(first, _Begun) and _is_last(first):
        body: bytes = first.get("body", b"")
        if len(body) > limit_bytes:
            raise _too_large(limit_bytes)
        reserve(len(body))
    else:
        body = await _receive_in_time(first, receive, limit_bytes, reserve)
    if encoding in _PLAIN:
        # What begins so is no JSON in any case. MQL5's CryptEncode(CRYPT_ARCH_ZIP, …) makes zlib's.
        if body.startswith(_GZIP_MAGIC):
            encoding = _GZIP[0]
        elif body.startswith(_ZLIB_METHOD) and _has_zlib_header(body):
            encoding = _DEFLATE
        else:
            return body
    return await _unpacked(body, _window_bits(body, encoding), encoding.decode(), limit_bytes, reserve, turn=turn)


class _Begun:
    """A call that has run up to its first wait; await it for the rest."""

    __slots__ = ("_steps", "_waits_for")

    def __init__(self, steps: Generator[Any, Any, Message], waits_for: Any) -> None:
        self._steps = steps
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Message]:
        while True:
            try:
                try:
                    sent = yield self._waits_for
                except BaseException as exc:  # the call must hear of it, above all of being cancelled
                    self._waits_for = self._steps.throw(exc)
                else:
                    self._waits_for = self._steps.send(sent)
            except StopIteration as done:
                message: Message = done.value
                return message


def _is_last(message: Message) -> bool:
    return message["type"] == "http.request" and not message.get("more_body")


async def _receive_in_time(
    first: Message | _Begun, receive: Receive, limit_bytes: int, reserve: Callable[[int], None]
) -> bytes:
    try:
        async with asyncio.timeout(patience_seconds(0)) as deadline:
            message = await first if isinstance(first, _Begun) else first
            return await _receive_all(message, receive, limit_bytes, reserve, deadline)
    except TimeoutError:
        raise Refusal(408, "TIMEOUT", "the body did not arrive in time; the connection is too slow, or broke") from None


async def _receive_all(
    message: Message,
    receive: Receive,
    limit_bytes: int,
    reserve: Callable[[int], None],
    deadline: asyncio.Timeout,
) -> bytes:
    started = asyncio.get_running_loop().time()
    # It grows in place and hands out what it holds: joined from its parts, a body would take its size twice.
    body = io.BytesIO()
    size = 0
    while True:
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        reserve(len(part))
        body.write(part)
        if message["type"] != "http.request":
            raise Unusable("the connection was closed before the body was complete")
        if _is_last(message):
            return body.getvalue()
        if not deadline.expired():
            deadline.reschedule(started + patience_seconds(size))
        message = await receive()


def _window_bits(body: bytes, encoding: bytes) -> int:
    if encoding != _DEFLATE:
        return _GZIP_WINDOW_BITS
    return zlib.MAX_WBITS if _has_zlib_header(body) else _BARE_WINDOW_BITS


def _has_zlib_header(body: bytes) -> bool:
    # RFC 1950: method 8, and a multiple of 31.
    return len(body) > 1 and body[0] & 0x0F == 8 and int.from_bytes(body[:2]) % 31 == 0


async def _unpacked(
    body: bytes,
    window_bits: int,
    encoding: str,
    limit_bytes: int,
    reserve: Callable[[int], None],
    *,
    turn: Callable[[], AbstractAsyncContextManager[None]],
) -> bytes:
    unpacker = zlib.decompressobj(window_bits)
    unpacked = io.BytesIO()
    members = 1
    # As much as an EA's batch becomes waits for no turn.
    part_bytes = TURN_BYTES
    for at in range(0, len(body), _PACKED_BYTES):
        packed = body[at : at + _PACKED_BYTES]
        while packed:
            if unpacker.eof:
                members += 1
                if window_bits != _GZIP_WINDOW_BITS or members > _MAX_MEMBERS:
                    raise _not_one(encoding)
                unpacker = zlib.decompressobj(window_bits)
            async with nullcontext() if part_bytes == TURN_BYTES else turn():
                try:
                    part = unpacker.decompress(packed, part_bytes)
                except zlib.error:
                    if members > 1:
                        raise _not_one(encoding) from None
                    raise Unusable(f"the body is said to be {encoding}, but is not") from None
            if unpacked.tell() + len(part) > limit_bytes:
                raise _too_large(limit_bytes)
            reserve(len(part))
            unpacked.write(part)
            packed = unpacker.unconsumed_tail or unpacker.unused_data
            part_bytes = _PART_BYTES
    if not unpacker.eof:
        raise _not_one(encoding)
    return unpacked.getvalue()


def _not_one(encoding: str) -> Unusable:
    return Unusable(f"the {encoding} body is incomplete, or something follows it")


def _crowded(message: str) -> Refusal:
    return Refusal(503, "BACK_PRESSURE", message, retry_after_seconds=_RETRY_SECONDS)


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(f"the body is longer than {limit_bytes} bytes; split it and send the parts")
