"""Refusals, and the JSON that answers are made of."""

from typing import Any, Final

import msgspec
from starlette.responses import Response

_encoder: Final = msgspec.json.Encoder()


class Refusal(Exception):
    """The request is answered with an error; `message` tells the cure."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def response(self) -> Response:
        """The answer: `{"error": …, "code": …}`."""
        return json_response({"error": self.message, "code": self.code}, self.status, self.headers)


def encode(content: object) -> bytes:
    """`content` as JSON; aware datetimes as ISO 8601 in UTC."""
    return _encoder.encode(content)


def json_response(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`content` as JSON."""
    return Response(encode(content), status, headers, "application/json")


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI of refusals with these statuses."""
    schema = {
        "type": "object",
        "required": ["error", "code"],
        "properties": {"error": {"type": "string"}, "code": {"type": "string"}},
    }
    return {
        status: {"description": "The reason and the cure.", "content": {"application/json": {"schema": schema}}}
        for status in statuses
    }
