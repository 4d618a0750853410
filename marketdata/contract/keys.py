"""How a sender shows its key."""

from collections.abc import Mapping


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
