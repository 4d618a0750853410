"""A backlog that is folded as arrays gives what folding it in the order of the log gives, whatever its records hold."""

import random
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from aiokafka.structs import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from marketdata.errors import InvalidFrame
from marketdata.tick import Frame, Tick
from marketdata.wire import decode_frame, encode
from stream_app.blocks import Blocks
from tests.unit.marketdata.test_fold_properties import LOGS, T0
from tests.unit.marketdata.test_runs import CUTS
from tests.unit.marketdata.test_runs import flows as odd_flows
from tests.unit.stream_app.test_partition import folded, in_json, polls


@pytest.fixture(autouse=True)
def _small_frames() -> Iterator[None]:
    with (
        patch("marketdata.wire.MIN_TICKS", 2),
        patch("marketdata.runs.MIN_TICKS", 1),
        patch("marketdata.backlog._SINGLE_BYTES", 0),
    ):
        yield


#: Blocks of one record, of some, of all.
BLOCK_BYTES = st.sampled_from([1, 700, 10**6])


def results(log: list[Any], block_bytes: int) -> tuple[Any, Any]:
    """All that comes of the polls as arrays, and in the order of the log."""
    both = []
    for least in (0, 10**9):
        with (
            patch("marketdata.backlog._MIN_LARGE_BYTES", least),
            patch("stream_app.blocks._BLOCK_BYTES", block_bytes),
        ):
            both.append(folded(log, is_backlog=False))
    return both[0], both[1]


@st.composite
def plain_flows(draw: st.DrawFn) -> list[Frame]:
    """Quotes of some symbols by bid, with whatever is not plain here and there."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    faults = draw(st.sampled_from([0.0, 0.0, 0.03, 0.2]))
    step_ms = draw(st.sampled_from([0, 1, 500, 9_000, 70_000]))
    size = draw(st.integers(1, 9))
    frames: list[Frame] = []
    now = dict.fromkeys("ABC", T0)
    for number in range(draw(st.integers(1, 40))):
        symbol = rng.choice("ABC")
        ticks = []
        for _ in range(rng.randint(1, size)):
            now[symbol] = max(0, now[symbol] + rng.randint(-3 if rng.random() < faults else 0, step_ms))
            bid, ask = rng.choice([0.4, 1.1, 1.3]), rng.choice([0.45, 1.15, 1.4])
            if rng.random() < faults:
                bid, ask = rng.choice(
                    [
                        (0.0, ask),
                        (bid, 0.0),
                        (-1.0, -0.9),
                        (2.0, ask),
                        (1e300, 1e300),
                        (5e-324, ask),
                        (-1.7e308, 1.7e308),
                    ]
                )
            volume = 0.5 if rng.random() < faults / 5 else 0.0
            ticks.append(Tick(now[symbol], bid, ask, 0.0, volume, rng.choice([2, 4, 6]) if step_ms else 6))
        frames.append(
            Frame(
                v=1, source="s", symbol=symbol, mode="last" if rng.random() < faults / 5 else "bid",
                point=0.1 if rng.random() < faults / 5 else 0.01, request=f'{number} "[ é',
                received=T0 + number, ticks=ticks, coarse=rng.random() < faults / 5,
            )
        )  # fmt: skip
        if rng.random() < faults:
            frames += frames[-rng.randint(1, 3) :]  # the same records again
        if rng.random() < faults:
            now[symbol] = max(T0, now[symbol] - 61_000)  # late ticks
    return frames


@given(
    st.one_of(plain_flows(), plain_flows(), LOGS.map(in_json), odd_flows().map(in_json)).filter(bool), CUTS, BLOCK_BYTES
)
def test_arrays_give_what_the_order_of_the_log_gives(frames: list[Frame], cuts: list[int], block_bytes: int) -> None:
    as_arrays, in_order = results(polls(list(map(encode, frames)), cuts), block_bytes)
    assert as_arrays == in_order


def changed(value: bytes, at: int, byte: int, taken: int) -> bytes:
    """With another byte in place of `taken` ones."""
    at %= len(value)
    return value[:at] + bytes([byte]) + value[at + taken :]


#: Bytes that change what a record says or whether it is one.
BYTES = st.one_of(st.sampled_from(b'0123456789-+.eE[]{}",: \\tfn'), st.integers(0, 255))


CHANGES = st.lists(st.tuples(st.integers(0), st.integers(0), BYTES, st.integers(0, 2)), max_size=3)


@given(plain_flows(), CUTS, CHANGES, BLOCK_BYTES)
def test_so_does_a_log_with_changed_bytes(
    frames: list[Frame], cuts: list[int], changes: list[tuple[int, ...]], block_bytes: int
) -> None:
    values = list(map(encode, frames))
    for record, *change in changes:
        values[record % len(values)] = changed(values[record % len(values)], *change)

    as_arrays, in_order = results(polls(values, cuts), block_bytes)
    assert as_arrays == in_order


def record_of(value: bytes) -> Any:
    return ConsumerRecord("t", 0, 0, 0, 0, None, value, None, 0, len(value), ())


PLAIN = Frame(
    v=1, source="s", symbol="A", mode="bid", point=0.01, request="r", received=T0,
    ticks=[Tick(T0 + n * 40_000, 1.1 + n, 1.2 + n, 0.0, 0.0, 6) for n in range(3)],
)  # fmt: skip


def is_taken(value: bytes) -> bool:
    """Whether a record is folded as arrays."""
    with patch("marketdata.backlog._MIN_LARGE_BYTES", 0):
        found = Blocks().take([record_of(value)], 60_000)
    return found is not None and any(flows for flows, _ in found)


def test_blocks_keep_the_order_of_each_symbol() -> None:
    """The records of a symbol that follow on one that is left are left, too."""
    one, other = encode(PLAIN), encode(msgspec.structs.replace(PLAIN, symbol="B"))
    values = [one, one.replace(b'"request":"r"', b'"request":"r","x":1'), one, other, other]
    with patch("marketdata.backlog._MIN_LARGE_BYTES", 0), patch("stream_app.blocks._BLOCK_BYTES", 1):
        found = Blocks().take(list(map(record_of, values)), 60_000)
        assert found is not None
        flows, left = zip(*found, strict=True)
    assert [[flow.key[1] for flow in block] for block in flows] == [[], ["A"], [], [], ["B"], ["B"]]
    assert [record.value for block in left for record in block] == values[1:3]


def test_what_the_producer_writes_is_folded_as_arrays() -> None:
    """Otherwise the tests above would compare the order of the log with itself."""
    [first, *rest] = PLAIN.ticks
    assert is_taken(encode(PLAIN))
    assert is_taken(encode(msgspec.structs.replace(PLAIN, ticks=[first])))
    assert is_taken(encode(msgspec.structs.replace(PLAIN, ticks=[msgspec.structs.replace(first, flags=2), *rest])))
    assert is_taken(encode(PLAIN).replace(b"[1.1,", b"[1,"))


@pytest.mark.parametrize(
    ("what", "otherwise"),
    [
        (b'"after_ms":[0,40000,80000]', b'"after_ms":[[0,40000],[80000]]'),
        (b'"bid":[1.1,2.1,3.1]', b'"bid":[[1.1,2.1,3.1],[],[]]'),
        (b'"after_ms":[0,', b'"after_ms":[0.0,'),
        (b'"after_ms":[0,', b'"after_ms":[-9223372036854775808,'),
        (b'"after_ms":[0,', b'"after_ms":[9223372036854775807,'),
        (b'"after_ms":[0,', b'"after_ms":[18446744073709551616,'),
        (b'"after_ms":[0,', b'"after_ms":['),
        (b'"flags":6', b'"flags":9223372036854775808'),
        (b'"flags":6', b'"flags":[6,6]'),
        (b'"flags":6', b'"flags":6.5'),
        (b'"flags":6', b'"flags":true'),
        (b'"flags":6', b'"flags":6,"last":[1,2,3]'),
        (b'"flags":6', b'"flags":6,"flags":"x"'),
        (b'"flags":6', b'"flags":6,"volume":1.0'),
        (b'"request":"r"', b'"request":5'),
        (b'"request":"r"', b'"request":"\\ud800"'),
        (b'"request":"r"', b'"request":"\xff"'),
        (b'"request":"r"', b'"request":"r","coarse":true'),
        (b'"request":"r"', b'"request":"r","source":"t"'),
        (b'"received":1', b'"received":-1'),
        (b'"received":1', b'"received":999999999999991'),
        (b'"received":1', b'"received":1e12,"x":1'),
        (b'"mode":"bid"', b'"mode":"last"'),
        (b'{"v":2', b'\xef\xbb\xbf{"v":2'),
        (b"[1.1,", b"[NaN,"),
        (b"[1.1,", b"[1e999,"),
        (b"[1.1,", b'["1.1",'),
        (b"[1.1,", b"[null,"),
    ],
)
def test_anything_else_is_left_to_those_who_judge_records(what: bytes, otherwise: bytes) -> None:
    value = encode(PLAIN)
    assert value.count(what) == 1
    assert not is_taken(value.replace(what, otherwise))


@given(st.integers(0, 10**6), BYTES, st.integers(0, 2))
def test_no_record_is_taken_that_is_no_frame(at: int, byte: int, taken: int) -> None:
    value = changed(encode(PLAIN), at, byte, taken)
    try:
        decode_frame(value)
    except InvalidFrame:
        assert not is_taken(value)
