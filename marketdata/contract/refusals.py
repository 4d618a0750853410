"""What is answered when a request, or an item of it, is not taken."""

from collections.abc import Sequence
from typing import Final

import msgspec

#: More of them would not help the reader, and a body can hold a hundred thousand.
MAX_DETAILS: Final = 100


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
    """400: the body holds no items; sending the same again will not help."""

    def __init__(self, message: str) -> None:
        super().__init__(400, "VALIDATION_ERROR", message, details=())


class TooLarge(Refusal):
    """413: the sender should split the body and send the parts."""

    def __init__(self, message: str) -> None:
        super().__init__(413, "PAYLOAD_TOO_LARGE", message)
