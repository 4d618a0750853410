"""Damaged files: no error of Python reaches the user, a bad line costs itself alone, and memory stays bounded."""

import gzip
import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import csv, parquet

from marketdata.errors import TickpipeError
from tests.unit.tickpipe.sending.test_history import M1, MT5
from tickpipe.sending.archives import ArchiveFile, is_archive
from tickpipe.sending.columnfile import BadLine, kind_of
from tickpipe.sending.dialects import Kind, Said
from tickpipe.sending.history import BarFile, TickFile

#: More than any line of a message.
LONG = b"9" * 70_000

LINES = [f"2019-02-04 00:00:{second:02d}.123,1.1454{second % 10},1.14555,1.5" for second in range(40)]
TICKS = "timestamp,bid,ask,volume\n" + "".join(f"{line}\n" for line in LINES)
ARCHIVE = "".join(
    f'{{"ts":"2025-10-20T02:20:00Z","kind":"tick","body":{{"ticks":[{{"symbol":"EURUSD","bid":1.1,"ask":1.2,'
    f'"ts_msc":{1_760_926_800_417 + number}}}]}}}}\n'
    for number in range(20)
)


def zipped(text: str) -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("ticks.csv", text)
        return file.getvalue()


def as_parquet(text: str) -> bytes:
    with io.BytesIO() as file:
        parquet.write_table(csv.read_csv(pa.py_buffer(text.encode())), file)
        return file.getvalue()


FILES = {
    "ticks": TICKS.encode(),
    "MetaTrader's ticks": MT5.encode("utf-16"),
    "bars": M1.encode(),
    "HistData": b"20120201 000003660,1.306600,1.306770,0\r\n" * 30,
    "epochs": b"time;bid;ask\n" + b"1549238401;1,14543;1,14545\n" * 30,
    "archive": ARCHIVE.encode(),
    "zip": zipped(TICKS),
    "Zstandard": pa.compress(TICKS.encode(), "zstd", asbytes=True),
    "Parquet": as_parquet(TICKS),
    "gzip": gzip.compress(TICKS.encode(), mtime=0),
}

#: What happens to a file, at some place in it.
DAMAGES = st.one_of(
    st.sampled_from([b"", b'"', b'""', b",", b",,", b"\t\t", b"\n", b"\r", b"\0", b"\xff", b"\xfe\xff", b"-", b"e9",
                     b"1e400", b"nan", b"inf", b"_", b"9" * 400, b"{", b"[[", b"\\u0000", b"+99:99", LONG]),
    st.binary(max_size=8),
)  # fmt: skip


def read_wholly(path: Path) -> None:
    """Read a file as `import` does."""
    said = Said(symbol="EURUSD", timeframe="M1")
    if is_archive(path):
        with ArchiveFile(path) as archive:
            for _ in archive:
                pass
    elif kind_of(path, said) is Kind.TICKS:
        with TickFile(path, said) as ticks:
            for _ in ticks:
                ticks.digits_of("EURUSD")
    else:
        with BarFile(path, said) as bars:
            for _ in bars:
                pass


@pytest.mark.parametrize("name", FILES)
@given(damages=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30), DAMAGES), max_size=6), cut=st.floats(0.05, 2))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_damaged_file_is_read_or_refused_in_a_sentence(
    tmp_path: Path, name: str, damages: list[tuple[float, int, bytes]], cut: float
) -> None:
    content = FILES[name]
    for place, removed, added in damages:
        at = int(place * len(content))
        content = content[:at] + added + content[at + removed :]
    path = tmp_path / "file.csv"
    path.write_bytes(content[: int(cut * len(content))])

    refused = ""
    try:
        read_wholly(path)
    except TickpipeError as exc:
        refused = str(exc)
    assert len(refused) < 1_000


@given(place=st.integers(10, 38), start=st.floats(0, 1), removed=st.integers(0, 60), added=DAMAGES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_bad_line_costs_itself_alone(tmp_path: Path, place: int, start: float, removed: int, added: bytes) -> None:
    # Arrange
    line = LINES[place].encode()
    at = int(start * len(line))
    damaged = line[:at] + added.replace(b"\n", b"").replace(b"\r", b"") + line[at + removed :]
    lines = [text.encode() for text in LINES]
    lines[place] = damaged
    path = tmp_path / "file.csv"
    path.write_bytes(b"timestamp,bid,ask,volume\n" + b"\n".join(lines) + b"\n")
    bad: list[BadLine] = []

    # Act
    with TickFile(path, Said(symbol="EURUSD"), on_bad=bad.append) as ticks:
        found = [(tick.time_msc, tick.ask) for tick in ticks]

    # Assert: all others, the line itself at most once, and a line that is not empty is one of the two
    others = [(1_549_238_400_123 + 1_000 * second, 1.14555) for second in range(40) if second != place]
    own = list(found)
    for other in others:
        own.remove(other)
    is_empty = re.fullmatch(r'[\s",\0\ufeff]*', damaged.decode("utf-8", "ignore"))
    is_remark = damaged.strip().startswith((b"#", b"//"))
    assert len(own) + len(bad) == 1 or ((is_empty or is_remark) and not own and not bad)
    assert {line.number for line in bad} <= {place + 2}


#: A tick of an archive, as an EA writes it.
TICK = b'{"symbol":"EURUSD","bid":1.16512,"ask":1.16518,"last":0.0,"volume":0,"flags":6,"ts_msc":1760926800417}'


@pytest.mark.parametrize(
    ("start", "million", "count", "most_bytes"),
    [
        pytest.param(
            b"timestamp,bid,ask\n2019-02-04 00:00:00.123,1.1,1.2\n", b"9" * 10**6, 150, 20 * 10**6, id="ticks"
        ),
        pytest.param(b'{"ticks":[\n', b"9" * 10**6, 1_000, 120 * 10**6, id="JSON", marks=pytest.mark.full),
        pytest.param(
            b'{"ticks":[', b",".join([TICK] * 10_000) + b",", 200, 120 * 10**6, id="items", marks=pytest.mark.full
        ),
    ],
)
def test_a_line_without_end_stays_small_in_memory(
    tmp_path: Path, start: bytes, million: bytes, count: int, most_bytes: int
) -> None:
    path = tmp_path / "file.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(start)
        for _ in range(count):
            file.write(million)
        if million.startswith(TICK):
            file.write(TICK + b"]}")
    child = (
        "import resource, sys; from pathlib import Path\n"
        "from tests.unit.tickpipe.sending.test_damaged import read_wholly\n"
        "from marketdata.errors import TickpipeError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_wholly(Path(sys.argv[1])); print('read')\n"
        "except TickpipeError as exc: print(exc)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)\n"
    )

    done = subprocess.run([sys.executable, "-c", child, path], capture_output=True, text=True, check=True)

    said, grown_bytes = done.stdout.splitlines()
    assert said
    assert int(grown_bytes) < most_bytes, said
