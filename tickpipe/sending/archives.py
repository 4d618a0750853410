"""Reads what EAs and relays have put aside as JSON: whole requests, one in each line or in each file.

`PDC_outbound_YYYYMMDD.jsonl` has lines of `{"ts", "kind", "body"}`, a relay's `queue/*.json` has `{"url", "payload",
"headers"}`, and the `PDC_fallback_*` and `PDC_batch_fallback_*` files hold bodies. The items are passed on as they are.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from marketdata.contract.body import Body, decode
from marketdata.contract.fields import is_bar
from marketdata.contract.http import BARS_ROUTE, TICKS_ROUTE, TooLarge, Unusable
from marketdata.errors import TickpipeError
from tickpipe.sending.columnfile import BadLine, SkippingFile
from tickpipe.sending.dialects import UnknownForm
from tickpipe.sending.textfile import DataFileError, TextFile

#: Items of short requests that are sent together.
_TOGETHER: Final = 200

#: Lines in which the first JSON is looked for; where none is whole, the file is one document.
_LOOKED_AT: Final = 50

#: A document that takes more lines than this is not read (characters): the server takes requests of 64 MB.
_LONGEST_DOCUMENT: Final = 64_000_000

#: Requests in requests: a relay that archives what another one queued.
_DEEPEST: Final = 4


class Origin(NamedTuple):
    """What a request said beside its items."""

    route: str
    source: str | None
    agent: str | None
    utc_offset_seconds: int | None


class Posted(NamedTuple):
    """Items that were, and are again, posted together."""

    origin: Origin
    items: list[Any]


class ArchiveFile(SkippingFile):
    """An archive opened for one pass, `with ArchiveFile(path) as requests`.

    Args:
        symbol: the only one that is wanted; None for all.
        on_bad: told every line that is skipped.
        is_strict: whether the first such line ends the reading.
    """

    def __init__(
        self,
        path: Path,
        *,
        symbol: str | None = None,
        on_bad: Callable[[BadLine], None] = lambda line: None,
        is_strict: bool = False,
    ) -> None:
        self._document = TextFile(path)
        super().__init__(path, self._document, on_bad, is_strict)
        self._symbol = symbol

    def __iter__(self) -> Iterator[Posted]:
        """The requests in the order of the file; short ones of one origin are joined.

        Raises:
            UnknownForm: when the file holds no JSON.
            DataFileError: when it is damaged, or a line is bad and none may be.
        """
        waiting: Posted | None = None
        try:
            for request in self._requests():
                if waiting is not None and (waiting.origin != request.origin or len(waiting.items) >= _TOGETHER):
                    yield waiting
                    waiting = None
                if waiting is None:
                    waiting = request
                else:
                    waiting.items.extend(request.items)
        except TickpipeError:
            if waiting is not None:
                yield waiting
            raise
        if waiting is not None:
            yield waiting

    def _requests(self) -> Iterator[Posted]:
        for line, text in self._texts():
            try:
                bodies = list(_bodies(decode(text.encode()), None, None, 0))
            except (Unusable, TooLarge) as exc:
                self._skip_line(line, text.strip(), exc.message)
                continue
            for body, source, agent in bodies:
                wanted = [item for item in body.items if self._is_wanted(line, item)]
                for route in (TICKS_ROUTE, BARS_ROUTE):
                    items = [item for item in wanted if is_bar(item) is (route == BARS_ROUTE)]
                    if items:
                        yield Posted(Origin(route, source, agent, body.utc_offset_seconds), items)

    def _texts(self) -> Iterator[tuple[int, str]]:
        """The JSON texts, with the number of the line that each begins in."""
        lines = enumerate(self._document.lines(_LONGEST_DOCUMENT), 1)
        first: list[tuple[int, str]] = []
        for number, line in lines:
            if not line.strip():
                continue
            first.append((number, line))
            if _is_json(line):
                yield from first
                yield from ((number, line) for number, line in lines if line.strip())
                return
            if len(first) >= _LOOKED_AT:
                break
        parts = [line for _, line in first]
        size = sum(map(len, parts))
        for _, line in lines:
            parts.append(line)
            if (size := size + len(line)) > _LONGEST_DOCUMENT:
                raise UnknownForm(f"{self.path}: no line is JSON, and as one document it is too large")
        if parts:
            yield first[0][0], "".join(parts)

    def _is_wanted(self, line: int, item: Any) -> bool:
        said = item.get("symbol") if isinstance(item, dict) else None
        if self._symbol is None or said is None or said == self._symbol:
            return True
        self._skip_line(line, json.dumps(item), f"it is of {said}, not of {self._symbol}")
        return False


def is_archive(path: Path) -> bool:
    """Whether a file holds JSON, by its first characters; `[SP500]` is the beginning of a symbol."""
    try:
        with TextFile(path) as file:
            first = next((line.strip() for line in file.lines() if line.strip()), "")
    except (UnknownForm, DataFileError):
        return False
    return first.startswith("{") or first[:1] + first[1:].lstrip()[:1] in ("[", "[{", "[[")


def _is_json(line: str) -> bool:
    try:
        decode(line.encode())
    except (Unusable, TooLarge):
        return False
    return True


def _bodies(
    body: Body, source: str | None, agent: str | None, depth: int
) -> Iterator[tuple[Body, str | None, str | None]]:
    """The bodies that hold items, taken out of what they were archived in.

    Raises:
        Unusable, TooLarge: when what is archived is no body.
    """
    plain = []
    for item in body.items:
        inner = _inner(item)
        if inner is None or depth >= _DEEPEST:
            plain.append(item)
            continue
        headers = item.get("headers")
        named = {str(name).lower(): str(value) for name, value in headers.items()} if isinstance(headers, dict) else {}
        yield from _bodies(decode(inner), named.get("x-source") or source, named.get("user-agent") or agent, depth + 1)
    if plain:
        yield Body(plain, body.utc_offset_seconds), source, agent


def _inner(item: Any) -> bytes | None:
    """The body in the envelope of an archive or a queue; None for an item."""
    said = item.get("payload", item.get("body")) if isinstance(item, dict) else None
    if isinstance(said, str):
        return said.encode()
    return json.dumps(said).encode() if isinstance(said, (dict, list)) else None
