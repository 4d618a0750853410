"""`tickpipe sql` over a large archive against DuckDB on plain Parquet: a count, and bars of a minute.

`python -m benchmarks.sql` has 100 million ticks of 8 symbols on 125 days, which takes ten minutes on two idle cores and
0.8 GB in /var/tmp; `--days 25` has 20 million, in two minutes. The files are deleted at the end, unless `--folder` says
where they stay for the next run. The archive is made by its own writer, without Kafka. The plain files are what DuckDB
writes of a tick's own columns, by source, symbol and date as well: as many ticks in each file, zstd, and the encodings
of Parquet's version 2, which are as fast here and smaller.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final

import duckdb
import psutil
from msgspec.structs import replace
from rich.progress import track

from archive.writer import Writer
from benchmarks.rounds import Measured, cpu_seconds, measured_child, peak_bytes, run_rounds
from marketdata.tick import DAY_MS, Frame, RecordColumns, Tick
from runtime.archive.files import LocalFiles
from runtime.archive.manifest import Catalogue
from tickpipe.tickviews import Ticks

SYMBOLS: Final = tuple(f"SYM{number}" for number in range(8))
TICKS_A_DAY: Final = 100_000
FRAME_TICKS: Final = 200
LOG: Final = "cluster/ticks/id"

#: 2019-01-01.
BEGIN_MS: Final = 1_546_300_800_000

#: The path of the plain files is put in by `FROM`.
QUERIES: Final = {
    "count": "SELECT symbol, count(*) FROM {} GROUP BY symbol ORDER BY symbol",
    "bars": (
        "SELECT symbol, time_bucket(INTERVAL 1 MINUTE, time) AS ts, first(bid ORDER BY time), max(bid), min(bid), "
        "last(bid ORDER BY time), count(*) FROM {} GROUP BY symbol, ts ORDER BY symbol, ts"
    ),
}


def a_day(symbol: int) -> list[RecordColumns]:
    """A walk of 2019-01-01, in frames."""
    dice, price, ticks = Random(symbol), 1.1 + symbol, []  # noqa: S311 - prices, no secrets
    step_ms = DAY_MS // TICKS_A_DAY
    for number in range(TICKS_A_DAY):
        price = round(price + dice.choice((-0.00001, 0.0, 0.00001)), 5)
        at = BEGIN_MS + number * step_ms + dice.randrange(step_ms)
        ticks.append(Tick(at, price, round(price + dice.choice((0.00006, 0.00008)), 5), 0.0, 0.0, 6))
    return [RecordColumns.of(ticks[begin : begin + FRAME_TICKS]) for begin in range(0, TICKS_A_DAY, FRAME_TICKS)]


def fill(folder: Path, days: int) -> None:
    """Write the archive, a file for each symbol and day."""
    writer = Writer(Catalogue(LocalFiles(folder), LOG))
    offset = writer.resume(0)
    walks = [a_day(symbol) for symbol in range(len(SYMBOLS))]
    for day in track(range(days), "writing the archive"):
        for symbol, walk in zip(SYMBOLS, walks, strict=True):
            chunk: list[tuple[int, Frame]] = []
            for frame_ticks in walk:
                ticks = replace(frame_ticks, time_msc=frame_ticks.time_msc + day * DAY_MS)
                frame = Frame(
                    v=2, source="bench", symbol=symbol, mode="bid", point=0.00001, request="", ticks=ticks,
                    received=ticks[-1].time_msc + 50,
                )  # fmt: skip
                chunk.append((offset + len(chunk), frame))
            writer.add(0, offset, offset + len(chunk) - 1, chunk)
            offset += len(chunk)
        writer.flush(0)


def write_plain(archive: Path, folder: Path) -> None:
    """The same ticks as DuckDB writes them, by source, symbol and date as well."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    # Sorted one by one, a hundred million ticks fit into memory.
    for symbol in track(SYMBOLS, "writing plain files"):
        connection.execute(
            "COPY (SELECT source, symbol, date, time, bid, ask, last, volume, flags"  # noqa: S608 - paths of our own
            f" FROM read_parquet('{archive}/*/ticks/*/symbol={symbol}/*/*.parquet', hive_partitioning = true)"
            f" ORDER BY time) TO '{folder}' (FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2,"
            " PARTITION_BY (source, symbol, date), APPEND)"
        )


def answer(query: str, archive: Path | None, plain: Path) -> tuple[float, float, int, int]:
    """Wall and CPU seconds of the query over the archive, or over the plain files; peak bytes, and ticks counted."""
    process = psutil.Process()
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    began, cpu_before = time.monotonic(), cpu_seconds(process)
    if archive is not None:
        Ticks(Catalogue(LocalFiles(archive), LOG), {}).show(connection, ["ticks"])
    source = "ticks" if archive is not None else f"read_parquet('{plain}/*/*/*/*.parquet', hive_partitioning = true)"
    rows = connection.execute(QUERIES[query].format(source)).to_arrow_table()
    wall, cpu = time.monotonic() - began, cpu_seconds(process) - cpu_before
    return wall, cpu, peak_bytes(process), sum(rows.columns[-1].to_pylist())


def asking(query: str, folder: Path, ticks: int, *, is_ours: bool) -> Callable[[], Measured]:
    """A process that asks once."""

    def run() -> Measured:
        command = [sys.executable, "-m", "benchmarks.sql", "--ask", query, str(folder), "ours" if is_ours else "plain"]
        outcome, [counted] = measured_child(command, ticks)
        if int(counted) != ticks:
            raise SystemExit(f"{int(counted):,} ticks were counted instead of {ticks:,}")
        return outcome

    return run


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=125, help="days of 800,000 ticks (default: 125)")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (default: 5)")
    parser.add_argument("--folder", type=Path, help="where a former run has left its files, or this one leaves them")
    parser.add_argument("--ask", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        query, folder, whose = options.ask
        print(*answer(query, Path(folder) / "archive" if whose == "ours" else None, Path(folder) / "plain"))
        return
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        folder = options.folder or Path(directory)
        archive, plain = folder / "archive", folder / "plain"
        if not plain.exists():
            fill(archive, options.days)
            write_plain(archive, plain)
        ticks = options.days * len(SYMBOLS) * TICKS_A_DAY
        sizes = {
            name: sum(file.stat().st_size for file in of.rglob("*.parquet")) / ticks
            for name, of in (("archive", archive), ("plain", plain))
        }
        note = f"{ticks:,} ticks: {sizes['archive']:.1f} bytes each in the archive, {sizes['plain']:.1f} plain."
        for query in QUERIES:
            contenders = {
                "DuckDB on plain Parquet": asking(query, folder, ticks, is_ours=False),
                "tickpipe sql": asking(query, folder, ticks, is_ours=True),
            }
            run_rounds(
                f"sql-{query}", contenders, rounds=options.rounds, unit="ticks", packages=("duckdb", "pyarrow"),
                notes=[note],
            )  # fmt: skip


if __name__ == "__main__":
    main()
