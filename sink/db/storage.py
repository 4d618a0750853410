"""How `market_data` is stored: the edition of the database, sizes, chunks and policies, and compression."""

from datetime import datetime
from typing import Any, Final, NamedTuple

import structlog
from psycopg import AsyncConnection

from sink.db.statements import SQL

log = structlog.get_logger(__name__)

#: Advisory lock that lets one of several sinks set policies ("poli").
_LOCK_KEY: Final = 0x706F6C69


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


class Storage(NamedTuple):
    """What the tables take; chunks and policies are None and empty without TimescaleDB."""

    market_data_bytes: int
    #: Materialised hours and days, and the list of stale ones.
    candle_bytes: int
    broker_bars_bytes: int
    chunks: int | None
    compressed_chunks: int | None
    #: Name, interval and configuration of each job on `market_data`.
    policies: list[tuple[str, str, str]]
    #: Before them M1 to M30, H1 and H4, D1 to MN1 are deleted; None where nothing is.
    minutes_from: datetime | None
    hours_from: datetime | None
    days_from: datetime | None


async def storage(connection: AsyncConnection[Any]) -> Storage:
    """The storage of a migrated database."""
    candles, bars, market_data = await _row(connection, "relation_sizes")
    retention = await _row(connection, "retention")
    if not (await edition(connection)).startswith("timescaledb"):
        return Storage(market_data, candles, bars, None, None, [], *retention)
    (market_data,) = await _row(connection, "hypertable_size")
    chunks, compressed = await _row(connection, "chunks")
    policies = await (await connection.execute(SQL["policies"])).fetchall()
    return Storage(market_data, candles, bars, chunks, compressed, policies, *retention)


async def set_compression(connection: AsyncConnection[Any], after_days: int) -> None:
    """Chunks are compressed when they are so many days old; 0 compresses no more and leaves what is compressed.

    Other editions than TimescaleDB's community edition cannot; that is logged.
    """
    if not (await edition(connection)).startswith("timescaledb community"):
        if after_days:
            log.warning(
                "Nothing is compressed: that needs TimescaleDB's community edition.", action="compression_missing"
            )
        return
    async with connection.transaction():
        await connection.execute(SQL["lock_policies"], {"key": _LOCK_KEY})
        row = await (await connection.execute(SQL["compression_policy"])).fetchone()
        present = row[0] if row else 0
        if present == after_days:
            return
        await connection.execute(SQL["remove_compression_policy"])
        if after_days:
            (compressible,) = await _row(connection, "is_compressible")
            if not compressible:
                await connection.execute(SQL["make_compressible"])
            await connection.execute(SQL["add_compression_policy"], {"days": after_days})
    log.info("The compression of old chunks was set.", action="compression_set", after_days=after_days)


async def _row(connection: AsyncConnection[Any], name: str) -> tuple[Any, ...]:
    row = await (await connection.execute(SQL[name])).fetchone()
    if row is None:
        raise RuntimeError("market_data is no table of this database; run `tickpipe db migrate`")
    return tuple(row)
