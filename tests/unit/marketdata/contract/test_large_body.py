"""Large bodies come in pieces, whatever is odd in them."""

import json
import math
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from marketdata.contract.body import decode
from marketdata.contract.body import readable as mend
from marketdata.contract.http import Refusal
from marketdata.contract.large_body import Piece, large_pieces


def pieces_of(body: bytes) -> list[Piece]:
    return [piece for piece in large_pieces(body) if piece is not None]


def items_in(body: bytes) -> list[Any]:
    return [item for piece in pieces_of(body) for item in piece.items.items]


@pytest.mark.parametrize("unit", [b"[],", b"0,", b'{"a":[]},', b"[" * 100 + b"]" * 100 + b","])
def test_a_body_that_would_fill_the_memory_is_refused_before_it_is_decoded(unit: bytes) -> None:
    body = b"[" + unit * (64_000_000 // len(unit)) + b"0]"
    for read in (decode, pieces_of):
        with pytest.raises(Refusal) as caught:
            read(body)
        assert caught.value.status == 413


@pytest.mark.parametrize("around", [(b"", b""), (b"", b"\0"), (b"\xef\xbb\xbf", b"\r\n\0"), (b" \n", b" ")])
def test_the_pieces_of_a_large_body_hold_every_item_in_order(around: tuple[bytes, bytes]) -> None:
    items = [{"n": n, "text": "x" * 500} for n in range(12_000)]
    body = around[0] + json.dumps({"utc_offset_s": 7200, "ticks": items}).encode() + around[1]

    pieces = pieces_of(body)

    assert [item for piece in pieces for item in piece.items.items] == items
    assert {piece.utc_offset_seconds for piece in pieces} == {7200}
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

    pieces = pieces_of(body)

    found = [item for piece in pieces for item in piece.items.items]
    assert repr(found.pop(600)) == repr({"odd": value})
    del items[600]
    assert found == items
    offset = 7200 if b"utc" in (wrapper[0] + wrapper[1]).lower() else None
    assert {piece.utc_offset_seconds for piece in pieces} == {offset}
    assert max(len(piece.items.items) for piece in pieces) < 500


def test_what_is_no_json_is_refused_as_a_small_body_is() -> None:
    body, _ = odd_body(b'"', (b"[", b"]"))

    with pytest.raises(Refusal, match="must be one array of items"):
        pieces_of(body)


@pytest.mark.parametrize("around", [(b'{"ticks":[', b'],"items":[]}'), (b'{"items":[ ],"ticks":[', b"]}")])
def test_an_empty_array_beside_the_items_does_not_matter(around: tuple[bytes, bytes]) -> None:
    items = [{"n": n, "text": "x" * 500} for n in range(12_000)]
    assert items_in(around[0] + json.dumps(items).encode()[1:-1] + around[1]) == items


def two_arrays(count: int, between: bytes = b"") -> bytes:
    items = b",".join([b'{"text":"%b"}' % (b"x" * 500)] * count)
    return b'{"ticks":[' + items + b"]," + between + b'"items":[' + items + b"]}"


def test_two_arrays_are_read_as_far_as_one_step_may_go() -> None:
    assert len(items_in(two_arrays(1_000))) == 2_000
    with pytest.raises(Refusal, match="must be one array of items"):
        items_in(two_arrays(10_000))


def test_an_offset_that_comes_after_items_were_read_is_refused() -> None:
    with pytest.raises(Refusal, match="must stand before the items"):
        items_in(two_arrays(1_000, b'"utc_offset_s":7200,'))


#: Makes anything but ticks, of up to 64 MB.
ODD: dict[str, Callable[[], bytes]] = {
    "short texts": lambda: b"[" + b'"",' * 5_300_000 + b'""]',
    "quotation marks": lambda: b"[" + b'"' * 16_000_000 + b"]",
    "a long text": lambda: b'["' + b"a" * 60_000_000 + b'"]',
    "escapes": lambda: b'["' + b"\\u00e9" * 10_000_000 + b'"]',
    "digits": lambda: b"[" + b"1" * 60_000_000 + b"]",
    "spaces": lambda: b" " * 64_000_000,
    "brackets": lambda: b"[" * 5_000_000,
    "arrays": lambda: b"[" + b"[]," * 2_000_000 + b"[]]",
    "objects": lambda: b"[" + b"{}," * 2_000_000 + b"{}]",
    "fields": lambda: b"{" + b'"k":1,' * 5_000_000 + b'"k":1}',
    "a million NaN": lambda: b"[" + b"nan," * 5_000_000 + b"nan]",
    "objects with NaN": lambda: b"[" + b'{"a":nan},' * 900_000 + b"{}]",
    "colons": lambda: b"[{" + b":," * 5_000_000 + b"}]",
    "places to cut in a text": lambda: b'[{"a":"' + b"},{" * 5_000_000 + b'"}]',
    "UTF-16": lambda: b"\xff\xfe" + b" \0" * 30_000_000,
}


@pytest.mark.full
@pytest.mark.parametrize("name", ODD)
def test_no_step_takes_long_whatever_a_body_holds(name: str) -> None:
    """Steps may take 50 ms; the processor time of one is far from exact on a busy machine, so the median is held."""
    body, longest = ODD[name](), []
    for _ in range(3):
        steps, worst = large_pieces(body), 0.0
        with suppress(Refusal):
            while True:
                began = time.thread_time()
                if next(steps, ODD) is ODD:
                    break
                worst = max(worst, time.thread_time() - began)
        longest.append(worst)
    assert sorted(longest)[1] < 0.1


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
    with pytest.raises(Refusal, match="must be one array of items"):
        pieces_of(body)
    # Half a microsecond a byte and more, in one go: all of it would be 10 s.
    assert sum(mended) < 1_500_000


def test_a_body_with_a_nan_takes_little_more_memory_than_its_bytes() -> None:
    body, _ = odd_body(b"nan", (b'{"ticks":[', b"]}"))
    tracemalloc.start()
    try:
        for piece in large_pieces(body):
            assert piece is None or len(piece.items.items) > 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A piece as bytes, as text and as objects; the whole would take six times its 6.8 MB.
    assert peak < 12_000_000
