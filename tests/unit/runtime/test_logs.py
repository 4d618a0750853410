"""Logs do not fill the disk: whoever repeats himself, a file that grows."""

import logging
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from runtime.logs import BURST, MAX_WORDINGS, REPEAT_SECONDS, LogFile, Unrepeated, configure_logs
from runtime.settings import load_settings


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


@pytest.fixture
def log_file(tmp_path: Path) -> LogFile:
    return LogFile(tmp_path / "logs" / "relay.log", max_bytes=2_000)


def line(text: str) -> logging.LogRecord:
    return logging.LogRecord("relay", logging.INFO, __file__, 1, text, None, None)


def written(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_a_log_file_is_put_aside_while_it_is_written_and_is_utf_8(tmp_path: Path, log_file: LogFile) -> None:
    texts = [f"{number:03} Câmbio €" for number in range(300)]
    for text in texts:
        log_file.emit(line(text))
    log_file.close()
    folder = tmp_path / "logs"
    assert sorted(path.name for path in folder.iterdir()) == ["relay.log", "relay.log.1"]
    assert all(path.stat().st_size <= 2_000 for path in folder.iterdir())
    newest = [text for name in ("relay.log.1", "relay.log") for text in written(folder / name)]
    assert newest == texts[-len(newest) :]


def test_a_log_file_that_cannot_be_put_aside_goes_on(
    tmp_path: Path, log_file: LogFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held_open(*_: object) -> None:
        raise PermissionError(13, "a viewer has it open, as on Windows")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", held_open)
        for number in range(300):
            log_file.emit(line(f"{number:03}{'.' * 20}"))
    path = tmp_path / "logs" / "relay.log"
    assert [text[:3] for text in written(path)] == [f"{number:03}" for number in range(300)]
    log_file.emit(line("free again"))
    log_file.close()
    assert written(path) == ["free again"]


def test_a_logger_that_was_used_before_follows_the_newest_configuration() -> None:
    logger = structlog.get_logger("used before")
    configure_logs(load_settings())
    logger.info("As it was.")

    configure_logs(load_settings(log_format="json"))

    with capture_logs() as lines:
        logger.info("As it is.")
    assert [line["event"] for line in lines] == ["As it is."]
