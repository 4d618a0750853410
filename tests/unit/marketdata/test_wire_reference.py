"""Decimals of a price from the size of its point; records of `reference` and their keys."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.errors import InvalidReference
from marketdata.wire import Instrument, SenderCount, decimals_of, decode_reference, encode, reference_key

COUNT = SenderCount(
    source="S", server="Broker-Demo", account="1", build="3850", ea="PDC", version="1.65", address="10.0.0.7",
    counter="a1", first_seen=1_000, last_seen=2_000, ticks=3, bars=4,
)  # fmt: skip


@pytest.mark.parametrize(
    ("point", "decimals"),
    [
        (0.00001, 5), (0.001, 3), (0.01, 2), (1.0, 0), (10.0, 0), (0.25, 2), (0.5, 1), (1e-8, 8), (1e-10, 10),
        (9.999999999999999e-06, 5),  # 0.1 ** 5
        (0.1 * 3, 1),
    ],
)  # fmt: skip
def test_decimals_are_those_of_the_point(point: float, decimals: int) -> None:
    assert decimals_of(point) == decimals


@given(st.integers(0, 18))
def test_decimals_of_every_number_of_digits(digits: int) -> None:
    assert decimals_of(float(f"1e-{digits}")) == digits


@pytest.mark.parametrize("record", [COUNT, Instrument(source="S", symbol="EURUSD", point=1e-10, received=5)])
def test_records_survive_the_wire(record: SenderCount | Instrument) -> None:
    assert decode_reference(encode(record)) == record


@pytest.mark.parametrize("field", ["source", "server", "account", "build", "ea", "version", "address", "counter"])
def test_counts_that_differ_in_anything_they_are_counted_by_have_keys_of_their_own(field: str) -> None:
    """The topic is compacted by key: of two with one key the database would miss one."""
    other = msgspec.structs.replace(COUNT, **{field: "x/y"})

    assert reference_key(other) != reference_key(COUNT)
    assert reference_key(msgspec.structs.replace(COUNT, last_seen=9_000, ticks=99)) == reference_key(COUNT)


@pytest.mark.parametrize(
    "value",
    [
        None, b"", b"{}", b'{"kind":"other"}',
        b'{"kind":"instrument","source":"S","symbol":"E","point":0,"received":1}',
        encode(COUNT).replace(b'"ticks":3', b'"ticks":-1'),
    ],
)  # fmt: skip
def test_what_is_no_reference_data_is_refused(value: bytes | None) -> None:
    with pytest.raises(InvalidReference):
        decode_reference(value)
