"""Names of symbols, kinds of items, and where a sender shows its key."""

import pytest

from marketdata.contract.keys import key_in
from marketdata.contract.names import is_tick, symbol_of
from marketdata.errors import InvalidItem


@pytest.mark.parametrize("name", ["EURUSD", "EURUSD.r", "#AAPL", "BRN-OCT25", "US 500", "S&P500!", "a/b", "X" * 32])
def test_names_that_brokers_use_are_symbols(name: str) -> None:
    assert symbol_of(name) == name


@pytest.mark.parametrize("name", ["", " A", "A ", "A\n", "é", "<b>", "X" * 33, None, 1])
def test_other_names_are_none(name: object) -> None:
    with pytest.raises(InvalidItem):
        symbol_of(name)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"bid": 1}, True), ({"timeframe": "TICK", "open": 1}, True), ({"kind": "tick", "open": 1}, True),
        ({"bid": 1, "open": 1}, False), ({"timeframe": "M1", "open": 1}, False), ({}, False), (7, False),
    ],
)  # fmt: skip
def test_an_item_is_a_tick_when_it_says_so_or_has_a_bid_and_no_open(item: object, expected: bool) -> None:
    assert is_tick(item) is expected


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({b"x-api-key": b" k "}, b"k"), ({b"authorization": b"bearer k"}, b"k"), ({b"authorization": b"Basic k"}, b""),
        ({b"x-api-key": b"", b"authorization": b"Bearer k"}, b""), ({}, b""),
    ],
)  # fmt: skip
def test_a_key_is_shown_in_either_header(headers: dict[bytes, bytes], key: bytes) -> None:
    assert key_in(headers) == key
