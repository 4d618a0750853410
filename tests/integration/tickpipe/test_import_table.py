"""A table of bars of an older database becomes broker bars here, read and never changed."""

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner, Result

from runtime.settings import Settings
from sink.db.schema import migrate
from tests.conftest import API_KEY
from tests.services import environment, running
from tests.waiting import wait_until
from tickpipe.cli import app

#: The older stack's table, with a tick row, a row of zeros and a bar that stands twice.
OLD = """
CREATE SCHEMA older;
CREATE TABLE older.market_data (
    id bigserial, ts timestamptz NOT NULL, symbol varchar(32) NOT NULL, timeframe varchar(8) NOT NULL,
    open numeric(20, 5), high numeric(20, 5), low numeric(20, 5), close numeric(20, 5), volume bigint,
    tick_volume bigint, comment text
);
INSERT INTO older.market_data (ts, symbol, timeframe, open, high, low, close, volume, tick_volume, comment) VALUES
    ('2019-07-01 07:00+00', 'EURUSD', 'M1', 1.13, 1.14, 1.12, 1.135, 0, 45, 'a\tb'),
    ('2019-07-01 07:01+00', 'EURUSD', 'M1', 1.135, 1.14, 1.12, 1.13, 0, 46, NULL),
    ('2019-07-01 07:01+00', 'EURUSD', 'M1', 1.135, 1.14, 1.12, 1.13, 0, 46, NULL),
    ('2019-07-01 07:00+00', 'WINV26', 'M1', 129200, 129210, 129195, 129205, 250, 12, NULL),
    ('2019-07-01 07:02+00', 'WINV26', 'M1', 0, 0, 0, 0, 0, 0, NULL),
    ('2019-07-01 07:03+00', 'WINV26', 'M1', 129200, 129210, 129195, 129205, 1, 13, NULL),
    ('2019-07-01 06:00+00', 'EURUSD', 'H1', 1.12, 1.14, 1.11, 1.13, 0, 2700, NULL),
    ('2019-07-01 07:00:00.417+00', 'EURUSD', 'tick', 1.13, 1.13, 1.13, 1.13, 0, 0, NULL)
"""


@pytest.fixture
def old(settings: Settings) -> str:
    """The address of a database with such a table; ours is in another schema of it."""
    url = settings.database_url.get_secret_value()
    asyncio.run(migrate(url))
    with psycopg.connect(url) as connection:
        connection.execute(OLD)
    return url


def imported(settings: Settings, *arguments: str) -> Result:
    command = ["import", *arguments, "--source", "Broker", "--key", API_KEY]
    return CliRunner().invoke(app, command, env=environment(settings))


def test_a_table_of_an_older_database_is_imported(settings: Settings, old: str) -> None:
    arguments = ["market-data", old, "--table", "older.market_data"]
    shown = imported(settings, *arguments, "--dry-run")
    # The row of zeros is no bar.
    assert shown.exit_code == 1, shown.stderr
    assert "H1 bars" in shown.stdout
    assert "line 6: open" in " ".join(shown.stderr.split())
    assert copies(settings) == []

    with running(settings, "producer", "sink") as (producer, _):
        for _ in range(2):
            done = imported(settings, *arguments, "--url", producer.url)
            assert done.exit_code == 1, done.stderr + done.stdout
            assert "1 bars sent, 1 accepted" in done.stdout
            assert "5 bars sent, 5 accepted, 0 rejected" in done.stdout
            assert "1 lines could not be used" in done.stdout
            assert copies(settings) == []

        def stored() -> list[tuple[Any, ...]]:
            query = (
                "SELECT ts, symbol, timeframe, source, open, high, low, close, volume FROM broker_bars ORDER BY 3, 2, 1"
            )
            with psycopg.connect(old) as connection:
                return connection.execute(query).fetchall()

        wait_until(lambda: len(stored()) == 5, what="the bars")
        hour = datetime(2019, 7, 1, 6, tzinfo=UTC)
        minutes = [datetime(2019, 7, 1, 7, minute, tzinfo=UTC) for minute in range(4)]
        assert stored() == [
            (hour, "EURUSD", "H1", "Broker", 1.12, 1.14, 1.11, 1.13, 2700),
            (minutes[0], "EURUSD", "M1", "Broker", 1.13, 1.14, 1.12, 1.135, 45),
            (minutes[1], "EURUSD", "M1", "Broker", 1.135, 1.14, 1.12, 1.13, 46),
            (minutes[0], "WINV26", "M1", "Broker", 129200, 129210, 129195, 129205, 12),
            (minutes[3], "WINV26", "M1", "Broker", 129200, 129210, 129195, 129205, 13),
        ]
    with psycopg.connect(old) as connection:
        assert connection.execute("SELECT count(*) FROM older.market_data").fetchone() == (8,)


def test_what_cannot_be_read_is_said_in_a_sentence(settings: Settings, old: str) -> None:
    for arguments, words in (
        ([old, "--table", "older.missing"], "there is no table older.missing"),
        ([old, "--table", "timeframes"], "no table of bars"),
        (["postgresql://user:hush@127.0.0.1:9/none"], "127.0.0.1:9/none"),
        (["postgresql://user:hu@sh%@127.0.0.1:9/none"], "%25 for %"),
    ):
        done = imported(settings, *arguments, "--dry-run")
        assert done.exit_code == 2
        assert words in " ".join(done.stderr.split())
        assert not re.search("hush|hu@|sh%@", done.stderr)
        assert "Traceback" not in done.stderr


def copies(settings: Settings) -> list[Path]:
    return [path for path in settings.data_dir.joinpath("imports").glob("*/*") if path.suffix == ".csv"]
