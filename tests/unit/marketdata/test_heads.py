"""Records that are decoded by what they begin with give the frames of records that are decoded whole."""

from typing import Any
from unittest.mock import patch

import pytest
from aiokafka.structs import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from marketdata.backlog import MIN_RECORDS, Flow, Sorter, parts_of
from marketdata.heads import SEAM, Head
from marketdata.tick import Columns, Frame, Tick
from marketdata.wire import decode_frame, decode_frames, encode

T0 = 1_549_238_400_000


def frame(number: int = 0, **changed: Any) -> Frame:
    given: dict[str, Any] = {
        "v": 1, "source": "s", "symbol": "A", "mode": "bid", "point": 0.01, "request": str(number),
        "received": T0 + number, "ticks": [Tick(T0 + number, 1.0, 2.0, 0.0, 0.0, 6)],
    }  # fmt: skip
    return Frame(**(given | changed))


def beginning(record: bytes) -> bytes:
    return record[: record.find(SEAM)]


def by_head(value: bytes) -> Frame | None:
    """The frame in a record as its head and the rest give it; None when they do not."""
    head = Head.of(beginning(value))
    frames = None if head is None else head.frames([value])
    return None if frames is None else frames[0]


_NAMES = st.text(max_size=20) | st.sampled_from(['"request":', "\\", '\\"request":', "ü", '{"request":'])
_FIELDS = st.fixed_dictionaries(
    {
        "source": _NAMES.map(lambda name: name or "s"), "symbol": _NAMES.map(lambda name: name or "A"),
        "request": _NAMES, "mode": st.sampled_from(["bid", "last"]), "point": st.none() | st.floats(0.001, 2),
        "coarse": st.booleans(),
    }
)  # fmt: skip


@given(_FIELDS)
def test_a_record_is_the_frame_that_it_is_as_a_whole(fields: dict[str, Any]) -> None:
    record = encode(frame(**fields))

    assert by_head(record) == decode_frame(record)


def test_frames_of_columns_have_heads_as_well() -> None:
    record = encode(frame(ticks=[Tick(T0 + after, 1.0, 2.0, 0.0, 0.0, 6) for after in range(20)]))
    found = by_head(record)

    assert found == decode_frame(record)
    assert found is not None
    assert isinstance(found.ticks, Columns)


_WHOLE = encode(frame())


@pytest.mark.parametrize(
    "record",
    [
        _WHOLE.replace(b'"v":1', b'"coarse":true,"v":1'),
        _WHOLE.replace(b'"v":1', b'"v":3'),
        _WHOLE.replace(b'"source":"s",', b""),
        _WHOLE.replace(b'"request":"0",', b""),
        _WHOLE.replace(b'"request":"0"', b'"request":"0","symbol":"B"'),
        _WHOLE.replace(b'"request":"0"', b'"request":"0","new":1'),
        _WHOLE.replace(b'"request":', b'"x":{"request":1},"request":'),
        _WHOLE.replace(b'"request":', b'"request" :'),
        _WHOLE + b"," + _WHOLE,
        _WHOLE[:-1],
        b"",
        b"{}",
        b"null",
    ],
)
def test_a_record_that_another_sender_wrote_in_its_own_way_is_decoded_whole(record: bytes) -> None:
    assert by_head(record) is None


def test_what_comes_before_the_request_again_is_checked_again() -> None:
    twice = _WHOLE.replace(b'"v":1', b'"received":-1,"v":1').replace(b'"v":1', b'"ticks":[],"v":1')

    assert by_head(twice) is None


def test_one_bad_record_gives_no_frames_and_shifts_none() -> None:
    head = Head.of(beginning(_WHOLE))
    assert head is not None
    two = _WHOLE[:-1] + b"}," + _WHOLE[len(beginning(_WHOLE)) - 1 :].replace(b",", b"", 1)

    for bad in (two, _WHOLE[:-1], _WHOLE.replace(b"[[", b"[["[:1])):
        assert head.frames([_WHOLE, bad, _WHOLE]) is None


def test_a_frame_is_the_same_object_each_time() -> None:
    head = Head.of(beginning(_WHOLE))
    frames = head.frames([_WHOLE, encode(frame(1)), encode(frame(2))]) if head is not None else None

    assert frames is not None
    assert frames[-1] is frames[2]
    assert frames[1:][0] is frames[1]
    assert list(frames) == [frame(0), frame(1), frame(2)]
    assert [frames.received(index) for index in range(3)] == [T0, T0 + 1, T0 + 2]


def records(values: list[bytes | None]) -> list[ConsumerRecord[Any, Any]]:
    return [ConsumerRecord("t", 0, n, 0, 0, None, value, None, 0, 0, ()) for n, value in enumerate(values)]


def many(**changed: Any) -> list[bytes | None]:
    return [encode(frame(n, **({"symbol": "AB"[n % 2]} | changed))) for n in range(MIN_RECORDS)]


def test_a_backlog_is_sorted_by_symbol() -> None:
    values = many()
    sorted_ = Sorter().sort(records(values))

    assert sorted_ is not None
    assert [head.key for head, _ in sorted_] == [("s", "A"), ("s", "B")]
    for head, of_symbol in sorted_:
        parts = list(parts_of(of_symbol))
        assert [record.offset for part in parts for record in part] == [record.offset for record in of_symbol]
        for part in parts:
            frames = head.frames([record.value for record in part if record.value is not None])
            assert frames is not None
            flow = Flow(head.key, part, frames)
            assert list(flow.frames) == decode_frames([values[offset] for offset in flow.offsets])


@pytest.mark.parametrize(
    "values",
    [
        many()[1:],  # few records
        [*many(), None],  # a tombstone
        [*many(), encode(frame(point=0.1))],  # a symbol's second beginning: its order would be lost
        [*many(), b"{}"],
        [*many(), encode(frame(0)).replace(b'"v":1', b'"v":9')],
        [encode(frame(n, symbol=str(n % 300))) for n in range(MIN_RECORDS)],  # no runs
        many(ticks=[Tick(T0 + n, 1.0, 2.0, 0.0, 0.0, 6) for n in range(40)]),  # large frames
    ],
)
def test_any_other_poll_is_left_in_the_order_of_the_log(values: list[bytes | None]) -> None:
    assert Sorter().sort(records(values)) is None


def test_beginnings_that_vary_without_end_are_forgotten() -> None:
    sorter = Sorter()
    with patch("marketdata.heads._MAX_HEADS", 10):
        for number in range(30):
            assert sorter.sort(records(many(point=number + 1.0))) is not None
    assert len(sorter.heads._heads) <= 13
