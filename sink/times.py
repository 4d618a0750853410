"""Times of the log as PostgreSQL's, and back."""

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def utc(time_msc: int) -> datetime:
    """The exact datetime of epoch milliseconds."""
    return _EPOCH + timedelta(milliseconds=time_msc)


def time_msc(moment: datetime) -> int:
    """The exact epoch milliseconds of an aware datetime."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)
