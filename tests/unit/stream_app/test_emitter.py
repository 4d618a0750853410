"""What the record of a candle carries of the newest ticks in it, and when it is left out."""

from types import SimpleNamespace
from typing import Any

import msgspec

from marketdata.tick import Frame
from runtime.telemetry import RECEIVED_HEADER, NoTelemetry, TraceContext, arrival_seconds, context_of, received_header
from stream_app.emitter import Outgoing, note_origins, outgoing
from stream_app.window import Window
from tests.unit.stream_app.test_window import GRACE_MS, T0, frame

#: Of the requests: record n belongs to the step n % 3.
STEPS = [TraceContext.new() for _ in range(3)]


def read(window: Window, first: int, *frames: Frame, bad: tuple[int, ...] = ()) -> None:
    """One poll whose records begin at `first`; the records `bad` hold no frames."""
    numbered = list(enumerate(frames, first))
    records: list[Any] = [SimpleNamespace(offset=n, headers=[STEPS[n % 3].header]) for n, _ in numbered]
    good = [(n, each) for n, each in numbered if n not in bad]
    window.feed(first, numbered[-1][0], [good], now=0.0)
    note_origins(window, records, good, wall_ms=T0, links=True)


def received(at_ms: int, *times_ms: int, symbol: str = "EURUSD") -> Frame:
    return msgspec.structs.replace(frame(*times_ms, symbol=symbol), received=at_ms)


def sent(window: Window, live_since_ms: int, wall_ms: int = T0) -> list[Outgoing]:
    emissions = window.emissions(wall_ms=wall_ms, now=0.0)
    made = [outgoing(each, live_since_ms, NoTelemetry()) for each in emissions]
    return [each for each in made if each is not None]


def test_a_candle_says_when_its_newest_request_was_received() -> None:
    window = Window(log="l", partition=0, grace_ms=GRACE_MS)
    read(window, 7, received(100, 0), received(200, 10), received(300, 5, symbol="USDJPY"), bad=(7,))

    found = {each.candle.symbol: each for each in sent(window, live_since_ms=100)}

    assert {symbol: each.received_ms for symbol, each in found.items()} == {"EURUSD": 200, "USDJPY": 300}
    assert (RECEIVED_HEADER, b"200") in found["EURUSD"].headers


def test_a_late_tick_is_timed_from_its_own_receipt() -> None:
    window = Window(log="l", partition=0, grace_ms=GRACE_MS)
    read(window, 0, received(100, 50))
    sent(window, live_since_ms=0)
    read(window, 1, received(900, 20))

    [late] = sent(window, live_since_ms=0)

    assert (late.candle.received, late.received_ms) == (100, 900)


def test_what_waited_for_a_reader_is_not_timed() -> None:
    window = Window(log="l", partition=0, grace_ms=GRACE_MS)
    read(window, 0, received(100, 0))

    [replayed] = sent(window, live_since_ms=101)

    assert (replayed.received_ms, received_header(replayed.headers)) == (None, None)


def test_a_closed_minute_is_not_timed() -> None:
    window = Window(log="l", partition=0, grace_ms=GRACE_MS)
    read(window, 0, received(100, 0), received(200, 60_000 + GRACE_MS))

    found = {each.candle.ts: each.received_ms for each in sent(window, 0, wall_ms=T0 + 120_000)}

    assert found == {T0: None, T0 + 60_000: 200}


def test_a_candle_goes_on_with_the_trace_of_its_newest_request() -> None:
    window = Window(log="l", partition=0, grace_ms=GRACE_MS)
    read(window, 0, received(100, 0))
    read(window, 1, received(200, 10), received(300, 20))

    [minute] = window.touched()
    assert minute.origin is not None
    assert minute.origin.others == (STEPS[0],)
    [found] = sent(window, live_since_ms=0)

    assert context_of(found.headers) == STEPS[2]


def test_headers_that_are_no_time_are_passed_over() -> None:
    assert received_header([("other", b"1"), (RECEIVED_HEADER, b"12")]) == 12
    assert received_header([(RECEIVED_HEADER, b"soon")]) is None
    assert received_header([]) is None


def test_arrival_leaves_out_history_and_clocks_that_are_ahead() -> None:
    ages_ms = (250, -1_000, -1_001, 3_600_000, 3_600_001)
    assert [arrival_seconds(T0, T0 + ms) for ms in ages_ms] == [0.25, 0.0, None, 3600.0, None]
