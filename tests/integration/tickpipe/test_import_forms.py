"""Files of several dialects and an archive through a whole pipeline: what is in the table, and what was rejected."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import tuple_row
from typer.testing import CliRunner

from runtime.rejected import Which
from runtime.settings import Settings
from tests.conftest import API_KEY
from tests.rejected import rejected_records
from tests.services import environment, running
from tests.waiting import eventually
from tickpipe.cli import app

MT5 = "<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>\r\n"


class Pipeline:
    """A pipeline that files are imported into."""

    def __init__(self, settings: Settings, url: str, folder: Path) -> None:
        self.settings, self.url, self.folder = settings, url, folder

    async def imported(self, name: str, content: str, source: str, *options: str, code: int = 0) -> str:
        """Import a file with that content; what was said."""
        (self.folder / name).write_text(content, newline="", encoding="utf-8")
        command = ["import", str(self.folder / name), "--source", source, *options, "--url", self.url, "--key", API_KEY]
        done = await asyncio.to_thread(CliRunner().invoke, app, command, env=environment(self.settings))
        assert done.exit_code == code, done.output
        return done.stdout + done.stderr

    async def stores(self, table: str, source: str, expected: set[tuple[Any, ...]]) -> None:
        """Wait until the table has exactly these rows: minute, symbol, prices, volume, spread."""

        async def is_there() -> bool:
            return self.rows(table, source) == expected

        try:
            await eventually(is_there, what=f"the rows of {source}")
        except AssertionError:
            assert self.rows(table, source) == expected

    def rows(self, table: str, source: str) -> set[tuple[Any, ...]]:
        columns = "ts AT TIME ZONE 'UTC', symbol, open, high, low, close, volume, spread"
        query = psycopg.sql.SQL("SELECT {} FROM {} WHERE source = %s AND timeframe = 'M1'").format(
            psycopg.sql.SQL(columns), psycopg.sql.Identifier(table)
        )
        with psycopg.connect(self.settings.database_url.get_secret_value(), row_factory=tuple_row) as connection:
            return set(connection.execute(query, [source]).fetchall())


@pytest.fixture
async def pipeline(settings: Settings, tmp_path: Path) -> AsyncIterator[Pipeline]:
    settings = settings.model_copy(update={"source_zones": {"Athens": "Europe/Athens"}})
    with running(settings, "producer", "stream_app", "sink") as (producer, _, _):
        yield Pipeline(settings, producer.url, tmp_path)


def minute(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def test_files_of_every_kind_become_their_candles(pipeline: Pipeline) -> None:
    # Act
    await pipeline.imported(
        "symbols.csv",
        "time_msc,symbol,bid,ask\n1771268400083,EURUSD,1.18501,1.18503\n1771268400088,XAUUSD,5000.10,5000.30\n"
        "1771268400092,EURUSD,1.18502,1.18504\n",
        "Column",
    )
    await pipeline.imported(
        "comma.csv", "\ufefftime_msc;bid;ask\r\n1771268400083;1,18501;1,18503\r\n", "Comma", "-s", "EURUSD"
    )
    await pipeline.imported("histdata.csv", "20120201 000003660,1.306600,1.306770,0\r\n", "HistData", "-s", "EURUSD")
    twice = "".join(f"2025.10.26\t{time}\t{bid}.00\t{bid + 10}.00\t\t\t6\r\n" for time, bid in (
        ("03:10:05.000", 113100), ("03:10:45.000", 113200), ("03:59:59.000", 113300), ("03:10:07.000", 111000),
    ))  # fmt: skip
    await pipeline.imported("athens.csv", MT5 + twice, "Athens", "-s", "BTCUSD")
    await pipeline.imported(
        "finam.csv",
        "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>\n"
        "NYMEX.PL,1,20140801,000000,1462.9,1463.4,1462.9,1462.9,16\n",
        "FINAM",
    )

    # Assert: a spread of 0.20 at two digits is 20 points
    await pipeline.stores("market_data", "Column", {
        (minute("2026-02-16T19:00"), "EURUSD", 1.18501, 1.18502, 1.18501, 1.18502, 2, 2),
        (minute("2026-02-16T19:00"), "XAUUSD", 5000.1, 5000.1, 5000.1, 5000.1, 1, 20),
    })  # fmt: skip
    await pipeline.stores("market_data", "Comma", {
        (minute("2026-02-16T19:00"), "EURUSD", 1.18501, 1.18501, 1.18501, 1.18501, 1, 2),
    })  # fmt: skip
    await pipeline.stores("market_data", "HistData", {
        (minute("2012-02-01T05:00"), "EURUSD", 1.3066, 1.3066, 1.3066, 1.3066, 1, 170),
    })  # fmt: skip
    await pipeline.stores("market_data", "Athens", {
        (minute("2025-10-26T00:10"), "BTCUSD", 113100, 113200, 113100, 113200, 2, 1000),
        (minute("2025-10-26T00:59"), "BTCUSD", 113300, 113300, 113300, 113300, 1, 1000),
        (minute("2025-10-26T01:10"), "BTCUSD", 111000, 111000, 111000, 111000, 1, 1000),
    })  # fmt: skip
    await pipeline.stores("broker_bars", "FINAM", {
        (minute("2014-08-01T00:00"), "NYMEX.PL", 1462.9, 1463.4, 1462.9, 1462.9, 16, None),
    })  # fmt: skip


async def test_a_line_that_cannot_be_used_is_stored_with_the_rejected_records(pipeline: Pipeline) -> None:
    said = await pipeline.imported(
        "ticks.csv", "time_msc,bid,ask\n1771268400083,1.1,1.2\n1771268403083,,\n1771268404083,1.3,1.4\n", "Broker",
        "-s", "EURUSD", code=1,
    )  # fmt: skip

    assert "2 ticks sent, 2 accepted" in said
    assert "line 3: bid: a number is expected, not ''" in said
    (rejected,) = await rejected_records(pipeline.settings, Which.TICKS)
    assert json.loads(rejected.value or b"") == {
        "file": "ticks.csv", "line": 3, "text": "1771268403083,,", "why": "bid: a number is expected, not ''",
    }  # fmt: skip
    assert rejected.reason == """line 3 of 'ticks.csv' cannot be used: "bid: a number is expected, not ''\""""
    await pipeline.stores("market_data", "Broker", {
        (minute("2026-02-16T19:00"), "EURUSD", 1.1, 1.3, 1.1, 1.3, 2, 1),
    })  # fmt: skip


async def test_an_archive_and_the_file_of_the_same_ticks_count_once(pipeline: Pipeline) -> None:
    # Arrange: the EA's archive, torn at its end, and MetaTrader's export of the same ticks
    first = 1_760_926_800_000
    ticks = [
        {"ts": "2025-10-20T02:20:00Z", "symbol": "EURUSD", "bid": round(1.1651 + n / 1e5, 5), "ask": 1.1660,
         "last": 0.0, "volume": 0, "flags": 6, "ts_msc": first + n * 100, "digits": 5}
        for n in range(20)
    ]  # fmt: skip
    lines = [json.dumps({"ts": "2025-10-20T02:20:01Z", "kind": "tick", "body": {"ticks": [tick]}}) for tick in ticks]
    archive = "\ufeff" + "\r\n".join([*lines, lines[0][:40]])
    export = MT5 + "".join(
        f"2025.10.20\t02:20:{n // 10:02d}.{n % 10}00\t{tick['bid']:.5f}\t1.16600\t\t\t6\r\n"
        for n, tick in enumerate(ticks)
    )

    # Act: what was sent is sent again, in another way, and once more
    for _ in range(2):
        assert "20 items sent, 20 accepted" in await pipeline.imported(
            "PDC_outbound_20251020.jsonl", archive, "EA", code=1
        )
    await pipeline.imported("EURUSD_202510200000_202510202359.csv", export, "EA")

    # Assert
    await pipeline.stores("market_data", "EA", {
        (minute("2025-10-20T02:20"), "EURUSD", 1.1651, 1.16529, 1.1651, 1.16529, 20, 71),
    })  # fmt: skip
    assert len(await rejected_records(pipeline.settings, Which.TICKS)) == 2
