"""Folding the polls of a log again by symbol gives what folding them in their order gives."""

from itertools import pairwise
from unittest.mock import patch

from aiokafka.structs import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from marketdata.backlog import Sorter, numbered_chunks, numbered_flows
from marketdata.offsets import position
from marketdata.refold import Proof, Refold
from marketdata.tick import Frame
from marketdata.wire import encode
from tests import oracle
from tests.unit.marketdata.test_fold_properties import LOGS
from tests.unit.marketdata.test_runs import CUTS, flows
from tests.unit.stream_app.test_partition import BAD, in_json

BEGIN = position(1, 0)


@given(st.one_of(LOGS, flows()).map(in_json).filter(bool), CUTS, st.sets(st.integers(0, 40), max_size=3))
def test_a_backlog_is_folded_again_as_in_the_order_of_the_log(
    frames: list[Frame], cuts: list[int], bad: set[int]
) -> None:
    log = [(5 + number, frame) for number, frame in enumerate(frames) if number not in bad]
    proofs = [Proof(*key, tuple((1, *spans[1:]) for spans in ranges)) for key, ranges in oracle.minutes_in(log).items()]
    values = [BAD if number in bad else encode(frame) for number, frame in enumerate(frames)]
    records = [ConsumerRecord("t", 1, 5 + n, 0, 0, None, value, None, 0, 0, ()) for n, value in enumerate(values)]
    polls = [records[first:end] for first, end in pairwise(sorted({0, len(values), *(c % len(values) for c in cuts)}))]

    plain, sorted_, sorter, reached = Refold(proofs), Refold(proofs), Sorter(), -1
    with (
        patch("marketdata.runs.MIN_TICKS", 1),
        patch.multiple("marketdata.backlog", MIN_RECORDS=1, MIN_TICKS=0, FLOW_RECORDS=7),
    ):
        for poll in polls:
            for chunk in numbered_chunks(BEGIN, poll):
                plain.feed(chunk)
            for up_to, fed in numbered_flows(sorter, BEGIN, poll):
                assert up_to >= reached
                reached = up_to
                sorted_.feed_flows(fed)
            assert reached == BEGIN + poll[-1].offset

    def candles(refold: Refold) -> dict[Proof, object]:
        return {
            proof: (fold.volume, fold.candle(log="l", offsets=proof.ranges, closed=True, emitted=0))
            for proof, fold in refold.results().items()
        }

    assert candles(sorted_) == candles(plain)
