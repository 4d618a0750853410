"""Bodies as EAs and the exporter write them."""

import json

import pytest

from marketdata.contract.body import MAX_ITEMS, decode
from marketdata.contract.refusals import Refusal


@pytest.mark.parametrize(
    "body", [b'{"ticks":[{"a":1}]}', b'{"items":[{"a":1}]}', b'[{"a":1}]', b'{"a":1}', b'\xef\xbb\xbf[{"a":1}]\x00']
)
def test_every_form_of_a_body_holds_its_items(body: bytes) -> None:
    assert decode(body).items == [{"a": 1}]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"{", 400), (b"7", 400), (b'{"ticks":7}', 400), (b'{"ticks":[],"utc_offset_s":"x"}', 400),
        (b"[" * 100_000, 400), (json.dumps([0] * (MAX_ITEMS + 1)).encode(), 413), (b"\xff", 400),
    ],
)  # fmt: skip
def test_what_holds_no_items_is_refused(body: bytes, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        decode(body)
    assert caught.value.status == status
