"""A field that is added to a tick is added in three files, and travels the whole way from a body to CSV.

The packages with these files are copied, the field is added to the copies, and the way is gone in a process that finds
them first: all other modules are the ones that there are.
"""

import ast
import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import duckdb
import pyarrow.parquet as pq

from archive.writer import Writer
from marketdata.contract.tick import posted_ticks, read_tick
from marketdata.contract.times import Clock, offset_zone
from marketdata.packed import PackedTicks
from marketdata.refold import CountedTicks, Proof, Refold
from marketdata.tick import DAY_MS, Frame, Tick, content
from marketdata.wire import decode_frame
from producer.bulk import decode_bulk, read_bulk
from producer.records import FrameWriter, Origin, TicksBySymbol
from runtime.archive.files import LocalFiles
from runtime.archive.manifest import Catalogue, date_of
from runtime.archive.reader import ArchiveReader
from runtime.settings import load_settings
from runtime.telemetry import TraceContext
from sink.ticks import TickBatch
from stream_app.blocks import Blocks
from tests.unit.stream_app.test_blocks import record_of
from tests.waiting import PATIENCE_SECONDS
from tickpipe.export.files import writer_for
from tickpipe.sending.history import TickFile
from tickpipe.tickviews import Ticks

ROOT: Final = Path(__file__).parents[2]

#: By file each text that is there once, and what it becomes.
ADDED: Final = {
    "marketdata/tick.py": {
        "    flags: _Flags\n\n\n": "    flags: _Flags\n    last2: float = 0.0\n\n\n",
        "list[float], list[int]]\n": "list[float], list[int], list[float]]\n",
        "return [], [], [], [], [], []\n": "return [], [], [], [], [], [], []\n",
        "    volume: float | list[float] = 0.0\n":
            "    volume: float | list[float] = 0.0\n    last2: float | list[float] = 0.0\n",
        "times, bid, ask, last, volume, flags = values\n": "times, bid, ask, last, volume, flags, last2 = values\n",
        "            volume if any(volume) else 0.0,\n":
            "            volume if any(volume) else 0.0,\n            last2 if any(last2) else 0.0,\n",
        "[tick.flags for tick in ticks],\n": "[tick.flags for tick in ticks], [tick.last2 for tick in ticks],\n",
    },
    "marketdata/contract/tick.py": {
        '= 0\n    ts_msc: Annotated[': '= 0\n    last2: _Price = 0.0\n    ts_msc: Annotated[',
        "    flags: int\n    #: Size": "    flags: int\n    last2: float\n    #: Size",
        "self.volume, self.flags)\n": "self.volume, self.flags, self.last2)\n",
        "        point_of(item), chart":
            '        price(item["last2"], "last2") if is_said(item.get("last2")) else 0.0,\n'
            "        point_of(item), chart",
        "                flags=tick.flags,\n": "                flags=tick.flags,\n                last2=tick.last2,\n",
    },
    "producer/bulk.py": {
        "last, volume, flags = of_symbol.values\n": "last, volume, flags, last2 = of_symbol.values\n",
        "        flags.append(tick.flags)\n": "        flags.append(tick.flags)\n        last2.append(tick.last2)\n",
    },
}  # fmt: skip

LOG: Final = "cluster/ticks/id"
T0: Final = 1_549_242_000_000

#: A frame of one tick, and one of many, which has them as columns.
COUNTS: Final = (1, 12)


def test_a_field_is_added_in_three_files(tmp_path: Path) -> None:
    for package in {name.partition("/")[0] for name in ADDED}:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, changes in ADDED.items():
        text = (tmp_path / name).read_text()
        for before, after in changes.items():
            assert text.count(before) == 1, f"{name}: {before!r}"
            text = text.replace(before, after)
        (tmp_path / name).write_text(text)
    # As the archive was before the field.
    before_ms = T0 - 60_000
    archived(tmp_path / "archive", [(0, Frame(
        v=1, source="S", symbol="EURUSD", mode="bid", point=None, request="r", received=before_ms,
        ticks=[Tick(before_ms, 1.1, 1.2, 0.0, 0.0, 6)],
    ))])  # fmt: skip

    command = "import sys, tests.unit.test_new_field as way; way.travel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", command, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=False,
        timeout=PATIENCE_SECONDS, env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["travelled"]


def travel(folder: str) -> None:
    """What the process does that has the field."""
    assert Tick.__struct_fields__[-1] == "last2"
    single = produced(body(0, 1))
    folded_as_array(single)
    frames = [decode_frame(record) for record in single + produced(body(1, 12))]
    assert [frame.v for frame in frames] == [1, 2]
    assert [last2_of(frame) for frame in frames] == [said(0, 1), said(1, 12)]
    # What does not fit the fast path is read one by one.
    assert read_tick(json.loads(body(0, 1))["ticks"][0] | {"last2": "7.25"}).at(T0) == Tick(
        T0, 1.1, 1.2, 0.0, 0.0, 6, 7.25  # type: ignore[call-arg]
    )  # fmt: skip
    counted(frames)
    log = list(enumerate(frames, start=1))
    old = archived(Path(folder) / "archive", log)
    assert old == [(0, [0.0]), (1, said(0, 1)), (2, said(1, 12))]
    exported(frames[1], Path(folder) / "ticks.csv")
    print("travelled")


def said(first: int, count: int) -> list[float]:
    return [n + 0.5 for n in range(first, first + count)]


def body(first: int, count: int) -> bytes:
    """A body whose ticks differ in the field alone, and in their time where they are of one frame."""
    ticks = [
        {"ts": "2019-02-04T01:00:00Z", "symbol": "EURUSD", "bid": 1.1, "ask": 1.2, "last": 0.0, "volume": 0, "flags": 6,
         "last2": last2, "ts_msc": T0 + 1_000 * (n > 0) + n}
        for n, last2 in enumerate(said(first, count))
    ]  # fmt: skip
    return json.dumps({"ticks": ticks}, separators=(",", ":")).encode()


def produced(posted: bytes) -> list[bytes]:
    """The records of a body."""
    bulk, by_symbol = decode_bulk(posted), TicksBySymbol()
    assert bulk is not None
    assert read_bulk(bulk, Clock(offset_zone(0), T0 + 60_000), by_symbol) == len(bulk.ticks)
    origin = Origin("S", "trace", TraceContext("0" * 32, "1" * 16), T0 + 60_000)
    return [record.value for record in FrameWriter(load_settings()).records(by_symbol, origin)]


def folded_as_array(single: list[bytes]) -> None:
    """A backlog of single ticks stays one, and what is kept of it has the field."""
    held = PackedTicks(T0, 60_000)
    with patch("marketdata.backlog.MIN_RECORDS", 1):
        found = Blocks().take(list(map(record_of, single)), 60_000)
    assert found is not None
    [([flow], left)] = found
    assert not left
    for part in flow.parts(60_000):
        part.keep(held)
    assert [getattr(tick, "last2") for tick in held] == said(0, 1)  # noqa: B009


def last2_of(frame: Frame) -> list[float]:
    return [getattr(tick, "last2") for tick in frame.ticks]  # noqa: B009


def counted(frames: list[Frame]) -> None:
    """Ticks that differ in the field alone are two; a resend is none."""
    log = [(at, frame) for at, frame in enumerate([*frames, *frames])]
    proof = Proof("S", "EURUSD", T0, ((0, 0, len(log) - 1),))
    refold = Refold([proof], CountedTicks)
    refold.feed(log)
    fold = refold.results()[proof]
    assert isinstance(fold, CountedTicks)
    assert [row[-1] for row in fold.rows()] == [*said(0, 1), *said(1, 12)]


def archived(root: Path, log: list[tuple[int, Frame]]) -> list[tuple[int, list[float]]]:
    """The offsets and values of the field that the archive has when the log is written to it, in all its forms."""
    catalogue = Catalogue(LocalFiles(root), LOG)
    writer = Writer(catalogue)
    writer.resume(0)
    writer.add(0, log[0][0], log[-1][0], log)
    writer.flush(0)
    if "last2" not in Tick.__struct_fields__:
        return []
    found = []
    for merges in (False, True):
        if merges:
            assert writer.merge(0, date_of(T0 // DAY_MS), at_least=2) == 1
        found.append(read_back(catalogue, log))
    assert found[0] == found[1]
    return found[0]


def read_back(catalogue: Catalogue, log: list[tuple[int, Frame]]) -> list[tuple[int, list[float]]]:
    frames = [one for chunk in ArchiveReader(catalogue).read(0, 0, log[-1][0]) for one in chunk]
    assert [content(frame) for _, frame in frames[1:]] == [content(frame) for _, frame in log]
    flows = [part for parts in ArchiveReader(catalogue).flows(0, 0, log[-1][0]) for part in parts]
    assert [(at, last2_of(frame)) for part in flows for at, frame in zip(part.offsets, part.frames, strict=True)] == [
        (at, last2_of(frame)) for at, frame in frames
    ]
    flow = ArchiveReader(catalogue).flow(("S", "EURUSD"), ((0, 0, log[-1][0]),))
    table = None if flow is None else flow.ticks(T0 - 60_000, T0 + 60_000)
    with duckdb.connect() as connection:
        Ticks(catalogue, {}).show(connection)
        [shown] = connection.execute("SELECT list(last2 ORDER BY time, last2) FROM ticks").fetchone() or ([],)
    for values in (shown, *([] if table is None else [table["last2"].to_pylist()])):
        assert values == [value for _, frame in frames for value in last2_of(frame)]
    proof = Proof("S", "EURUSD", T0, ((0, 1, log[-1][0]),))
    [(_, folds)] = ArchiveReader(catalogue).folds([proof])
    assert folds.keys() <= {proof}
    return [(at, last2_of(frame)) for at, frame in frames]


def exported(frame: Frame, path: Path) -> None:
    """What `tickpipe ticks` writes, of columns and of ticks one by one, and reads of it to send it again."""
    for ticks in (frame.ticks, list(frame.ticks)):
        written: dict[str, Any] = {}
        for form in ("csv", "json", "parquet", "mt5"):
            stream = io.BytesIO()
            writer = writer_for(form, stream, raw=False, digits=5)
            writer.write(TickBatch(T0, ticks))
            writer.finish()
            written[form] = stream.getvalue()
        lines = list(csv.DictReader(io.StringIO(written["csv"].decode())))
        assert [float(line["last2"]) for line in lines] == last2_of(frame)
        assert [line["last2"] for line in json.loads(written["json"])] == last2_of(frame)
        assert pq.read_table(io.BytesIO(written["parquet"]))["last2"].to_pylist() == last2_of(frame)
        assert written["mt5"].count(b"\n") == 1 + len(frame.ticks)
    posted = posted_ticks(frame.ticks, "EURUSD")
    assert [getattr(tick, "last2") for tick in posted] == last2_of(frame)  # noqa: B009
    path.write_bytes(written["csv"])
    with TickFile(path) as read:
        read.symbol = "EURUSD"
        assert [(tick.time_msc, tick.symbol) for tick in read] == [(t.time_msc, "EURUSD") for t in frame.ticks]


PACKAGES: Final = (
    "marketdata", "runtime", "archive", "producer", "stream_app", "sink", "dashboard", "relay", "tickpipe",
)  # fmt: skip

#: The modules that spell the fields of a tick beside each other.
SPELLED_IN: Final = {
    # Where a field is added.
    *ADDED,
    # They compute with these fields, each in its own way.
    "marketdata/runs.py", "runtime/archive/sums.py",
    # Examples in OpenAPI.
    "producer/app.py", "dashboard/origins.py",
    # What MetaTrader's package for Python has, and what is posted of it.
    "relay/terminal.py", "relay/feed.py", "relay/collector.py", "relay/server.py",
    # Forms of files that others read and write, of six fields.
    "tickpipe/export/files.py", "tickpipe/proof/document.py", "tickpipe/sending/columnnames.py",
    "tickpipe/sending/dialects.py",
    "tickpipe/sending/history.py", "tickpipe/sending/recognition.py",
}  # fmt: skip


def test_no_other_module_spells_the_fields_of_a_tick() -> None:
    found = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if any(map(spells_the_fields, ast.walk(ast.parse(path.read_text()))))
    }

    assert found == SPELLED_IN


def spells_the_fields(node: ast.AST) -> bool:
    """Whether names of all of a tick's fields but the time are parts of it, as names, attributes, keys or texts."""
    if not isinstance(node, ast.Call | ast.Tuple | ast.List | ast.Set | ast.Dict | ast.JoinedStr | ast.ClassDef):
        return False
    names = set()
    for part in ast.walk(node) if not isinstance(node, ast.ClassDef) else ast.iter_child_nodes(node):
        for field in ("id", "attr", "arg", "value", "target"):
            value = getattr(part, field, None)
            names.add(value.id if isinstance(value, ast.Name) else value if isinstance(value, str) else "")
    return names >= {"bid", "ask", "last", "flags"}
