"""Odd requests, byte by byte, to a producer and a relay that listen: each gets the right answer, and the same of both.

What is right was written down from docs/http.md and RFC 9112 before the servers were asked.
"""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.security.targets import BODY, RELAY, SENDER, TICK, Targets, running_targets
from tests.waiting import wait_until

KEYS = {"producer": SENDER, "relay": RELAY}


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Targets]:
    with running_targets(tmp_path_factory.mktemp("targets")) as running:
        yield running


class Odd(NamedTuple):
    """A request in which KEY stands for the key, which statuses are right, and how many ticks it brings when 200."""

    name: str
    request: bytes
    statuses: set[int]
    ticks: int = 1


TAKEN = {200}
#: What is no HTTP, or can be read in two ways.
NO_HTTP = {400}


def raw(
    *lines: str | bytes, body: bytes = BODY, first: str = "POST /ingest/tick HTTP/1.1", key: str = "X-API-Key: KEY"
) -> bytes:
    """A request with exactly these header lines behind the first line, `Host` and the key."""
    head = [first, "Host: 127.0.0.1", key, *lines]
    return b"\r\n".join(line.encode() if isinstance(line, str) else line for line in head) + b"\r\n\r\n" + body


def sized(body: bytes = BODY, *lines: str | bytes, **parts: str) -> bytes:
    return raw("Connection: close", f"Content-Length: {len(body)}", *lines, body=body, **parts)


def chunks(*sizes: bytes, data: bytes = BODY, trailer: bytes = b"") -> bytes:
    """The body in chunks whose size lines are given; the last takes what is left."""
    written, at = b"", 0
    for line in sizes:
        count = int(line.partition(b";")[0], 16)
        written += line + b"\r\n" + data[at : at + count] + b"\r\n"
        at += count
    return raw("Connection: close", "Transfer-Encoding: chunked", body=written + b"0\r\n" + trailer + b"\r\n")


def one_chunk(size: bytes, *lines: str) -> bytes:
    """The body in one chunk that is said to have this size."""
    return raw("Connection: close", *lines, body=size + b"\r\n" + BODY + b"\r\n0\r\n\r\n")


HOST = b"Host: 127.0.0.1\r\n"
CHUNKED = "Transfer-Encoding: chunked"
WHOLE = b"%x" % len(BODY)
TWO = json.dumps([TICK, TICK | {"symbol": "B"}]).encode()
SEVERAL = gzip.compress(TWO[:9]) + gzip.compress(TWO[9:])
STAYING = ("Connection: keep-alive", f"Content-Length: {len(BODY)}")

REQUESTS = [
    # Chunks and trailers.
    Odd("one chunk", chunks(WHOLE), TAKEN),
    Odd("a chunk for each byte", chunks(*[b"1"] * len(BODY)), TAKEN),
    Odd("sizes in capitals with zeros before", chunks(b"000A", b"%X" % (len(BODY) - 10)), TAKEN),
    Odd("an extension of a chunk", chunks(WHOLE + b';name="value"'), TAKEN),
    Odd("trailers", chunks(WHOLE, trailer=b"X-Checksum: 1\r\nX-Source: Another\r\n"), TAKEN),
    Odd("a key in a trailer", chunks(WHOLE, trailer=b"X-API-Key: KEY\r\n").replace(b"KEY", b"", 1), {401}),
    Odd("a chunk that is longer than it says", one_chunk(b"4", CHUNKED), NO_HTTP),
    *(
        Odd(f"the chunk size {size!r}", one_chunk(size, CHUNKED), NO_HTTP)
        for size in (b"-1", b"0x50", b"", b"+50", b"5_0")
    ),
    # Encodings of the transfer and of the body.
    Odd("chunks that are packed", one_chunk(WHOLE, "Transfer-Encoding: gzip, chunked"), NO_HTTP),
    Odd("chunked in capitals", one_chunk(WHOLE, "TRANSFER-ENCODING: Chunked"), TAKEN),
    Odd("two members of gzip", sized(SEVERAL, "Content-Encoding: gzip"), TAKEN, 2),
    Odd("gzip that nobody announced", sized(gzip.compress(BODY)), TAKEN),
    Odd("gzip by its older name", sized(gzip.compress(BODY), "Content-Encoding: x-GZIP"), TAKEN),
    Odd("deflate with zlib's header", sized(zlib.compress(BODY), "Content-Encoding: deflate"), TAKEN),
    Odd("deflate without", sized(zlib.compress(BODY)[2:-4], "Content-Encoding: Deflate"), TAKEN),
    Odd("gzip that is said to be deflate", sized(gzip.compress(BODY), "Content-Encoding: deflate"), {400}),
    Odd("text that is said to be gzip", sized(BODY, "Content-Encoding: gzip"), {400}),
    Odd("an encoding of none", sized(BODY, "Content-Encoding: identity"), TAKEN),
    Odd("packed twice", sized(gzip.compress(gzip.compress(BODY)), "Content-Encoding: gzip, gzip"), {415}),
    Odd("another type and charset", sized(BODY, "Content-Type: text/plain; charset=utf-16"), TAKEN),
    # Lengths.
    Odd("a length that is too short", raw("Connection: close", "Content-Length: 10"), {400}),
    Odd("no length and no chunks", raw("Connection: close", body=b""), {400}),
    *(
        Odd(f"the length {length!r}", raw("Connection: close", f"Content-Length: {length}"), NO_HTTP)
        for length in (f"+{len(BODY)}", f"{len(BODY)}, {len(BODY) + 1}", "1e2", f"{len(BODY)}.0", "９", "")
    ),
    Odd("a length of 20 digits", raw("Connection: close", "Content-Length: 99999999999999999999"), NO_HTTP),
    Odd("a length between spaces", raw("Connection: close", f"Content-Length: \t {len(BODY)} "), TAKEN),
    Odd("two lengths", raw("Content-Length: 4", f"Content-Length: {len(BODY)}"), NO_HTTP),
    Odd("a length beside chunks", raw("Content-Length: 4", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), NO_HTTP),
    # Header lines.
    Odd("CR in a value", sized(BODY, b"X-Trace-Id: a\rb"), NO_HTTP),
    Odd("LF in a value", sized(BODY, b"X-Trace-Id: a\nX-Other: b"), NO_HTTP),
    Odd("NUL in a value", sized(BODY, b"X-Trace-Id: a\0b"), NO_HTTP),
    Odd("a space before the colon", sized(BODY, key="X-API-Key : KEY"), NO_HTTP),
    Odd("a line that goes on", sized(BODY, b"X-Trace-Id: a\r\n  b"), NO_HTTP),
    Odd("no name", sized(BODY, b": a"), NO_HTTP),
    Odd("no value", sized(BODY, b"X-Trace-Id:"), TAKEN),
    Odd("spaces around the key", sized(BODY, key="x-api-kEy: \t KEY \t"), TAKEN),
    Odd("the key twice, alike", sized(BODY, "X-API-Key: KEY"), TAKEN),
    Odd("the key twice, not alike", sized(BODY, "X-API-Key: other"), {400}),
    Odd("bytes of Windows-1252 in a value", sized(BODY, b"X-Trace-Id: Soci\xe9t\xe9"), TAKEN),
    # Versions, expectations, one request behind the other.
    Odd("HTTP/1.0", sized(first="POST /ingest/tick HTTP/1.0"), TAKEN),
    Odd("HTTP/1.0 that stays", raw(*STAYING, first="POST /ingest/tick HTTP/1.0"), TAKEN),
    Odd("HTTP/2.0 in words", sized(first="POST /ingest/tick HTTP/2.0"), NO_HTTP),
    Odd("no version", b"POST /ingest/tick\r\n\r\n", NO_HTTP),
    Odd("Expect", sized(BODY, "Expect: 100-continue"), {100}),
    Odd("an expectation that nobody knows", sized(BODY, "Expect: the-moon"), TAKEN),
    Odd("an offer of another protocol", sized(BODY, "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"), TAKEN),
    Odd("an empty line before", b"\r\n" + sized(), TAKEN),
    # Methods and targets.
    Odd("the address before the path", sized(first="POST http://127.0.0.1/ingest/tick HTTP/1.1"), TAKEN),
    Odd("a question", sized(first="POST /ingest/tick?x=1&x=%00 HTTP/1.1"), TAKEN),
    Odd("escapes in the path", sized(first="POST /ingest%2Ftick HTTP/1.1"), TAKEN),
    Odd("dots in the path", sized(first="POST /ingest/./tick HTTP/1.1"), {404}),
    Odd("a path of nothing", sized(first="POST * HTTP/1.1"), {404}),
    Odd("a space in the path", sized(first="POST /ingest /tick HTTP/1.1"), NO_HTTP),
    Odd("another method", sized(first="PUT /ingest/tick HTTP/1.1"), {405}),
    *(Odd(f"the method {method}", sized(first=f"{method} /ingest/tick HTTP/1.1"), NO_HTTP)
      for method in ("post", "BREW", "P0ST", "PO$T", "PROPFIND", "M-SEARCH", "PRI", "A" * 30)),
    *(Odd(f"the target {target}", sized(first=f"POST {target} HTTP/1.1"), NO_HTTP)
      for target in ("http://", "http://127.0.0.1", "http://127.0.0.1?/ingest/tick", "http:///ingest/tick",
                     "http://[::1/ingest/tick", "http://127.0.0.1:99999/ingest/tick", "http://a@b/ingest/tick", "http://a_b/ingest/tick")),
    *(Odd(f"the target {target}", sized(first=f"POST {target} HTTP/1.1"), TAKEN)
      for target in ("http://[::1]:18001/ingest/tick", "HTTPS://EA-1.example:1/ingest/tick?a=b@c")),
    # 100, then 200, where `100-continue` is seen in the list; the body does not wait for it.
    Odd("a list of expectations", sized(BODY, "Expect: 100-continue, the-moon"), {100, 200}),
    Odd("the method TRACE", sized(first="TRACE /ingest/tick HTTP/1.1"), {405}),
    *(Odd(f"the protocol {protocol}", sized(first=f"{method} /ingest/tick {protocol}"), NO_HTTP)
      for method, protocol in (("GET", "ICE/1.0"), ("POST", "http/1.1"), ("POST", "HTTPS/1.1"))),
    Odd("Expect in HTTP/1.0", sized(BODY, "Expect: 100-continue", first="POST /ingest/tick HTTP/1.0"), TAKEN),
    # What a proxy and a server may read in two ways (RFC 9112, 6.1 and 6.3), and names of the host.
    Odd("a chunk of nothing before the others", chunks(b"0", WHOLE), NO_HTTP),
    Odd("a length behind chunks", raw(CHUNKED, f"Content-Length: {len(BODY)}", body=b"0\r\n\r\n"), NO_HTTP),
    Odd("chunked twice", one_chunk(WHOLE, "Transfer-Encoding: chunked, chunked"), NO_HTTP),
    Odd("chunked and then another", one_chunk(WHOLE, "Transfer-Encoding: chunked, identity"), NO_HTTP),
    Odd("nearly chunked", one_chunk(WHOLE, "Transfer-Encoding: xchunked"), NO_HTTP),
    Odd("the encoding on a line that goes on", one_chunk(WHOLE, "Transfer-Encoding:\r\n chunked"), NO_HTTP),
    Odd("chunks in HTTP/1.0", chunks(WHOLE).replace(b"HTTP/1.1", b"HTTP/1.0"), TAKEN),
    Odd("the same length twice in a line", raw("Connection: close", f"Content-Length: {len(BODY)}, {len(BODY)}"),
        NO_HTTP),
    Odd("HTTP/1.0 without a host", sized(first="POST /ingest/tick HTTP/1.0").replace(HOST, b""), TAKEN),
    Odd("HTTP/1.1 without a host", sized().replace(HOST, b""), NO_HTTP),
    Odd("two hosts", sized(BODY, "Host: evil.example"), NO_HTTP),
    Odd("another host before the path", sized(first="POST http://evil.example/ingest/tick HTTP/1.1"), TAKEN),
    Odd("lines that end with LF", sized().replace(b"\r\n", b"\n"), NO_HTTP),
    Odd("one line that ends with LF", sized(BODY, b"X-A: b\nX-C: d"), NO_HTTP),
    Odd("the same length twice", raw("Connection: close", *[f"Content-Length: {len(BODY)}"] * 2), NO_HTTP),
    Odd("a length with zeros before", raw("Connection: close", f"Content-Length: 00{len(BODY)}"), TAKEN),
    Odd("the same host twice", sized(BODY, "Host: 127.0.0.1"), NO_HTTP),
    Odd("a first line that goes on", sized().replace(HOST, b" Host: 127.0.0.1\r\n"), NO_HTTP),
    Odd("a line without a colon", sized(BODY, "Nonsense"), NO_HTTP),
    Odd("NUL in a name", sized(BODY, b"X\0A: b"), NO_HTTP),
    *(Odd(f"the character {code} in a value", sized(BODY, b"X-A: a%cb" % code), NO_HTTP) for code in (1, 27, 127)),
    Odd("a tab in a value", sized(BODY, b"X-A: a\tb"), TAKEN),
    Odd("chunks and their length", raw(f"Content-Length: {len(BODY)}", CHUNKED,
        body=WHOLE + b"\r\n" + BODY + b"\r\n0\r\n\r\n"), NO_HTTP),
    Odd("chunked on two lines", one_chunk(WHOLE, CHUNKED, CHUNKED), NO_HTTP),
    Odd("an encoding of nothing", sized(BODY, "Transfer-Encoding:"), NO_HTTP),
    *(Odd(version, sized(first=f"POST /ingest/tick {version}"), NO_HTTP)
      for version in ("HTTP/1.2", "HTTP/0.9", "http/1.1", "HTTP/1.10", "HTTP/01.1")),
    *(Odd(f"the target {target}", sized(first=f"POST {target} HTTP/1.1"), NO_HTTP)
      for target in ("ingest/tick", "\\ingest\\tick", "ftp://127.0.0.1/ingest/tick", "/ingest/tick#a")),
    # What one of the parsers takes and the other does not; the end is the same for both.
    *(Odd(f"the chunk size {size!r}", one_chunk(size, CHUNKED), TAKEN | NO_HTTP)
      for size in (WHOLE + b" ", WHOLE + b"\t", WHOLE + b";", WHOLE + b";a\x01", WHOLE.rjust(22, b"0"))),
    *(Odd(f"the trailer {trailer!r}", chunks(WHOLE, trailer=trailer), TAKEN | NO_HTTP)
      for trailer in (b"A: b\r\n c\r\n", b"A: b\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n")),
    Odd("two spaces in the first line", sized(first="POST  /ingest/tick HTTP/1.1"), TAKEN | NO_HTTP),
    # Bodies as other programs write them.
    Odd("UTF-16 with its mark", sized(BODY.decode().encode("utf-16")), TAKEN),
    Odd("UTF-16 the other way round", sized(b"\xfe\xff" + BODY.decode().encode("utf-16-be")), TAKEN),
    Odd("JSON that WebRequest calls a form", sized(BODY, "Content-Type: application/x-www-form-urlencoded"), TAKEN),
    Odd("a NUL behind it, which is counted", sized(BODY + b"\0"), TAKEN),
]  # fmt: skip


#: Where an answer begins; the words of one name HTTP as well.
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


def taken(targets: Targets, target: str) -> int:
    """Ticks so far: each record of the producer has one symbol here, each row of the relay is a tick."""
    if target == "relay":
        return sum(targets.store.counts().by_symbol.values())
    return sum(record.topic == "ticks" for record in targets.gateway.records)


@pytest.mark.parametrize("target", ["producer", "relay"])
@pytest.mark.parametrize("odd", REQUESTS, ids=lambda odd: odd.name)
def test_odd_requests_get_the_right_answer(targets: Targets, odd: Odd, target: str) -> None:
    before = taken(targets, target)

    status, _, _ = targets.ask(target, odd.request.replace(b"KEY", KEYS[target].encode()))

    assert status in odd.statuses
    if status in (100, 200):
        wait_until(lambda: taken(targets, target) == before + odd.ticks, what="what was taken")
    else:
        assert taken(targets, target) == before


@pytest.mark.parametrize("target", ["producer", "relay"])
def test_requests_behind_each_other_are_answered_in_order(targets: Targets, target: str) -> None:
    before = taken(targets, target)
    piece = sized().replace(b"Connection: close\r\n", b"") * 2 + sized(b"[1]")

    answer = targets.exchange(target, piece.replace(b"KEY", KEYS[target].encode()))

    assert [int(part.split(b" ", 1)[0]) for part in answer.split(b"HTTP/1.1 ")[1:]] == [200, 200, 400]
    assert taken(targets, target) == before + 2


@pytest.mark.parametrize("target", ["producer", "relay"])
@pytest.mark.parametrize("odd", REQUESTS, ids=lambda odd: odd.name)
def test_what_follows_an_odd_request_is_a_request_of_its_own(targets: Targets, odd: Odd, target: str) -> None:
    """Or it is not read at all: what one server takes for the body is never the next request of another."""
    staying = odd.request.replace(b"Connection: close\r\n", b"Connection: keep-alive\r\n")
    next_one = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"

    answer = targets.exchange(target, staying.replace(b"KEY", KEYS[target].encode()) + next_one)

    statuses = [status for found in _STATUS.findall(answer) if (status := int(found)) != 100]
    assert 500 not in statuses
    assert len(statuses) <= 2
    if statuses[:1] == [200] and not answer.lower().count(b"connection: close"):
        assert statuses == [200, 200]
    elif len(statuses) == 2:
        assert statuses[1] in (200, 400)
