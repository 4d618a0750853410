"""The answers of the HTTP contract: accepted, accepted in part, refused."""

from collections.abc import Sequence
from typing import Final

import msgspec
from starlette.responses import Response

#: More of them would not help the reader, and a body can hold a hundred thousand.
MAX_DETAILS: Final = 100

_encoder: Final = msgspec.json.Encoder()


class Detail(msgspec.Struct, gc=False):
    """What is wrong with one item of a body."""

    #: Position of the item in the body, from 0.
    index: int
    field: str
    message: str


class Refusal(Exception):
    """The request is answered with an error; raised wherever that is found out.

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
    """400: nothing in the body can be used; sending the same again will not help.

    `details` may be shorter than `errors`, as in `taken`.
    """

    def __init__(self, message: str, details: Sequence[Detail] = (), errors: int = 0) -> None:
        super().__init__(400, "VALIDATION_ERROR", message, details=details, errors=errors)


class TooLarge(Refusal):
    """413: the sender should split the body and send the parts."""

    def __init__(self, message: str) -> None:
        super().__init__(413, "PAYLOAD_TOO_LARGE", message)


def json_response(status: int, content: object, headers: dict[str, str] | None = None) -> Response:
    """`content` as JSON."""
    return Response(_encoder.encode(content), status, headers, "application/json")


def taken(received: int, details: Sequence[Detail], errors: int) -> Response:
    """200 when `errors` is 0, else 207: every valid item is in Kafka.

    `details` may be shorter than `errors`; then the answer says `details_truncated`.
    """
    answer: dict[str, object] = {
        "ok": True,
        "received": received,
        "inserted": received - errors,
        # A resend is recognised where candles are folded, not here.
        "duplicates": 0,
        "errors": errors,
        "total": received,
    }
    if not errors:
        return json_response(200, answer)
    return json_response(207, answer | _details(details, errors))


def refused(refusal: Refusal) -> Response:
    """The answer that a refusal stands for."""
    answer: dict[str, object] = {"error": refusal.message, "code": refusal.code}
    if refusal.details is not None:
        answer |= _details(refusal.details, refusal.errors)
    headers = {}
    if refusal.retry_after_seconds is not None:
        headers["Retry-After"] = str(refusal.retry_after_seconds)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return json_response(refusal.status, answer, headers)


def _details(details: Sequence[Detail], errors: int) -> dict[str, object]:
    shown = list(details[:MAX_DETAILS])
    return {"details": shown, "details_truncated": True} if errors > len(shown) else {"details": shown}
