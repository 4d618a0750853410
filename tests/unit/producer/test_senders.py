"""Who sent what, and how it is quoted: what a producer writes to `reference`."""

import pytest

from marketdata.contract.http import Sender
from marketdata.wire import Instrument, Reference, SenderCount
from producer import senders
from producer.records import Origin
from producer.senders import ReferenceData
from runtime.telemetry import parse_traceparent
from tests.unit.producer.conftest import ANY_KEY, Bench

EA = Sender("Broker-Demo", "12345", "3850", "PDC", "1.65")


def origin(received_ms: int, sender: Sender = EA, address: str = "10.0.0.7", source: str = "S") -> Origin:
    context = parse_traceparent(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    assert context is not None
    return Origin(source, "t", context, received_ms, sender=sender, address=address)


def counts(records: list[Reference]) -> list[tuple[str, str, int, int, int, int]]:
    return [
        (r.account, r.address, r.first_seen, r.last_seen, r.ticks, r.bars)
        for r in records
        if isinstance(r, SenderCount)
    ]


def test_a_sender_is_written_at_once_and_then_every_ten_seconds_at_most() -> None:
    data = ReferenceData()
    data.count(origin(1_000), ticks=2, bars=0)
    first = data.changed(1_000)
    assert counts(first) == [("12345", "10.0.0.7", 1_000, 1_000, 2, 0)]
    assert data.changed(1_000) == first  # nobody confirmed it

    data.confirmed(first, 1_200)
    assert data.changed() == []
    data.count(origin(2_000), ticks=1, bars=5)
    assert data.changed(11_199) == []
    assert counts(data.changed(11_200)) == [("12345", "10.0.0.7", 1_000, 2_000, 3, 5)]
    assert data.changed() == data.changed(11_200)  # at the end of the process all is due


def test_what_comes_while_kafka_confirms_is_written_later() -> None:
    data = ReferenceData()
    data.count(origin(1_000), ticks=1, bars=0)
    written = data.changed(1_000)
    data.count(origin(1_100), ticks=1, bars=0)
    data.confirmed(written, 1_200)

    assert counts(data.changed(11_200)) == [("12345", "10.0.0.7", 1_000, 1_100, 2, 0)]


def test_senders_that_differ_in_anything_are_counted_apart() -> None:
    data = ReferenceData()
    changes = [EA._replace(**{field: "x"}) for field in EA._fields]
    for sender in (EA, *changes):
        data.count(origin(1, sender), ticks=1, bars=0)
    data.count(origin(1, address="10.0.0.8"), ticks=1, bars=0)
    data.count(origin(1, source="T"), ticks=1, bars=0)

    records = data.changed()
    assert len(records) == len({r.counter for r in records if isinstance(r, SenderCount)}) == len(changes) + 3


def test_invented_senders_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(senders, "_MAX_SENDERS", 2)
    data = ReferenceData()
    for n in range(3):
        data.count(origin(n, EA._replace(account=str(n))), ticks=1, bars=0)

    assert [account for account, *_ in counts(data.changed())] == ["1", "2"]


def test_a_sender_that_was_forgotten_begins_another_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the database would take its smaller numbers for old ones."""
    monkeypatch.setattr(senders, "_MAX_SENDERS", 1)
    data = ReferenceData()
    seen = []
    for n, account in enumerate("121"):
        data.count(origin(n, EA._replace(account=account)), ticks=1, bars=0)
        seen += [record.counter for record in data.changed() if isinstance(record, SenderCount)]

    assert len(set(seen)) == 3


def test_a_point_is_written_when_it_is_new_or_another() -> None:
    data = ReferenceData()
    data.quoted("S", "EURUSD", 1e-5, 1)
    [first] = data.changed()
    assert first == Instrument(source="S", symbol="EURUSD", point=1e-5, received=1)
    data.confirmed([first], 1)
    data.quoted("S", "EURUSD", 1e-5, 2)
    assert data.changed() == []

    data.quoted("S", "EURUSD", 1e-4, 3)
    written = data.changed()
    data.quoted("S", "EURUSD", 1e-5, 4)
    data.confirmed(written, 5)
    assert data.changed() == [Instrument(source="S", symbol="EURUSD", point=1e-5, received=4)]


async def test_requests_are_counted_by_what_kafka_took_of_them(bench: Bench) -> None:
    agent = "DataCollectorPRO/PDC/1.65 (Account:12345; Server:Broker-Demo; Build:3850; Symbols:28; trace_id:%d)"
    tick = {"ts_msc": 1_760_926_800_417, "symbol": "EURUSD", "bid": 1.1, "ask": 1.2, "digits": 5}
    bar = {"ts": 1_760_926_800_000, "symbol": "XAUUSD", "timeframe": "M1", "volume": 1}
    bar |= dict.fromkeys(("open", "high", "low", "close"), 1.5)
    late = tick | {"late": True}
    for n, items in enumerate(
        ([tick, late], [tick, {"symbol": ""}], [late | {"late": 1}, late, bar], [{"symbol": ""}])
    ):
        await bench.post("/ingest/tick", {"ticks": items}, X_API_Key=ANY_KEY, User_Agent=agent % n)

    records = bench.reference.changed()
    [count] = [record for record in records if isinstance(record, SenderCount)]
    assert (count.source, count.server, count.account, count.build) == ("Broker-Demo", "Broker-Demo", "12345", "3850")
    assert (count.ea, count.version, count.address) == ("DataCollectorPRO/PDC", "1.65", "127.0.0.1")
    assert (count.ticks, count.bars, count.late_ticks) == (5, 1, 2)
    assert bench.metrics.registry.get_sample_value("tickpipe_producer_ticks_late_total", {"source": "Broker-Demo"}) == 2
    assert [(r.symbol, r.point) for r in records if isinstance(r, Instrument)] == [("EURUSD", 1e-5)]
