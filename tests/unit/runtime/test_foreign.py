"""Text that senders chose does nothing to terminals, logs and spreadsheets."""

import json
import subprocess
import sys

import pytest

from runtime.foreign import cell, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("back\x08space\x7f", "back\\x08space\\x7f"),
        ("left\u202eright\u2066", "left\\u202eright\\u2066"),
        ("Газпром €£ 日本 :bomb:", "Газпром €£ 日本 :bomb:"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
    ],
)
def test_what_a_terminal_obeys_is_written_out(text: str, expected: str) -> None:
    assert shown(text) == expected


@pytest.mark.parametrize(
    "text", ["=1+1", "=cmd|'/c calc'!A0", "@SUM(A1)", "+1|x", "-2+3+cmd|' /C calc'!D2", "\t=1", "＝1", "=HYPERLINK(1)"]
)
def test_a_formula_becomes_a_text(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize(
    "value", ["EURUSD", "@ES", "-USD", "+X", "[SP500]", "#AAPL", "US(30)", "", 1.5, -2, None, True]
)
def test_instruments_and_numbers_stay_as_they_are(value: object) -> None:
    assert cell(value) is value


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_log_line_shows_foreign_text_and_stays_one_line(log_format: str) -> None:
    code = (
        "import structlog; from runtime.logs import configure_logs; from runtime.settings import load_settings;"
        f"configure_logs(load_settings(log_format={log_format!r}));"
        "structlog.get_logger('x').warning('Said.', source='\\x1b[31mred', other='a\\nb\\x9b2J', n=1)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    assert said.count("\n") == 1
    assert not set(said.rstrip("\n")) & {*map(chr, range(32)), *map(chr, range(127, 160))}
    assert "[31mred" in said
    if log_format == "json":
        assert json.loads(said)["source"] == "\x1b[31mred"
