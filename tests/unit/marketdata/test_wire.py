"""What goes through Kafka comes out equal, and what is no frame is told apart."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.errors import InvalidCandle, InvalidFrame
from marketdata.tick import Frame, Tick
from marketdata.wire import decode_candle, decode_frame, decode_frames, encode

EXAMPLE = (
    b'{"v":1,"source":"ICMarkets-Demo","symbol":"EURUSD","mode":"bid","point":0.00001,"request":"r",'
    b'"received":1549238401003,"ticks":[[1549238401003,1.14455,1.14458,0.0,0.0,6]]}'
)


def test_the_documented_frame_is_read() -> None:
    frame = decode_frame(EXAMPLE)

    assert frame.ticks == [Tick(1_549_238_401_003, 1.14455, 1.14458, 0.0, 0.0, 6)]
    assert json.loads(encode(frame)) == json.loads(EXAMPLE)


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_prices_survive_to_the_last_bit(price: float) -> None:
    frame = decode_frame(EXAMPLE)
    frame.ticks = [Tick(1, price, price, price, price, 6)]

    assert decode_frame(encode(frame)).ticks[0].bid == price


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"[" * 100_000,
        EXAMPLE.replace(b'"v":1', b'"v":2'),
        EXAMPLE.replace(b'"bid"', b'"ask"'),
        EXAMPLE.replace(b"[[1549238401003", b"[[-1"),
        EXAMPLE.replace(b"[[1549238401003", b"[[9999999999999999"),
        EXAMPLE.replace(b"1.14455", b"NaN"),
        EXAMPLE.replace(b"1.14455", b'"1.14455"'),
        EXAMPLE.replace(b"[[1549238401003,1.14455,1.14458,0.0,0.0,6]]", b"[]"),
        EXAMPLE[:-1],
    ],
)
def test_what_is_no_frame_is_refused(value: bytes | None) -> None:
    with pytest.raises(InvalidFrame):
        decode_frame(value)
    assert decode_frames([EXAMPLE, value]) is None


def test_two_frames_in_one_value_do_not_shift_the_poll() -> None:
    assert decode_frames([EXAMPLE + b"," + EXAMPLE]) is None
    assert decode_frames([EXAMPLE, EXAMPLE]) == [decode_frame(EXAMPLE)] * 2


def test_unknown_fields_are_ignored() -> None:
    assert decode_frame(EXAMPLE[:-1] + b',"new":1}') == decode_frame(EXAMPLE)


def test_infinite_prices_in_a_frame_are_read_as_no_price() -> None:
    value = EXAMPLE.replace(b"1.14455", b"1e400")

    try:
        frame: Frame | None = decode_frame(value)
    except InvalidFrame:
        frame = None

    assert frame is None or math.isinf(frame.ticks[0].bid)


def test_what_is_no_candle_is_refused() -> None:
    with pytest.raises(InvalidCandle):
        decode_candle(EXAMPLE)
