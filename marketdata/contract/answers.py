"""The answers of the contract: accepted, accepted in part, refused."""

from collections.abc import Sequence
from typing import Annotated, Final

from msgspec import UNSET, Meta, Struct, UnsetType

#: More of them would not help the reader, and a body can hold a hundred thousand.
MAX_DETAILS: Final = 100


class Detail(Struct, gc=False):
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
    """400: the body holds no items; sending the same again will not help."""

    def __init__(self, message: str) -> None:
        super().__init__(400, "VALIDATION_ERROR", message, details=())


class TooLarge(Refusal):
    """413: the sender should split the body and send the parts."""

    def __init__(self, message: str) -> None:
        super().__init__(413, "PAYLOAD_TOO_LARGE", message)


_Details = list[Detail] | UnsetType
_Truncated = Annotated[bool, Meta(description="true when there are more errors than details")] | UnsetType


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


class Refused(Struct, gc=False):
    """Nothing was stored."""

    error: str
    code: str
    details: _Details = UNSET
    details_truncated: _Truncated = UNSET


def taken(
    received: int, details: Sequence[Detail], errors: int, *, queued: bool = False, dry_run_for: str | None = None
) -> tuple[int, Taken]:
    """Status and answer: 200 when `errors` is 0, else 207; `details` may be shorter than `errors`.

    `dry_run_for` is the source where the request was a dry run.
    """
    answer = Taken(received=received, inserted=received - errors, errors=errors, total=received)
    if dry_run_for is not None:
        answer.dry_run, answer.source = True, dry_run_for
    if queued:
        answer.queued = True
    if not errors:
        return 200, answer
    _add_details(answer, details, errors)
    return 207, answer


def refused(refusal: Refusal) -> tuple[Refused, dict[str, str]]:
    """The answer that a refusal stands for, and its headers."""
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
    """400: a body of which no item can be used."""
    return Refusal(400, "VALIDATION_ERROR", f"none of the {errors} items can be used", details=details, errors=errors)


def _add_details(answer: Taken | Refused, details: Sequence[Detail], errors: int) -> None:
    answer.details = list(details[:MAX_DETAILS])
    if errors > len(answer.details):
        answer.details_truncated = True
