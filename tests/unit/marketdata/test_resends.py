"""Whole-second senders whose requests overtake each other lose no tick, and what they send again counts once."""

import itertools
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.packed import PACK_TICKS, PackedTicks
from marketdata.refold import Proof, Refold
from marketdata.tick import MAX_TIME_MSC, MINUTE_MS, Frame, Tick, period_of
from marketdata.wire import encode
from stream_app.window import Window
from tests import oracle

T0 = 1_549_238_400_000
REQUESTS = map(str, itertools.count())

Request = list[Tick]
Minutes = dict[int, tuple[int, float, float, float]]


def at(second: int, number: int) -> Tick:
    return Tick(T0 + second * 1000, 1.1 + number / 1000, 2.5, 0.0, 0.0, 6)


def frame(ticks: Request) -> Frame:
    return Frame(
        v=1, source="s", symbol="A", mode="bid", point=None, request=next(REQUESTS), received=T0, ticks=ticks,
        coarse=True,
    )  # fmt: skip


def minutes(requests: Sequence[Request]) -> Minutes:
    """Volume, high, low and sum of the prices of every minute, folded by a worker and again from its ranges."""
    log = list(enumerate(map(frame, requests)))
    window = Window(log="l", partition=0, grace_ms=0)
    for record in log:
        window.feed(record[0], record[0], [[record]], now=0.0)
    live = {
        each.candle.ts: each.candle for each in window.emissions(wall_ms=T0 + 10**9, now=0.0) if each.candle is not None
    }
    proofs = {key[2]: Proof(*key, ranges) for key, ranges in oracle.minutes_in(log).items()}
    refold = Refold(proofs.values())
    refold.feed(log)
    folded = refold.results()
    for ts, proof in proofs.items():
        again = folded[proof].candle(log="l", offsets=proof.ranges, closed=True, emitted=T0 + 10**9)
        assert again is not None
        assert encode(again) == encode(live[ts])
    return {ts: (each.volume, each.high, each.low, each.real_volume) for ts, each in sorted(live.items())}


def truth(flow: Sequence[Tick]) -> Minutes:
    by_minute: dict[int, list[Tick]] = {}
    for tick in flow:
        by_minute.setdefault(period_of(tick.time_msc, MINUTE_MS), []).append(tick)
    return {
        ts: (len(ticks), max(t.bid for t in ticks), min(t.bid for t in ticks), 0.0) for ts, ticks in by_minute.items()
    }


@st.composite
def honest(draw: st.DrawFn) -> list[Request]:
    """One flow, cut into requests anywhere; where a second is cut, equal ticks may stand on both sides.

    Every request holds a tick of its own in each minute that it touches: one whose every tick equals ticks of others is
    a resend, as far as anyone can tell.
    """
    rng = random.Random(draw(st.integers(0, 2**32)))
    most_seconds = draw(st.sampled_from([0, 1, 3, 25]))
    numbers = itertools.count()
    second, requests = 50, list[Request]()
    for _ in range(draw(st.integers(1, 14))):
        ticks: Request = []
        if requests and rng.random() < 0.6:
            ticks.append(requests[-1][-1])
        else:
            second += rng.randint(0, most_seconds)
        ticks.append(at(second, next(numbers)))
        for _ in range(rng.choice([0, 0, 1, 4])):
            second += rng.randint(0, most_seconds)
            ticks.append(at(second, next(numbers)))
        second += rng.randint(0, most_seconds)
        ticks += [at(second, next(numbers)), at(second, next(numbers))]
        requests.append(ticks)
    return requests


def interleaved(requests: Sequence[Request], senders: int, rng: random.Random) -> list[Request]:
    """The requests dealt to so many senders, each of which sends its own in order."""
    queues: list[list[Request]] = [[] for _ in range(senders)]
    for request in requests:
        rng.choice(queues).append(request)
    order = rng.sample([i for i, queue in enumerate(queues) for _ in queue], len(requests))
    return [queues[i].pop(0) for i in order]


def recut(ticks: Sequence[Tick], rng: random.Random) -> list[Request]:
    cuts = sorted({0, len(ticks), *(rng.randrange(len(ticks) + 1) for _ in range(rng.randint(0, 4)))})
    return [list(ticks[begin:end]) for begin, end in itertools.pairwise(cuts)]


@given(honest(), st.integers(1, 3), st.integers(0, 2**32))
def test_senders_that_overtake_each_other_lose_nothing(requests: list[Request], senders: int, seed: int) -> None:
    flow = list(itertools.chain(*requests))

    assert minutes(interleaved(requests, senders, random.Random(seed))) == truth(flow)


@given(honest())
def test_pages_newest_first_lose_nothing(requests: list[Request]) -> None:
    flow = list(itertools.chain(*requests))

    assert minutes(requests[::-1]) == truth(flow)


@given(honest(), st.integers(1, 3), st.integers(0, 2**32))
def test_what_is_sent_again_counts_once(requests: list[Request], senders: int, seed: int) -> None:
    """Any requests in a row, in order or newest first, a little later or much later."""
    rng = random.Random(seed)
    sent = interleaved(requests, senders, rng)
    begin = rng.randrange(len(requests))
    again = requests[begin : rng.randint(begin + 1, len(requests))]
    flow = list(itertools.chain(*requests))
    later = [at(600, 1), at(601, 2)]

    for resent in (again, again[::-1]):
        assert minutes([*sent, later, *resent]) == truth([*flow, *later])
    beside_live = [each for n, request in enumerate(again) for each in (request, [at(610 + n, n)])]
    assert minutes([*sent, later, *beside_live]) == truth([*flow, *later, *(at(610 + n, n) for n in range(len(again)))])


@given(honest(), st.integers(0, 2**32))
def test_resends_in_the_middle_of_flow_cost_nothing_and_add_nothing(requests: list[Request], seed: int) -> None:
    """After any request an older one again, as a sender does that had no answer in time."""
    rng = random.Random(seed)
    spread = [n for n, request in enumerate(requests) if request[0].time_msc < request[-1].time_msc]
    sent: list[Request] = []
    for number, request in enumerate(requests):
        sent.append(request)
        if (older := [n for n in spread if n < number]) and rng.random() < 0.4:
            sent.append(requests[rng.choice(older)])

    assert minutes(sent) == truth(list(itertools.chain(*requests)))


@given(honest(), st.integers(0, 2**32))
def test_a_piece_that_is_cut_differently_when_it_is_sent_again_counts_once(requests: list[Request], seed: int) -> None:
    """A request of a single tick, or two of equal ones, may count again where nothing else of the minute is sent."""
    rng = random.Random(seed)
    flow = list(itertools.chain(*requests))
    begin = rng.randrange(len(flow))
    piece = flow[begin : rng.randint(begin + 1, len(flow))]
    resent = recut(piece, rng)
    later = [at(600, 1), at(601, 2)]
    alone = Counter(
        period_of(part[0].time_msc, MINUTE_MS)
        for request in resent
        for _, ticks in itertools.groupby(request, lambda tick: period_of(tick.time_msc, MINUTE_MS))
        if len(part := list(ticks)) == 1
    )

    folded, expected = minutes([*requests, later, *resent]), truth([*flow, *later])

    for ts, (volume, *prices) in expected.items():
        assert folded[ts][1:] == tuple(prices)
        assert volume <= folded[ts][0] <= volume + min(alone[ts], 2)


@given(st.integers(1, 3), st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(0, 2**32))
def test_single_ticks_of_a_queue_beside_live_ones_lose_nothing(each: int, seconds: list[int], seed: int) -> None:
    """Every tick is a request, equal ones in a row as of a quote that does not move, live ones between."""
    rng = random.Random(seed)
    queued = [at(second, second) for second in sorted(seconds) for _ in range(each)]
    live = [at(120 + n, n) for n in range(len(queued))]
    sent = [request for pair in zip(queued, live, strict=True) for request in ([pair[0]], [pair[1]])]
    if rng.random() < 0.5:
        sent = [[queued[0]], [live[0]], *([tick] for tick in queued[1:]), *([tick] for tick in live[1:])]

    assert minutes(sent) == truth([*queued, *live])


@pytest.mark.parametrize(
    ("requests", "volume"),
    [
        ([[(1, 1)], [(5, 5)], [(1, 1)]], 3),  # the queue's second tick, overtaken by a live one
        ([[(0, 0)], [(1, 1)], [(5, 5)], [(1, 1)], [(2, 2)]], 5),
        ([[(0, 0)], [(1, 1)], [(90, 5)], [(1, 1)], [(91, 6)], [(1, 1)], [(2, 2)]], 5),
        ([[(5, 5)], [(1, 1)], [(1, 1)], [(0, 0)]], 4),  # pages of one tick, newest first
        ([[(1, 1)], [(2, 2)], [(3, 3)]] * 2, 3),  # the whole run again
        ([[(1, 1)], [(2, 2)], [(3, 3)], [(2, 2)], [(3, 3)], [(3, 3)], [(4, 4)]], 5),  # with newer ones behind
        ([[(1, 1)] * 3, [(2, 2)], [(1, 1)] * 3, [(2, 2)]], 4),
        ([[(1, 1)], [(2, 2)], [(1, 1), (2, 2)], [(3, 3)]], 3),  # again as one request
        ([[(5, 5)], [(1, 1)], [(0, 0)]] * 2, 3),  # the exporter runs twice
        # A resend between two requests that share a second takes none of its ticks with it.
        ([[(1, 1), (2, 2)], [(3, 3), (5, 5)], [(1, 1), (2, 2)], [(5, 5), (6, 6)]], 6),
        ([[(1, 1), (2, 2)], [(3, 3), (5, 5)], [(1, 1), (2, 2)], [(5, 5)]], 5),
        # Live ticks of one second, between them what a queue holds of the minute before.
        ([[(5, 5)], [(-60, 9)], [(5, 5)], [(-59, 8)], [(5, 5)], [(6, 6)]], 4),
    ],
)
def test_a_run_that_repeats_is_a_resend_and_a_single_tick_is_not(
    requests: list[list[tuple[int, int]]], volume: int
) -> None:
    sent = [[at(*tick) for tick in request] for request in requests]

    assert minutes(sent)[T0][0] == volume


def test_a_quiet_symbol_that_is_sent_again_counts_once_except_at_both_ends() -> None:
    """One tick a minute and request: the first again could be one that was overtaken, the last one that goes on."""
    flow = [[at(60 * minute, minute)] for minute in range(10)]

    volumes = [each[0] for each in minutes([*flow, *flow[3:]]).values()]

    assert volumes == [1, 1, 1, 2, 1, 1, 1, 1, 1, 2]


PRICES = st.floats(allow_nan=False)
TICKS = st.builds(
    Tick,
    time_msc=st.integers(0, MAX_TIME_MSC),
    bid=PRICES,
    ask=PRICES,
    last=PRICES,
    volume=PRICES,
    flags=st.one_of(st.just(6), st.integers(-(2**63), 2**63 - 1)),
)


@given(st.lists(st.lists(TICKS, max_size=5).map(lambda ticks: ticks * 20), max_size=8))
def test_ticks_come_back_in_their_order(batches: list[list[Tick]]) -> None:
    kept = PackedTicks(0, 60_000)
    for batch in batches:
        kept.add(batch)

    together = [tick for batch in batches for tick in batch]
    assert list(kept) == together
    assert len(kept) == len(together)


def test_what_is_kept_is_packed() -> None:
    kept = PackedTicks(0, 60_000)
    ticks = [Tick(1_549_238_400_000 + i, 1.1, 1.2, 0.0, 0.0, 6) for i in range(PACK_TICKS)]

    kept.add(ticks)

    [block] = list(kept._packed)
    assert isinstance(block, bytes)
    assert len(block) < 60 * PACK_TICKS


def test_of_a_record_only_the_ticks_of_the_period_are_kept() -> None:
    ticks = [Tick(time_msc, 1.1, 1.2, 0.0, 0.0, 6) for time_msc in range(59_996, 60_004)]
    record = encode(
        Frame(v=1, source="s", symbol="A", mode="bid", point=None, request="r", received=0, ticks=ticks)
    )  # fmt: skip
    kept = PackedTicks(60_000, 60_000)

    kept.add_records([record], 4)
    kept.add(ticks[4:5])

    assert list(kept) == [*ticks[4:], ticks[4]]
    assert len(kept) == 5
