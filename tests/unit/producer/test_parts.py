"""The small parts: rates, symbols, keys, start without keys."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from marketdata.errors import SettingsError
from producer.app import create_app
from producer.rates import TokenBuckets
from producer.symbols import ChartModes
from tests.unit.producer.conftest import new_settings


def test_a_bucket_refills_with_time_and_belongs_to_one_key() -> None:
    now = 0.0
    buckets = TokenBuckets(2.0, clock=lambda: now)

    assert [buckets.take("a") for _ in range(3)] == [0, 0, 1]  # two at once, the third after half a second
    assert buckets.take("b") == 0
    now = 0.5
    assert [buckets.take("a") for _ in range(2)] == [0, 1]


def test_no_rate_means_no_limit() -> None:
    buckets = TokenBuckets(0.0)

    assert not any(buckets.take("a") for _ in range(1000))


def test_chart_modes_follow_the_patterns() -> None:
    modes = ChartModes(["PETR4", "WIN*"])

    assert [modes[symbol] for symbol in ("PETR4", "WINZ25", "petr4", "EURUSD", "EURUSD")] == [
        "last", "last", "bid", "bid", "bid",
    ]  # fmt: skip


def test_without_a_key_there_is_no_application() -> None:
    with pytest.raises(SettingsError, match="TICKPIPE_API_KEYS"):
        create_app(new_settings(api_keys={}))


@pytest.mark.parametrize("source", ["", "x" * 65, "a\nb"])
def test_a_source_that_no_frame_can_carry_is_refused_at_start(source: str) -> None:
    with pytest.raises(SettingsError, match="TICKPIPE_API_KEYS"):
        create_app(new_settings(api_keys={source: "long-enough"}))


def test_without_a_key_the_process_ends_with_2_and_says_what_to_set(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TICKPIPE_")}
    done = subprocess.run(
        [sys.executable, "-m", "producer"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env=environment,
    )

    assert done.returncode == 2
    assert "TICKPIPE_API_KEYS" in done.stderr
    assert "Traceback" not in done.stderr
