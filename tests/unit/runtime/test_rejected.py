"""What a rejected record is stored as, and what is read of it again."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.rejected import (
    HTTP,
    REASON_CHARACTERS,
    Rejected,
    RejectedRecord,
    Stored,
    Which,
    brief,
    headers_of,
    whole,
    without_value,
)


class Record(NamedTuple):
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] = []  # noqa: RUF012 - nobody changes it
    timestamp: int = 0
    timestamp_type: int = 0


parts = st.none() | st.binary(max_size=400)
records = st.builds(Record, st.integers(0, 2**62), parts, parts)
rejections = st.builds(Rejected, st.sampled_from(["ticks", "candles.m1"]), st.integers(0, 9), records, st.text())


def read(stored: Stored) -> RejectedRecord:
    return RejectedRecord.of(Which.TICKS, 3, Record(7, stored.key, stored.value, stored.headers))


@given(rejections)
def test_a_whole_record_is_read_as_it_came(rejected: Rejected) -> None:
    stored = whole(rejected)
    found = read(stored)

    assert (stored.key, stored.value) != (None, None), "aiokafka does not send it"
    assert (found.key, found.value) == (rejected.record.key, rejected.record.value)
    assert found.is_whole
    assert found.size_bytes == rejected.size_bytes
    assert found.origin == f"{rejected.topic}-{rejected.partition}@{rejected.record.offset}"


@given(rejections)
def test_a_brief_record_is_small_and_tells_place_and_size(rejected: Rejected) -> None:
    stored = brief(rejected)
    found = read(stored)

    assert (stored.key, stored.value) != (None, None), "aiokafka does not send it"
    assert len(stored.key or b"") + sum(len(name) + len(value) for name, value in stored.headers) < 1_500
    assert not found.is_whole
    assert found.value is None
    assert found.key in (None, rejected.record.key)
    assert found.size_bytes == rejected.size_bytes
    assert found.origin == f"{rejected.topic}-{rejected.partition}@{rejected.record.offset}"


@pytest.mark.parametrize(
    ("reason", "kept"),
    [("x" * 5_000, "x" * (REASON_CHARACTERS - 1) + "…"), ("\ud800", "?"), ("é" * REASON_CHARACTERS, "é" * 1_000)],
)
def test_a_reason_is_cut_and_can_always_be_written(reason: str, kept: str) -> None:
    assert read(Stored(b"k", b"v", headers_of(reason, "ticks", 0, 0))).reason == kept


def test_an_item_without_its_value_tells_its_size() -> None:
    item = Stored(b"Broker", b"x" * 700, [*headers_of("odd", HTTP, -1, 4), ("source", b"Broker")], 1_000)
    found = read(without_value(item))

    assert (found.value, found.size_bytes, found.is_whole) == (None, 700, False)
    assert found.origin == "item 4 from Broker"
    assert without_value(item).timestamp_ms == 1_000


def test_headers_of_strangers_are_read_with_care() -> None:
    found = RejectedRecord.of(Which.CANDLES, 0, Record(0, b"k", b"v", [("size", b"-"), ("offset", b"\xff")]))

    assert (found.index, found.size_bytes, found.origin) == (-1, 2, "?-?@\ufffd")
