"""The answers of the HTTP contract: accepted, accepted in part, refused."""

from collections.abc import Sequence
from typing import Final

import msgspec
from starlette.responses import Response

from marketdata.contract.refusals import MAX_DETAILS, Detail, Refusal

_encoder: Final = msgspec.json.Encoder()


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
