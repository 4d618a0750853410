"""From the records of a poll to candles, bars and reference data, and to the records that are none of these."""

from collections.abc import Sequence
from typing import Any

import msgspec
from aiokafka import TopicPartition

from marketdata.candle import BrokerBar, Candle, check_bar, check_candle
from marketdata.errors import InvalidCandle, InvalidReference
from marketdata.reference import Reference
from marketdata.runs import Record
from marketdata.wire import decode_bar, decode_candle, decode_candles, decode_reference
from runtime.rejected import Rejected


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """A record of a topic and partition, and what it says."""

    tp: TopicPartition
    record: Record
    value: Candle | BrokerBar | Reference


def incoming_candles(tp: TopicPartition, records: Sequence[Any]) -> tuple[list[Incoming], list[Rejected]]:
    """The candles among records of `candles.m1`."""
    candles = decode_candles([record.value for record in records])
    good, bad = [], []
    for index, record in enumerate(records):
        try:
            candle = decode_candle(record.value) if candles is None else candles[index]
            check_candle(candle)
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
            bar = decode_bar(record.value)
            check_bar(bar)
        except InvalidCandle as exc:
            bad.append(Rejected(tp.topic, tp.partition, record, str(exc)))
        else:
            good.append(Incoming(tp, record, bar))
    return good, bad


def incoming_reference(tp: TopicPartition, records: Sequence[Any]) -> tuple[list[Incoming], list[Rejected]]:
    """The reference data among records of `reference`."""
    good, bad = [], []
    for record in records:
        try:
            good.append(Incoming(tp, record, decode_reference(record.value)))
        except InvalidReference as exc:
            bad.append(Rejected(tp.topic, tp.partition, record, str(exc)))
    return good, bad
