"""What a request says beside its items: its route, its key, its source."""

import re
from collections.abc import Mapping
from typing import Final

from marketdata.contract.answers import Refusal
from marketdata.contract.names import MAX_SOURCE, name_of

TICKS_ROUTE: Final = "/ingest/tick"
BARS_ROUTE: Final = "/ingest"

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
    source = name_of(given, MAX_SOURCE)
    if source is None:
        raise Refusal(400, "INVALID_SOURCE", f"X-Source must be 1 to {MAX_SOURCE} printable characters")
    return source


def is_dry_run(headers: Mapping[bytes, bytes]) -> bool:
    """Whether `X-Dry-Run` asks what would be answered, with nothing stored."""
    return headers.get(b"x-dry-run", b"").strip().lower() not in (b"", b"0", b"false")


def source_header(source: str | None) -> dict[str, str]:
    """What `source_in` reads, to be sent in UTF-8; nothing for a sender that names no source."""
    return {} if source is None else {"X-Source": source}
