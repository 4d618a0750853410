"""Answers only reads for names that are this server's own, so that no web page can read it through its reader.

A page may let its own name point at 127.0.0.1 a moment after it was loaded (DNS rebinding); the browser then takes the
relay or the dashboard for the page's own server, and only the header `Host` still tells the truth. Such a name has a
dot in it: addresses, and names without one, cannot be anybody's page on the internet.
"""

import re
from collections.abc import Collection
from ipaddress import ip_address
from socket import gethostname
from typing import Final

import msgspec

from marketdata.contract.answers import Refused
from runtime.request_body import Application, Receive, Scope, Send

_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]/@\s]+)(?::\d{1,5})?")

#: Endings of names that no public DNS gives out: the loopback's, a home network's, a cluster's.
_PRIVATE_ENDINGS: Final = (".localhost", ".local", ".lan", ".home.arpa", ".internal", ".svc", ".cluster.local")


def is_own_name(host: str, allowed: Collection[str]) -> bool:
    """Whether a header `Host` names this server.

    Args:
        host: as it was sent, with or without a port.
        allowed: lower-case names with dots that are this server's as well.
    """
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = found[1].strip("[]").rstrip(".").lower()
    try:
        ip_address(name)
    except ValueError:
        return "." not in name or name.endswith(_PRIVATE_ENDINGS) or name in allowed
    return True


class OwnNames:
    """ASGI: hands on reads for this server's own names, and answers 421 to others."""

    def __init__(self, app: Application, allowed: Collection[str]) -> None:
        """Serve `app`, an ASGI application; `allowed` are names with dots that are this server's besides its own."""
        self._app = app
        self._allowed = frozenset(name.rstrip(".").lower() for name in (*allowed, gethostname()))
        #: Few names are asked for, again and again.
        self._known: set[bytes] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        # What writes is no web page's: a browser says of it where it comes from, and that is refused.
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            # HTTP/1.0 needs no Host; a browser sends one.
            host = next((value for name, value in scope["headers"] if name == b"host"), b"")
            if host and host not in self._known:
                if not is_own_name(host.decode("latin-1"), self._allowed):
                    await self._refuse(host, send)
                    return
                if len(self._known) < 100:
                    self._known.add(host)
        await self._app(scope, receive, send)

    async def _refuse(self, host: bytes, send: Send) -> None:
        name = host[:200].decode("latin-1")
        message = f"this server does not know itself as {name!r}; if it is, list the name in TICKPIPE_ALLOWED_HOSTS"
        body = msgspec.json.encode(Refused(message, "UNKNOWN_HOST"))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 421, "headers": headers})
        await send({"type": "http.response.body", "body": body})
