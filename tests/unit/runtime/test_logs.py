"""A library that repeats itself does not fill the disk."""

import logging

from runtime.logs import MAX_WORDINGS, REPEAT_SECONDS, Unrepeated


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


def test_our_own_lines_always_pass() -> None:
    unrepeated = Unrepeated()

    assert all(unrepeated.filter(record("sink.service", "stored %s")) for _ in range(3))


def test_a_library_of_endless_wordings_fills_no_memory() -> None:
    unrepeated = Unrepeated(clock=lambda: 0.0)

    assert all(
        unrepeated.filter(record("aiokafka.conn", f"node {number} is gone")) for number in range(3 * MAX_WORDINGS)
    )

    assert len(unrepeated._seen) == MAX_WORDINGS
    assert not unrepeated.filter(record("aiokafka.conn", f"node {3 * MAX_WORDINGS - 1} is gone"))
