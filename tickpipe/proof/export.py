"""Writes stored candles with their ticks, read from the log and the archive, as a proof."""

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from marketdata.candle import Candle
from marketdata.errors import TickpipeError
from marketdata.fold import CandleFold
from marketdata.offsets import Ranges
from marketdata.refold import Proof, TickFold
from marketdata.tick import Frame, Ticks
from marketdata.timeframes import M1, Timeframe
from runtime.logreader import own_log
from runtime.ticklog import TickLog
from sink.db.session import SQL
from sink.verify import stored_candle
from tickpipe.proof.check import day_path
from tickpipe.proof.document import (
    CANDLES,
    DOCUMENT,
    FOLDED,
    PUBLIC_KEY,
    SIGNATURE,
    Document,
    LeftOut,
    ListedFile,
    MerkleTree,
    ProvenCandle,
    ProvenTick,
    fold,
    header_of,
    line_of,
)

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from runtime.settings import Settings


class NothingToProve(TickpipeError):
    """No stored candle of that time can be proven; nothing was written."""


class NotAKey(TickpipeError):
    """The file is no private key of Ed25519 in PEM; `openssl genpkey -algorithm ed25519 -out FILE` makes one."""

    is_wrong_use = True


@dataclass(frozen=True)
class Wanted:
    """The candles to prove; whole minutes, `from_` included and `to` not."""

    source: str
    symbol: str
    from_: datetime
    to: datetime


@dataclass
class Exported:
    """What was written."""

    candles: int = 0
    ticks: int = 0
    root: str = ""
    #: Start of each minute that has a row and no proof (UTC epoch milliseconds), and why.
    left_out: dict[int, str] = field(default_factory=dict)


class ProvenFold(TickFold):
    """Holds what a candle counts, and how its symbol was charted."""

    __slots__ = ("modes",)

    def __init__(self, source: str, symbol: str, ts: int, timeframe: Timeframe = M1) -> None:
        super().__init__(source, symbol, ts, timeframe)
        self.modes: set[str] = set()

    def count(self, frame: Frame, ticks: Ticks) -> None:
        """Hold them."""
        super().count(frame, ticks)
        self.modes.add(frame.mode)

    @property
    def point(self) -> float | None:
        """The smallest point that a sender named."""
        return self._point


async def export(
    settings: "Settings",
    connection: "AsyncConnection[Any]",
    wanted: Wanted,
    directory: Path,
    *,
    on_day: Callable[[datetime, int], None] = lambda _day, _ticks: None,
) -> Exported:
    """Write the proof into an empty directory, without a signature.

    Raises:
        NothingToProve: when there is no candle to prove.
        KafkaUnavailable, ArchiveUnavailable, ArchiveDamaged: as `TickLog.refold_parts`.
    """
    writing = ProofWriter(directory, await own_log(settings))
    async with TickLog(settings) as tick_log:
        async for day, stored in _days(connection, wanted):
            proofs = {Proof(wanted.source, wanted.symbol, one.ts, one.offsets): one for one in writing.provable(stored)}
            async for part in tick_log.refold_parts(proofs, new_fold=ProvenFold):
                for proof in sorted(part.folds.keys() | part.unprovable, key=lambda one: one.ts):
                    writing.take(proofs[proof], part.folds.get(proof))
            on_day(day, writing.done.ticks)
    if not writing.done.candles:
        raise NothingToProve(f"no candle of {wanted.symbol} can be proven for that time; nothing was written")
    writing.finish(wanted)
    return writing.done


async def _days(
    connection: "AsyncConnection[Any]", wanted: Wanted
) -> AsyncIterator[tuple[datetime, list[tuple[Candle, bool]]]]:
    # Each day's rows in order of time, and whether they wait for a refold.
    begin = wanted.from_.astimezone(UTC)
    while begin < wanted.to:
        end = min(wanted.to, datetime(begin.year, begin.month, begin.day, tzinfo=UTC) + timedelta(days=1))
        about = {"source": wanted.source, "symbol": wanted.symbol, "from_": begin, "to": end}
        rows = await (await connection.execute(SQL["stored_candles"], about)).fetchall()
        stored = [(stored_candle(fields), bool(pending)) for *fields, pending in rows]
        yield begin, sorted((one for one in stored if one[0].timeframe == M1.name), key=lambda one: one[0].ts)
        begin = end


class ProofWriter:
    """Writes candles in order of time, and hashes what it writes."""

    def __init__(self, directory: Path, log: str) -> None:
        self.done = Exported()
        self._directory = directory
        self._log = log
        self._tree = MerkleTree()
        (directory / "ticks").mkdir()
        self._append(CANDLES, header_of(ProvenCandle))

    def provable(self, stored: Iterable[tuple[Candle, bool]]) -> Iterable[Candle]:
        """The candles that are folds of this log and of nothing else that is known."""
        for candle, is_pending in stored:
            if is_pending:
                self.done.left_out[candle.ts] = "it waits to be folded again"
            elif candle.log != self._log:
                self.done.left_out[candle.ts] = "it was folded from another log"
            else:
                yield candle

    def take(self, candle: Candle, folded: CandleFold | None) -> None:
        """Write the candle and its ticks; `folded` is None where records are gone."""
        if not isinstance(folded, ProvenFold):
            self.done.left_out[candle.ts] = "neither Kafka nor the archive holds all of its records"
            return
        ticks = [ProvenTick._make(row[: len(ProvenTick._fields)]) for row in folded.rows()]
        if len(folded.modes) != 1:
            self.done.left_out[candle.ts] = "its symbol was charted by bid and by last"
            return
        [mode] = folded.modes
        lines = b"".join(map(line_of, ticks))
        proven = ProvenCandle(
            ts=candle.ts, **{name: getattr(candle, name) for name in FOLDED}, mode=mode, point=folded.point,
            offsets=_text_of(candle.offsets), ticks_sha256=sha256(lines).hexdigest(),
        )  # fmt: skip
        if fold(ticks, mode, folded.point) != {name: getattr(candle, name) for name in FOLDED}:
            self.done.left_out[candle.ts] = "its ticks make another candle; `tickpipe verify` has the difference"
            return
        path = day_path(candle.ts)
        if not (self._directory / path).exists():
            self._append(path, header_of(ProvenTick))
        self._append(path, lines)
        line = line_of(proven)
        self._append(CANDLES, line)
        self._tree.add(line)
        self.done.candles += 1
        self.done.ticks += len(ticks)

    def _append(self, path: str, content: bytes) -> None:
        with (self._directory / path).open("ab") as file:
            file.write(content)

    def finish(self, wanted: Wanted) -> None:
        """Write what describes and binds the files."""
        self.done.root = self._tree.root()
        paths = sorted(path for path in self._directory.rglob("*") if path.is_file())
        document = Document(
            format=1, source=wanted.source, symbol=wanted.symbol, timeframe="M1", from_=_milliseconds(wanted.from_),
            to=_milliseconds(wanted.to), log=self._log, candles=self.done.candles, ticks=self.done.ticks,
            root=self.done.root, files=[self._described(path) for path in paths],
            left_out=[LeftOut(ts, why) for ts, why in sorted(self.done.left_out.items())],
        )  # fmt: skip
        content = msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
        (self._directory / DOCUMENT).write_bytes(content)

    def _described(self, path: Path) -> ListedFile:
        with path.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
        name = path.relative_to(self._directory).as_posix()
        return ListedFile(name, digest, path.stat().st_size)


def _text_of(offsets: Ranges) -> str:
    return ";".join(f"{partition}:{first}-{last}" for partition, first, last in offsets)


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def sign(directory: Path, private_key: Path) -> None:
    """Sign `proof.json` with a private key of Ed25519 in PEM.

    Raises:
        NotAKey: when the file holds none.
        ModuleNotFoundError: without cryptography.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - an extra
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        PublicFormat,
        load_pem_private_key,
    )

    try:
        key = load_pem_private_key(private_key.read_bytes(), password=None)
    except (ValueError, TypeError) as exc:
        raise NotAKey(f"{private_key} is no private key in PEM without a password: {exc}") from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise NotAKey(f"{private_key} is a key, and not one of Ed25519")
    (directory / SIGNATURE).write_text(key.sign((directory / DOCUMENT).read_bytes()).hex() + "\n")
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (directory / PUBLIC_KEY).write_bytes(public)
