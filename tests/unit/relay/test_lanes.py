"""What goes into one request: the order and the boundaries that the server's fold relies on."""

from collections import Counter, defaultdict
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.fold import CandleFold, split_by_period
from marketdata.resends import Passes
from marketdata.tick import Frame, Tick, period_of
from relay.lanes import Lanes, Origin, Part, Row, halves

TICKS = Origin("/ingest/tick", None, None)
BASE = 1_549_238_400_000


def row(id_: int, ts: int, *, symbol: str = "EURUSD", request: str = "r", coarse: bool = False, **more: bool) -> Row:
    return Row(id_, symbol, TICKS, symbol, BASE + ts, request, coarse, b"{}", **more)


def drain(lanes: Lanes, limit: int) -> list[list[Part]]:
    batches = []
    while parts := lanes.take(limit, at_end=True):
        batches.append(parts)
    return batches


def ids(parts: list[Part]) -> list[list[int]]:
    return [[each.id for each in part] for part in parts]


def test_requests_that_go_forward_are_merged() -> None:
    lanes = Lanes()
    lanes.add([row(1, 0, request="a"), row(2, 1, request="b"), row(3, 2, request="c")])
    assert ids(lanes.take(10, at_end=True)) == [[1, 2, 3]]
    assert lanes.waiting == 0


@pytest.mark.parametrize("again", [0, 1], ids=["goes back", "same millisecond"])
def test_a_resend_stays_a_request_of_its_own(again: int) -> None:
    lanes = Lanes()
    lanes.add([row(1, 0, request="a"), row(2, 1, request="a"), row(3, again, request="b"), row(4, 2, request="b")])
    assert [ids(parts) for parts in drain(lanes, 10)] == [[[1, 2]], [[3, 4]]]


@pytest.mark.parametrize(("archived", "sent"), [(False, [[[1]], [[2]]]), (True, [[[1, 2]]])])
def test_requests_of_whole_seconds_are_merged_only_from_an_archive(archived: bool, sent: list[list[list[int]]]) -> None:
    lanes = Lanes()
    lanes.add(row(n, n * 1000, request=str(n), coarse=True, is_archived=archived) for n in (1, 2))
    assert [ids(parts) for parts in drain(lanes, 10)] == sent


def test_deals_of_one_millisecond_never_end_a_merged_request() -> None:
    lanes = Lanes()
    lanes.add([row(1, 0, request="a", has_deals=True), row(2, 1, request="b", has_deals=True)])
    lanes.add([row(3, 2, request="c", has_deals=True), row(4, 2, request="c", has_deals=True)])
    assert [ids(parts) for parts in drain(lanes, 10)] == [[[1, 2]], [[3, 4]]]


def test_deals_of_several_milliseconds_end_a_merged_request() -> None:
    lanes = Lanes()
    lanes.add([row(1, 0, request="a", has_deals=True), row(2, 1, request="b", has_deals=True)])
    lanes.add([row(3, 2, request="b", has_deals=True)])
    assert ids(lanes.take(10, at_end=True)) == [[1, 2, 3]]


def test_a_request_that_may_go_on_in_the_next_page_waits_for_it() -> None:
    lanes = Lanes()
    lanes.add([row(1, 0, request="a"), row(2, 1, request="b")])
    assert ids(lanes.take(10, at_end=False)) == [[1]]
    assert lanes.take(10, at_end=False) == []
    lanes.add([row(3, 1, request="b")])
    assert ids(lanes.take(10, at_end=True)) == [[2, 3]]


def test_symbols_share_a_request_and_a_full_one_leaves_the_rest_waiting() -> None:
    lanes = Lanes()
    lanes.add([row(1, 0), row(2, 0, symbol="USDJPY"), row(3, 1), row(4, 0, symbol="XAUUSD")])
    assert ids(lanes.take(3, at_end=True)) == [[1, 3], [2]]
    assert lanes.heads() == {"XAUUSD": (4, 1)}


def test_only_one_origin_goes_into_a_request() -> None:
    lanes = Lanes()
    other = row(2, 0, symbol="USDJPY")._replace(origin=Origin("/ingest/tick", None, 7200))
    lanes.add([row(1, 0), other])
    assert [ids(parts) for parts in drain(lanes, 10)] == [[[1]], [[2]]]


def test_requests_of_one_lane_with_other_clocks_are_not_merged() -> None:
    lanes = Lanes()
    later = row(2, 1, request="b")._replace(origin=Origin("/ingest/tick", None, 7200))
    lanes.add([row(1, 0, request="a"), later])
    assert [ids(parts) for parts in drain(lanes, 10)] == [[[1]], [[2]]]


@pytest.mark.parametrize(
    ("times", "cut"), [([0, 0, 1, 1, 1], [2, 3]), ([0, 1, 1, 1, 1], [1, 4]), ([0, 1, 2, 3, 4], [4, 1])], ids=str
)
def test_a_request_larger_than_a_batch_is_cut_where_the_time_changes(times: list[int], cut: list[int]) -> None:
    lanes = Lanes()
    lanes.add(row(number, time) for number, time in enumerate(times))
    assert [len(part) for (part,) in drain(lanes, 4)] == cut


@pytest.mark.parametrize(
    ("times", "first"),
    [([0, 1, 1, 1], 1), ([0, 1, 1, 1, 1, 1, 2, 2], 6), ([0, 1, 2, 3], 2), ([0, 0, 0, 0], 2)],
    ids=str,
)
def test_a_symbol_is_halved_at_the_change_of_time_next_to_the_middle(times: list[int], first: int) -> None:
    rows = [row(number, time) for number, time in enumerate(times)]
    assert halves([rows]) == ([rows[:first]], [rows[first:]])


def test_halves_part_symbols_first_and_equal_times_last() -> None:
    euro, yen = [row(1, 0), row(2, 0), row(3, 1)], [row(4, 0, symbol="USDJPY")]
    assert halves([euro, yen]) == ([euro], [yen])
    assert halves([euro]) == ([euro[:2]], [euro[2:]])
    assert halves([euro[:2]]) == ([euro[:1]], [euro[1:2]])


# Requests of one to five ticks of three symbols, whose times mostly go forward and sometimes back.
requests_of_eas = st.lists(
    st.tuples(
        st.sampled_from(["EURUSD", "USDJPY", "XAUUSD"]),
        st.integers(-3, 3),
        st.lists(st.integers(0, 2), min_size=1, max_size=5),
    ),
    max_size=30,
)


def stored(requests: list[tuple[str, int, list[int]]], *, coarse: bool = False, has_deals: bool = False) -> list[Row]:
    rows: list[Row] = []
    time: dict[str, int] = defaultdict(lambda: 10)
    for number, (symbol, jump, steps) in enumerate(requests):
        ts = max(0, time[symbol] + jump)
        for step in steps:
            ts += step
            at = ts * 1000 if coarse else ts
            more = {"coarse": coarse, "has_deals": has_deals}
            rows.append(row(len(rows) + 1, at, symbol=symbol, request=str(number), **more))
        time[symbol] = ts
    return rows


@given(requests_of_eas, st.integers(1, 12), st.integers(1, 9), st.booleans(), st.booleans())
def test_batches_are_the_rows_in_order_and_never_part_equal_times(
    requests: list[tuple[str, int, list[int]]], limit: int, page: int, coarse: bool, has_deals: bool
) -> None:
    rows = stored(requests, coarse=coarse, has_deals=has_deals)
    lanes, batches = Lanes(), []
    for start in range(0, len(rows), page):
        lanes.add(rows[start : start + page])
        while parts := lanes.take(limit, at_end=start + page >= len(rows)):
            batches.append(parts)

    sent: dict[str, list[Part]] = defaultdict(list)
    for parts in batches:
        assert len({part[0].symbol for part in parts}) == len(parts)
        assert sum(map(len, parts)) <= limit
        for part in parts:
            sent[part[0].symbol].append(part)
    assert lanes.waiting == 0
    for symbol in {each.symbol for each in rows}:
        assert [each for part in sent[symbol] for each in part] == [each for each in rows if each.symbol == symbol]
        sizes = Counter(each.request for each in rows if each.symbol == symbol)
        for before, after in pairwise(sent[symbol]):
            assert before[-1].request != after[0].request or sizes[after[0].request] > limit
            is_parted = before[-1].request == after[0].request and before[-1].ts_ms == after[0].ts_ms
            # Only a request that is larger than a batch, with equal times that fill it.
            assert not is_parted or len({each.ts_ms for each in before}) == 1 == len({each.request for each in before})


def volumes(frames: list[Frame]) -> dict[int, int]:
    passes, folds = Passes(), dict[int, CandleFold]()
    for offset, frame in enumerate(frames):
        earliest, latest, minutes = split_by_period(frame)
        passes.enter(frame, earliest, latest)
        for minute, ticks in minutes:
            folds.setdefault(minute, CandleFold("s", "EURUSD", minute)).add(offset, 0, passes, frame, ticks)
    for fold in folds.values():
        fold.settle()
    return {minute: fold.volume for minute, fold in folds.items()}


def frame_of(part: list[Row], number: int) -> Frame:
    ticks = [Tick(each.ts_ms, 1.0 + each.ts_ms % 7, 2.0, 0.0, 0.0, 6) for each in part]
    return Frame(
        v=1, source="s", symbol="EURUSD", mode="last" if part[0].has_deals else "bid", point=None, request=str(number),
        received=BASE + number, ticks=ticks, coarse=any(each.coarse for each in part),
    )  # fmt: skip


def frames_of(parts: list[Part]) -> list[Frame]:
    return [frame_of(part, number) for number, part in enumerate(parts)]


def by_request(rows: list[Row]) -> list[Part]:
    straight: dict[str | None, list[Row]] = defaultdict(list)
    for each in rows:
        straight[each.request].append(each)
    return list(straight.values())


def merged(rows: list[Row]) -> list[Part]:
    lanes = Lanes()
    lanes.add(rows)
    return [part for parts in drain(lanes, 1000) for part in parts]


@given(requests_of_eas, st.booleans(), st.booleans())
def test_merging_requests_counts_as_if_the_ea_had_posted_to_the_server(
    requests: list[tuple[str, int, list[int]]], coarse: bool, has_deals: bool
) -> None:
    jumps = [("EURUSD", jump, steps) for _, jump, steps in requests]
    rows = stored(jumps, coarse=coarse, has_deals=has_deals)
    relayed = volumes(frames_of(merged(rows)))
    assert relayed == volumes(frames_of(by_request(rows)))
    assert all(period_of(minute) == minute for minute in relayed)


@given(
    st.lists(st.tuples(st.integers(1, 3), st.lists(st.integers(0, 2), min_size=1, max_size=4)), min_size=1, max_size=9),
    st.booleans(),
)
def test_a_request_that_the_relay_did_not_answer_in_time_and_that_goes_to_the_server_counts_once(
    requests: list[tuple[int, list[int]]], has_deals: bool
) -> None:
    """The EA sends forward only, its newest request twice: the relay has forwarded it when the server gets it."""
    rows = stored([("EURUSD", jump, steps) for jump, steps in requests], has_deals=has_deals)
    parts = merged(rows)
    again = by_request(rows)[-1]
    assert volumes(frames_of([*parts, again])) == volumes(frames_of(by_request(rows)))
