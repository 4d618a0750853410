"""How often a worker publishes what it folded, and what it makes of polls that were fetched too early."""

import asyncio
from collections.abc import Sequence
from typing import Any, Self, cast

import pytest
from aiokafka.structs import ConsumerRecord

from marketdata.candle import Candle
from marketdata.errors import KafkaUnavailable, MissedRecords
from marketdata.runs import Record
from marketdata.tick import Frame, Tick
from marketdata.wire import encode
from runtime.settings import Settings, load_settings
from stream_app.emitter import Metrics, Outgoing
from stream_app.gate import FetchGate
from stream_app.worker import Worker

T0 = 1_549_238_400_000


class Emitted:
    """In the place of the emitter: every candle is confirmed at once."""

    def __init__(self) -> None:
        self.candles: list[Candle] = []

    async def emit(self, candles: Sequence[Outgoing]) -> None:
        self.candles += [each.candle for each in candles]

    def taken(self) -> list[tuple[int, bool]]:
        """Minute and whether it is closed of each candle since the last call."""
        taken, self.candles = self.candles, []
        return [((candle.ts - T0) // 60_000, candle.closed) for candle in taken]


class Offsets:
    """A partition of which nothing is committed, and that ends at `last`."""

    def __init__(self) -> None:
        self.last = 0
        self.gate = FetchGate()

    def committed(self, _partition: int) -> int | None:
        return None

    def release(self, _partition: int, _offset: int) -> None:
        pass

    def end(self, _partition: int) -> int:
        return self.last


class WholeLog:
    """In the place of `TickLog`: Kafka holds every record."""

    def __init__(self, _settings: Settings) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def holds_records(self, _partition: int, _first: int, _last: int) -> bool:
        return True


def record(offset: int, time_msc: int, symbol: str = "EURUSD") -> Record:
    frame = Frame(
        v=1, source="s", symbol=symbol, mode="bid", point=None, request="r", received=time_msc,
        ticks=[Tick(time_msc, 1.1, 1.2, 0.0, 0.0, 6)],
    )  # fmt: skip
    value = encode(frame)
    record: Record = ConsumerRecord("ticks", 0, offset, time_msc, 0, None, value, None, -1, len(value), ())
    return record


async def test_a_worker_that_is_far_behind_publishes_open_candles_rarely() -> None:
    emitted: Any = Emitted()
    offsets = Offsets()
    worker = Worker(load_settings(), emitter=emitted, metrics=Metrics(), offsets=offsets, log_name="c/ticks")
    offsets.last = 1_000_000

    await worker.fold(0, [record(0, T0)])
    await worker.publish()
    assert emitted.taken() == [(0, False)], "the first round shows all"
    await worker.fold(0, [record(1, T0 + 1), record(2, T0 + 120_000)])
    await worker.publish()
    assert emitted.taken() == [(0, True)]

    offsets.last = 3
    await worker.publish()
    assert emitted.taken() == [(2, False)], "it has caught up"


async def test_rounds_of_open_candles_take_a_tenth_of_the_time_of_a_worker_that_is_far_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("stream_app.worker.time.monotonic", lambda: now)

    class Slow(Emitted):
        async def emit(self, candles: Sequence[Outgoing]) -> None:
            nonlocal now
            await super().emit(candles)
            now += 0.5

    emitted: Any = Slow()
    offsets = Offsets()
    worker = Worker(load_settings(), emitter=emitted, metrics=Metrics(), offsets=offsets, log_name="c/ticks")
    offsets.last = 1_000_000
    rounds = []
    for offset in range(16):
        await worker.fold(0, [record(offset, T0 + offset)])
        began = now
        await worker.publish()
        if emitted.taken():
            rounds.append(began)
        now = began + 1.0

    assert rounds == [100.0, 105.0, 110.0, 115.0]


async def test_polls_fetched_before_the_log_is_read_again_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_app.worker.TickLog", WholeLog)
    emitted: Any = Emitted()
    worker = Worker(load_settings(), emitter=emitted, metrics=Metrics(), offsets=Offsets(), log_name="c/ticks")
    await worker.fold(0, [record(n, T0 + n) for n in range(3)])

    worker.read_again()
    await worker.fold(0, [record(3, T0 + 3)])
    await worker.fold(0, [record(0, T0 + 60_000)])
    await worker.publish()
    assert emitted.taken() == [(1, False)]
    with pytest.raises(MissedRecords):
        await worker.fold(0, [record(5, T0 + 60_001)])

    worker.drop()
    with pytest.raises(MissedRecords):
        await worker.fold(0, [record(3, T0 + 3)])


async def test_what_is_in_memory_is_counted_when_the_metrics_are_read() -> None:
    emitted: Any = Emitted()
    metrics = Metrics()
    worker = Worker(load_settings(), emitter=emitted, metrics=metrics, offsets=Offsets(), log_name="c/ticks")
    await worker.fold(0, [record(0, T0), record(1, T0 + 1), record(2, T0 + 60_000)])

    worker.observe()
    found = metrics.exposition()
    assert b"tickpipe_stream_minutes 2.0" in found
    assert b"tickpipe_stream_buffered_ticks 3.0" in found

    worker.drop()
    worker.observe()
    assert b"tickpipe_stream_minutes 0.0" in metrics.exposition()


def started(emitted: Any, offsets: Offsets) -> Worker:
    return Worker(load_settings(), emitter=emitted, metrics=Metrics(), offsets=offsets, log_name="c/ticks")


async def test_a_lone_tick_is_published_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_app.worker._IDLE_SECONDS", 60.0)
    emitted: Any = Emitted()
    worker = started(emitted, Offsets())

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(worker.publish_next())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        await worker.fold(0, [record(0, T0)])
    assert emitted.taken() == [(0, False)]


@pytest.mark.parametrize(
    ("symbols", "pause_ms"),
    # The interval is 200 ms; 5 candles count at least, 200 have all of it, and 25 symbols in memory are one candle.
    [(1, 5), (8, 8), (100, 104), (200, 200), (1_000, 200)],
)
async def test_the_pause_grows_with_the_candles_that_move(symbols: int, pause_ms: float) -> None:
    emitted: Any = Emitted()
    worker = started(emitted, Offsets())
    await worker.fold(0, [record(n, T0, f"S{n}") for n in range(symbols)])

    assert await worker.publish() * 1000 == pytest.approx(pause_ms)


async def test_a_worker_that_catches_up_or_is_not_confirmed_pauses_for_the_whole_interval() -> None:
    class Unconfirmed(Emitted):
        async def emit(self, candles: Sequence[Outgoing]) -> None:
            raise KafkaUnavailable("no broker")

    unconfirmed: Any = Unconfirmed()
    worker = started(unconfirmed, Offsets())
    await worker.fold(0, [record(0, T0)])
    assert await worker.publish() == 0.2

    emitted: Any = Emitted()
    offsets = Offsets()
    worker = started(emitted, offsets)
    offsets.last = 1_000_000
    await worker.fold(0, [record(0, T0)])
    assert await worker.publish() == 0.2


async def test_the_next_fetch_is_sent_shortly_before_the_pause_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    emitted: Any = Emitted()
    offsets = Offsets()
    worker = started(emitted, offsets)
    events: list[Any] = []
    monkeypatch.setattr(offsets.gate, "open", lambda: events.append("open"))

    async def sleep(seconds: float) -> None:
        events.append(seconds)

    monkeypatch.setattr("stream_app.worker.asyncio.sleep", sleep)
    await worker.fold(0, [record(n, T0, f"S{n}") for n in range(8)])
    await worker.publish_next()

    assert events == [pytest.approx(0.005), "open", 0.003]


async def test_fetches_of_a_worker_that_catches_up_do_not_wait(catching_up: tuple[Worker, Metrics, Offsets]) -> None:
    worker, _, offsets = catching_up
    for first, end, is_live in ((0, 109, False), (8, 116, True), (16, 1_000_000, False)):
        offsets.last = end
        await worker.fold(0, of_four_symbols(first, 8))
        await worker.publish_next()
        assert offsets.gate.is_live == is_live


def of_four_symbols(first: int, count: int) -> list[Record]:
    return [record(n, T0 + n, f"SYM{n % 4}") for n in range(first, first + count)]


@pytest.fixture
def catching_up(monkeypatch: pytest.MonkeyPatch) -> tuple[Worker, Metrics, Offsets]:
    """A worker far behind a log of four symbols, of which a poll of a few records counts as a large one."""
    monkeypatch.setattr("marketdata.backlog.MIN_RECORDS", 4)
    monkeypatch.setattr("stream_app.worker.TickLog", WholeLog)
    offsets, metrics, emitted = Offsets(), Metrics(), cast(Any, Emitted())
    offsets.last = 1_000_000
    worker = Worker(load_settings(), emitter=emitted, metrics=metrics, offsets=offsets, log_name="c/ticks")
    return worker, metrics, offsets


def folded_ticks(metrics: Metrics) -> float:
    value = metrics.registry.get_sample_value("tickpipe_stream_ticks_total")
    assert value is not None
    return value


async def test_a_backlog_of_many_symbols_is_folded_when_it_has_some_ticks_of_each(
    catching_up: tuple[Worker, Metrics, Offsets],
) -> None:
    worker, metrics, offsets = catching_up
    await worker.fold(0, of_four_symbols(0, 8))
    assert folded_ticks(metrics) == 8, "nothing is known of the symbols yet"

    folded = []
    for first in range(8, 136, 8):
        await worker.fold(0, of_four_symbols(first, 8))
        folded.append(folded_ticks(metrics))
    assert set(folded) == {8, 8 + 64, 8 + 2 * 64}

    await worker.fold(0, of_four_symbols(136, 8))
    offsets.last = 150
    await worker.fold(0, of_four_symbols(144, 6))
    assert folded_ticks(metrics) == 150, "the end of the log is near"


async def test_what_waits_in_memory_is_neither_committed_nor_passed_as_a_hole(
    catching_up: tuple[Worker, Metrics, Offsets], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, metrics, offsets = catching_up
    # Minutes are over at once, and hold no offset back.
    worker._settings = load_settings(grace_seconds=0.001)
    monkeypatch.setattr(WholeLog, "holds_records", lambda *_: asyncio.sleep(0, False))
    released: list[int] = []
    cast(Any, offsets).release = lambda _partition, offset: released.append(offset)
    await worker.fold(0, of_four_symbols(0, 8))
    await asyncio.sleep(0.01)
    await worker.publish()
    await worker.fold(0, of_four_symbols(8, 8))
    await worker.pass_hole(0, 16)
    await worker.publish()
    assert released[-1] == 8

    offsets.last = 16
    await worker.fold(0, of_four_symbols(16, 4))
    assert folded_ticks(metrics) == 20


@pytest.mark.parametrize("first", [10, 16])
async def test_what_waits_in_memory_is_folded_before_records_that_do_not_follow(
    catching_up: tuple[Worker, Metrics, Offsets], monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    """The same records again, after a seek, and records behind a hole, which cuts the proof in two."""
    worker, metrics, offsets = catching_up
    monkeypatch.setattr(WholeLog, "holds_records", lambda *_: asyncio.sleep(0, False))
    emitted = cast(Any, worker._emitter)
    await worker.fold(0, of_four_symbols(0, 8))
    await worker.fold(0, of_four_symbols(8, 4))
    assert folded_ticks(metrics) == 8
    offsets.last = first + 8
    await worker.fold(0, of_four_symbols(first, 8))
    await worker.publish()

    newest = {candle.symbol: candle for candle in emitted.candles}
    assert {candle.volume for candle in newest.values()} <= ({4, 5} if first == 10 else {5})
    assert folded_ticks(metrics) == sum(candle.volume for candle in newest.values())
    proofs = 1 if first == 10 else 2
    assert {len(candle.offsets) for candle in newest.values()} == {proofs}
