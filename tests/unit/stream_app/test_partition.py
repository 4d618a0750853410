"""A backlog that is sorted by symbol is folded as in the order of the log: candles, origins, rejected records."""

from itertools import pairwise
from math import isfinite
from typing import Any
from unittest.mock import patch

from aiokafka.structs import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from marketdata.tick import Frame
from marketdata.wire import encode
from stream_app.emitter import Metrics
from stream_app.partition import Decoding, Partition
from stream_app.window import Window
from tests.unit.marketdata.test_fold_properties import LOGS, T0
from tests.unit.marketdata.test_runs import CUTS, flows

Poll = list[ConsumerRecord[Any, Any]]

#: Offset of the first record.
BEGIN = 5

BAD = b'{"v":1,"source":"s","symbol":"A","mode":"bid","point":0.01,"request":"bad","received":-1,"ticks":[]}'


def in_json(frames: list[Frame]) -> list[Frame]:
    """Those that a record can hold: JSON has no infinity."""
    return [
        frame
        for frame in frames
        if all(isfinite(number) for tick in frame.ticks for number in (tick.bid, tick.ask, tick.last, tick.volume))
    ]


def polls(values: list[bytes], cuts: list[int]) -> list[Poll]:
    records: Poll = [
        ConsumerRecord("t", 0, BEGIN + n, 0, 0, None, value, None, 0, 0, (("n", b"%d" % n),))
        for n, value in enumerate(values)
    ]
    bounds = [0, *sorted({cut % len(records) for cut in cuts} - {0}), len(records)]
    # A part is read again after a seek.
    return [records[max(0, first - 2) : end] for first, end in pairwise(bounds)]


def folded(log: list[Poll], *, is_backlog: bool) -> tuple[Any, ...]:
    """All that comes of the polls: candles, origins, rejected records, the offset held back and the ticks held."""
    window = Window(log="l", partition=0, grace_ms=5_000)
    partition = Partition(0, window)
    decoding, ticks = Decoding("t", Metrics(), links=False), 0
    with (
        patch.multiple("marketdata.backlog", MIN_RECORDS=1 if is_backlog else 10**9, MIN_TICKS=0, FLOW_RECORDS=7),
        patch("stream_app.blocks._MIN_OF_EACH", 0),
    ):
        for poll in log:
            ticks += partition.fold(poll, decoding, 0, now=0.0)
    emissions = window.emissions(wall_ms=T0 + 1_000_000, now=0.0)
    of_each = {}
    for emission in emissions:
        period, origin = emission.period, emission.period.origin
        assert origin is not None
        bytes_of = None if emission.candle is None else encode(emission.candle)
        key = (period.fold.source, period.fold.symbol, period.fold.ts)
        of_each[key] = (bytes_of, origin.received_ms, origin.headers)
    rejected = [one.record.offset for one in partition.rejected]
    return of_each, rejected, ticks, window.safe_offset, window.position, window.ticks_held, partition.last


@given(st.one_of(LOGS, flows()).map(in_json).filter(bool), CUTS, st.sets(st.integers(0, 40), max_size=3))
def test_a_backlog_is_folded_as_in_the_order_of_the_log(frames: list[Frame], cuts: list[int], bad: set[int]) -> None:
    values = list(map(encode, frames))
    for number in sorted(bad):
        values.insert(number % (len(values) + 1), BAD)
    log = polls(values, cuts)

    with patch("marketdata.runs.MIN_TICKS", 1):
        assert folded(log, is_backlog=True) == folded(log, is_backlog=False)


def test_rejected_records_of_a_backlog_wait_in_the_order_of_the_log() -> None:
    """The first of them holds the commit back."""
    bad = [BAD.replace(b'"A"', b'"%s"' % symbol) for symbol in (b"B", b"A", b"B", b"A")]

    _, rejected, *_ = folded(polls(bad, []), is_backlog=True)

    assert rejected == [BEGIN, BEGIN + 1, BEGIN + 2, BEGIN + 3]
