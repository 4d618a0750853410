import asyncio
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from marketdata.candle import Candle
from runtime.settings import Settings
from sink.db.connection import Connection, Database
from sink.metrics import Metrics
from sink.refolds import Refolder
from sink.writer import LogEnds, Writer
from tests.days import eurusd_bars
from tests.integration.sink.flow import Flow, Logged, day_frames, value
from tests.unit.sink.candles import MINUTE, frame


class Refolding:
    """A writer and a refolder that thinks everything due at once."""

    def __init__(self, settings: Settings, log_name: str, **delays: float) -> None:
        self.metrics = Metrics(CollectorRegistry())
        self.log_ends = LogEnds(settings, log_name)
        self.writer = Writer(self.log_ends, self.metrics)
        self.database = Database(settings.database_url.get_secret_value(), asyncio.Event())
        delays = {"quiet_seconds": 0.0, **delays}
        self.refolder = Refolder(settings, self.log_ends, self.database, self.writer, self.metrics, **delays)

    def records_read(self) -> float:
        return self.metrics.registry.get_sample_value("tickpipe_sink_refold_records_total") or 0.0

    def rows(self, action: str) -> float:
        return self.metrics.registry.get_sample_value("tickpipe_sink_rows_total", {"action": action}) or 0.0


@pytest.fixture
async def refolding(settings: Settings, url: str, flow: Flow) -> AsyncIterator[Refolding]:
    assert url
    made = Refolding(settings, flow.own_log)
    yield made
    await made.database.close()


def _closes(candles: list[Candle]) -> dict[int, tuple[object, ...]]:
    return {c.ts: (c.open, c.high, c.low, c.close, c.volume, c.spread, c.received) for c in candles}


async def _stored(connection: Connection) -> dict[int, tuple[object, ...]]:
    query = (
        b"SELECT (extract(epoch FROM ts) * 1000)::bigint, open, high, low, close, volume, spread, "
        b"(extract(epoch FROM received_at) * 1000)::bigint FROM market_data"
    )
    return {row[0]: row[1:] for row in await (await connection.execute(query)).fetchall()}


async def test_a_late_tick_is_folded_with_what_was_stored(
    connection: Connection, flow: Flow, refolding: Refolding
) -> None:
    # Arrange: the late tick is a new low; the worker that meets it has forgotten the minute
    logged = await flow.log_frames([frame(MINUTE, 1.2, count=5), frame(MINUTE + 90_000, 1.3), frame(MINUTE + 500, 1.1)])
    await refolding.writer.write(connection, flow.candles(logged[:2]))
    late = flow.candles(logged[2:])
    await refolding.writer.write(connection, late)

    # Act
    folded = await refolding.refolder.step()

    # Assert: the same as one worker that saw all of it
    assert folded == 1
    assert await _stored(connection) == _closes(flow.candles(logged))
    assert await value(connection, "SELECT count(*) FROM pending_refolds") == 0
    assert refolding.rows("refolded") == 1


async def test_what_arrives_during_a_refold_is_not_forgotten(
    connection: Connection, flow: Flow, refolding: Refolding
) -> None:
    # Arrange: the pending row grows after it was taken, which the next round must see
    logged = await flow.log_frames([frame(MINUTE + i * 1_000, 1.2 + i / 100) for i in range(6)])
    parts: list[list[Logged]] = [logged[:1], logged[2:3], logged[4:6]]
    first, second, third = (flow.candles(part) for part in parts)
    await refolding.writer.write(connection, [*first, *second])

    # Act
    await asyncio.gather(refolding.refolder.step(), refolding.writer.write(connection, third))
    await refolding.refolder.step()

    # Assert: records 1 and 3 were read by no worker, so they are in no candle
    assert await value(connection, "SELECT volume FROM market_data") == 4
    assert await value(connection, "SELECT count(*) FROM pending_refolds") == 0


@pytest.mark.timeout(120)
async def test_a_day_sent_twice_costs_one_pass_over_the_log(
    connection: Connection, flow: Flow, refolding: Refolding
) -> None:
    # Arrange
    frames = day_frames()
    once = await flow.log_frames(frames)
    twice = await flow.log_frames(frames)
    first = flow.candles(once)
    await refolding.writer.write(connection, first)
    assert await refolding.refolder.step() == 0
    for start in range(0, len(second := flow.candles(twice)), 100):
        await refolding.writer.write(connection, second[start : start + 100])

    # Act
    folded = await refolding.refolder.step()

    # Assert: every minute equals the first fold of it, and each record was read once
    assert folded == len(first) == len(eurusd_bars())
    assert await _stored(connection) == _closes(first)
    assert refolding.records_read() == 2 * len(frames)
    assert await value(connection, "SELECT count(*) FROM pending_refolds") == 0


async def test_a_partition_waits_until_it_is_quiet(settings: Settings, connection: Connection, flow: Flow) -> None:
    # Arrange
    patient = Refolding(settings, flow.own_log, quiet_seconds=60.0, patience_seconds=60.0)
    logged = await flow.log_frames([frame(MINUTE, 1.2), frame(MINUTE + 90_000, 1.3), frame(MINUTE + 500, 1.1)])
    await patient.writer.write(connection, [*flow.candles(logged[:2]), *flow.candles(logged[2:])])

    # Act and Assert
    assert await patient.refolder.step() == 0
    impatient = Refolding(settings, flow.own_log, quiet_seconds=60.0, patience_seconds=0.0)
    assert await impatient.refolder.step() == 1
    for refolding in (patient, impatient):
        await refolding.database.close()


async def test_what_the_log_cannot_prove_keeps_the_candle_with_more_ticks(
    connection: Connection, flow: Flow, refolding: Refolding
) -> None:
    # Arrange: three of eight ticks are stored; of what is to be folded, one range is beyond the end of the log
    logged = await flow.log_frames([frame(MINUTE, 1.2, count=5), frame(MINUTE + 500, 1.1, count=3)])
    (whole,) = flow.candles(logged)
    (part,) = flow.candles(logged[1:])
    await refolding.writer.write(connection, [part])
    await connection.execute(
        b"INSERT INTO pending_refolds SELECT source, symbol, timeframe, ts, log, "
        b"'{[0,2),[1000000000,1000000002)}', true, now(), now() FROM market_data"
    )

    # Act
    await refolding.refolder.step()

    # Assert
    assert await value(connection, "SELECT volume FROM market_data") == whole.volume == 8
    assert await value(connection, "SELECT count(*) FROM pending_refolds") == 0
    assert refolding.rows("unprovable") == 1


@pytest.mark.parametrize(
    "beyond",
    [
        pytest.param("log_position(500, 0)", id="a partition that the topic lacks"),
        pytest.param("log_position(0, 1000000000)", id="beyond the end of a partition"),
        pytest.param("log_position(32766, 281474976710000)", id="the last position there is"),
    ],
)
async def test_a_proof_of_what_is_not_there_blocks_no_other_minute(
    connection: Connection, flow: Flow, refolding: Refolding, beyond: str
) -> None:
    # Arrange: one minute waits for an honest refold, the next names offsets that nobody wrote
    logged = await flow.log_frames([frame(MINUTE, 1.2), frame(MINUTE + 90_000, 1.3), frame(MINUTE + 500, 1.1)])
    await refolding.writer.write(connection, [*flow.candles(logged[:2]), *flow.candles(logged[2:])])
    await connection.execute(
        b"INSERT INTO pending_refolds SELECT source, symbol, timeframe, ts, log, offsets + int8multirange(int8range("
        + f"{beyond}, {beyond} + 2".encode()
        + b")), true, now(), now() FROM market_data WHERE ts > (SELECT min(ts) FROM market_data)"
    )

    # Act
    await refolding.refolder.step()

    # Assert
    assert await value(connection, "SELECT count(*) FROM pending_refolds") == 0
    assert await value(connection, "SELECT array_agg(volume ORDER BY ts) FROM market_data") == [2, 1]
    assert (refolding.rows("unprovable"), refolding.rows("refolded")) == (1, 1)


async def test_minutes_of_a_foreign_log_are_given_up(connection: Connection, flow: Flow, refolding: Refolding) -> None:
    logged = await flow.log_frames([frame(MINUTE, 1.2, count=5)])
    await refolding.writer.write(connection, flow.candles(logged))
    await connection.execute(
        b"INSERT INTO pending_refolds SELECT source, symbol, timeframe, ts, 'elsewhere/ticks', '{[0,2)}', true, "
        b"now(), now() FROM market_data"
    )
    await refolding.refolder.step()
    assert await value(connection, "SELECT count(*) FROM pending_refolds") == 0
    assert await value(connection, "SELECT volume FROM market_data") == 5
