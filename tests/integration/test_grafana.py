"""Every SQL statement of the Grafana dashboards, on the real schema and with a day's candles in it."""

import json
import re
from pathlib import Path

import psycopg
import pytest

from runtime.settings import Settings
from sink.db.schema import migrate

FOLDER = Path(__file__).parents[2] / "compose" / "grafana" / "dashboards"
DASHBOARDS = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]

#: What Grafana puts in the place of variables and macros.
VARIABLES = {"symbol": "EURUSD", "source": "S", "timeframe": "M5"}
FROM, TO = "'2019-02-04T00:00:00Z'", "'2019-02-05T00:00:00Z'"


def as_grafana_sends(sql: str) -> str:
    sql = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 BETWEEN {FROM} AND {TO}", sql)
    sql = sql.replace("$__timeFrom()", FROM).replace("$__timeTo()", TO)
    return re.sub(r"\$\{(\w+):sqlstring\}", lambda found: f"'{VARIABLES[found[1]]}'", sql)


def statements() -> dict[str, str]:
    found = {}
    for dashboard in DASHBOARDS:
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                found[f"variable {variable['name']}"] = variable["query"]
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                if "rawSql" in target:
                    found[panel["title"]] = target["rawSql"]
    return found


@pytest.fixture
async def database(settings: Settings) -> str:
    url = settings.database_url.get_secret_value()
    await migrate(url)
    with psycopg.connect(url) as connection:
        connection.execute(
            b"""
            INSERT INTO market_data (
                ts, symbol, timeframe, open, high, low, close, volume, spread, source, origin, closed, log, offsets
            )
            SELECT '2019-02-04'::timestamptz + n * interval '1 minute', 'EURUSD', 'M1', 1, 2, 1, 2, 7, 3, 'S', 'ticks',
                true, 'c/ticks', int8multirange(int8range(n, n + 1))
            FROM generate_series(0, 1439) AS n
            """
        )
        connection.execute(
            b"""
            INSERT INTO broker_bars (source, symbol, timeframe, ts, open, high, low, close, volume, received_at)
            SELECT source, symbol, timeframe, ts, open, high, low, close, volume + 1, now() FROM market_data
            WHERE ts < '2019-02-04 00:10+00'
            """
        )
    return url


#: Rows that a day of M1 candles gives, shown as M5.
EXPECTED = {
    "variable symbol": 1, "variable source": 1, "variable timeframe": 7, "$symbol, $timeframe, $source": 288,
    "Spread": 288, "Ticks": 288, "Newest candles": 1, "Minutes that differ from the broker's bars": 10,
}  # fmt: skip


async def test_every_statement_of_the_dashboards_answers(database: str) -> None:
    answers = {}
    with psycopg.connect(database) as connection:
        connection.execute("SET default_transaction_read_only = on")
        for title, sql in statements().items():
            sent = as_grafana_sends(sql)
            assert "$" not in sent, title
            answers[title] = connection.execute(sent.encode()).fetchall()

    assert {title: len(rows) for title, rows in answers.items()} == EXPECTED
    assert answers["$symbol, $timeframe, $source"][0][1:] == (1.0, 2.0, 1.0, 2.0, 35)
    assert answers["Minutes that differ from the broker's bars"][0][1] == "volume"
