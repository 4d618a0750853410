"""The wall clock as UTC epoch milliseconds, and moments as such."""

import time
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def now_ms() -> int:
    """The current time."""
    return time.time_ns() // 1_000_000


def millisecond_from(moment: datetime) -> int:
    """The first millisecond that is not before an aware datetime: of ticks, whose times are no finer, the bound."""
    return -((_EPOCH - moment) // timedelta(milliseconds=1))
