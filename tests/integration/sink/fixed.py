"""A writer for a log whose end is given, so that the rule can be tested without a broker."""

from prometheus_client import CollectorRegistry

from runtime.settings import load_settings
from sink.history import History
from sink.metrics import Metrics
from sink.writer import LogEnds, Writer


class FixedLogEnds(LogEnds):
    """The log `cluster/ticks`, whose two partitions end at `end`."""

    def __init__(self, end: int) -> None:
        super().__init__(load_settings(), "cluster/ticks")
        self._end = end

    async def meet(self, log_name: str) -> None:
        """Every other log is another one."""

    async def refresh(self) -> None:
        self._ends = dict.fromkeys(range(2), (0, self._end))


class JudgingWriter(Writer):
    """The plain way: nothing goes into the table without being judged."""

    def is_history(self, candles: History) -> bool:
        return False


def new_writer(*, end: int = 1_000_000, appends: bool = True) -> Writer:
    """A writer of its own metrics, which may append history without judging it, or judges each candle."""
    return (Writer if appends else JudgingWriter)(FixedLogEnds(end), Metrics(CollectorRegistry()))
