"""A backlog of single ticks folded as arrays gives what the order of the log gives, whatever its records hold."""

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.errors import InvalidFrame
from marketdata.packed import PackedTicks
from marketdata.tick import Frame, Tick
from marketdata.wire import decode_frame, encode
from stream_app.blocks import Blocks
from tests.unit.marketdata.test_fold_properties import LOGS, T0
from tests.unit.marketdata.test_runs import CUTS
from tests.unit.marketdata.test_runs import flows as odd_flows
from tests.unit.stream_app.test_blocks import BYTES, changed, plain_flows, record_of
from tests.unit.stream_app.test_partition import folded, in_json, polls


@pytest.fixture(autouse=True)
def _small_pieces() -> Iterator[None]:
    with (
        patch("stream_app.rows._PIECE_RECORDS", 5),
        patch("marketdata.wire.MIN_TICKS", 4),
        patch("marketdata.runs.MIN_TICKS", 1),
    ):
        yield


def results(log: list[Any]) -> tuple[Any, Any]:
    """All that comes of the polls as arrays, and in the order of the log."""
    return folded(log, is_backlog=True), folded(log, is_backlog=False)


#: Names of requests, most often plain ones.
REQUESTS = st.sampled_from(["r", "", "00-4bf92f3577b34da6", "[[1,2]]", 'a "b', "\\", "é", "\x7f"])


@st.composite
def plain_records(draw: st.DrawFn) -> list[Frame]:
    """Quotes as `plain_flows` has them, with names of requests that need no escapes, but for a few."""
    frames = draw(plain_flows())
    odd = draw(st.dictionaries(st.integers(0, len(frames) - 1), REQUESTS, max_size=2))
    return [
        msgspec.structs.replace(frame, request=odd.get(number, f"r{frame.received}"))
        for number, frame in enumerate(frames)
    ]


@given(st.one_of(plain_records(), plain_records(), LOGS.map(in_json), odd_flows().map(in_json)).filter(bool), CUTS)
def test_arrays_give_what_the_order_of_the_log_gives(frames: list[Frame], cuts: list[int]) -> None:
    as_arrays, in_order = results(polls(list(map(encode, frames)), cuts))
    assert as_arrays == in_order


@given(plain_records(), CUTS, st.lists(st.tuples(st.integers(0), st.integers(0), BYTES, st.integers(0, 2)), max_size=3))
def test_so_does_a_log_with_changed_bytes(frames: list[Frame], cuts: list[int], changes: list[tuple[int, ...]]) -> None:
    values = list(map(encode, frames))
    for record, *change in changes:
        values[record % len(values)] = changed(values[record % len(values)], *change)

    as_arrays, in_order = results(polls(values, cuts))
    assert as_arrays == in_order


PLAIN = Frame(
    v=1, source="s", symbol="A", mode="bid", point=0.01, request="r", received=T0,
    ticks=[Tick(T0, 1.5, 1.75, 0.0, 0.0, 6)],
)  # fmt: skip
VALUE = encode(PLAIN)


def is_taken(*values: bytes) -> bool:
    """Whether the last of these records is folded as arrays."""
    with patch("marketdata.backlog.MIN_RECORDS", 1):
        found = Blocks().take(list(map(record_of, values)), 60_000)
    assert found is not None
    [(flows, _)] = found
    return sum(map(len, flows)) == sum(len(decode_frame(value).ticks) for value in values) if flows else False


@pytest.mark.parametrize(
    ("what", "otherwise"),
    [
        (b"1.5,", b"1,"),
        (b"1.5,", b"15e-1,"),
        (b",6]", b",1030]"),
        (b",6]", b",0]"),
        (b'"r"', b'""'),
        (b'"r"', b'"]]}"'),
        (b'"A"', '"é"'.encode()),
        (b'"point":0.01', b'"point":null'),
        (b"6]]", b"6],[%d,1.5,1.75,1.0,0.0,6]]" % (T0 + 1)),
    ],
)
def test_what_the_producer_writes_is_folded_as_arrays(what: bytes, otherwise: bytes) -> None:
    """Otherwise the tests above would compare the order of the log with itself."""
    assert VALUE.count(what) == 1
    assert is_taken(VALUE)
    assert is_taken(VALUE.replace(what, otherwise))


@pytest.mark.parametrize(
    ("what", "otherwise"),
    [
        (b"[[%d" % T0, b"[[%d" % (T0 // 10)),
        (b"[[%d" % T0, b"[[%d.0" % T0),
        (b"[[%d" % T0, b"[[%d" % (T0 * 10)),
        (b"[[%d" % T0, b"[[-%d" % (T0 // 10)),
        (b"[[%d" % T0, b"[[0%d" % (T0 // 10)),
        (b"[[%d" % T0, b"[[%de9" % (T0 // 100)),
        (b"[[%d" % T0, b"[[[%d]" % T0),
        (b",6]", b"]"),
        (b",6]", b",6,7]"),
        (b",6]", b",6.5]"),
        (b",6]", b",6e0]"),
        (b",6]", b",06]"),
        (b",6]", b",-6]"),
        (b",6]", b",true]"),
        (b",6]", b",]"),
        (b",6]", b",[6]]"),
        (b",6]", b",9223372036854775808]"),
        (b"6]]", b"6],[]]"),
        (b"6]]", b"6]],[[%d,1.5,1.75,0.0,0.0,6]]" % T0),
        (b"1.5,", b"null,"),
        (b"1.5,", b'"1.5",'),
        (b"1.5,", b"1.5.5,"),
        (b"1.5,", b"NaN,"),
        (b"1.5,", b"1e999,"),
        (b"1.5,", b"18446744073709551616,"),
        (b"1.5,1.75,", b"1.5,[1.75,0.0,"),
        (b"0.0,0.0,6", b"0.0,0.5,6"),
        (b'"r"', b"5"),
        (b'"r"', b'"\\ud800"'),
        (b'"r"', b'"\xff"'),
        (b'"r"', b'"\n"'),
        (b'"r"', b'"r","coarse":true'),
        (b'"received":%d' % T0, b'"received":0%d' % (T0 // 10)),
        (b'"received":%d' % T0, b'"received":-%d' % (T0 // 10)),
        (b'"received":%d' % T0, b'"received":%d.0' % T0),
        (b'"mode":"bid"', b'"mode":"last"'),
        (b'"mode":"bid"', b'"mode":"ask"'),
        (b'"point":0.01', b'"point":-0.01'),
        (b"]]}", b"]]"),
        (b"]]}", b"]]}}"),
        (b"]]}", b"]] }"),
        (b'{"v":1', b'\xef\xbb\xbf{"v":1'),
        (b'{"v":1', b'{"v":3'),
    ],
)
def test_anything_else_is_left_to_those_who_judge_records(what: bytes, otherwise: bytes) -> None:
    assert VALUE.count(what) == 1
    odd = VALUE.replace(what, otherwise)
    with patch("marketdata.backlog.MIN_RECORDS", 1):
        found = Blocks().take([record_of(odd)], 60_000)
    assert found is not None
    [(flows, [left])] = found
    assert not flows
    assert left.value == odd


@given(st.integers(0, 10**6), BYTES, st.integers(0, 2))
def test_no_record_is_taken_that_is_no_frame(at: int, byte: int, taken: int) -> None:
    value = changed(VALUE, at, byte, taken)
    try:
        decode_frame(value)
    except InvalidFrame:
        with patch("marketdata.backlog.MIN_RECORDS", 1):
            found = Blocks().take([record_of(value)], 60_000)
        assert found is not None
        [(flows, _)] = found
        assert not flows


def test_a_symbol_with_another_record_is_left_as_a_whole_and_the_others_are_taken() -> None:
    other = VALUE.replace(b'"A"', b'"B"')
    odd = VALUE.replace(b"0.0,0.0,6", b"0.0,0.5,6")
    with patch("marketdata.backlog.MIN_RECORDS", 1):
        found = Blocks().take(list(map(record_of, [VALUE, other, odd, other.replace(b"1.5,", b"1.25,")])), 60_000)
    assert found is not None
    [([flow], left)] = found
    assert (flow.key, len(flow)) == (("s", "B"), 2)
    assert [record.value for record in left] == [VALUE, odd]


def test_rows_that_are_held_are_the_ticks_that_came() -> None:
    ticks = [Tick(T0 + at, 1.5 + at, 1.75, -0.0, 0.0, 1030) for at in range(5)]
    held = PackedTicks(T0, 60_000)
    with patch("marketdata.backlog.MIN_RECORDS", 1):
        found = Blocks().take(
            [record_of(encode(msgspec.structs.replace(PLAIN, ticks=[tick]))) for tick in ticks], 60_000
        )
    assert found is not None
    [([flow], _)] = found
    for part in flow.parts(60_000):
        part.keep(held)
    assert list(held) == ticks
    assert len(held) == 5


@pytest.mark.parametrize("request_", ["r", "é"])
def test_symbols_are_counted_whether_their_records_are_taken_or_not(request_: str) -> None:
    """A backlog of many symbols waits for some ticks of each."""
    blocks = Blocks()
    frames = [msgspec.structs.replace(PLAIN, symbol=symbol, request=request_) for symbol in "ABCD"]
    with patch("marketdata.backlog.MIN_RECORDS", 1):
        blocks.take(list(map(record_of, map(encode, frames))), 60_000)
        assert blocks.wants_more(63)
        assert not blocks.wants_more(64)
        blocks.take([record_of(encode(msgspec.structs.replace(PLAIN, request=request_)))], 60_000)
        assert not blocks.wants_more(63)


def test_a_poll_with_a_tick_of_each_symbol_is_left_in_the_order_of_the_log() -> None:
    blocks = Blocks()
    values = [encode(msgspec.structs.replace(PLAIN, symbol=f"S{number}")) for number in range(4)]
    with patch("marketdata.backlog.MIN_RECORDS", 1):
        blocks.take(list(map(record_of, values)), 60_000)
        assert blocks.take(list(map(record_of, values)), 60_000) is None
        assert blocks.wants_more(63)
        # As soon as they are of fewer symbols they are taken again.
        assert blocks.take(list(map(record_of, values[:2] * 2)), 60_000) is not None
