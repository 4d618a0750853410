"""How little room on a volume is told: once, more urgently when it is almost full, and taken back."""

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from runtime.health import Health
from runtime.settings import load_settings
from runtime.volumes import Volume, VolumeWatch

GB = 10**9


@pytest.mark.parametrize(
    ("total_gb", "free_gb", "is_low", "is_almost_full"),
    [
        (100, 16, False, False),
        (100, 14, True, False),  # under 15 %
        (100, 4, True, True),  # under 5 %
        (4000, 101, False, False),  # 2.5 %, and 100 GB are enough
        (4000, 99, True, True),
    ],
)
def test_little_is_a_share_of_the_volume_and_less_than_what_is_enough(
    total_gb: int, free_gb: int, is_low: bool, is_almost_full: bool
) -> None:
    volume = Volume("broker 1, /data", total_gb * GB, free_gb * GB)
    assert (volume.is_low, volume.is_almost_full) == (is_low, is_almost_full)


def test_little_room_is_logged_once_a_level_and_shown_by_health_while_it_lasts() -> None:
    health, registry = Health(), CollectorRegistry()
    watch = VolumeWatch(load_settings(), health, registry)
    actions = []
    with capture_logs() as logs:
        for free_gb in (50, 14, 14, 4, 4, 50):
            watch.note([Volume("broker 1, /data", 100 * GB, free_gb * GB)])
            actions.append(health.health()[1])
    assert [(entry["action"], entry["log_level"]) for entry in logs] == [
        ("volume_low", "warning"), ("volume_low", "error"), ("volume_has_room", "info"),
    ]  # fmt: skip
    assert [sorted(body) for body in actions] == [["status"], *[["status", "warnings"]] * 4, ["status"]]
    warning = actions[1]["warnings"]
    assert isinstance(warning, dict)
    assert "14.0 of 100.0 GB are free; enlarge the volume" in warning["disk"]
    assert health.health()[0] == 200
    free = registry.get_sample_value("tickpipe_log_volume_free_bytes", {"volume": "broker 1, /data"})
    assert free == 50 * GB
