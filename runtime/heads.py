"""Heads of requests before any parser has made something of them: what is refused, and what is taken out.

Producer and relay have different parsers, llhttp and h11, and each takes some of what the other refuses. A proxy before
them may be of a third kind, and where two servers see different ends of a request, one is handed what another sender
wrote (request smuggling).

What frames chunks never comes here. There h11 takes what llhttp refuses (blanks behind a size, `;` without a name,
lines that end with LF, trailers that go on or say a length); llhttp takes sizes of more than 20 digits, two spaces
in the first line, and `RTSP/1.0`, which it reports as version 1.0. Each finds the end of such a request where the other
would, or refuses it.
"""

import re
from collections.abc import Iterable
from typing import Final

#: A header in which a client offers another protocol, as Java's does HTTP/2 with each request.
_UPGRADE: Final = re.compile(rb"\r\nUpgrade(?=[ \t]*:)", re.IGNORECASE)


def without_offer(data: bytes) -> bytes:
    """A head whose client offers another protocol, without that; llhttp would take the body for the other protocol."""
    end = data.find(b"\r\n\r\n")
    return data if data.find(b"pgrade", 0, end) < 0 else _UPGRADE.sub(b"\r\nX-Offered", data[:end]) + data[end:]


#: A target: a path, `*`, or a server's name and port before a path, for a client that speaks through a proxy.
_TARGET: Final = re.compile(
    rb"(?:\*|(?:https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?)?/[^#]*)$", re.IGNORECASE
)
_MOST_PORT: Final = 65_535

#: RFC 9110, 9.3, and RFC 5789; llhttp knows some more, h11 takes any word.
_METHODS: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT"})
_VERSIONS: Final = ("1.0", "1.1")

#: What may stand around a value.
_AROUND: Final = b" \t"

#: What no line of a head holds, and what none begins with.
_NO_LINE: Final = re.compile(rb"[ \t]|.*[\x00-\x08\n-\x1f\x7f]", re.DOTALL)

#: llhttp counts no further.
_LENGTH_DIGITS: Final = 19


def is_ambiguous(method: bytes, target: bytes, version: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether two servers may read a head in two ways (RFC 9112, 3, 6.1 and 6.3); h11 and llhttp take some.

    Args:
        headers: with lower-case names, also those that are written twice.
    """
    hosts = lengths = encodings = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            lengths += 1
            length = value.strip(_AROUND)
            if len(length) > _LENGTH_DIGITS or not length.isdigit():
                return True
        elif name == b"transfer-encoding":
            encodings += 1
            if value.strip(_AROUND).lower() != b"chunked":
                return True
    return (
        version not in _VERSIONS
        or hosts > 1
        or (not hosts and version != "1.0")
        or lengths + encodings > 1
        or method not in _METHODS
        or (found := _TARGET.match(target)) is None
        or int(found[1] or 0) > _MOST_PORT
    )


def _is_ambiguous_head(head: bytes) -> bool:
    """The same of a head as it came; lines may end with CR LF alone, and none goes on in the next."""
    first, *lines = head.split(b"\r\n")
    if any(map(_NO_LINE.match, (first, *lines))):
        return True
    method, _, target = first.partition(b" ")
    target, _, version = target.rpartition(b" HTTP/")
    headers = ((name.lower(), value) for name, _, value in (line.partition(b":") for line in lines))
    return is_ambiguous(method, target, version.decode("latin-1"), headers)


#: Where a head ends for h11, which also takes lines that end with LF.
_HEAD_END: Final = re.compile(rb"\n\r?\n")


def is_unreadable(waiting: bytes) -> bool:
    """Whether a head is complete, and ambiguous."""
    waiting = waiting.lstrip(b"\r\n")
    end = _HEAD_END.search(waiting)
    return end is not None and _is_ambiguous_head(waiting[: end.start()].removesuffix(b"\r"))
