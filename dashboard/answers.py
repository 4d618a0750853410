"""What all answers share: JSON, refusals and security headers."""

import gzip
from functools import cached_property
from hashlib import blake2b
from typing import Any, Final

import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from marketdata.errors import missing_extra

_encoder: Final = msgspec.json.Encoder()

#: Everything is loaded from this server, and the page has no inline scripts or styles.
#: It has itself in a frame, as its second chart; no other page has.
_SECURITY_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "manifest-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Refusal(Exception):
    """An error answer to a request; `message` says how to correct it."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def response(self) -> Response:
        """The answer: `{"error": …, "code": …}`."""
        return json_response({"error": self.message, "code": self.code}, self.status, self.headers)


def load_pyarrow() -> Any:
    """The module, which is an extra and slow to load.

    Raises:
        Refusal: 406 where it is not installed.
    """
    try:
        import pyarrow  # noqa: PLC0415 - see above
    except ImportError as exc:
        cure = missing_extra("pyarrow", "arrow")
        raise Refusal(406, "ARROW_NOT_INSTALLED", f"on this server {cure}; or ask for json or csv") from exc
    return pyarrow


def encode(content: object) -> bytes:
    """`content` as JSON; aware datetimes as ISO 8601 in UTC."""
    return _encoder.encode(content)


def json_response(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`content` as JSON."""
    return Response(encode(content), status, headers, "application/json")


def cacheable(
    request: Request, content: bytes, media_type: str, *, etag: str | None = None, following: str | None = None
) -> Response:
    """The content, or 304 when the client has it; `etag` spares hashing what never changes.

    `following` is the URL of the next page, if there is one.
    """
    etag = etag or etag_of(content)
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if following:
        headers["Link"] = f'<{following}>; rel="next"'
    if has_current(request.headers, etag):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)


def etag_of(content: bytes) -> str:
    """A weak ETag: the same content is sent compressed or as it is."""
    return f'W/"{blake2b(content, digest_size=12).hexdigest()}"'


class Prepared:
    """Content that is sent often: hashed and compressed once, not for each request."""

    def __init__(self, content: bytes, media_type: str) -> None:
        self.content = content
        self._media_type = media_type

    def answer(self, request: Request) -> Response:
        """The content as the client takes it, or 304 when the client has it."""
        takes_gzip = "gzip" in request.headers.get("accept-encoding", "")
        content = self._compressed if takes_gzip else self.content
        response = cacheable(request, content, self._media_type, etag=self._etag)
        # The middleware that compresses other answers says so of those that it leaves as they are.
        if takes_gzip:
            response.headers["Vary"] = "Accept-Encoding"
        if takes_gzip and response.status_code == 200:
            response.headers["Content-Encoding"] = "gzip"
        return response

    @cached_property
    def _etag(self) -> str:
        return etag_of(self.content)

    @cached_property
    def _compressed(self) -> bytes:
        return gzip.compress(self.content, mtime=0)


def has_current(headers: Headers, etag: str) -> bool:
    """Whether the client has what `etag` names, by the weak comparison of RFC 9110 for If-None-Match."""
    held = [tag.strip() for tag in headers.get("if-none-match", "").split(",")]
    return "*" in held or etag.removeprefix("W/") in [tag.removeprefix("W/") for tag in held]


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for refusals with these statuses."""
    schema = {
        "type": "object",
        "required": ["error", "code"],
        "properties": {"error": {"type": "string"}, "code": {"type": "string"}},
    }
    return {
        status: {"description": "The reason and the cure.", "content": {"application/json": {"schema": schema}}}
        for status in statuses
    }


class SecurityHeaders:
    """ASGI middleware that adds the security headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_SECURITY_HEADERS)
                # Browsers ask again at every visit, which costs a 304: after an update none may run old scripts.
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)
