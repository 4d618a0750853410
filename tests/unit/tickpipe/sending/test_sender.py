"""Posting to a real small server: order, completeness, retries, splits, refusals; and cutting ticks into batches."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.errors import SettingsError
from runtime.posting import ServerRefused, ServerUnavailable
from tests.scripted import Answer, ScriptedServer
from tests.waiting import PATIENCE_SECONDS
from tickpipe.sending.batches import batches, batches_at_once, live
from tickpipe.sending.blocks import FileTick
from tickpipe.sending.sender import PriceForm, TickSender
from tickpipe.sending.textfile import DataFileError

#: 2019-02-04T00:00:00Z
DAY = 1_549_238_400_000

TICKS = [FileTick(DAY + n, 1.1 + n / 1e5, 1.2, 0.0, 0.0, 6, symbol="EURUSD") for n in range(10)]


def sent_times(producer: ScriptedServer) -> list[int]:
    return [tick["ts_msc"] for tick in producer.taken]


def test_ticks_arrive_in_order_over_one_connection_in_the_words_of_an_ea(producer: ScriptedServer) -> None:
    with TickSender(producer.url, "secret-key", lambda _: PriceForm(5, 0.00001), source="Demo") as sender:
        for start in range(0, 10, 4):
            sender.send(TICKS[start : start + 4])

    assert [len(request.items) for request in producer.requests] == [4, 4, 2]
    assert len({request.port for request in producer.requests}) == 1
    assert {request.path for request in producer.requests} == {"/ingest/tick"}
    assert producer.requests[0].headers["X-API-Key"] == "secret-key"
    assert producer.requests[0].headers["X-Source"] == "Demo"
    assert sent_times(producer) == [tick.time_msc for tick in TICKS]
    assert producer.taken[3] == {
        "ts": "2019-02-04T00:00:00Z", "symbol": "EURUSD", "bid": TICKS[3].bid, "ask": 1.2, "last": 0.0, "volume": 0.0,
        "flags": 6, "ts_msc": DAY + 3, "digits": 5, "point": 0.00001,
    }  # fmt: skip
    assert (sender.outcome.accepted, sender.outcome.rejected) == (10, 0)


def test_coarse_times_claim_no_milliseconds(producer: ScriptedServer) -> None:
    with TickSender(producer.url, "secret-key") as sender:
        sender.set_form(coarse=True)
        sender.send(TICKS[:2])

    assert "ts_msc" not in producer.taken[0]
    assert producer.taken[1]["ts_msc"] == DAY + 1


@pytest.mark.parametrize("retry_after", ["1", formatdate(time.time() + 2, usegmt=True)], ids=["seconds", "date"])
def test_503_is_tried_again_after_the_time_it_names(producer: ScriptedServer, retry_after: str) -> None:
    if not retry_after.isdecimal():
        retry_after = formatdate(time.time() + 2, usegmt=True)
    producer.answers = [Answer(503, {"error": "no Kafka"}, {"Retry-After": retry_after})]
    waits: list[tuple[str, float]] = []
    started = time.monotonic()

    with TickSender(producer.url, "k", on_wait=lambda why, s: waits.append((why, s))) as sender:
        sender.send(TICKS[:5])
        sender.send(TICKS[5:])

    assert time.monotonic() - started >= 0.95
    assert [request.status for request in producer.requests] == [503, 200, 200]
    assert sent_times(producer) == [tick.time_msc for tick in TICKS]
    assert "503: no Kafka" in waits[0][0]


@pytest.mark.parametrize("status", [429, 500, 502, 504])
def test_passing_trouble_is_tried_again(producer: ScriptedServer, status: int) -> None:
    producer.answers = [Answer(status), Answer(status)]

    with TickSender(producer.url, "k") as sender:
        sender.send(TICKS)

    assert [request.status for request in producer.requests] == [status, status, 200]
    assert sender.outcome.accepted == 10


def test_too_large_is_split_in_order(producer: ScriptedServer) -> None:
    producer.most_items = 3

    with TickSender(producer.url, "k") as sender:
        sender.send(TICKS)

    # 10 → 5 + 5 → (2 + 3) + (2 + 3)
    assert [len(request.items) for request in producer.requests if request.status == 200] == [2, 3, 2, 3]
    assert sent_times(producer) == [tick.time_msc for tick in TICKS]
    assert sender.outcome.sent == 10


def test_single_tick_that_is_too_large_is_refused(producer: ScriptedServer) -> None:
    producer.most_items = 0

    with TickSender(producer.url, "k") as sender, pytest.raises(ServerRefused, match="413"):
        sender.send(TICKS)


def test_wrong_key_stops_soon_with_the_cure(producer: ScriptedServer) -> None:
    producer.answers = [Answer(401, {"error": "unknown key", "code": "UNAUTHORIZED"}) for _ in range(3)]

    with TickSender(producer.url, "k") as sender, pytest.raises(SettingsError, match="--key"):
        sender.send(TICKS)

    assert len(producer.requests) == 3
    assert sender.outcome.sent == 0


def test_another_server_stops_soon(producer: ScriptedServer) -> None:
    producer.answers = [Answer(404) for _ in range(3)]

    with TickSender(producer.url, "k") as sender, pytest.raises(ServerRefused, match="404"):
        sender.send(TICKS)


@pytest.mark.parametrize("lie", [Answer(401, {"error": "who", "code": "UNAUTHORIZED"}), Answer(200, {"received": 0})])
def test_one_refusal_or_lie_ends_nothing(producer: ScriptedServer, lie: Answer) -> None:
    producer.answers = [lie, lie]

    with TickSender(producer.url, "k") as sender:
        sender.send(TICKS)

    assert sender.outcome.accepted == 10
    assert [tick["ts_msc"] for tick in producer.requests[-1].items] == [tick.time_msc for tick in TICKS]


def test_rejected_ticks_are_counted_and_the_reasons_number_them(producer: ScriptedServer) -> None:
    detail = {"index": 2, "field": "bid", "message": "negative"}
    producer.answers = [
        Answer(200, {"ok": True, "received": 4, "inserted": 4, "errors": 0}),
        Answer(207, {"ok": True, "received": 4, "inserted": 3, "errors": 1, "details": [detail]}),
        Answer(400, {"error": "nothing usable", "code": "VALIDATION_ERROR", "details": [detail]}),
    ]

    with TickSender(producer.url, "k") as sender:
        for start in range(0, 10, 4):
            sender.send(TICKS[start : start + 4])

    assert (sender.outcome.accepted, sender.outcome.rejected) == (7, 3)  # 1 of the second four, both of the last two
    assert sender.outcome.reasons[0] == "tick 7: bid: negative"


def test_nobody_there_is_told_when_patience_ends() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        sender = TickSender(url, "k", patience_seconds=0.3)
        with sender, pytest.raises(ServerUnavailable, match="is the producer up"):
            sender.send(TICKS)


@pytest.mark.parametrize("url", ["127.0.0.1:18001", "ftp://host", "http://[::1"])
def test_what_is_no_address_is_wrong_use(url: str) -> None:
    with pytest.raises(SettingsError, match="no address of a producer"), TickSender(url, "k") as sender:
        sender.send(TICKS)


def tick(time_msc: int) -> FileTick:
    return FileTick(time_msc, 1.1, 1.2, 0.0, 0.0, 6)


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.seconds += seconds


@pytest.mark.parametrize(("number", "sizes"), [(0, []), (1, [1]), (4, [2, 2]), (5, [2, 2, 1])])
def test_full_speed_cuts_by_size(number: int, sizes: list[int]) -> None:
    ticks = [tick(n) for n in range(number)]

    cut = list(batches(ticks, 2, 0))

    assert [len(batch) for batch in cut] == sizes
    assert [t for batch in cut for t in batch] == ticks


def test_tick_leaves_when_it_is_due() -> None:
    clock = Clock()
    times = [60_000, 60_000, 120_000, 119_000, 180_000]

    left = [
        (clock() - 100.0, [t.time_msc for t in batch])
        for batch in batches([tick(t) for t in times], 200, 60, clock=clock, sleep=clock.sleep)
    ]

    # 60: a minute of ticks takes a second; the tick that goes back in time is due at once.
    assert left == [(0.0, [60_000, 60_000]), (1.0, [120_000, 119_000]), (2.0, [180_000])]


def test_due_ticks_are_not_held_back_while_waiting() -> None:
    clock = Clock()
    asked = []

    def feed() -> Iterator[FileTick]:
        for time_msc in (0, 10_000):
            asked.append(time_msc)
            yield tick(time_msc)

    stream = batches(feed(), 200, 1, clock=clock, sleep=clock.sleep)

    assert [t.time_msc for t in next(stream)] == [0]
    assert clock() == 100.0
    assert asked == [0, 10_000]
    with suppress(StopIteration):
        next(stream)
    assert clock() == 110.0


@given(st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=40), st.integers(1, 4))
def test_pauses_cut_batches_and_lose_no_tick(fed: list[int | None], size: int) -> None:
    ticks = [None if time_msc is None else tick(time_msc) for time_msc in fed]

    cut = list(batches(ticks, size, 0))

    assert [t for batch in cut for t in batch] == [t for t in ticks if t is not None]
    assert all(cut)
    # Whatever came before a pause left with it: a batch ends at every None that follows a tick.
    ends = {sum(len(batch) for batch in cut[: index + 1]) for index in range(len(cut))}
    sent_before = [sum(t is not None for t in ticks[:index]) for index, each in enumerate(ticks) if each is None]
    assert set(sent_before) - {0} <= ends


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(1, 4), st.booleans())
def test_batches_of_a_file_are_those_of_a_feed(fed: list[int], size: int, is_damaged: bool) -> None:
    def ticks() -> Iterator[FileTick]:
        yield from map(tick, fed)
        if is_damaged:
            raise DataFileError("cut off")

    cut, expected = [], list(batches(map(tick, fed), size, 0))
    with suppress(DataFileError):
        for batch in batches_at_once(ticks(), size):
            cut.append(batch)

    assert cut == expected


def test_feed_that_pauses_lets_the_batch_leave() -> None:
    more = threading.Event()

    def feed() -> Iterator[FileTick]:
        yield from (tick(1), tick(2))
        assert more.wait(PATIENCE_SECONDS)
        yield tick(3)

    stream = batches(live(feed()), 200, 0)

    assert next(stream) == [tick(1), tick(2)]
    more.set()
    assert list(stream) == [[tick(3)]]


def test_feed_that_never_pauses_is_posted_all_the_same() -> None:
    over = threading.Event()

    def feed() -> Iterator[FileTick]:
        for time_msc in range(1, 2_000):
            if over.wait(0.01):  # a pause is five times as long
                return
            yield tick(time_msc)

    first = next(batches(live(feed()), 1_000_000, 0))
    over.set()

    assert first[0] == tick(1)
    assert len(first) < 1_999, "it waited for the end"


def test_what_stops_the_reading_comes_behind_the_ticks_before_it() -> None:
    def feed() -> Iterator[FileTick]:
        yield tick(1)
        raise DataFileError("line 2 is damaged")

    stream = (each for each in live(feed()) if each is not None)

    assert next(stream) == tick(1)
    with pytest.raises(DataFileError, match="line 2"):
        next(stream)
