"""Keys and rates."""

import pytest

from marketdata.errors import SettingsError
from producer.app import create_app
from producer.auth import TokenBuckets
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
