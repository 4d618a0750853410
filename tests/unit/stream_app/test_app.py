"""When assignments are too many; the watchdog's standstill is tried on real workers in tests/faults."""

import pytest

from runtime.settings import load_settings
from stream_app.app import create_app
from stream_app.watchdog import Restlessness


def test_six_assignments_within_half_a_minute_are_too_many() -> None:
    restlessness = Restlessness()

    assert [restlessness.assigned(float(6 * n)) for n in range(6)] == [False] * 5 + [True]
    # Said once, it is said again only after as many more.
    assert [restlessness.assigned(31.0 + n) for n in range(6)] == [False] * 5 + [True]


def test_workers_that_come_and_go_are_no_reason_to_worry() -> None:
    restlessness = Restlessness()

    assert not any(restlessness.assigned(7.0 * n) for n in range(100))


@pytest.mark.parametrize("host", ["::", "::1", "0.0.0.0", "127.0.0.1"])  # noqa: S104 - what is tested
def test_a_worker_may_listen_on_addresses_of_both_families(host: str) -> None:
    conf = create_app(load_settings(stream_host=host), "log").conf
    assert conf.web_bind == ("" if host == "::" else host)
