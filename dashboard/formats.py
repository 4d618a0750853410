"""Candles and ticks as JSON, CSV or Arrow, and the choice between them."""

import asyncio
import csv
import io
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgspec

from dashboard.answers import Refusal, encode, load_pyarrow
from dashboard.candles import AnyRow, Request, Row
from dashboard.ticks import Outline, Page, spans_of
from marketdata.refold import columns_of, iso_milliseconds, shown
from runtime.foreign import cell
from sink.ticks import TickBatch, csv_of_ticks

#: Ticks that are rendered in one go, some 2 ms.
_SLICE_ROWS: Final = 500

#: Media types by the name that `format` takes.
MEDIA_TYPES: Final = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "arrow": "application/vnd.apache.arrow.stream",
}

_ACCEPTED: Final = {
    "application/json": "json",
    "application/*": "json",
    "*/*": "json",
    "text/csv": "csv",
    "text/*": "csv",
    "application/vnd.apache.arrow.stream": "arrow",
}


def choose_format(wanted: str | None, accept: str | None, *, proof: bool = False) -> str:
    """`format` if it is given, else the best of the header Accept; with `proof` JSON alone.

    Raises:
        Refusal: 400 for a format, 406 for a header, that asks for something else.
    """
    if proof:
        if (wanted or "json").lower() != "json":
            raise Refusal(
                400, "INVALID_PARAMETER", "proof: offsets are lists, which only JSON can hold; use format=json"
            )
        return "json"
    names = ", ".join(MEDIA_TYPES)
    if wanted is not None:
        if wanted.lower() not in MEDIA_TYPES:
            raise Refusal(400, "INVALID_PARAMETER", f"format: {wanted!r} is no format; use one of {names}")
        return wanted.lower()
    for media_type in _by_preference(accept or "*/*"):
        if chosen := _ACCEPTED.get(media_type):
            return chosen
    raise Refusal(406, "NOT_ACCEPTABLE", f"answers come as {names}; ask with `format=` or a fitting Accept")


def render(name: str, request: Request, rows: Sequence[AnyRow], digits: int | None = None) -> bytes:
    """The rows in the named format; `digits` are the decimals of their prices.

    Raises:
        Refusal: 406 for Arrow where pyarrow is not installed.
    """
    return _RENDERERS[name](request, rows, digits)


def _json(request: Request, rows: Sequence[AnyRow], digits: int | None) -> bytes:
    following = request.next_page(rows)
    return encode({
        "symbol": request.symbol,
        "timeframe": request.timeframe,
        "digits": digits,
        "candles": [row._asdict() for row in rows],
        "next": f"candles?{following}" if following else None,
    })  # fmt: skip


def _csv(request: Request, rows: Sequence[AnyRow], _digits: int | None) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*Row._fields, "timeframe"))
    for row in rows:
        ts, symbol, source, *rest = row
        writer.writerow(
            (
                ts.strftime("%Y-%m-%dT%H:%M:%SZ"), cell(symbol), cell(source), *rest[:-1],
                "true" if row.closed else "false", request.timeframe,
            )
        )  # fmt: skip
    return text.getvalue().encode()


def _arrow(request: Request, rows: Sequence[AnyRow], digits: int | None) -> bytes:
    pa = load_pyarrow()
    types: dict[str, Any] = {
        "ts": pa.timestamp("ms", tz="UTC"), "symbol": pa.string(), "source": pa.string(), "open": pa.float64(),
        "high": pa.float64(), "low": pa.float64(), "close": pa.float64(), "volume": pa.int64(),
        "real_volume": pa.float64(), "spread": pa.int32(), "closed": pa.bool_(),
    }  # fmt: skip
    metadata = {"symbol": request.symbol, "timeframe": request.timeframe}
    if digits is not None:
        metadata["digits"] = str(digits)
    columns: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * len(Row._fields)
    table = pa.table(
        [pa.array(column, types[name]) for name, column in zip(Row._fields, columns, strict=True)],
        schema=pa.schema(list(types.items()), metadata=metadata),
    )
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


_RENDERERS: Final[dict[str, Callable[[Request, Sequence[AnyRow], int | None], bytes]]] = {
    "json": _json,
    "csv": _csv,
    "arrow": _arrow,
}


async def render_page(name: str, page: Page, following: str | None) -> bytes:
    """The page as `json`, `csv` or `arrow`; `following` is the URL of the page that follows.

    Some hundred ticks at a time, and in between the other requests are served. In a thread it would hold them up for
    longer: they and the thread would hand each other the interpreter lock at every turn.

    Raises:
        Refusal: 406 for Arrow where pyarrow is not installed.
    """
    form = tick_form(name, page, following)
    parts = [form.begin()]
    for begin in range(0, len(page.rows), _SLICE_ROWS):
        parts.append(form.add(TickBatch(0, records=page.rows[begin : begin + _SLICE_ROWS])))
        await asyncio.sleep(0)
    return b"".join([*parts, form.end()])


class TickForm(Protocol):
    """Renders a page piece by piece: what `begin`, every `add` and `end` return is the content."""

    def begin(self) -> bytes:
        """What comes before the first tick."""

    def add(self, batch: TickBatch) -> bytes:
        """The next ticks."""

    def end(self) -> bytes:
        """What comes behind the last tick."""


def tick_form(name: str, page: Page | Outline, following: str | None) -> TickForm:
    """The form `json`, `csv` or `arrow` of the page; `following` is the URL of the page that follows.

    Raises:
        Refusal: 406 for Arrow where pyarrow is not installed.
    """
    return _TICK_FORMS[name](page, following)


class _JsonTicks:
    def __init__(self, page: Page | Outline, following: str | None) -> None:
        request = page.request
        # A dict for each tick would take three times as long.
        self._tick = msgspec.defstruct("Tick", columns_of(raw=request.raw))
        self._separator = b""
        self._frame = encode({
            "symbol": request.symbol,
            "source": request.source,
            "from": iso_milliseconds(request.first_ms),
            "to": iso_milliseconds(request.end_ms),
            "gone": spans_of(page.gone),
            "next": following,
        })  # fmt: skip

    def begin(self) -> bytes:
        return self._frame[:-1] + b',"ticks":['

    def add(self, batch: TickBatch) -> bytes:
        # A page may begin behind all ticks of its first minute.
        if not len(batch):
            return b""
        tick, separator = self._tick, self._separator
        self._separator = b","
        return separator + encode([tick(*shown(row)) for row in batch.rows])[1:-1]

    def end(self) -> bytes:
        return b"]}"


class _CsvTicks:
    def __init__(self, page: Page | Outline, _following: str | None) -> None:
        self._raw = page.request.raw

    def begin(self) -> bytes:
        return ",".join(columns_of(raw=self._raw)).encode() + b"\n"

    def add(self, batch: TickBatch) -> bytes:
        return csv_of_ticks(batch, raw=self._raw)

    def end(self) -> bytes:
        return b""


class _ArrowTicks:
    def __init__(self, page: Page | Outline, _following: str | None) -> None:
        pa = load_pyarrow()
        from runtime.archive.columns import ArrowTicks  # noqa: PLC0415 - as above

        self._arrow = ArrowTicks(raw=page.request.raw)
        self._sink = io.BytesIO()
        self._writer = pa.ipc.new_stream(self._sink, self._arrow.schema)

    def begin(self) -> bytes:
        return self._written()

    def add(self, batch: TickBatch) -> bytes:
        self._writer.write(self._arrow.of(batch.ticks, batch.records, batch.table))
        return self._written()

    def end(self) -> bytes:
        self._writer.close()
        return self._written()

    def _written(self) -> bytes:
        content = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return content


_TICK_FORMS: Final[dict[str, type[_JsonTicks | _CsvTicks | _ArrowTicks]]] = {
    "json": _JsonTicks,
    "csv": _CsvTicks,
    "arrow": _ArrowTicks,
}


def _by_preference(accept: str) -> list[str]:
    """The media types of an Accept header, the most wanted first."""
    wanted: list[tuple[float, str]] = []
    for part in accept.split(","):
        media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        if weight > 0:
            wanted.append((weight, media_type))
    # Python's sort is stable: among equals the first named wins.
    return [media_type for _, media_type in sorted(wanted, key=lambda pair: -pair[0])]
