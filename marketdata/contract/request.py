"""What a request says beside its items: its route, its key, its source, its sender."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from marketdata.contract.answers import Refusal
from marketdata.contract.names import MAX_SOURCE, is_name

TICKS_ROUTE: Final = "/ingest/tick"
BARS_ROUTE: Final = "/ingest"

_SERVER_OF_AGENT: Final = re.compile(rb"[(; ]Server:([^;)]{1,256})")
_SERVER_OF_META: Final = re.compile(rb'"srv"\s?:\s?"([^"\\]{1,256})"')

_ACCOUNT_OF_AGENT: Final = re.compile(rb"Account:\s?(\d{1,20})")
_ACCOUNT_OF_META: Final = re.compile(rb'"acct"\s?:\s?"?(\d{1,20})')

#: How far into a body its first items are looked for the server.
_SEARCHED_BYTES: Final = 4096

#: Names and User-Agents that are remembered once they are read; each sender repeats its own (entries).
_REMEMBERED: Final = 1024

_SLASHES: Final = re.compile("/{2,}")


class Sender(NamedTuple):
    """The broker's server and the account that an EA names, as far as it does."""

    server: str | None = None
    account: str | None = None


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


def sender_in(headers: Mapping[bytes, bytes], body: bytes) -> Sender:
    """Who sends: `Server:` and `Account:` of the User-Agent, else `meta.srv` and `meta.acct` of the first items."""
    agent = headers.get(b"user-agent")
    server, account = Sender() if agent is None else _sender_of(agent)
    # A plain search for the field's name is several times as fast as the pattern, and most bodies lack it.
    if server is None and (at := body.find(b'"srv"', 0, _SEARCHED_BYTES)) >= 0:
        found = _SERVER_OF_META.search(body, at, _SEARCHED_BYTES)
        server = None if found is None else _name(found[1].strip())
    if account is None and (at := body.find(b'"acct"', 0, _SEARCHED_BYTES)) >= 0:
        found = _ACCOUNT_OF_META.search(body, at, _SEARCHED_BYTES)
        account = None if found is None else found[1].decode()
    return Sender(server, account)


@lru_cache(_REMEMBERED)
def _sender_of(agent: bytes) -> Sender:
    server, account = _SERVER_OF_AGENT.search(agent), _ACCOUNT_OF_AGENT.search(agent)
    return Sender(
        None if server is None else _name(server[1].strip()), None if account is None else account[1].decode()
    )


def source_header(source: str | None) -> dict[str, str]:
    """What `source_in` reads, to be sent in UTF-8; nothing for a sender that names no source."""
    return {} if source is None else {"X-Source": source}


def agent_header(program: str, server: str | None) -> dict[str, str]:
    """A User-Agent in which `sender_in` finds the server, for a program that sends on what others sent."""
    return {} if server is None else {"User-Agent": f"{program} (Server:{server})"}


@lru_cache(_REMEMBERED)
def _name(given: bytes) -> str | None:
    try:
        name = given.decode()
    except UnicodeDecodeError:
        name = given.decode("cp1252", "replace")
    return name if len(name) <= MAX_SOURCE and is_name(name, MAX_SOURCE) else None
