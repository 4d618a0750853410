"""The HTTP side of the contract: what a request says beside its items, and what is answered.

A request names its route, its key, its source, and who sends it: an EA says so in its User-Agent and in the `meta` of
its items. It is accepted, accepted in part, or refused.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from marketdata.contract.fields import FOREIGN_LETTERS, MAX_SOURCE, name_of

TICKS_ROUTE: Final = "/ingest/tick"
BARS_ROUTE: Final = "/ingest"
FILLS_ROUTE: Final = "/fills"

_SLASHES: Final = re.compile("/{2,}")

#: What a client that speaks through a proxy writes before the path.
_SERVER_BEFORE_PATH: Final = re.compile("^https?://[^/]*", re.IGNORECASE)


def route_of(path: str) -> str:
    """The path in lower case, without trailing or repeated slashes, and without a server's name before it."""
    if path in (TICKS_ROUTE, BARS_ROUTE):
        return path
    return _SLASHES.sub("/", _SERVER_BEFORE_PATH.sub("", path)).rstrip("/").lower() or "/"


#: What is taken of the headers of a request, and would mean another thing by its other value.
_SAID_ONCE: Final = (b"x-source", b"x-api-key", b"authorization", b"content-encoding", b"x-dry-run")


def check_said_once(headers: Mapping[bytes, bytes], pairs: Sequence[tuple[bytes, bytes]]) -> None:
    """Refuse a request whose headers say two things where only one can count.

    Args:
        headers: with lower-case names, as `pairs` has them in ASGI.
        pairs: all that came.

    Raises:
        Refusal: 400.
    """
    if len(headers) == len(pairs):
        return
    for said in _SAID_ONCE:
        if len({value.strip() for name, value in pairs if name == said}) > 1:
            raise Refusal(400, "HEADER_TWICE", f"the header {said.decode()} stands twice, with different values")


def key_in(headers: Mapping[bytes, bytes]) -> bytes:
    """The key in `X-API-Key` or `Authorization: Bearer`, or nothing.

    Args:
        headers: with lower-case names, as in ASGI.
    """
    if key := headers.get(b"x-api-key", b"").strip():
        return key
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def source_in(headers: Mapping[bytes, bytes]) -> str | None:
    """The source that `X-Source` names, in UTF-8 or Windows-1252; None when it is missing, empty or `*`.

    Raises:
        Refusal: 400 when no source can have that name. It is about this request, not about the key.
    """
    given = headers.get(b"x-source", b"").strip()
    if given in (b"", b"*"):  # what keys call any source is the name of none
        return None
    source = None if FOREIGN_LETTERS.search(given) else name_of(given, MAX_SOURCE)
    if source is None:
        raise Refusal(400, "INVALID_SOURCE", f"X-Source must be 1 to {MAX_SOURCE} printable characters in UTF-8")
    return source


class Right(StrEnum):
    """What a key may do."""

    #: Send ticks and bars of its own source.
    INGEST = "ingest"
    #: Read the dashboard.
    READ = "read"
    #: Both, for every source.
    ADMIN = "admin"


def is_dry_run(headers: Mapping[bytes, bytes]) -> bool:
    """Whether `X-Dry-Run` asks for the answer only, without storing anything."""
    asked = headers.get(b"x-dry-run")
    return asked is not None and asked.strip().lower() not in (b"", b"0", b"false")


#: A sender that can fill what is wanted says so, and what is sent for that: `X-Can-Fill: ticks`, `X-Fill: ticks`.
CAN_FILL: Final = "X-Can-Fill"
FILL: Final = "X-Fill"
FILLS_TICKS: Final = "ticks"


def says_ticks(said: bytes) -> bool:
    """Whether `X-Can-Fill` or `X-Fill` has a value that is known."""
    return said.strip().lower() == FILLS_TICKS.encode()


def source_header(source: str | None) -> dict[str, str]:
    """The header that `source_in` reads, in UTF-8; none for a sender that names no source."""
    return {} if source is None else {"X-Source": source}


#: A User-Agent: `DataCollectorPRO/PDC/1.65 (Account:12345; Server:Broker-Demo; Build:3850; Symbols:28; trace_id:0f3a)`.
_SERVER_OF_AGENT: Final = re.compile(rb"[(; ]Server:([^;)]{1,256})", re.IGNORECASE)
_ACCOUNT_OF_AGENT: Final = re.compile(rb"[(; ]Account:\s?([\w*.-]{1,64})", re.IGNORECASE)
_BUILD_OF_AGENT: Final = re.compile(rb"[(; ]Build:\s?(\d{1,10})", re.IGNORECASE)
_PROGRAM_OF_AGENT: Final = re.compile(rb"\s*([^\s(]{1,64})")

#: `meta`: {"ea":"PDC","ver":"1.65","src":"tick","acct":12345,"srv":"Broker-Demo","build":3850}.
_SERVER_OF_META: Final = re.compile(rb'"srv"\s?:\s?"((?:[^"\\]|\\.){1,256})"')
_ACCOUNT_OF_META: Final = re.compile(rb'"acct"\s?:\s?(?!null\b)"?([\w*.-]{1,64})')
_BUILD_OF_META: Final = re.compile(rb'"build"\s?:\s?"?(\d{1,10})')
_EA_OF_META: Final = re.compile(rb'"ea"\s?:\s?"((?:[^"\\]|\\.){1,64})"')
_VERSION_OF_META: Final = re.compile(rb'"ver"\s?:\s?"((?:[^"\\]|\\.){1,64})"')

#: What MQL leaves around a text.
_AROUND: Final = b" \t\r\n\0"

#: How far into a body `meta` is looked for, and how long one is read (bytes).
_SEARCHED_BYTES: Final = 4096
_META_BYTES: Final = 1024

#: The part of a User-Agent that differs in every request.
_CHANGING: Final = b"trace_id:"

#: Maximum number of cached senders (entries).
_CACHED_SENDERS: Final = 1_024


class Sender(NamedTuple):
    """What a sender states about itself; empty where it states nothing."""

    #: The broker's server.
    server: str = ""
    #: The trading account as it comes: a number, or what an EA makes of it so that it need not leave the PC.
    account: str = ""
    #: The build of the terminal.
    build: str = ""
    ea: str = ""
    version: str = ""


#: A sender that states nothing about itself.
NOBODY: Final = Sender()


def sender_in(headers: Mapping[bytes, bytes], body: bytes) -> Sender:
    """The sender of a request.

    Server and account are those of the User-Agent, else of the `meta` of its first items. EA, version and build are
    those of `meta`, because a relay forwards what an EA wrote under its own User-Agent.

    Args:
        headers: with lower-case names, as in ASGI.
        body: as it came.
    """
    return _sender(headers.get(b"user-agent", b"").partition(_CHANGING)[0], _meta_in(body))


def agent_header(program: str, server: str | None, account: str | None) -> dict[str, str]:
    """A User-Agent in which `sender_in` finds server and account, for a program that forwards what others sent."""
    said = [f"{name}:{value}" for name, value in (("Server", server), ("Account", account)) if value]
    return {"User-Agent": f"{program} ({'; '.join(said)})"} if said else {}


def _meta_in(body: bytes) -> bytes:
    """The first `meta` that names a server, else the first one; senders write the same in each of their items."""
    inside = body.find(b'"srv"', 0, _SEARCHED_BYTES)
    begin = body.rfind(b"{", 0, inside) if inside >= 0 else body.find(b'"meta"', 0, _SEARCHED_BYTES)
    if begin < 0:
        return b""
    end = body.find(b"}", max(begin, inside), begin + _META_BYTES)
    return body[begin : end if end >= 0 else begin + _META_BYTES]


@lru_cache(_CACHED_SENDERS)
def _sender(agent: bytes, meta: bytes) -> Sender:
    ea, version = _found(_EA_OF_META, meta), _found(_VERSION_OF_META, meta)
    if not ea:
        program, _, version = _found(_PROGRAM_OF_AGENT, agent).rpartition("/")
        ea, version = (program, version) if program else (version, "")
    return Sender(
        server=_found(_SERVER_OF_AGENT, agent) or _found(_SERVER_OF_META, meta),
        account=_found(_ACCOUNT_OF_AGENT, agent) or _found(_ACCOUNT_OF_META, meta),
        build=_found(_BUILD_OF_META, meta) or _found(_BUILD_OF_AGENT, agent),
        ea=ea,
        version=version,
    )


def _found(pattern: re.Pattern[bytes], text: bytes) -> str:
    found = pattern.search(text)
    if found is None:
        return ""
    said = found[1]
    if b"\\" in said:
        # Python's json escapes what is not ASCII, PHP's every slash.
        with suppress(msgspec.MsgspecError, ValueError):
            said = msgspec.json.decode(b'"%b"' % said, type=str).encode()
    return name_of(said.strip(_AROUND), MAX_SOURCE) or ""


#: More of them would not help the reader, and a body can hold a hundred thousand.
MAX_DETAILS: Final = 100


class Detail(Struct, gc=False):
    """What is wrong with one item of a body."""

    #: Position of the item in the body, from 0.
    index: int
    field: str
    message: str


class Refusal(Exception):
    """An error answer to the request, raised wherever the error is found.

    `retry_after_seconds` becomes the header Retry-After.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: Sequence[Detail] | None = None,
        errors: int = 0,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.errors = errors
        self.retry_after_seconds = retry_after_seconds


class Unusable(Refusal):
    """400: the body holds no items; sending the same again will not help."""

    def __init__(self, message: str) -> None:
        super().__init__(400, "VALIDATION_ERROR", message, details=())


class TooLarge(Refusal):
    """413: the sender should split the body and send the parts."""

    def __init__(self, message: str) -> None:
        super().__init__(413, "PAYLOAD_TOO_LARGE", message)


_Details = list[Detail] | UnsetType
_Truncated = Annotated[bool, Meta(description="true when there are more errors than details")] | UnsetType


class Wanted(Struct, frozen=True, gc=False):
    """A range of which ticks are wanted: whole minutes, the end not included (UTC epoch milliseconds)."""

    symbol: str
    from_ms: int = field(name="from")
    to_ms: int = field(name="to")


class Taken(Struct, gc=False, kw_only=True):
    """Every valid item is stored: in Kafka, or in the relay's database when `queued`."""

    ok: bool = True
    queued: bool | UnsetType = UNSET
    received: int
    inserted: int
    #: A resend is recognised where candles are folded, not here.
    duplicates: Annotated[int, Meta(description="always 0: resends are recognised where candles are folded")] = 0
    errors: int
    total: int
    details: _Details = UNSET
    details_truncated: _Truncated = UNSET
    dry_run: Annotated[bool, Meta(description="true when X-Dry-Run asked, and nothing was stored")] | UnsetType = UNSET
    source: Annotated[str, Meta(description="of a dry run: the source that the ticks would get")] | UnsetType = UNSET
    wanted: Annotated[list[Wanted], Meta(description="with X-Can-Fill: the newest first")] | UnsetType = UNSET


class Refused(Struct, gc=False):
    """Nothing was stored."""

    error: str
    code: str
    details: _Details = UNSET
    details_truncated: _Truncated = UNSET


def taken(
    received: int,
    details: Sequence[Detail],
    errors: int,
    *,
    queued: bool = False,
    dry_run_for: str | None = None,
    wanted: Sequence[Wanted] = (),
) -> tuple[int, Taken]:
    """Status and answer: 200 when `errors` is 0, else 207; `details` may be shorter than `errors`.

    `dry_run_for` is the source where the request was a dry run, `wanted` what a sender that can fill is asked for.
    """
    answer = Taken(received=received, inserted=received - errors, errors=errors, total=received)
    if dry_run_for is not None:
        answer.dry_run, answer.source = True, dry_run_for
    if queued:
        answer.queued = True
    if wanted:
        answer.wanted = list(wanted)
    if not errors:
        return 200, answer
    _add_details(answer, details, errors)
    return 207, answer


def refused(refusal: Refusal) -> tuple[Refused, dict[str, str]]:
    """The answer to a refused request, and its headers."""
    answer = Refused(refusal.message, refusal.code)
    if refusal.details is not None:
        _add_details(answer, refusal.details, refusal.errors)
    headers = {}
    if refusal.retry_after_seconds is not None:
        headers["Retry-After"] = str(refusal.retry_after_seconds)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return answer, headers


def none_usable(details: Sequence[Detail], errors: int) -> Refusal:
    """The refusal of a body without a single usable item: 400."""
    return Refusal(400, "VALIDATION_ERROR", f"none of the {errors} items can be used", details=details, errors=errors)


def _add_details(answer: Taken | Refused, details: Sequence[Detail], errors: int) -> None:
    answer.details = list(details[:MAX_DETAILS])
    if errors > len(answer.details):
        answer.details_truncated = True
