"""A file of bars through the producer into the database, from the broker's clock to UTC."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from runtime.settings import Settings
from tests import preloaded
from tests.conftest import API_KEY
from tests.services import environment, running
from tests.waiting import PATIENCE_SECONDS, wait_until

BARS = """\
<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>
2019.07.01\t10:00:00\t1.13\t1.14\t1.12\t1.135\t45\t0\t2
2019.12.02\t10:00:00\t1.10\t1.11\t1.09\t1.105\t7\t3\t1
"""


def test_bars_are_the_brokers_and_fill_what_has_no_ticks(settings: Settings, tmp_path: Path) -> None:
    # Arrange
    file = tmp_path / "EURUSD_M1_201907010000_201912310000.csv"
    file.write_text(BARS)
    # Three hours ahead of UTC in summer, two in winter.
    settings = settings.model_copy(update={"source_zones": {"Broker": "Europe/Athens"}})

    with running(settings, "producer", "sink") as (producer, _):
        # Act
        command = ["tickpipe", "import", str(file), "--source", "Broker", "--url", producer.url, "--key", API_KEY]
        for _ in range(2):
            done = preloaded.run(command, environment=environment(settings))
            assert (done.returncode, "2 bars sent, 2 accepted" in done.stdout) == (0, True), done.stderr

        # Assert
        expected = [
            (datetime(2019, 7, 1, 7, tzinfo=UTC), "EURUSD", "Broker", 1.13, 1.14, 1.12, 1.135, 45, None, 2),
            (datetime(2019, 12, 2, 8, tzinfo=UTC), "EURUSD", "Broker", 1.10, 1.11, 1.09, 1.105, 7, 3.0, 1),
        ]
        wait_until(lambda: len(rows(settings, "market_data")) == len(expected), what="two candles")
        assert rows(settings, "market_data") == expected
        assert rows(settings, "broker_bars") == expected


def rows(settings: Settings, table: str) -> list[tuple[Any, ...]]:
    columns = "ts, symbol, source, open, high, low, close, volume, real_volume, spread"
    query = psycopg.sql.SQL("SELECT {} FROM {} ORDER BY ts").format(
        psycopg.sql.SQL(columns), psycopg.sql.Identifier(table)
    )
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        return connection.execute(query).fetchall()


def saved_items(place: Path) -> int:
    """How far an import has come; its first place may be that nothing is confirmed yet."""
    return int(json.loads(place.read_bytes())["items"])


@pytest.mark.full
@pytest.mark.long(15)
def test_a_killed_import_goes_on_and_counts_every_tick_once(settings: Settings, tmp_path: Path) -> None:
    # Arrange: 20 ticks a second, equal ones in a row among them
    file = tmp_path / "EURUSD_201902040000_201902050000.csv"
    count = 480_000
    with file.open("w") as lines:
        lines.write("time_msc,bid,ask\n")
        for number in range(count):
            lines.write(f"{1_549_238_400_000 + number // 2 * 100},1.1454{number // 4 % 10},1.14555\n")
    command = [sys.executable, "-m", "tickpipe", "import", str(file), "--source", "Broker", "--key", API_KEY]
    environment_ = environment(settings) | {"TICKPIPE_DATA_DIR": str(tmp_path)}

    with running(settings, "producer", "stream_app", "sink") as (producer, _, _):
        # Act: killed as soon as it has saved how far it came
        command += ["--url", producer.url]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment_) as process:
            wait_until(lambda: any(map(saved_items, tmp_path.glob("imports/*.json"))), what="the saved place")
            process.kill()
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False, env=environment_
        )

        # Assert
        assert done.returncode == 0, done.stderr
        assert "continues after" in done.stdout
        assert f"{count:,} ticks sent" not in done.stdout

        def volumes() -> list[int]:
            with psycopg.connect(settings.database_url.get_secret_value()) as connection:
                rows_ = connection.execute("SELECT volume FROM market_data WHERE closed ORDER BY ts").fetchall()
                return [volume for (volume,) in rows_]

        wait_until(lambda: len(volumes()) == count // 1200, what="the candles")
        assert volumes() == [1200] * (count // 1200)
