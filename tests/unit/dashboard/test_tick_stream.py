"""A stream of ticks goes on where it was, says what the log lost meanwhile, and looks at no other feed."""

import pytest

from dashboard.answers import Refusal
from dashboard.tick_stream import Wanted, event_id, parse_positions, resume
from marketdata.wire import frame_key


def test_stream_without_an_id_begins_at_the_end() -> None:
    assert resume({0: (3, 9), 1: (0, 0)}, None) == ({0: 9, 1: 0}, [])


def test_resumed_stream_goes_on_behind_its_last_event() -> None:
    positions = {0: 5, 12: 7}
    assert parse_positions(event_id(positions)) == positions
    assert resume({0: (3, 9), 12: (0, 7)}, positions) == (positions, [])


def test_partition_that_is_new_is_read_from_its_beginning() -> None:
    assert resume({0: (3, 9), 1: (0, 4)}, {0: 5}) == ({0: 5, 1: 0}, [])


@pytest.mark.parametrize(
    ("since", "begins"),
    [
        (1, 3),  # the first three were deleted
        (40, 9),  # the topic was created again
    ],
)
def test_what_the_log_does_not_hold_is_a_gap(since: int, begins: int) -> None:
    assert resume({0: (3, 9)}, {0: since}) == ({0: begins}, [{"partition": 0, "from": since, "to": begins}])


@pytest.mark.parametrize("text", ["x", "0", "0:", ":1", "0:1,", "0:-1", "0:1;1:2", "0:²", "0:" + "9" * 40, "18f-12"])
def test_other_ids_are_refused(text: str) -> None:
    with pytest.raises(Refusal, match="take the id of an event of this stream"):
        parse_positions(text)


def test_feeds_are_told_by_the_keys_of_their_records() -> None:
    every, one = Wanted(["EUR/USD", "GBPUSD"], None), Wanted(["EUR/USD"], "A%B")
    assert frame_key("A%B", "EUR/USD") in every
    assert frame_key("Other", "GBPUSD") in every
    assert frame_key("EUR/USD", "JPY") not in every
    assert frame_key("A%B", "EUR/USD") in one
    assert frame_key("Other", "EUR/USD") not in one
    assert None not in every
