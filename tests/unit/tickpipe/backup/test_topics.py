"""Records of a backup: packed and read in any pieces, and laid out at the offsets they had."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.candle import Candle
from marketdata.wire import decode_candle, encode
from tests.unit.sink.candles import candle
from tickpipe.backup.archive import ArchiveDamaged, Partition
from tickpipe.backup.topics import BlockWriter, LogRecord, expected_log, of_log, read_records

OLD, NEW = "old-cluster/ticks", "new-cluster/ticks"


def packed(records: list[LogRecord]) -> bytes:
    data = bytearray()
    blocks = BlockWriter(data.extend)
    for record in records:
        blocks.add(record)
    blocks.close()
    return bytes(data)


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


records_strategy = st.lists(
    st.builds(
        LogRecord, st.integers(0, 2**62), st.integers(0, 2**42), st.none() | st.binary(), st.none() | st.binary(),
        st.lists(st.tuples(st.text(), st.none() | st.binary())).map(tuple),
    )
)  # fmt: skip


@given(records_strategy, st.integers(1, 50))
def test_records_come_back_from_pieces_of_any_size(records: list[LogRecord], size: int) -> None:
    assert list(read_records(pieces(packed(records), size))) == records


def test_blocks_are_bounded_by_number_and_by_bytes() -> None:
    small = [LogRecord(n, n, b"k", b"v") for n in range(2_500)]
    large = [LogRecord(n, n, b"k", b"v" * 700_000) for n in range(5)]
    for records in (small, large):
        data = packed(records)
        assert int.from_bytes(data[:4], "big") < len(data) // 2
        assert list(read_records(pieces(data, 1_000))) == records


def test_a_block_that_is_cut_off_or_is_none_is_told() -> None:
    data = packed([LogRecord(0, 0, None, b"value")])
    with pytest.raises(ArchiveDamaged, match="cut off"):
        list(read_records([data[:-1]]))
    with pytest.raises(ArchiveDamaged, match="cannot be read"):
        list(read_records([data[:4] + b"\xc1" * (len(data) - 4)]))


def test_every_record_is_where_it_was_and_empty_ones_hold_the_places_between() -> None:
    records = [LogRecord(offset, 1_000 + offset, b"k", b"v") for offset in (3, 4, 6)]
    found = list(expected_log(Partition(0, 3, 9, 3), iter(records), same_offsets=True))
    assert [record.offset for record in found] == list(range(9))
    assert [record for record in found if record.value is not None] == records
    # Times do not go back, so that Kafka's index by time finds what it found.
    assert [record.timestamp for record in found] == [0, 0, 0, 1_003, 1_004, 1_004, 1_006, 1_006, 1_006]


def test_an_emptied_partition_keeps_its_end() -> None:
    assert len(list(expected_log(Partition(0, 5, 5, 0), iter(()), same_offsets=True))) == 5


def test_without_offsets_records_follow_one_another() -> None:
    records = [LogRecord(offset, 7, None, None) for offset in (3, 9)]
    found = list(expected_log(Partition(0, 3, 12, 2), iter(records), same_offsets=False))
    # aiokafka sends no record without key and value.
    assert found == [LogRecord(0, 7, b"", None), LogRecord(1, 7, b"", None)]


@pytest.mark.parametrize("log", [OLD, "another/ticks"])
def test_only_candles_of_the_log_get_its_new_name(log: str) -> None:
    value = encode(candle(log=log))
    renamed: Candle = decode_candle(of_log(LogRecord(0, 0, None, value), (OLD, NEW)).value)
    assert renamed == candle(log=NEW if log == OLD else log)
    assert of_log(LogRecord(0, 0, None, b"no candle"), (OLD, NEW)).value == b"no candle"
    assert of_log(LogRecord(0, 0, b"k", None), (OLD, NEW)).value is None
