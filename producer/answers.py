"""The contract's answers as responses of the producer."""

from collections.abc import Sequence
from typing import Final

import msgspec
from starlette.responses import Response

from marketdata.contract import answers
from marketdata.contract.refusals import Detail, Refusal

_encoder: Final = msgspec.json.Encoder()


def json_response(status: int, content: object, headers: dict[str, str] | None = None) -> Response:
    """`content` as JSON."""
    return Response(_encoder.encode(content), status, headers, "application/json")


def taken(received: int, details: Sequence[Detail], errors: int, *, dry_run_for: str | None = None) -> Response:
    """200 when `errors` is 0, else 207: every valid item is in Kafka, unless it was a dry run for a source."""
    return json_response(*answers.taken(received, details, errors, dry_run_for=dry_run_for))


def refused(refusal: Refusal) -> Response:
    """The answer that a refusal stands for."""
    answer, headers = answers.refused(refusal)
    return json_response(refusal.status, answer, headers)
