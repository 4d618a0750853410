"""What goes through Kafka comes out equal, and what is no frame is told apart."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.candle import BrokerBar
from marketdata.errors import InvalidCandle, InvalidFrame
from marketdata.tick import MAX_TIME_MSC, Columns, Tick, content
from marketdata.wire import (
    MIN_TICKS,
    bar_key,
    candle_key,
    decode_candle,
    decode_frame,
    decode_frames,
    encode,
    frame_key,
    record_key,
)
from tests.unit.sink.candles import candle

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
        EXAMPLE.replace(b'"v":1', b'"v":3'),
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


COLUMNS = (
    b'{"v":2,"source":"ICMarkets-Demo","symbol":"EURUSD","mode":"bid","point":0.00001,"request":"r",'
    b'"received":1549238401003,"ticks":{"time_msc":1549238401003,"after_ms":[0,417,417],"bid":[1.1,1.2,1.3],'
    b'"ask":[1.4,1.5,1.6],"flags":6}}'
)


def test_the_documented_columns_are_read() -> None:
    assert list(decode_frame(COLUMNS).ticks) == [
        Tick(1_549_238_401_003, 1.1, 1.4, 0.0, 0.0, 6),
        Tick(1_549_238_401_420, 1.2, 1.5, 0.0, 0.0, 6),
        Tick(1_549_238_401_420, 1.3, 1.6, 0.0, 0.0, 6),
    ]
    listed = COLUMNS.replace(b'"flags":6', b'"flags":[2,4,6],"last":[1.0,2.0,3.0],"volume":5.0')
    assert [(tick.last, tick.volume, tick.flags) for tick in decode_frame(listed).ticks] == [
        (1.0, 5.0, 2), (2.0, 5.0, 4), (3.0, 5.0, 6),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("part", "other"),
    [
        (b"[0,417,417]", b"[]"),
        (b"[0,417,417]", b"[0,417]"),
        (b"[0,417,417]", b"[0,417,-1549238401004]"),
        (b"[0,417,417]", b"[0,417,253402300799999]"),
        (b"[0,417,417]", b"[0,417,1e3]"),
        (b"[1.1,1.2,1.3]", b"1.1"),
        (b"[1.1,1.2,1.3]", b'["1.1",1.2,1.3]'),
        (b'"flags":6', b'"flags":[6,6]'),
        (b'"flags":6', b'"flags":[6,6,9223372036854775808]'),
        (b'"flags":6', b'"flags":6,"last":[1.0]'),
        (b',"flags":6', b""),
    ],
)
def test_columns_that_make_no_ticks_are_refused(part: bytes, other: bytes) -> None:
    value = COLUMNS.replace(part, other)

    with pytest.raises(InvalidFrame):
        decode_frame(value)
    assert decode_frames([EXAMPLE, value]) is None


PRICES = st.one_of(st.just(0.0), st.just(-0.0), st.floats(allow_nan=False, allow_infinity=False))
TICKS = st.builds(
    Tick, st.integers(0, MAX_TIME_MSC), PRICES, PRICES, PRICES, PRICES,
    st.one_of(st.just(6), st.integers(-(2**63), 2**63 - 1)),
)  # fmt: skip


@given(st.lists(TICKS, min_size=1, max_size=20))
def test_a_frame_of_some_ticks_is_written_as_columns(ticks: list[Tick]) -> None:
    frame = decode_frame(EXAMPLE)
    frame.ticks = ticks

    read = decode_frame(encode(frame))

    assert read.v == (2 if len(ticks) >= MIN_TICKS else 1)
    assert list(read.ticks) == ticks
    assert content(read) == content(frame) != content(msgspec.structs.replace(read, received=1))
    assert [read.ticks[index] for index in range(-len(ticks), len(ticks))] == ticks * 2
    assert encode(read) == encode(frame)
    assert list(Columns.of(ticks)[1:3]) == ticks[1:3]
    assert list(Columns.joined([ticks, Columns.of(ticks), ticks[:1], Columns.of(ticks[-1:])])) == [
        *ticks, *ticks, ticks[0], ticks[-1],
    ]  # fmt: skip


def test_two_frames_in_one_value_do_not_shift_the_poll() -> None:
    assert decode_frames([EXAMPLE + b"," + EXAMPLE]) is None
    assert decode_frames([EXAMPLE, EXAMPLE]) == [decode_frame(EXAMPLE)] * 2


def test_unknown_fields_are_ignored() -> None:
    assert decode_frame(EXAMPLE[:-1] + b',"new":1}') == decode_frame(EXAMPLE)


@pytest.mark.parametrize("price", [b"1e400", b"-1e400", b"NaN", b"9" * 400])
def test_prices_that_are_not_finite_are_refused(price: bytes) -> None:
    """The fold of columns relies on it."""
    for example in (EXAMPLE.replace(b"1.14455", price), COLUMNS.replace(b"1.1,", price + b",")):
        with pytest.raises(InvalidFrame):
            decode_frame(example)
        assert decode_frames([example]) is None


def test_what_is_no_candle_is_refused() -> None:
    with pytest.raises(InvalidCandle):
        decode_candle(EXAMPLE)


#: What brokers put into names, slashes and percent signs more often than they do.
NAMES = st.text(alphabet=st.sampled_from("AB/%25F .€"), min_size=1, max_size=6)


def bar_of(source: str, symbol: str, timeframe: str = "H1", ts: int = 0) -> BrokerBar:
    return BrokerBar(
        source=source, symbol=symbol, timeframe=timeframe, ts=ts, open=1, high=1, low=1, close=1, volume=1, received=0
    )


def test_bars_of_two_feeds_never_share_a_key() -> None:
    """`candles.broker` is compacted by key: one of two bars of one key would be deleted."""
    assert bar_key(bar_of("A/B", "C")) == b"A%2FB/C/H1/0"
    assert bar_key(bar_of("A", "B/C")) == b"A/B%2FC/H1/0"
    assert frame_key("A/B", "C") != frame_key("A", "B/C")
    assert frame_key("XM.COM-Real 2", "EURUSD") == b"XM.COM-Real 2/EURUSD"


@given(st.lists(NAMES, min_size=1, max_size=3), st.lists(NAMES, min_size=1, max_size=3))
def test_only_equal_names_have_equal_keys(one: list[str], other: list[str]) -> None:
    assert (record_key(*one) == record_key(*other)) is (one == other)


@given(st.tuples(NAMES, NAMES), st.tuples(NAMES, NAMES), st.sampled_from(["M1", "S5"]), st.integers(0, 99))
def test_keys_name_source_symbol_timeframe_and_time(
    one: tuple[str, str], other: tuple[str, str], timeframe: str, ts: int
) -> None:
    candles = [
        candle(source=source, symbol=symbol, timeframe=name, ts=time)
        for (source, symbol), name, time in [(one, "M1", 0), (other, timeframe, ts)]
    ]
    assert (candle_key(candles[0]) == candle_key(candles[1])) is ((one, "M1", 0) == (other, timeframe, ts))
    bars = [bar_of(*one), bar_of(*other, ts=ts)]
    assert (bar_key(bars[0]) == bar_key(bars[1])) is ((one, 0) == (other, ts))
