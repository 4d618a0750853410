"""A table `market_data` as an older collector made it."""

from typing import Final, LiteralString

import psycopg

_OLDER: Final[LiteralString] = """
CREATE TABLE market_data (
    id serial PRIMARY KEY, ts timestamptz, symbol varchar(20), timeframe varchar(5), open numeric, high numeric,
    low numeric, close numeric, volume bigint, tick_volume bigint
);
CREATE INDEX market_data_ts_idx ON market_data (ts);
"""

_ROWS: Final[LiteralString] = """
INSERT INTO market_data (ts, symbol, timeframe, open, high, low, close, volume, tick_volume)
SELECT
    '2019-02-04'::timestamptz + n / 4 * interval '1 minute', 'SYM' || n %% 4, 'M1', 1.1, 1.2, 1.0, 1.15, 7, 7
FROM generate_series(0, %s - 1) AS n
"""


def make_older_table(url: str, rows: int) -> None:
    """Make the table with so many rows: minutes of four symbols."""
    with psycopg.connect(url) as connection:
        connection.execute(_OLDER)
        connection.execute(_ROWS, (rows,))
