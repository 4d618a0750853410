"""Keys and rates."""

import pytest

from marketdata.contract.http import Refusal
from marketdata.errors import SettingsError
from producer.app import create_app
from producer.auth import NewSymbols, TokenBuckets
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


def test_without_a_key_there_is_no_application() -> None:
    with pytest.raises(SettingsError, match="TICKPIPE_API_KEYS"):
        create_app(new_settings(api_keys={}))


@pytest.mark.parametrize("source", ["", "x" * 65, "a\nb"])
def test_a_source_that_no_frame_can_carry_is_refused_at_start(source: str) -> None:
    with pytest.raises(SettingsError, match="TICKPIPE_API_KEYS"):
        create_app(new_settings(api_keys={source: "long-enough"}))


def test_new_symbols_are_limited_by_key_and_hour_and_known_ones_are_not() -> None:
    now = 1_800.0
    symbols = NewSymbols(3, clock=lambda: now)
    symbols.check("a", ["X", "Y"])
    with pytest.raises(Refusal, match="2 new symbols in this hour, and the request has 2 more") as refused:
        symbols.check("a", ["X", "V", "W"])
    assert (refused.value.status, refused.value.retry_after_seconds) == (429, 1_800)
    symbols.check("a", ["X", "Y", "Z"])
    symbols.check("b", ["V", "W"])

    now = 3_600.0
    symbols.check("a", ["X", "P", "Q", "R"])
    now = 7_200.0
    # Z was last sent two hours ago.
    symbols.check("a", ["X", "P", "Q", "R", "Z", "1", "2"])
    with pytest.raises(Refusal):
        symbols.check("a", ["3"])
