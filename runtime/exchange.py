"""One connection to a server, and requests over it whose answers are bounded in size and time.

A server that is none of ours, or something between, may send bytes for ever or drip one a minute; neither may hold up
the sender or fill its memory.
"""

import os
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

import httpx

from marketdata.contract.http import BARS_ROUTE, TICKS_ROUTE
from marketdata.errors import SettingsError
from runtime.addresses import is_loopback
from runtime.posting import NoAnswer, NotTrusted, Reply

#: The producer waits 10 s for Kafka before it answers 503; less would give up on answers that are on their way.
ANSWER_SECONDS: Final = 30.0
_CONNECT_SECONDS: Final = 5.0

#: A body may take a second more for so many bytes, as the producer allows it.
_SLOWEST_BYTES_PER_SECOND: Final = 64 * 1024

#: Of an answer, at most so much is read: ours have some kilobytes (bytes).
_LONGEST_ANSWER_BYTES: Final = 1024 * 1024

#: Without TLS there is nobody to trust, and to read the list of authorities takes 20 ms.
_TRUSTS_NOBODY: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def trusted_authorities() -> ssl.SSLContext:
    """Trusts whom this machine trusts, in Windows its certificate store, or `SSL_CERT_FILE` alone where that is set.

    httpx by itself trusts a list of its own, in which no company's authority is.

    Raises:
        SettingsError: when that file cannot be read.
    """
    try:
        context = httpx.create_ssl_context()
    except OSError as exc:  # ssl.SSLError is one
        named = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")
        raise SettingsError(
            f"the authorities in {named} cannot be read ({exc}); SSL_CERT_FILE must name a PEM file of certificates"
        ) from exc
    if not (os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")):
        context.load_default_certs()
    return context


class Connection:
    """A client with one persistent connection; a proxy from the environment is not asked for this machine's own ports.

    Args:
        url: any address of the server.
        headers: of every request.
        answer_seconds: how long a request may take from its last byte to the last byte of its answer.

    Raises:
        SettingsError: when `url` is no address, or the environment names authorities or a proxy that cannot be used.
    """

    def __init__(self, url: str, headers: Mapping[str, str], *, answer_seconds: float = ANSWER_SECONDS) -> None:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as exc:
            raise _no_address(url) from exc
        if not parsed.host or parsed.scheme not in ("http", "https"):
            raise _no_address(url)
        self._answer_seconds = answer_seconds
        verify = trusted_authorities() if parsed.scheme == "https" else _TRUSTS_NOBODY
        try:
            self._client = self._new_client(url, headers, verify)
        except (ImportError, ValueError, httpx.InvalidURL) as exc:
            raise SettingsError(
                "the proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names cannot be used: one such as"
                " http://proxy.example.com:3128 can, SOCKS cannot; NO_PROXY names servers that are asked without it"
            ) from exc
        self._line = _Line()

    def _new_client(self, url: str, headers: Mapping[str, str], verify: ssl.SSLContext) -> httpx.Client:
        # An answer that is not packed cannot unpack to more than was read. Names of sources may be of any language.
        return httpx.Client(
            headers=httpx.Headers({"Accept-Encoding": "identity", **headers}, encoding="utf-8"),
            timeout=httpx.Timeout(self._answer_seconds, connect=min(_CONNECT_SECONDS, self._answer_seconds)),
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
            trust_env=not is_this_machine(url),
            verify=verify,
            follow_redirects=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
        self._line.close()

    def post(self, url: str, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
        """The server's answer, whatever it is; `runtime.posting.result_of` tells what it means.

        Raises:
            NoAnswer: when nothing did, or nothing that came to an end.
            SettingsError: when `url` is no address.
        """
        return self._ask("POST", url, body, headers)

    def get(self, url: str) -> Reply:
        """Like `post`."""
        return self._ask("GET", url, b"", None)

    def _ask(self, method: str, url: str, body: bytes, headers: Mapping[str, str] | None) -> Reply:
        seconds = self._answer_seconds + len(body) / _SLOWEST_BYTES_PER_SECOND
        # httpx leaves each request in a cycle with its answer. An iterator lets go of the body when it was sent; bytes
        # would wait for the collector, which comes after a gigabyte of them (`runtime.process.collect_rarely`).
        length = {"Content-Length": str(len(body))} if body else {}
        # The timeouts of httpx begin again with every byte.
        limit = threading.Timer(seconds, self._line.cut)
        limit.daemon = True
        self._line.is_cut = False
        limit.start()
        try:
            with self._client.stream(
                method,
                url,
                content=iter((body,)) if body else b"",
                headers=httpx.Headers({**(headers or {}), **length}, encoding="utf-8"),
                extensions={"trace": self._line.trace},
            ) as response:
                answer = _read(response)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as exc:
            raise _no_address(url) from exc
        except httpx.RequestError as exc:
            if self._line.is_cut:
                raise _endless(url, seconds) from exc
            if (why := _distrust(exc)) is not None:
                raise NotTrusted(
                    f"{url} shows a certificate that is not trusted here ({why}); is this PC's clock right, and does it"
                    " know the authority? SSL_CERT_FILE may name that one's PEM file"
                ) from exc
            raise NoAnswer(f"{url} does not answer ({exc or type(exc).__name__})") from exc
        finally:
            limit.cancel()
        # Where the connection's end is the answer's, cutting it looks like one.
        if self._line.is_cut:
            raise _endless(url, seconds)
        if answer is None:
            self._line.cut()
        return Reply(response.status_code, str(response.url), response.reason_phrase, response.headers, answer or b"")


class _Line:
    """The socket of the current connection, so that another thread can cut an exchange short."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self.is_cut = False

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Hold on to each new connection; httpx tells of it by this name (its extension `trace`)."""
        if event == "connection.connect_tcp.complete":
            opened = info["return_value"].get_extra_info("socket")
            # A second descriptor stays good when TLS takes over the first.
            with self._lock:
                self._close()
                self._socket = opened.dup()

    def cut(self) -> None:
        """Close the connection now; whoever reads from it gets an error."""
        with self._lock:
            self.is_cut = True
            if self._socket is not None:
                with suppress(OSError):  # it is gone already
                    self._socket.shutdown(socket.SHUT_RDWR)
            self._close()

    def close(self) -> None:
        """Give the socket up."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _read(response: httpx.Response) -> bytes | None:
    """The answer as it came; None when it is longer than any of ours."""
    chunks, size = [], 0
    for chunk in response.iter_raw():
        size += len(chunk)
        if size > _LONGEST_ANSWER_BYTES:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def address_of(url: str) -> str:
    """The server's address without a trailing slash, and without a route that was pasted with it."""
    address = url.strip().rstrip("/")
    for route in (TICKS_ROUTE, BARS_ROUTE):
        if address.lower().endswith(route):
            return address[: -len(route)].rstrip("/")
    return address


def is_this_machine(url: str) -> bool:
    """Whether the address is on this machine."""
    return is_loopback(httpx.URL(url).host)


def _distrust(exc: BaseException | None) -> str | None:
    """Why a certificate was not trusted, where that is behind an error."""
    while exc is not None:
        if isinstance(exc, ssl.SSLCertVerificationError):
            return exc.verify_message.rstrip(".")
        exc = exc.__cause__ or exc.__context__
    return None


def _endless(url: str, seconds: float) -> NoAnswer:
    return NoAnswer(f"{url} did not come to the end of an answer in {seconds:.0f} s")


def _no_address(url: str) -> SettingsError:
    return SettingsError(
        f"{url!r} is no address of a producer; use one such as https://ticks.example.com or http://127.0.0.1:18001"
    )
