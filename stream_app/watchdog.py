"""What tells that a worker does not get on: its commits stand still, or its partitions are assigned over and over."""

from collections import deque
from collections.abc import Mapping
from typing import Final

#: So many assignments within so long (seconds) are more than workers that come and go bring about. Two workers of one
#: name get one every three seconds each, and when one of them loses its membership over it, or ends because it missed a
#: poll, it stops after seven or eight: ten were too many to be told.
_RESTLESS_ASSIGNMENTS: Final = 6
_RESTLESS_SECONDS: Final = 30.0


class Watchdog:
    """Detects a stalled worker by the committed and the end offset of every partition that it owns.

    Two minutes of standstill are ordinary, because an open minute holds the commit; `limit_seconds` must be longer.
    """

    def __init__(self, limit_seconds: float) -> None:
        self._limit_seconds = limit_seconds
        self._seen: dict[int, tuple[int | None, float]] = {}

    def stuck(self, offsets: Mapping[int, tuple[int | None, int]], now: float) -> int | None:
        """The partition whose committed offset did not move for too long although there is lag, or None.

        `offsets` maps each owned partition to (committed, end); `now` is a monotonic clock (seconds).
        """
        self._seen = {partition: seen for partition, seen in self._seen.items() if partition in offsets}
        for partition, (committed, end) in offsets.items():
            before = self._seen.get(partition)
            if before is None or before[0] != committed or (committed or 0) >= end:
                self._seen[partition] = (committed, now)
            elif now - before[1] >= self._limit_seconds:
                return partition
        return None


class Restlessness:
    """Detects partitions that are assigned over and over: two workers under one name take them from each other.

    Neither gets far enough to commit, and the broker tells neither why.
    """

    def __init__(self) -> None:
        self._assigned_at: deque[float] = deque(maxlen=_RESTLESS_ASSIGNMENTS)

    def assigned(self, now: float) -> bool:
        """Whether this assignment is one too many; then counting starts over. `now` is a monotonic clock (seconds)."""
        self._assigned_at.append(now)
        if len(self._assigned_at) < _RESTLESS_ASSIGNMENTS or now - self._assigned_at[0] > _RESTLESS_SECONDS:
            return False
        self._assigned_at.clear()
        return True
