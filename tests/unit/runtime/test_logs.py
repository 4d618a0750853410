"""Whoever repeats himself does not fill the disk."""

import logging

from runtime.logs import BURST, MAX_WORDINGS, REPEAT_SECONDS, Unrepeated


def record(name: str, message: str) -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, __file__, 1, message, ("x",), None)


def test_a_repeated_line_of_a_library_is_written_once_in_a_while() -> None:
    now = [0.0]
    unrepeated = Unrepeated(clock=lambda: now[0])

    assert unrepeated.filter(record("aiokafka.conn", "no node %s")) is True
    assert not any(unrepeated.filter(record("aiokafka.conn", "no node %s")) for _ in range(40))
    assert unrepeated.filter(record("aiokafka.conn", "another %s")) is True
    now[0] = REPEAT_SECONDS
    again = record("aiokafka.conn", "no node %s")
    assert unrepeated.filter(again) is True
    assert again.getMessage() == "no node x (40 more like this)"


def event(name: str, **fields: object) -> logging.LogRecord:
    """As structlog hands one over."""
    return logging.LogRecord(name, logging.WARNING, __file__, 1, {"event": "It is tried again.", **fields}, None, None)


def test_a_burst_of_our_own_lines_passes_and_a_flood_becomes_a_line_in_a_while() -> None:
    now = [0.0]
    unrepeated = Unrepeated(clock=lambda: now[0])
    lines = 0

    for second in range(600):
        now[0] = float(second)
        lines += sum(unrepeated.filter(event("sink.service", offset=n)) for n in range(100))

    assert lines == BURST + 600 // REPEAT_SECONDS - 1
    now[0] = 600.0
    told = event("sink.service", offset=1)
    assert unrepeated.filter(told) is True
    assert told.msg == {"event": "It is tried again.", "offset": 1, "held_back": 30 * 100 - 1}


def test_a_flood_that_is_over_is_forgotten() -> None:
    now = [0.0]
    unrepeated = Unrepeated(clock=lambda: now[0])
    assert sum(unrepeated.filter(event("sink.service")) for _ in range(100)) == BURST

    now[0] = 3 * REPEAT_SECONDS

    assert sum(unrepeated.filter(event("sink.service")) for _ in range(100)) == BURST


def test_another_logger_or_level_is_another_line() -> None:
    unrepeated = Unrepeated(clock=lambda: 0.0)
    flood = [unrepeated.filter(event("sink.service")) for _ in range(100)]

    error = event("sink.service")
    error.levelno = logging.ERROR
    assert flood.count(True) == BURST
    assert unrepeated.filter(event("sink.store"))
    assert unrepeated.filter(error)


def test_who_asks_for_debugging_gets_every_line() -> None:
    unrepeated = Unrepeated(clock=lambda: 0.0)
    line = event("sink.service")
    line.levelno = logging.DEBUG

    assert all(unrepeated.filter(line) for _ in range(100))


def test_a_library_of_endless_wordings_fills_no_memory() -> None:
    unrepeated = Unrepeated(clock=lambda: 0.0)

    assert all(
        unrepeated.filter(record("aiokafka.conn", f"node {number} is gone")) for number in range(3 * MAX_WORDINGS)
    )

    assert len(unrepeated._seen) == MAX_WORDINGS
    assert not unrepeated.filter(record("aiokafka.conn", f"node {3 * MAX_WORDINGS - 1} is gone"))
