"""What a fold takes from a run of plain flow, whoever has put it together: lists of Python's or arrays. Pure."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from marketdata.packed import PackedTicks
from marketdata.tick import Frame, Ticks


class Outline(NamedTuple):
    """What ticks of one period draw, in order of time, where each has positive and finite prices."""

    open: float
    high: float
    low: float
    close: float
    #: Lowest ask − bid.
    spread: float
    #: Of the last tick.
    bid: float
    ask: float
    #: Times of the first and the last tick (UTC epoch milliseconds).
    earliest: int
    latest: int


class PeriodPart(Protocol):
    """Ticks of a run that are of one period, and the frames that hold them."""

    @property
    def ts(self) -> int:
        """Start of the period (UTC epoch milliseconds)."""

    @property
    def first_offset(self) -> int:
        """The offset of the first frame."""

    @property
    def last_offset(self) -> int:
        """The offset of the last frame."""

    @property
    def offsets(self) -> Sequence[int]:
        """The offsets of all frames."""

    @property
    def frames(self) -> Sequence[Frame]:
        """The frames, whole."""

    @property
    def form(self) -> Frame:
        """A frame of the same chart mode, point and kind of times."""

    @property
    def received(self) -> int:
        """When the producer took the request of the last frame (UTC epoch milliseconds)."""

    @property
    def latest(self) -> int:
        """Time of the last tick (UTC epoch milliseconds)."""

    def keep(self, held: PackedTicks) -> None:
        """Keep the ticks in case they are sent again."""

    @property
    def ticks(self) -> Ticks:
        """The ticks, which are put together here."""

    @property
    def has_volume(self) -> bool:
        """Whether any tick of the run has a volume."""

    @property
    def outline(self) -> Outline | None:
        """What they draw; None when not every price is positive and finite."""

    def __len__(self) -> int:
        """Number of ticks."""


class ForwardRun(Protocol):
    """Frames of one source and symbol that follow each other as one pass."""

    @property
    def ends(self) -> Sequence[Frame]:
        """Frames of which the first and the last are those of the run."""

    @property
    def earliest(self) -> int:
        """Time of the first tick (UTC epoch milliseconds)."""

    @property
    def latest(self) -> int:
        """Time of the last tick (UTC epoch milliseconds)."""

    def parts(self, width_ms: int) -> Iterable[PeriodPart]:
        """The run by periods of `width_ms`, in order."""

    def __len__(self) -> int:
        """Number of ticks."""


class FlowFrames(Sequence[Frame]):
    """Frames of one source and symbol, each of which is made when it is asked for."""

    __slots__ = ()

    @abstractmethod
    def received(self, index: int) -> int:
        """When the producer took the request of a frame (UTC epoch milliseconds)."""
