"""What the forms hold, read back by others than their writers."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from marketdata.refold import TickRow, columns_of
from marketdata.tick import Tick
from sink.ticks import TickBatch
from tickpipe.export.files import whole_file, writer_for
from tickpipe.sending.dialects import Said
from tickpipe.sending.history import TickFile

T0 = 1_549_238_400_000

PRICES = st.sampled_from([0.0, 1.14543, 1.1, 1e-7, 49_500.0, -37.63, 86.655, 0.1 + 0.2])
ROWS = st.lists(
    st.tuples(
        st.sampled_from([T0, T0 + 1, T0 + 999, T0 + 86_400_000]), PRICES, PRICES, PRICES,
        st.sampled_from([0.0, 1.0, 2.15, 1e9]), st.sampled_from([0, 2, 6, 24, 56, 126]),
    ),
    max_size=12,
)  # fmt: skip


def written(name: str, rows: list[TickRow], *, raw: bool = False, digits: int | None = None) -> bytes:
    stream = io.BytesIO()
    writer = writer_for(name, stream, raw=raw, digits=digits)
    for begin in range(0, len(rows), 5):
        writer.write(TickBatch(0, records=rows[begin : begin + 5]))
    writer.finish()
    return stream.getvalue()


@given(ROWS)
def test_every_form_for_programs_holds_every_digit(rows: list[TickRow]) -> None:
    lines = list(csv.DictReader(io.StringIO(written("csv", rows).decode())))
    assert [tuple(float(line[name]) for name in columns_of(raw=False)[1:]) for line in lines] == rows
    objects: list[dict[str, Any]] = json.loads(written("json", rows))
    assert [tuple(list(one.values())[1:]) for one in objects] == rows


def test_times_are_read_by_people_and_by_programs() -> None:
    row = (T0 + 7, 1.1, 1.2, 0.0, 0.0, 6)
    assert written("csv", [row]) == (
        b"time,time_msc,bid,ask,last,volume,flags\n2019-02-04T00:00:00.007Z,1549238400007,1.1,1.2,0.0,0.0,6\n"
    )
    raw = (*row, 1, 42, 0, T0 + 50, "r")
    assert written("json", [raw], raw=True) == (
        b'[\n{"time":"2019-02-04T00:00:00.007Z","time_msc":1549238400007,"bid":1.1,"ask":1.2,"last":0.0,"volume":0.0,'
        b'"flags":6,"partition":1,"offset":42,"index":0,"received":"2019-02-04T00:00:00.050Z","request":"r"}\n]\n'
    )


def test_parquet_has_typed_columns() -> None:
    rows = [(T0 + n, 1.1, 1.2, 0.0, 0.0, 6, 0, n, 0, T0, "r") for n in range(12)]
    table = parquet.read_table(io.BytesIO(written("parquet", rows, raw=True)))
    assert table["time"].to_pylist()[3].timestamp() * 1000 == T0 + 3
    assert list(zip(*(table[name].to_pylist() for name in columns_of(raw=True)[1:10]), strict=True)) == [
        row[:9] for row in rows
    ]


@given(ROWS, st.sampled_from([None, 0, 3, 5]))
def test_metatraders_form_is_read_back_as_the_same_ticks(
    tmp_path_factory: pytest.TempPathFactory, rows: list[TickRow], digits: int | None
) -> None:
    path = tmp_path_factory.mktemp("mt5") / "ticks.csv"
    # A tick before them, because a file without any is refused.
    first = (T0, 1.5, 1.5, 0.0, 0.0, 6)
    path.write_bytes(written("mt5", [first, *rows], digits=digits))
    with TickFile(path, Said(symbol="EURUSD")) as file:
        found = [Tick(t.time_msc, t.bid, t.ask, t.last, t.volume, t.flags) for t in file]
        skipped = file.skipped
    assert (found, skipped) == ([Tick(*row) for row in [first, *rows]], 0)


def test_metatraders_form_is_as_the_terminal_writes_it() -> None:
    """Prices have the symbol's decimals, what did not change is empty, and live ticks' other flags are left out."""
    rows = [(T0 + 7, 1.1, 1.14551, 0.0, 0.0, 1030), (T0 + 60_000, 1.10001, 1.14551, 0.0, 0.0, 2)]
    assert written("mt5", rows, digits=5) == (
        b"<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>\r\n"
        b"2019.02.04\t00:00:00.007\t1.10000\t1.14551\t\t\t6\r\n"
        b"2019.02.04\t00:01:00.000\t1.10001\t\t\t\t2\r\n"
    )


def test_a_file_is_there_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "ticks.csv"
    target.write_text("before")

    def interrupted() -> None:
        with whole_file(target) as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (target.read_text(), list(tmp_path.iterdir())) == ("before", [target])
    with whole_file(target) as stream:
        stream.write(b"whole")
    assert (target.read_text(), list(tmp_path.iterdir())) == ("whole", [target])
