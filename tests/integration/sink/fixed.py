"""A writer for a log whose end is given, so that the rule can be tested without a broker."""

from prometheus_client import CollectorRegistry

from runtime.settings import load_settings
from sink.metrics import Metrics
from sink.staging import Staging
from sink.writer import LogEnds, Writer
from tests.integration.sink.inserting import InsertStaging


class FixedLogEnds(LogEnds):
    """The log `cluster/ticks`, whose two partitions end at `end`."""

    def __init__(self, end: int) -> None:
        super().__init__(load_settings(), "cluster/ticks")
        self._end = end

    async def meet(self, log_name: str) -> None:
        """Every other log is another one."""

    async def refresh(self) -> None:
        self._ends = dict.fromkeys(range(2), (0, self._end))


def new_writer(*, end: int = 1_000_000, use_copy: bool = True) -> Writer:
    """A writer of its own metrics, which stages by COPY or by INSERT."""
    return Writer(FixedLogEnds(end), Metrics(CollectorRegistry()), Staging() if use_copy else InsertStaging())
