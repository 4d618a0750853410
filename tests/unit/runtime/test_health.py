from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from runtime.health import Health

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


def test_a_service_is_not_ready_before_its_first_success() -> None:
    health = Health("kafka", now=lambda: NOON)
    assert health.ready()[0] == 503
    health.set("kafka", True)
    assert health.ready() == (200, {"status": "ready", "checks": {"kafka": True}})


@given(st.lists(st.tuples(st.sampled_from(["kafka", "database"]), st.booleans())))
def test_since_is_the_first_failure_after_the_last_success(outcomes: list[tuple[str, bool]]) -> None:
    clock = iter(NOON + timedelta(seconds=n) for n in range(1_000_000))
    now = NOON
    health = Health("kafka", "database", now=lambda: now)
    first_failure: dict[str, datetime | None] = {"kafka": NOON, "database": NOON}
    for check, passes in outcomes:
        now = next(clock)
        health.set(check, passes)
        first_failure[check] = None if passes else first_failure[check] or now
    status, body = health.ready()
    failing = {check: since.isoformat() for check, since in first_failure.items() if since}
    assert body.get("since", {}) == failing
    assert body["checks"] == {check: check not in failing for check in first_failure}
    assert (status == 200) == (not failing)
