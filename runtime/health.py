"""What `/health` and `/ready` answer, in every service alike."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

#: Status code and JSON of an answer.
Answer = tuple[int, dict[str, object]]


class Health:
    """The state of what a service depends on (checks), and of the tasks and threads it consists of.

    Checks pass and fail as Kafka and the database come and go; that is `/ready`. A part that failed stays failed until
    the process is replaced; that is `/health`. May be used from any thread.
    """

    def __init__(self, *checks: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        #: Since when each check has failed; None while it passes.
        self._failing_since: dict[str, datetime | None] = dict.fromkeys(checks, now())
        self._failed: dict[str, str] = {}

    def set(self, check: str, passes: bool) -> None:
        """Record the outcome of a check; it fails until its first success."""
        if passes:
            self._failing_since[check] = None
        elif self._failing_since[check] is None:
            self._failing_since[check] = self._now()

    def passes(self, check: str) -> bool:
        """Whether the check passed when it was made last."""
        return self._failing_since[check] is None

    def fail(self, part: str, why: str) -> None:
        """Record that a part of the service failed for good."""
        self._failed.setdefault(part, why)

    @property
    def failed(self) -> Mapping[str, str]:
        """The parts that failed, and why."""
        return self._failed

    def health(self) -> Answer:
        """`/health`: 200 while every part runs, 503 with the name of each that does not."""
        if self._failed:
            return 503, {"status": "failed", "failed": dict(self._failed)}
        return 200, {"status": "ok"}

    def ready(self) -> Answer:
        """`/ready`: 200 when every check passes, 503 with the checks that fail and since when (UTC)."""
        failing = {check: since for check, since in self._failing_since.items() if since is not None}
        body: dict[str, object] = {
            "status": "not ready" if failing or self._failed else "ready",
            "checks": {check: check not in failing for check in self._failing_since},
        }
        if failing:
            body["since"] = {check: since.isoformat(timespec="seconds") for check, since in failing.items()}
        if self._failed:
            body["failed"] = dict(self._failed)
        return (503 if failing or self._failed else 200), body
