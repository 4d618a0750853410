"""From the records of a poll to candles and bars, and to the records that are neither."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from aiokafka import TopicPartition

from marketdata.candle import BrokerBar, Candle
from marketdata.errors import InvalidCandle
from marketdata.offsets import Ranges
from marketdata.tick import MINUTE_MS
from marketdata.wire import decode_bar, decode_candle, decode_candles
from runtime.polls import Record
from runtime.rejected import Rejected

#: PostgreSQL's int8multirange excludes its upper bound, which is a bigint.
_LAST_OFFSET: Final = 2**63 - 2


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """A record of a topic and partition, and what it says."""

    tp: TopicPartition
    record: Record
    value: Candle | BrokerBar


def incoming_candles(tp: TopicPartition, records: Sequence[Any]) -> tuple[list[Incoming], list[Rejected]]:
    """The candles among records of `candles.m1`."""
    candles = decode_candles([record.value for record in records])
    if candles is not None and all(map(_is_provable, candles)):
        return [Incoming(tp, record, candle) for record, candle in zip(records, candles, strict=True)], []
    good, bad = [], []
    for record in records:
        try:
            candle = decode_candle(record.value)
            if not _is_provable(candle):
                raise InvalidCandle("its offsets are no ascending ranges, or its time is no whole minute")
        except InvalidCandle as exc:
            bad.append(Rejected(tp.topic, tp.partition, record, str(exc)))
        else:
            good.append(Incoming(tp, record, candle))
    return good, bad


def incoming_bars(tp: TopicPartition, records: Sequence[Any]) -> tuple[list[Incoming], list[Rejected]]:
    """The broker's bars among records of `candles.broker`."""
    good, bad = [], []
    for record in records:
        try:
            good.append(Incoming(tp, record, decode_bar(record.value)))
        except InvalidCandle as exc:
            bad.append(Rejected(tp.topic, tp.partition, record, str(exc)))
    return good, bad


def _is_provable(candle: Candle) -> bool:
    return candle.ts % MINUTE_MS == 0 and _are_ranges(candle.offsets)


def _are_ranges(offsets: Ranges) -> bool:
    previous = -2
    for first, last in offsets:
        if not previous + 1 < first <= last <= _LAST_OFFSET:
            return False
        previous = last
    return previous >= 0
