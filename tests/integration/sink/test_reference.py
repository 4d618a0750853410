"""Who sends, and how instruments are quoted, from the topic `reference` to the database."""

import random
from datetime import UTC, datetime, timedelta

import msgspec
import psycopg
import pytest

from marketdata.wire import Instrument, Reference, SenderCount, encode, reference_key
from runtime import clock
from runtime.settings import Settings
from sink.db.connection import Connection
from sink.queries import read_senders
from sink.writer import apply_reference
from tests.integration.sink.flow import Flow, RunningSink, rejected_records

NOW = clock.now_ms()
COUNT = SenderCount(
    source="S", server="Broker-Demo", account="1", build="3850", ea="PDC", version="1.65", address="10.0.0.7",
    counter="a", first_seen=NOW - 60_000, last_seen=NOW - 30_000, ticks=3, bars=0,
)  # fmt: skip


def changed(**changes: object) -> SenderCount:
    return msgspec.structs.replace(COUNT, **changes)


async def points(connection: Connection) -> list[tuple[str, float]]:
    cursor = await connection.execute(b"SELECT symbol, point FROM instruments ORDER BY symbol")
    return [(symbol, point) for symbol, point in await cursor.fetchall()]


async def test_records_in_any_order_and_number_give_the_same_rows(connection: Connection) -> None:
    later = changed(last_seen=NOW, ticks=7, bars=2, late_ticks=3)
    other = changed(counter="b", first_seen=NOW - 90_000, last_seen=NOW - 80_000, ticks=10, late_ticks=1)
    quoted = [Instrument(source="S", symbol="USDJPY", point=p, received=n) for n, p in enumerate((0.1, 0.01, 0.001))]
    records: list[Reference] = [COUNT, later, other, *quoted]
    chance = random.Random(1)
    for _ in range(5):
        # A replay of all of it, in any order, changes nothing that was stored by another.
        await apply_reference(connection, chance.choices(records, k=12))
    await apply_reference(connection, records)

    [row] = await read_senders(connection)
    assert (row.source, row.server, row.account, row.build) == ("S", "Broker-Demo", "1", "3850")
    assert (row.ea, row.version, row.address, row.shared) == ("PDC", "1.65", "10.0.0.7", None)
    assert (row.ticks, row.bars, row.late_ticks) == (17, 2, 4)  # 7 + 10, 2 + 0, 3 + 1
    assert row.first_seen == datetime.fromtimestamp((NOW - 90_000) / 1000, UTC)
    assert row.last_seen == datetime.fromtimestamp(NOW / 1000, UTC)
    assert await points(connection) == [("USDJPY", 0.001)]
    assert await apply_reference(connection, [COUNT, quoted[0]]) == 0


async def test_counts_are_forgotten_after_ninety_days_and_a_replay_brings_none_back(connection: Connection) -> None:
    def seen(days_ago: int, counter: str, ticks: int) -> SenderCount:
        at = NOW - days_ago * 86_400_000
        return changed(counter=counter, first_seen=at, last_seen=at, ticks=ticks)

    runs = [seen(89, "a", 1), seen(1, "b", 2)]
    await apply_reference(connection, runs)
    # As it is when two days have passed.
    await connection.execute(
        b"UPDATE sender_counts SET first_seen = last_seen - interval '2 days',"
        b" last_seen = last_seen - interval '2 days'"
    )
    await apply_reference(connection, [seen(0, "c", 4)])
    await apply_reference(connection, [seen(91, "a", 1)])

    [row] = await read_senders(connection)
    assert row.ticks == 2 + 4


@pytest.mark.parametrize(
    ("others", "shared"),
    [
        ([], None),
        ([changed(address="10.0.0.8", version="1.66")], None),
        ([changed(server="Other")], "servers"),
        ([changed(account="2")], "accounts"),
        ([changed(server="Other", account="2")], "servers, accounts"),
        ([changed(account="", server="")], None),  # one that says nothing differs in nothing
        ([changed(account="2", source="T")], None),
        ([changed(account="2", first_seen=NOW - 8_000_000, last_seen=NOW - 7_200_000)], None),  # over an hour ago
    ],
)
async def test_two_servers_or_accounts_of_a_source_are_told(
    connection: Connection, others: list[SenderCount], shared: str | None
) -> None:
    await apply_reference(connection, [COUNT, *others])

    rows = [row for row in await read_senders(connection) if row.source == "S"]
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    assert {row.shared for row in rows if row.last_seen > hour_ago} == {shared}
    assert len(await read_senders(connection, hour_ago)) == sum(o.last_seen > NOW - 3_600_000 for o in others) + 1


async def test_the_sink_stores_what_it_reads_and_rejects_the_rest(
    settings: Settings, connection: Connection, flow: Flow
) -> None:
    broken = encode(changed(counter="x\0"))
    good: list[Reference] = [COUNT, Instrument(source="S", symbol="PEPEUSD", point=1e-10, received=NOW)]
    await flow.send(
        settings.reference_topic, [(b"k", b"{}"), (b"n", broken), *((reference_key(r), encode(r)) for r in good)]
    )

    async with RunningSink(settings):
        rejected = await rejected_records(settings, 2)

    assert {record.key for record in rejected} == {b"k", b"n"}
    assert {dict(record.headers)["topic"] for record in rejected} == {settings.reference_topic.encode()}
    assert [row.ticks for row in await read_senders(connection)] == [3]
    assert await points(connection) == [("PEPEUSD", 1e-10)]


async def test_a_point_that_is_none_is_refused(connection: Connection) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        await connection.execute(b"INSERT INTO instruments VALUES ('S', 'X', 'NaN', now())")
