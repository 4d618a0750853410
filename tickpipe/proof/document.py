"""How a proof is written, as docs/proof.md says it: lines, the naive fold of a minute, the tree of hashes."""

import math
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar

from msgspec import Meta, Struct

MINUTE_MS: Final = 60_000

#: The files of a proof besides those of the ticks, `ticks/2019-02-04.csv`.
DOCUMENT, CANDLES, SIGNATURE, PUBLIC_KEY = "proof.json", "candles.csv", "proof.sig", "proof.pub"

#: MT5: TICK_FLAG_LAST, _VOLUME, _BUY and _SELL, which make a deal; with TICK_FLAG_BID and _ASK all that are documented.
_DEAL, _DOCUMENTED = 120, 126

#: Volumes that are larger are not added.
_MAX_VOLUME: Final = 1e18

#: Largest number of points of a spread.
_MAX_SPREAD: Final = 2**31 - 1


class ProvenTick(NamedTuple):
    """A line of `ticks/*.csv`."""

    time_msc: int
    bid: float
    ask: float
    last: float
    volume: float
    flags: int


class ProvenCandle(NamedTuple):
    """A line of `candles.csv`; an empty cell is None."""

    ts: int
    open: float
    high: float
    low: float
    close: float
    volume: int
    real_volume: float
    spread: int | None
    first_tick: int
    last_tick: int
    #: Price that draws the chart: `bid` or `last`.
    mode: str
    #: Size of a point; None when no sender said it.
    point: float | None
    #: Records of the log that the candle was folded from: `0:12-345;1:3-9`, partition, first and last offset.
    offsets: str
    #: SHA-256 of the minute's lines in `ticks/*.csv`.
    ticks_sha256: str


#: The fields that the ticks make.
FOLDED: Final = ("open", "high", "low", "close", "volume", "real_volume", "spread", "first_tick", "last_tick")


class ListedFile(Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the proof."""

    path: Annotated[str, Meta(pattern=r"^(candles\.csv|ticks/\d{4}-\d\d-\d\d\.csv)$")]
    sha256: str
    bytes: int


class LeftOut(Struct, frozen=True, forbid_unknown_fields=True):
    """A stored candle that is not in the proof."""

    ts: int
    why: str


class Document(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"from_": "from"}):
    """`proof.json`."""

    format: Literal[1]
    source: str
    symbol: str
    timeframe: Literal["M1"]
    #: First and end of the time that was asked for (UTC epoch milliseconds).
    from_: int
    to: int
    #: The log of ticks that the candles name their offsets of.
    log: str
    candles: int
    ticks: int
    #: Root of the tree over the lines of `candles.csv`.
    root: str
    files: list[ListedFile]
    left_out: list[LeftOut]


Row = TypeVar("Row", ProvenTick, ProvenCandle)


def line_of(row: ProvenTick | ProvenCandle) -> bytes:
    """The row as it is written and hashed: doubles as their shortest decimal that reads as the same double."""
    return (",".join("" if one is None else str(one) for one in row) + "\n").encode()


def header_of(kind: type[ProvenTick | ProvenCandle]) -> bytes:
    """The first line of a file of such rows."""
    return (",".join(kind._fields) + "\n").encode()


def row_in(line: bytes, kind: type[Row]) -> Row:
    """The tick or candle of a line.

    Raises:
        ValueError: when it is none, or is not written as `line_of` writes it.
    """
    cells = line.decode().removesuffix("\n").split(",")
    readers = _TICK if kind is ProvenTick else _CANDLE
    if len(cells) != len(readers):
        raise ValueError(f"{len(cells)} cells instead of {len(readers)}")
    row = kind(*(read(cell) for read, cell in zip(readers, cells, strict=True)))
    if line_of(row) != line:
        raise ValueError("a number is not written in the one way that counts")
    return row


def _if_any(read: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: read(text) if text else None


#: What reads each cell.
_TICK: Final[Sequence[Callable[[str], Any]]] = (int, float, float, float, float, int)
_CANDLE: Final[Sequence[Callable[[str], Any]]] = (
    int, float, float, float, float, int, float, _if_any(int), int, int, str, _if_any(float), str, str
)  # fmt: skip


def fold(ticks: Sequence[ProvenTick], mode: str, point: float | None) -> dict[str, float | int | None] | None:
    """The candle's fields that a minute's ticks make, in the order of the file; None when none has a price."""
    prices: list[float] = []
    spreads: list[float] = []
    deals = [tick for tick in ticks if tick.flags & _DEAL or not tick.flags & _DOCUMENTED]
    for tick in ticks if mode == "bid" else deals:
        price = tick.bid if mode == "bid" else tick.last
        if price and math.isfinite(price):
            prices.append(price)
    if not prices:
        return None
    for tick in ticks:
        if tick.bid and tick.ask and math.isfinite(tick.ask - tick.bid):
            spreads.append(tick.ask - tick.bid)
    points = min(spreads) / point if spreads and point is not None else None
    return {
        "open": prices[0], "high": max(prices), "low": min(prices), "close": prices[-1],
        "volume": len(ticks if mode == "bid" else deals),
        "real_volume": math.fsum(tick.volume for tick in deals if 0.0 < tick.volume < _MAX_VOLUME),
        "spread": round(points) if points is not None and abs(points) < _MAX_SPREAD else None,
        "first_tick": min(tick.time_msc for tick in ticks), "last_tick": max(tick.time_msc for tick in ticks),
    }  # fmt: skip


class MerkleTree:
    """The tree of RFC 6962 over the lines of `candles.csv`, built from left to right in a few hashes of memory."""

    def __init__(self) -> None:
        # The roots of whole trees, the largest first, with the number of their leaves.
        self._roots: list[tuple[int, bytes]] = []

    def add(self, line: bytes) -> None:
        """Add a leaf."""
        self._roots.append((1, sha256(b"\0" + line).digest()))
        while len(self._roots) > 1 and self._roots[-1][0] == self._roots[-2][0]:
            self._join()

    def root(self) -> str:
        """In hexadecimal digits. Nothing can be added afterwards."""
        while len(self._roots) > 1:
            self._join()
        return self._roots[0][1].hex() if self._roots else sha256(b"").hexdigest()

    def _join(self) -> None:
        (right, right_hash), (left, left_hash) = self._roots.pop(), self._roots.pop()
        self._roots.append((left + right, sha256(b"\1" + left_hash + right_hash).digest()))
