"""Reading what was rejected, as `tickpipe rejected` does."""

from runtime.rejected import RejectedRecord, Which
from runtime.settings import Settings
from tickpipe.rejected.engine import RejectedTopics


async def rejected_records(settings: Settings, which: Which) -> list[RejectedRecord]:
    """Every record of the topic, in the order in which they were rejected."""
    async with RejectedTopics(settings) as topics:
        return await topics.newest([which], 100_000)
