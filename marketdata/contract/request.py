"""What a request says beside its body: its route, its key, its source."""

import re
from collections.abc import Mapping
from typing import Final

from marketdata.contract.names import MAX_SOURCE, is_name
from marketdata.contract.refusals import Refusal

TICKS_ROUTE: Final = "/ingest/tick"
BARS_ROUTE: Final = "/ingest"

_SERVER_OF_AGENT: Final = re.compile(rb"[(; ]Server:([^;)]{1,256})")
_SERVER_OF_META: Final = re.compile(rb'"srv"\s?:\s?"([^"\\]{1,256})"')

_ACCOUNT_OF_AGENT: Final = re.compile(rb"Account:\s?(\d{1,20})")
_ACCOUNT_OF_META: Final = re.compile(rb'"acct"\s?:\s?"?(\d{1,20})')

#: How far into a body its first items are looked for the server.
_SEARCHED_BYTES: Final = 4096

_SLASHES: Final = re.compile("/{2,}")


def route_of(path: str) -> str:
    """The path without what does not tell routes apart: letter case, trailing slashes, doubled ones."""
    if path in (TICKS_ROUTE, BARS_ROUTE):
        return path
    return _SLASHES.sub("/", path).rstrip("/").lower() or "/"


def key_in(headers: Mapping[bytes, bytes]) -> bytes:
    """The key in `X-API-Key` or `Authorization: Bearer`, or nothing.

    Args:
        headers: with lower-case names, as in ASGI.
    """
    key = headers.get(b"x-api-key")
    if key is not None:
        return key.strip()
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def source_in(headers: Mapping[bytes, bytes]) -> str | None:
    """The source that `X-Source` names, in UTF-8 or Windows-1252; None when it is missing or empty.

    Raises:
        Refusal: 400 when no source can have that name. It is about this request, not about the key.
    """
    given = headers.get(b"x-source", b"").strip()
    if not given:
        return None
    source = _name(given)
    if source is None:
        raise Refusal(400, "INVALID_SOURCE", f"X-Source must be 1 to {MAX_SOURCE} printable characters")
    return source


def server_in(headers: Mapping[bytes, bytes], body: bytes) -> str | None:
    """The broker's server that an EA names: `Server:` of its User-Agent, else `meta.srv` of its first items."""
    agent = _SERVER_OF_AGENT.search(headers.get(b"user-agent", b""))
    found = agent or _SERVER_OF_META.search(body, 0, _SEARCHED_BYTES)
    return None if found is None else _name(found[1].strip())


def account_in(headers: Mapping[bytes, bytes], body: bytes) -> str | None:
    """The account that an EA names: `Account:` of its User-Agent, else `meta.acct` of its first items."""
    found = _ACCOUNT_OF_AGENT.search(headers.get(b"user-agent", b"")) or _ACCOUNT_OF_META.search(
        body, 0, _SEARCHED_BYTES
    )
    return None if found is None else found[1].decode()


def is_dry_run(headers: Mapping[bytes, bytes]) -> bool:
    """Whether `X-Dry-Run` asks what would be answered, with nothing stored."""
    return headers.get(b"x-dry-run", b"").strip().lower() not in (b"", b"0", b"false")


def source_header(source: str | None) -> dict[str, str]:
    """What `source_in` reads, to be sent in UTF-8; nothing for a sender that names no source."""
    return {} if source is None else {"X-Source": source}


def agent_header(program: str, server: str | None) -> dict[str, str]:
    """A User-Agent in which `server_in` finds the server, for a program that sends on what others sent."""
    return {} if server is None else {"User-Agent": f"{program} (Server:{server})"}


def _name(given: bytes) -> str | None:
    try:
        name = given.decode()
    except UnicodeDecodeError:
        name = given.decode("cp1252", "replace")
    return name if len(name) <= MAX_SOURCE and is_name(name, MAX_SOURCE) else None
