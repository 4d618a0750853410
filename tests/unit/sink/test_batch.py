from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition

from marketdata.wire import encode
from sink.batch import incoming_bars, incoming_candles
from tests.unit.sink.candles import MINUTE, candle

HERE = TopicPartition("candles.m1", 0)
GOOD = encode(candle())


def _records(*values: bytes | None) -> list[SimpleNamespace]:
    return [SimpleNamespace(value=value, offset=offset) for offset, value in enumerate(values)]


def test_a_whole_poll_is_decoded() -> None:
    good, bad = incoming_candles(HERE, _records(GOOD, GOOD))
    assert [incoming.value for incoming in good] == [candle(), candle()]
    assert bad == []


@pytest.mark.parametrize(
    "poison",
    [
        None,
        b"",
        b"\xff\xfe",
        b"{",
        b"[" * 100_000,
        GOOD + b"," + GOOD,  # would shift all that follow in an array
        encode(candle(())),
        encode(candle(((5, 4),))),
        encode(candle(((5, 9), (9, 12)))),
        encode(candle(((5, 9), (10, 12)))),  # touching: not as the fold writes it
        encode(candle(((-1, 4),))),
        encode(candle(((0, 2**63 - 1),))),
        encode(candle(ts=MINUTE + 1)),
        GOOD.replace(b'"M1"', b'"M2"'),  # no timeframe
        GOOD.replace(b'"M1"', b'"D1"'),  # days are not equally long: not folded from ticks
        encode(candle(high=1.1, open=1.2)),
    ],
)
def test_one_poison_record_spoils_nothing_else(poison: bytes | None) -> None:
    good, bad = incoming_candles(HERE, _records(GOOD, poison, GOOD))
    assert [(incoming.tp, incoming.record.offset) for incoming in good] == [(HERE, 0), (HERE, 2)]
    assert [
        ((rejected.topic, rejected.partition), rejected.record.offset, bool(rejected.reason)) for rejected in bad
    ] == [(HERE, 1, True)]


def test_bars_and_what_is_none() -> None:
    bar = (
        b'{"source":"S","symbol":"EURUSD","timeframe":"H1","ts":0,"open":1,"high":1,"low":1,"close":1,"volume":1,'
        b'"received":0}'
    )
    upside_down = bar.replace(b'"high":1', b'"high":0')
    good, bad = incoming_bars(HERE, _records(bar, None, b"1", upside_down))
    assert [incoming.record.offset for incoming in good] == [0]
    assert [rejected.record.offset for rejected in bad] == [1, 2, 3]
