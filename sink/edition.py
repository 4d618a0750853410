"""Which database this is: three editions are supported, and the log says which one was found."""

from typing import Any

from psycopg import AsyncConnection

from sink.statements import SQL


async def edition(connection: AsyncConnection[Any]) -> str:
    """`timescaledb community 2.x`, `timescaledb apache 2.x` or `postgresql 18`."""
    row = await (await connection.execute(SQL["edition"])).fetchone()
    if row is None:
        raise RuntimeError("unreachable: a SELECT without FROM returns a row")
    postgresql, timescaledb, timescaledb_license = row
    if timescaledb is None:
        return f"postgresql {postgresql}"
    # TimescaleDB: timescaledb.license is `timescale` in the community edition, `apache` in the other.
    kind = "community" if timescaledb_license == "timescale" else "apache"
    return f"timescaledb {kind} {timescaledb}"
