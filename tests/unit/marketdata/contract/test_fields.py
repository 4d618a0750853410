"""Names of symbols, kinds of items, and where a sender shows its key."""

import pytest

from marketdata.contract.fields import is_bar, is_said, price, symbol_of, timeframe_of, whole
from marketdata.contract.http import key_in
from marketdata.errors import InvalidItem


@pytest.mark.parametrize(
    "name",
    [
        "EURUSD",
        "EURUSD.r",
        "#AAPL",
        "BRN-OCT25",
        "US 500",
        "S&P500!",
        "a/b",
        "X" * 32,
        "EURUSD.£",
        "Газпром",
        "*",
        "a,b|c?",
        "<b>",
    ],
)
def test_names_that_brokers_use_are_symbols(name: str) -> None:
    assert symbol_of(name) == symbol_of(f" {name}\r\n\0") == name


def test_what_mql_leaves_around_a_text_is_no_part_of_it() -> None:
    assert (price("1.1\0", "bid"), whole(" 6\0", "flags", 9), timeframe_of(" PERIOD_m1\0")) == (1.1, 6, "M1")
    assert not is_said(" nan\0")


@pytest.mark.parametrize("name", ["", " ", "A\u200b", "A\ufffd", "\ud800", "X" * 33, None, 1])
def test_other_names_are_none(name: object) -> None:
    with pytest.raises(InvalidItem):
        symbol_of(name)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"bid": 1}, False), ({"ask": 1}, False), ({"last": 1}, False), ({}, False), (7, False),
        ({"timeframe": "TICK", "open": 1}, False), ({"kind": "tick", "open": 1}, False),
        ({"bid": 1, "open": 1}, False), ({"bid": 1, "timeframe": "M1"}, False), ({"bid": 1, "open": None}, False),
        ({"timeframe": "M1", "open": 1}, True), ({"timeframe": "M1", "open": 1, "bid": 1}, True),
        ({"open": 1}, True), ({"timeframe": "M1"}, True),
    ],
)  # fmt: skip
def test_an_item_is_a_bar_by_what_it_has(item: object, expected: bool) -> None:
    assert is_bar(item) is expected


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({b"x-api-key": b" k "}, b"k"), ({b"authorization": b"bearer k"}, b"k"), ({b"authorization": b"Basic k"}, b""),
        ({b"x-api-key": b" ", b"authorization": b"Bearer  k "}, b"k"), ({}, b""),
    ],
)  # fmt: skip
def test_a_key_is_shown_in_either_header(headers: dict[bytes, bytes], key: bytes) -> None:
    assert key_in(headers) == key
