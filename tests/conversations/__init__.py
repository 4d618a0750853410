"""What the EAs and the exporter send and are answered, as files that a person can read, and their reader.

A file is a run of exchanges: `###` and why, the request, `=>` and the answer. At its end stand the candles that its
ticks make, worked out beside the code. The bodies are built from the tables of the HTTP contract.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

FILES = sorted(Path(__file__).parent.glob("*.http"))

#: (symbol, minute start in epoch milliseconds): open, high, low, close, ticks.
Candles = dict[tuple[str, int], tuple[float, float, float, float, int]]


@dataclass(frozen=True)
class Exchange:
    """A request and the producer's answer; the relay's says `queued` as well."""

    why: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int
    answer: dict[str, Any]


@dataclass(frozen=True)
class Conversation:
    """One sender's requests in order."""

    name: str
    exchanges: list[Exchange]
    candles: Candles


def conversations() -> list[Conversation]:
    """All of them."""
    return [_read(path) for path in FILES]


def _read(path: Path) -> Conversation:
    _, *parts = path.read_text().split("\n### ")
    *exchanges, candles = parts
    return Conversation(path.stem, [_exchange(part) for part in exchanges], _candles(candles))


def _exchange(part: str) -> Exchange:
    request, _, answer = part.partition("\n\n=> ")
    head, _, body = request.partition("\n\n")
    why, line, *headers = head.splitlines()
    status, _, content = answer.partition("\n")
    named = dict(header.split(": ", 1) for header in headers)
    return Exchange(why, line.removeprefix("POST "), named, body.encode(), int(status), json.loads(content))


def _candles(part: str) -> Candles:
    found: Candles = {}
    for line in part.splitlines()[1:]:
        symbol, minute, open_, high, low, close, ticks = line.split()
        ts = int(datetime.fromisoformat(minute).timestamp()) * 1000
        found[symbol, ts] = (float(open_), float(high), float(low), float(close), int(ticks))
    return found
