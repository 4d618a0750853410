"""Reading the body of a request: within its limit, within its time, unpacked."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

from marketdata.contract.refusals import Refusal, TooLarge, Unusable

#: ASGI: the next message of a request.
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

#: A body that takes longer holds a place that others wait for; an EA on a bad line sends 5 MB in less (seconds).
_READ_TIMEOUT_SECONDS: Final = 60.0

#: zlib: 16 for the gzip header, 15 for the largest window.
_GZIP_WINDOW_BITS: Final = 31

#: zlib: no header at all, the largest window. What HTTP calls deflate has zlib's header, but some send it bare.
_BARE_WINDOW_BITS: Final = -15

_PLAIN: Final = (b"", b"identity")
_GZIP: Final = (b"gzip", b"x-gzip")
_DEFLATE: Final = b"deflate"


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], limit_bytes: int) -> bytes:
    """The body, unpacked when it came with `Content-Encoding: gzip` or `deflate`.

    A body that is refused half read does the connection no harm: uvicorn reads the rest away after the answer.

    Args:
        headers: with lower-case names, as in ASGI.
        limit_bytes: for the body as it came and unpacked.

    Raises:
        Refusal: 400 when it is cut off or not packed as it says, 408 when it takes too long, 413 when it is longer
            than the limit, 415 for other encodings.
    """
    encoding = headers.get(b"content-encoding", b"").strip().lower()
    if encoding not in (*_PLAIN, *_GZIP, _DEFLATE):
        raise Refusal(415, "UNSUPPORTED_ENCODING", "the body may be plain, or `Content-Encoding: gzip` or `deflate`")
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and (len(declared) > 18 or int(declared) > limit_bytes):
        raise _too_large(limit_bytes)
    try:
        async with asyncio.timeout(_READ_TIMEOUT_SECONDS):
            body = await _receive_all(receive, limit_bytes)
    except TimeoutError:
        raise Refusal(408, "TIMEOUT", f"the body did not arrive in {_READ_TIMEOUT_SECONDS:.0f} s") from None
    if encoding in _PLAIN:
        return body
    return _unpacked(body, _window_bits(body, encoding), encoding.decode(), limit_bytes)


async def _receive_all(receive: Receive, limit_bytes: int) -> bytes:
    message = await receive()
    first: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body"):
        if len(first) > limit_bytes:
            raise _too_large(limit_bytes)
        return first
    parts, size = [first], len(first)
    while message["type"] == "http.request" and size <= limit_bytes:
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()
        part: bytes = message.get("body", b"")
        parts.append(part)
        size += len(part)
    if size > limit_bytes:
        raise _too_large(limit_bytes)
    raise Unusable("the connection was closed before the body was complete")


def _window_bits(body: bytes, encoding: bytes) -> int:
    if encoding != _DEFLATE:
        return _GZIP_WINDOW_BITS
    # RFC 1950: zlib's header is method 8 and a multiple of 31.
    has_header = len(body) > 1 and body[0] & 0x0F == 8 and int.from_bytes(body[:2]) % 31 == 0
    return zlib.MAX_WBITS if has_header else _BARE_WINDOW_BITS


def _unpacked(body: bytes, window_bits: int, encoding: str, limit_bytes: int) -> bytes:
    unpacker = zlib.decompressobj(window_bits)
    try:
        unpacked = unpacker.decompress(body, limit_bytes + 1)
    except zlib.error:
        raise Unusable(f"Content-Encoding says {encoding}, but the body is not") from None
    if len(unpacked) > limit_bytes:
        raise _too_large(limit_bytes)
    if not unpacker.eof or unpacker.unused_data:
        raise Unusable(f"the {encoding} body is incomplete, or something follows it")
    return unpacked


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(f"the body is longer than {limit_bytes} bytes; split it and send the parts")
