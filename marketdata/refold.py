"""Folding stored candles again from the offsets they name: many minutes in one pass over the log. Pure.

The caller reads what `stretches` names, partition by partition and in order, and feeds every frame; frames of the same
source and symbol that do not touch the minute matter as well, because time going back through them opens a pass. What
is plain forward flow in a chunk folds as runs (marketdata/runs.py).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from marketdata.fold import MinuteFold, Passes, split_by_minute
from marketdata.offsets import Range, Ranges, normalized
from marketdata.runs import Chunk, Run, flows
from marketdata.tick import Frame, Tick

#: Ranges closer than this are read in one go: skipping fewer records costs more than reading them.
_BRIDGE_RECORDS = 5_000


@dataclass(frozen=True)
class Proof:
    """What a candle claims: this minute is the fold of these offsets."""

    source: str
    symbol: str
    #: Start of the minute (UTC epoch milliseconds).
    ts: int
    ranges: Ranges


class _Target:
    __slots__ = ("fold", "passes", "position", "ranges")

    def __init__(self, proof: Proof) -> None:
        self.fold = MinuteFold(proof.source, proof.symbol, proof.ts)
        self.passes = Passes()
        self.ranges = proof.ranges
        self.position = 0

    def feed(
        self, offset: int, frame: Frame, earliest: int, latest: int, minutes: list[tuple[int, list[Tick]]]
    ) -> bool:
        """Fold the frame if its offset belongs to the proof; False when nothing later can."""
        while self.ranges[self.position][1] < offset:
            if not self._next_range():
                return False
        if offset >= self.ranges[self.position][0]:
            number = self.passes.enter(frame, earliest, latest)
            for ts, ticks in minutes:
                if ts == self.fold.ts:
                    self.fold.add(offset, self.position, number, frame, ticks)
        return True

    def feed_run(self, run: Run) -> bool:
        """Fold what of the run belongs to the proof; False when nothing later can."""
        while self.ranges[self.position][0] <= run.offsets[-1]:
            first, last = self.ranges[self.position]
            if (inside := run.within(first, last)) is not None:
                number = self.passes.enter_run(inside.frames[0], inside.frames[-1], inside.earliest, inside.latest)
                if (part := inside.minute(self.fold.ts)) is not None:
                    self.fold.add_run(part.offsets, self.position, number, part.frames, part.ticks)
            if last >= run.offsets[-1]:
                break
            if not self._next_range():
                return False
        return True

    def _next_range(self) -> bool:
        self.position += 1
        self.passes.cut()
        if self.position < len(self.ranges):
            return True
        self.fold.finish()
        return False


class Refold:
    """Folds the minutes of one partition again; feed it with chunks of frames in ascending order of offsets."""

    def __init__(self, proofs: Iterable[Proof]) -> None:
        self._targets: dict[Proof, _Target] = {}
        self._waiting: dict[tuple[str, str], list[_Target]] = {}
        self._active: dict[tuple[str, str], list[_Target]] = {}
        for proof in proofs:
            target = self._targets[proof] = _Target(proof)
            self._waiting.setdefault((proof.source, proof.symbol), []).append(target)
        for targets in self._waiting.values():
            targets.sort(key=lambda target: target.ranges[0][0], reverse=True)

    def stretches(self) -> Ranges:
        """What to read, in order: the ranges of all proofs, with small gaps bridged."""
        bridged: list[Range] = []
        for first, last in normalized(r for target in self._targets.values() for r in target.ranges):
            if bridged and first - bridged[-1][1] <= _BRIDGE_RECORDS:
                bridged[-1] = (bridged[-1][0], last)
            else:
                bridged.append((first, last))
        return tuple(bridged)

    def feed(self, chunk: Chunk) -> None:
        """Fold frames into every minute whose proof holds their offsets."""
        for key, (offsets, frames) in flows(chunk).items():
            self._activate(key, offsets[-1])
            if not self._active[key]:
                continue
            if (run := Run.of(offsets, frames)) is not None:
                self._active[key] = [target for target in self._active[key] if target.feed_run(run)]
                continue
            for offset, frame in zip(offsets, frames, strict=True):
                earliest, latest, minutes = split_by_minute(frame)
                self._active[key] = [
                    target for target in self._active[key] if target.feed(offset, frame, earliest, latest, minutes)
                ]

    def _activate(self, key: tuple[str, str], offset: int) -> None:
        waiting, active = self._waiting.get(key), self._active.setdefault(key, [])
        while waiting and waiting[-1].ranges[0][0] <= offset:
            active.append(waiting.pop())

    def results(self) -> dict[Proof, MinuteFold]:
        """The fold of every proof, complete once all stretches were fed."""
        for target in self._targets.values():
            target.fold.finish()
        return {proof: target.fold for proof, target in self._targets.items()}
