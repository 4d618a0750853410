"""Large bodies come in pieces, whatever is odd in them."""

import json
import math
import tracemalloc
from typing import Any

import pytest

from marketdata.contract.body import decode
from marketdata.contract.body import readable as mend
from marketdata.contract.http import Refusal
from marketdata.contract.large_body import LargeBody, decode_large


def pieces_of(large: LargeBody) -> list[list[Any]]:
    return [(decode(piece) if isinstance(piece, bytes) else piece).items for piece in large.pieces()]


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
    pieces = pieces_of(large)
    assert [item for piece in pieces for item in piece] == items
    assert large.utc_offset_seconds == 7200
    assert len(pieces) > 5


#: Texts in which an item seems to end, brackets that do not match, and an item that holds objects.
TRAPS: list[Any] = ["}, {", '"},{"', "[{", {"in": [{"a": 1}, {"b": {}}, {}]}, "\\"]


def odd_body(odd: bytes, wrapper: tuple[bytes, bytes], count: int = 12_000) -> tuple[bytes, list[Any]]:
    """A body and its items, of which the one in the middle is odd."""
    items = [{"n": n, "trap": TRAPS[n % len(TRAPS)], "text": "x" * 500} for n in range(count)]
    written = [json.dumps(item).encode() for item in items]
    written[count // 2] = b'{"odd":' + odd + b"}"
    return wrapper[0] + b" , ".join(written) + wrapper[1], items


@pytest.mark.parametrize(
    ("odd", "value"),
    [(b"nan", math.nan), (b"1.#INF", math.inf), (b'"\xa3"', "£"), (b'"C:\\Users"', "C:\\Users"), (b"[1,]", [1])],
)
@pytest.mark.parametrize(
    "wrapper",
    [
        (b"[", b"]"), (b'{"ticks":[', b'],"utc_offset_s":7200}'), (b'{"UTC_Offset_s":7200,"ea":"x","items" : [', b"]}"),
        (b'\xef\xbb\xbf {"ticks":[', b"] }\r\n\0"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("small_large_bodies")
def test_what_is_nearly_json_comes_in_pieces_as_well(odd: bytes, value: Any, wrapper: tuple[bytes, bytes]) -> None:
    body, items = odd_body(odd, wrapper, 1_200)

    large = decode_large(body)

    assert large is not None
    pieces = pieces_of(large)
    found = [item for piece in pieces for item in piece]
    assert repr(found.pop(600)) == repr({"odd": value})
    del items[600]
    assert found == items
    assert large.utc_offset_seconds == (7200 if b"utc" in (wrapper[0] + wrapper[1]).lower() else None)
    assert max(map(len, pieces)) < 500


def test_what_is_no_json_is_refused_as_a_small_body_is() -> None:
    body, _ = odd_body(b'"', (b"[", b"]"))
    large = decode_large(body)

    assert large is not None
    with pytest.raises(Refusal, match="not JSON"):
        pieces_of(large)


@pytest.mark.parametrize("unit", [b'"', b'"",', b".1 ", b"nan ", b'"\\q" '])
@pytest.mark.parametrize("wrapper", [(b"[", b"]"), (b'[{"a":1},{"a":[', b']},{"b":nan}]')])
def test_what_is_nearly_json_and_cannot_be_cut_is_refused_before_it_is_mended(
    unit: bytes, wrapper: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    body = wrapper[0] + unit * (10_000_000 // len(unit)) + b"nan" + wrapper[1]
    mended: list[int] = []

    def readable(text: str) -> str:
        mended.append(len(text))
        return mend(text)

    monkeypatch.setattr("marketdata.contract.body.readable", readable)
    with pytest.raises(Refusal, match="is not JSON"):
        assert pieces_of(large) if (large := decode_large(body)) else decode(body)
    # Half a microsecond a byte and more, in one go: all of it would be 10 s.
    assert sum(mended) < 1_500_000


def test_a_body_with_a_nan_takes_little_more_memory_than_its_bytes() -> None:
    body, _ = odd_body(b"nan", (b'{"ticks":[', b"]}"))
    tracemalloc.start()
    try:
        large = decode_large(body)
        assert large is not None
        for piece in large.pieces():
            assert len((decode(piece) if isinstance(piece, bytes) else piece).items) > 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A piece as bytes, as text and as objects; the whole would take six times its 6.8 MB.
    assert peak < 12_000_000
