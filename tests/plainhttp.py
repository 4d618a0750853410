"""Requests to services of this machine, as patient as the tests.

They are plain HTTP, for which no certificates are loaded: that takes 30 ms a call.
"""

import socket
import ssl
from functools import partial

import httpx

from tests.waiting import PATIENCE_SECONDS

#: An SSL context that trusts nobody, for `verify=`.
NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

get = partial(httpx.get, verify=NOBODY, timeout=PATIENCE_SECONDS)
head = partial(httpx.head, verify=NOBODY, timeout=PATIENCE_SECONDS)
post = partial(httpx.post, verify=NOBODY, timeout=PATIENCE_SECONDS)


def read_status(connection: socket.socket) -> int:
    """The status of the next answer on a bare connection; the answer is read to its end."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        received = connection.recv(65_536)
        assert received, "the connection was closed without an answer"
        answer += received
    head, _, rest = answer.partition(b"\r\n\r\n")
    [length] = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
    while len(rest) < length:
        rest += connection.recv(65_536)
    return int(head.split()[1])
