"""Reading a body: its limit while it streams, its packing, its end."""

import gzip
from collections.abc import MutableMapping
from typing import Any

import pytest

from marketdata.contract.refusals import Refusal
from runtime.request_body import Receive, read_body


@pytest.mark.parametrize("sent", [1, 3, 10])
async def test_a_body_that_streams_is_cut_off_at_the_limit(sent: int) -> None:
    messages: list[MutableMapping[str, Any]] = [
        {"type": "http.request", "body": b"x" * 10, "more_body": True} for _ in range(sent)
    ]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> MutableMapping[str, Any]:
        return messages.pop(0)

    if sent == 1:
        assert await read_body(receive, {}, 25) == b"x" * 10
        return
    with pytest.raises(Refusal, match="split it") as refused:
        await read_body(receive, {}, 25)
    assert refused.value.status == 413
    assert len(messages) == sent + 1 - 3  # nothing is read beyond the limit


async def test_a_sender_that_goes_away_leaves_no_body() -> None:
    messages: list[MutableMapping[str, Any]] = [
        {"type": "http.request", "body": b"[", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> MutableMapping[str, Any]:
        return messages.pop(0)

    with pytest.raises(Refusal, match="closed"):
        await read_body(receive, {}, 25)


async def test_gzip_is_unpacked_within_the_limit() -> None:
    headers = {b"content-encoding": b"gzip"}
    assert await read_body(sends(gzip.compress(b"[]")), headers, 100) == b"[]"
    for body, status in ((gzip.compress(b" " * 101), 413), (b"no gzip", 400), (gzip.compress(b"[]")[:-3], 400)):
        with pytest.raises(Refusal) as caught:
            await read_body(sends(body), headers, 100)
        assert caught.value.status == status


async def test_other_encodings_and_declared_lengths_are_refused_before_anything_is_read() -> None:
    for headers, status in (({b"content-encoding": b"br"}, 415), ({b"content-length": b"101"}, 413)):
        with pytest.raises(Refusal) as caught:
            await read_body(sends(), headers, 100)
        assert caught.value.status == status


def sends(*parts: bytes) -> Receive:
    """A sender of a body in these parts; reading beyond them fails the test."""
    messages: list[MutableMapping[str, Any]] = [
        {"type": "http.request", "body": part, "more_body": part is not parts[-1]} for part in parts
    ]

    async def receive() -> MutableMapping[str, Any]:
        return messages.pop(0)

    return receive
