"""Bodies as EAs and the exporter write them."""

import json

import pytest

from marketdata.contract.body import MAX_ITEMS, decode, decode_large
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


@pytest.mark.parametrize("unit", [b"[],", b"0,", b'{"a":[]},', b"[" * 100 + b"]" * 100 + b","])
def test_a_body_that_would_fill_the_memory_is_refused_before_it_is_decoded(unit: bytes) -> None:
    body = b"[" + unit * (64_000_000 // len(unit)) + b"0]"
    for read in (decode, decode_large):
        with pytest.raises(Refusal) as caught:
            read(body)
        assert caught.value.status == 413


@pytest.mark.parametrize("around", [(b"", b""), (b"", b"\0"), (b"\xef\xbb\xbf", b"\r\n\0"), (b" \n", b" ")])
def test_the_pieces_of_a_large_body_hold_every_item_in_order(around: tuple[bytes, bytes]) -> None:
    items = [{"n": n, "text": "x" * 500} for n in range(12_000)]
    body = around[0] + json.dumps({"utc_offset_s": 7200, "ticks": items}).encode() + around[1]
    large = decode_large(body)

    assert large is not None
    pieces = [decode(piece).items for piece in large.pieces()]
    assert [item for piece in pieces for item in piece] == items
    assert large.utc_offset_seconds == 7200
    assert len(pieces) > 5
