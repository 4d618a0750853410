"""Checks a proof offline: every hash, every line, every candle against its ticks.

Needs neither server nor settings; signatures need cryptography.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from itertools import groupby
from pathlib import Path

import msgspec

from tickpipe.proof.document import (
    CANDLES,
    DOCUMENT,
    FOLDED,
    MINUTE_MS,
    PUBLIC_KEY,
    SIGNATURE,
    Document,
    MerkleTree,
    ProvenCandle,
    ProvenTick,
    fold,
    header_of,
    row_in,
)


def fingerprint_of(directory: Path) -> str:
    """The SHA-256 of `proof.json`, which all the rest hangs from."""
    return sha256((directory / DOCUMENT).read_bytes()).hexdigest()


def check(directory: Path, *, fingerprint: str | None = None) -> Iterator[str]:
    """What is wrong with the proof, one sentence each; `signature_faults` looks at its signature."""
    try:
        content = (directory / DOCUMENT).read_bytes()
        about = msgspec.json.decode(content, type=Document)
    except FileNotFoundError:
        yield f"{DOCUMENT} is missing"
        return
    except msgspec.MsgspecError as exc:
        yield f"{DOCUMENT} cannot be used: {exc}"
        return
    if fingerprint is not None and sha256(content).hexdigest() != fingerprint.lower():
        yield f"{DOCUMENT} is not the one of this fingerprint: its SHA-256 is {sha256(content).hexdigest()}"
    yield from _files(directory, about)
    yield from _Contents(directory, about).faults()


def signature_faults(directory: Path, public_key: Path | None) -> Iterator[str]:
    """What is wrong with the signature of `proof.json`, by this public key or by the one that lies beside it.

    Raises:
        ModuleNotFoundError: without cryptography.
    """
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - an optional extra
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    path = public_key or directory / PUBLIC_KEY
    try:
        key = load_pem_public_key(path.read_bytes())
        signature = bytes.fromhex((directory / SIGNATURE).read_text().strip())
        content = (directory / DOCUMENT).read_bytes()
    except FileNotFoundError as exc:
        yield f"{Path(exc.filename).name} is missing"
        return
    except ValueError as exc:
        yield f"the signature cannot be read: {exc}"
        return
    if not isinstance(key, Ed25519PublicKey):
        yield f"{path.name} is no public key of Ed25519"
        return
    try:
        key.verify(signature, content)
    except InvalidSignature:
        yield f"{DOCUMENT} was not signed by the key in {path.name}"


def _files(directory: Path, about: Document) -> Iterator[str]:
    listed = {file.path: file for file in about.files}
    if len(listed) != len(about.files):
        yield f"{DOCUMENT} lists a file twice"
    found = list(directory.rglob("*"))
    links = {one.relative_to(directory).as_posix() for one in found if one.is_symlink()}
    there = {one.relative_to(directory).as_posix() for one in found if not one.is_dir()} - links
    for path in sorted(links):
        # What it leads to does not leave the house with the proof.
        yield f"{path} is a link, not a file"
    for path in sorted(there - set(listed) - {DOCUMENT, SIGNATURE, PUBLIC_KEY}):
        yield f"{path} does not belong to the proof"
    for path, file in listed.items():
        if path not in there:
            if path not in links:
                yield f"{path} is missing"
            continue
        content = (directory / path).read_bytes()
        if (digest := sha256(content).hexdigest()) != file.sha256:
            yield f"{path} is not the file of the proof: its SHA-256 is {digest}"
        if len(content) != file.bytes:
            yield f"{path} has {len(content):,} bytes instead of {file.bytes:,}"


class _Contents:
    """The lines of the candles and of their ticks."""

    def __init__(self, directory: Path, about: Document) -> None:
        self._directory = directory
        self._about = about
        self._tree = MerkleTree()
        #: Of each minute that has ticks: these, and the SHA-256 of their lines.
        self._ticks: dict[int, tuple[list[ProvenTick], str]] = {}
        self._tick_count = 0

    def faults(self) -> Iterator[str]:
        paths = sorted(file.path for file in self._about.files if file.path != CANDLES)
        candles = 0
        by_day = groupby(self._candles(), key=lambda one: None if isinstance(one, str) else day_path(one.ts))
        unread = set(paths)
        for path, of_day in by_day:
            if path is not None and path in unread:
                unread.discard(path)
                yield from self._read_ticks(path)
            for candle in of_day:
                if isinstance(candle, str):
                    yield candle
                    continue
                candles += 1
                yield from self._compare(candle)
            yield from self._without_candle()
        for path in sorted(unread):
            yield f"{path} has no candle"
        if self._tree.root() != self._about.root:
            yield f"the root of {CANDLES} is {self._tree.root()}, that of {DOCUMENT} {self._about.root}"
        for name, count in (("candles", candles), ("ticks", self._tick_count)):
            if count != (said := getattr(self._about, name)):
                yield f"there are {count:,} {name} instead of {said:,}"

    def _candles(self) -> Iterator[ProvenCandle | str]:
        # Faults are among them.
        left_out = {minute.ts for minute in self._about.left_out}
        before = None
        for place, line in self._lines(CANDLES, header_of(ProvenCandle)):
            if isinstance(line, str):
                yield line
                continue
            self._tree.add(line)
            try:
                candle = row_in(line, ProvenCandle)
            except ValueError as exc:
                yield f"{place}: {exc}"
                continue
            name = f"the candle of {minute_name(candle.ts)}"
            if candle.ts % MINUTE_MS or not self._about.from_ <= candle.ts < self._about.to:
                yield f"{name} is not within the time of the proof"
            if before is not None and candle.ts <= before:
                yield f"{name} is not in order"
            if candle.ts in left_out:
                yield f"{name} is said to be left out"
            before = candle.ts
            yield candle

    def _read_ticks(self, path: str) -> Iterator[str]:
        lines: dict[int, list[bytes]] = {}
        ticks: dict[int, list[ProvenTick]] = {}
        before = -1
        for place, line in self._lines(path, header_of(ProvenTick)):
            if isinstance(line, str):
                yield line
                continue
            self._tick_count += 1
            try:
                tick = row_in(line, ProvenTick)
            except ValueError as exc:
                yield f"{place}: {exc}"
                continue
            if tick.time_msc < before:
                yield f"{place}: the tick is not in order of time"
            before = tick.time_msc
            minute = tick.time_msc - tick.time_msc % MINUTE_MS
            if day_path(minute) != path:
                yield f"{place}: the tick is of another day"
            lines.setdefault(minute, []).append(line)
            ticks.setdefault(minute, []).append(tick)
        for minute, of_minute in lines.items():
            self._ticks[minute] = ticks[minute], sha256(b"".join(of_minute)).hexdigest()

    def _lines(self, path: str, header: bytes) -> Iterator[tuple[str, bytes | str]]:
        try:
            with (self._directory / path).open("rb") as file:
                if file.readline() != header:
                    yield path, f"{path} has another first line than `{header.decode().strip()}`"
                for number, line in enumerate(file, start=2):
                    yield f"{path}, line {number}", line
        except OSError:
            return  # named as missing

    def _compare(self, candle: ProvenCandle) -> Iterator[str]:
        when = minute_name(candle.ts)
        ticks, digest = self._ticks.pop(candle.ts, ([], sha256(b"").hexdigest()))
        if digest != candle.ticks_sha256:
            yield f"the ticks of {when} are not those that its candle names"
        if candle.mode not in ("bid", "last"):
            yield f"the candle of {when} is charted by neither bid nor last"
            return
        if candle.point is not None and not candle.point > 0.0:
            yield f"the candle of {when} has no point above 0"
            return
        folded = fold(ticks, candle.mode, candle.point)
        if folded is None:
            yield f"the candle of {when} has no tick with a price"
            return
        for name in FOLDED:
            if getattr(candle, name) != folded[name]:
                yield f"{name} of {when} is {getattr(candle, name)}, its ticks make {folded[name]}"

    def _without_candle(self) -> Iterator[str]:
        for minute in sorted(self._ticks):
            yield f"there are ticks of {minute_name(minute)}, and no candle"
        self._ticks.clear()


def day_path(ts: int) -> str:
    """The file of the ticks of a day (UTC)."""
    return f"ticks/{minute_name(ts)[:10]}.csv"


def minute_name(ts: int) -> str:
    """`2019-02-04 00:00`; a time that no calendar has stays a number."""
    try:
        return f"{datetime.fromtimestamp(ts / 1000, UTC):%Y-%m-%d %H:%M}"
    except (OverflowError, ValueError, OSError):
        return str(ts)
