"""The rules of the fold, one by one; the arithmetic stands in the comments."""

import itertools
import math

import pytest

from marketdata.fold import CandleFold, split_by_period
from marketdata.offsets import Ranges
from marketdata.refold import Proof, Refold
from marketdata.resends import Passes
from marketdata.tick import ChartMode, Frame, Tick, is_deal

REQUESTS = map(str, itertools.count())
T0 = 1_549_238_400_000  # 2019-02-04T00:00:00Z


def tick(ms: int, bid: float = 1.1, ask: float = 0.0, *, last: float = 0.0, volume: float = 0.0) -> Tick:
    # MT5: TICK_FLAG_BID 2, ASK 4; a deal has LAST 8 and VOLUME 16 as well.
    return Tick(T0 + ms, bid, ask, last, volume, 6 if not (last or volume) else 30)


def frame(*ticks: Tick, mode: ChartMode = "bid", point: float | None = 0.00001, coarse: bool = False) -> Frame:
    return Frame(
        v=1,
        source="s",
        symbol="EURUSD",
        mode=mode,
        point=point,
        request=next(REQUESTS),
        received=T0,
        ticks=list(ticks),
        coarse=coarse,
    )


def fold(*frames: Frame, minute: int = T0, ranges: Ranges | None = None) -> CandleFold:
    ranges = ranges or ((0, 0, len(frames) - 1),)
    proof = Proof("s", "EURUSD", minute, ranges)
    refold = Refold([proof])
    refold.feed(list(enumerate(frames)))
    return refold.results()[proof]


def test_prices_come_in_order_of_time_not_of_arrival() -> None:
    # Arrival 3 1 2: open is the tick at 1, close the one at 3.
    candle = fold(frame(tick(3, 1.3)), frame(tick(1, 1.1)), frame(tick(2, 1.2)))

    assert (candle.open, candle.high, candle.low, candle.close, candle.volume) == (1.1, 1.3, 1.1, 1.3, 3)
    assert (candle.earliest, candle.latest) == (T0 + 1, T0 + 3)


def test_ticks_of_one_millisecond_open_with_the_first_and_close_with_the_last_arrival() -> None:
    candle = fold(frame(tick(5, 1.1), tick(5, 1.3), tick(5, 1.2)))

    assert (candle.open, candle.close) == (1.1, 1.2)


def test_a_symbol_charted_by_last_is_folded_from_last() -> None:
    candle = fold(frame(tick(1, 10.0, 11.0, last=10.5, volume=3), mode="last"))

    assert (candle.open, candle.real_volume, candle.volume) == (10.5, 3.0, 1)


@pytest.mark.parametrize("bid", [0.0, -math.inf, math.inf, math.nan])
def test_a_tick_without_a_usable_price_is_counted_but_not_folded(bid: float) -> None:
    candle = fold(frame(tick(1, 1.1), tick(2, bid), tick(3, 1.2)))

    assert (candle.open, candle.high, candle.low, candle.close, candle.volume) == (1.1, 1.2, 1.1, 1.2, 3)


def test_a_minute_whose_ticks_have_no_price_has_no_candle() -> None:
    candle = fold(frame(tick(1, 0.0), tick(2, 0.0)))

    assert candle.volume == 2
    assert candle.candle(log="l", offsets=(), closed=True, emitted=0) is None


def test_spread_is_the_lowest_in_points() -> None:
    # 1.10012 − 1.1 = 12 points, 1.20003 − 1.2 = 3 points; a tick without an ask has no spread.
    assert fold(frame(tick(1, 1.1, 1.10012), tick(2, 1.2, 1.20003), tick(3, 1.3))).spread == 3


def test_candle_quotes_the_newest_tick_whatever_comes_late() -> None:
    fold_ = fold(frame(tick(5, 1.1, 1.2), tick(9, 1.3, 1.5), tick(9, 1.4, 1.6)), frame(tick(7, 1.0, 9.0)))
    quoted = fold_.candle(log="l", offsets=((0, 0, 1),), closed=False, emitted=T0)
    assert quoted is not None
    assert (quoted.bid, quoted.ask) == (1.4, 1.6)


def test_price_that_the_newest_tick_lacks_is_not_quoted() -> None:
    quoted = fold(frame(tick(5, 1.1, 1.2), tick(9, 1.3))).candle(log="l", offsets=(), closed=False, emitted=T0)
    assert quoted is not None
    assert (quoted.bid, quoted.ask) == (1.3, None)


def test_spread_is_unknown_without_the_size_of_a_point() -> None:
    assert fold(frame(tick(1, 1.1, 1.2), point=None)).spread is None


def test_volumes_add_up_exactly_in_any_order() -> None:
    # Doubles in this order make 0.30000000000000004 + 0.3 … ; the exact sum of the three doubles rounds to 0.6.
    volumes = [0.1, 0.2, 0.3]
    forward = fold(frame(*(tick(i, volume=v) for i, v in enumerate(volumes))))
    backward = fold(frame(*(tick(i, volume=v) for i, v in enumerate(reversed(volumes)))))

    assert forward.real_volume == backward.real_volume == math.fsum(volumes)


def test_a_frame_over_midnight_of_a_minute_is_split() -> None:
    both = frame(tick(59_999, 1.1), tick(60_000, 1.2), tick(60_001, 1.3))

    assert [(ts - T0, len(ticks)) for ts, ticks in split_by_period(both)[2]] == [(0, 1), (60_000, 2)]
    assert fold(both, minute=T0).volume == 1
    assert fold(both, minute=T0 + 60_000).open == 1.2


def test_resent_batch_counts_once() -> None:
    batch = frame(tick(1, 1.1), tick(2, 1.2), tick(3, 1.3))

    assert fold(batch, batch).volume == 3


def test_resent_batch_with_newer_ticks_adds_only_the_newer() -> None:
    old = [tick(1, 1.1), tick(2, 1.2)]

    candle = fold(frame(*old), frame(*old, tick(3, 1.3)), frame(*old, tick(3, 1.3), tick(4, 1.4)))

    assert (candle.volume, candle.close) == (4, 1.4)


def test_thirteen_equal_trades_are_thirteen_and_sent_twice_they_still_are() -> None:
    trades = [tick(7, 5.0, last=5.0, volume=1)] * 13

    assert fold(frame(*trades)).volume == 13
    assert fold(frame(*trades), frame(*trades)).volume == 13
    assert fold(frame(*trades), frame(*trades)).real_volume == 13.0
    assert fold(frame(tick(1), *trades), frame(tick(1), *trades), frame(tick(1), *trades)).volume == 14


def test_a_lone_tick_sent_again_with_newer_ones_counts_once() -> None:
    lone = tick(7, 1.1)

    assert fold(frame(lone), frame(lone, tick(8, 1.2))).volume == 2


def test_a_collector_that_repeats_the_last_millisecond_adds_nothing() -> None:
    # CopyTicks from the last time on: [1 2] [2 3] [3 4] are four ticks.
    assert fold(*[frame(tick(ms), tick(ms + 1)) for ms in (1, 2, 3)]).volume == 4


def test_equal_deals_of_one_millisecond_cut_into_two_requests_all_count() -> None:
    deal = tick(7, 5.0, last=5.0, volume=1)

    # 6 behind an earlier deal and 7 ahead of a later one: a resend would have begun at the earlier deal.
    candle = fold(
        frame(tick(1, last=5.0), *[deal] * 6, mode="last"), frame(*[deal] * 7, tick(9, last=5.0), mode="last")
    )

    assert candle.volume == 15


def test_one_record_written_twice_counts_once_even_with_whole_second_times() -> None:
    record = Frame(
        v=1,
        source="s",
        symbol="EURUSD",
        mode="bid",
        point=None,
        request="x",
        received=T0,
        ticks=[tick(1000)],
        coarse=True,
    )
    other = Frame(
        v=1,
        source="s",
        symbol="EURUSD",
        mode="bid",
        point=None,
        request="y",
        received=T0,
        ticks=[tick(1000)],
        coarse=True,
    )

    assert fold(record, record, other).volume == 2


def test_different_ticks_of_one_millisecond_in_two_frames_both_count() -> None:
    assert fold(frame(tick(7, 1.1)), frame(tick(7, 1.2))).volume == 2


def test_whole_second_times_lose_no_tick() -> None:
    # An EA without milliseconds sends the same quote three times in one second, a request each.
    quote = tick(1000, 1.1)

    assert fold(*(frame(quote, coarse=True) for _ in range(3))).volume == 3


def test_whole_second_batch_resent_after_newer_ticks_counts_once() -> None:
    batch = frame(*[tick(1000, 1.1)] * 3, coarse=True)
    newer = frame(tick(2000, 1.2), coarse=True)

    assert fold(batch, newer, batch, newer).volume == 4


def test_resend_is_seen_through_a_frame_of_the_next_minute() -> None:
    # Only the frame of the next minute in between shows that the second batch goes back in time.
    batch = frame(*[tick(59_000, 1.1)] * 3, coarse=True)

    assert fold(batch, frame(tick(60_000), coarse=True), batch).volume == 3


def test_a_gap_between_ranges_opens_a_pass() -> None:
    quotes = [frame(tick(1000, 1.1), coarse=True) for _ in range(3)]

    assert fold(*quotes).volume == 3
    # Offset 1 is not in the set: what stands behind the gap may be the same tick sent again.
    assert fold(*quotes, ranges=((0, 0, 0), (0, 2, 2))).volume == 1


def test_a_record_that_was_folded_is_skipped() -> None:
    candle = CandleFold("s", "EURUSD", T0)
    one = frame(tick(1), tick(2))
    passes = Passes()

    for is_new in (True, False):
        passes.enter(one, T0 + 1, T0 + 2)
        assert candle.add(5, 0, passes, one, list(one.ticks)) is is_new
    candle.settle()
    assert (candle.volume, candle.spans) == (2, ((5, 5),))


def test_spans_are_what_was_read_and_a_gap_splits_them() -> None:
    candle = CandleFold("s", "EURUSD", T0)
    passes = Passes()
    for offset, run in ((3, 0), (9, 0), (12, 1), (13, 1)):
        one = frame(tick(offset))
        passes.enter(one, T0 + offset, T0 + offset)
        candle.add(offset, run, passes, one, list(one.ticks))

    assert candle.spans == ((3, 9), (12, 13))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (0, True), (1024, True),  # the sender gives none
        (2, False), (4, False), (6, False), (1030, False),
        (8, True), (16, True), (32, True), (64, True), (24, True), (56, True), (1080, True),
    ],
)  # fmt: skip
def test_a_deal_is_told_by_the_flags(flags: int, expected: bool) -> None:
    assert is_deal(flags) is expected


def test_quotes_repeat_the_last_deal_and_neither_draw_nor_add() -> None:
    # A future charted by last: two deals (10 and 5 lots), quotes between them, then a minute of one deal and one of
    # none. Every quote repeats the price and the volume of the deal before it.
    def at(ms: int, last: float, lots: float, flags: int) -> Tick:
        return Tick(T0 + ms, 156_740.0, 156_750.0, last, lots, flags)

    sent = frame(
        at(32_665, 156_755, 10, 56), at(32_700, 156_755, 10, 2), at(32_900, 156_755, 10, 4), at(40_000, 156_755, 10, 6),
        at(59_000, 156_760, 5, 56), at(60_100, 156_760, 5, 2), at(80_000, 156_700, 3, 88), at(130_000, 156_700, 3, 6),
        mode="last",
    )  # fmt: skip
    minutes = [fold(sent, minute=T0 + n * 60_000) for n in range(3)]

    assert [(m.open, m.high, m.low, m.close, m.volume, m.real_volume) for m in minutes[:2]] == [
        (156_755, 156_760, 156_755, 156_760, 2, 15.0), (156_700, 156_700, 156_700, 156_700, 1, 3.0),
    ]  # fmt: skip
    assert (minutes[2].volume, minutes[2].real_volume) == (0, 0.0)
    assert minutes[2].candle(log="l", offsets=((0, 0, 0),), closed=True, emitted=0) is None


def test_a_negative_price_is_a_price() -> None:
    # WTI, 20 April 2020, 18:08 and 18:29; a bid of 0 is none, and the spread is that of the ticks with both.
    ticks = frame(
        tick(2_300, -0.02, 0.05), tick(30_000, -1.43, -1.30), tick(40_000, 0.0, 0.05), tick(45_000, 0.10, 0.20),
        tick(61_000, -37.63, -37.40), tick(99_000, -40.32, -40.00), point=0.01,
    )  # fmt: skip
    first, second = fold(ticks), fold(ticks, minute=T0 + 60_000)

    assert (first.open, first.high, first.low, first.close, first.volume) == (-0.02, 0.10, -1.43, 0.10, 4)
    assert first.spread == 7
    assert (second.open, second.high, second.low, second.close) == (-37.63, -37.63, -40.32, -40.32)


def test_undocumented_flags_do_not_make_two_ticks_of_one() -> None:
    live = [Tick(T0 + ms, 1.1, 1.2, 0.0, 0.0, 1158) for ms in (1, 2, 3)]
    history = [Tick(T0 + ms, 1.1, 1.2, 0.0, 0.0, 134 & 6) for ms in (1, 2, 3)]

    assert fold(frame(*live), frame(*history)).volume == 3
    # The same where a resend is told by its first millisecond.
    assert fold(frame(live[0]), frame(history[0], history[1])).volume == 2
