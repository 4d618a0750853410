"""Addresses to listen on: `::` is every address of IPv6 and of IPv4, however a library understands it."""

import os
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Final

from marketdata.errors import SettingsError

LOOPBACK: Final = "127.0.0.1"

_BOTH_FAMILIES: Final = "::"
_EVERYWHERE: Final = ("0.0.0.0", _BOTH_FAMILIES, "")  # noqa: S104 - compared with, not listened on


def asyncio_host(host: str) -> str:
    """The host as `loop.create_server` needs it: `::` is IPv6 alone to it, and both families are the empty string."""
    return "" if host == _BOTH_FAMILIES else host


def reachable_host(host: str) -> str:
    """A host that clients on this machine can connect to, for one that a server listens on."""
    return LOOPBACK if host in _EVERYWHERE else host


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url_of(host: str, port: int) -> str:
    """Where a client on this machine reaches a service that listens on `host`."""
    host = reachable_host(host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def cannot_listen(host: str, port: int, why: OSError) -> SettingsError:
    """The error of an address that cannot be listened on."""
    reason = why.strerror or str(why)
    return SettingsError(
        f"cannot listen on {host or '*'} port {port}: {reason}; does this service run already, or another on that port?"
    )


def require_listenable(host: str, port: int) -> None:
    """Check an address before a library, which says it less plainly, listens on it.

    Raises:
        SettingsError: when the address cannot be listened on.
    """
    try:
        ThreadedServer(host, port, BaseHTTPRequestHandler).server_close()
    except OSError as exc:
        raise cannot_listen(host, port, exc) from exc


class ThreadedServer(ThreadingHTTPServer):
    """The standard library's server with a thread for each request, which takes IPv6 addresses as well.

    Raises:
        OSError: when the address cannot be bound.
    """

    daemon_threads = True
    # On Windows it lets two programs have one port.
    allow_reuse_address = os.name != "nt"

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        """Bind to IPv4 as well where the host says so."""
        if self.server_address[0] == _BOTH_FAMILIES:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()
