"""Items as EAs and the exporter write them."""

import json
from typing import Any

import pytest

from marketdata.contract.body import decode
from marketdata.contract.times import Clock
from marketdata.errors import InvalidItem
from relay.item import read_item
from tests.unit.relay.rows import BASE, new_rows, tick


def test_a_number_that_is_none_spoils_its_item_only() -> None:
    items = decode(b'[{"symbol":"A","ts":1549238400000,"bid":nan},{"symbol":"nan","ts":1549238400000,"bid":1}]').items
    with pytest.raises(InvalidItem, match="finite"):
        new_rows(items[:1])
    assert new_rows(items[1:])[0].symbol == "nan"


@pytest.mark.parametrize(
    ("item", "ts"),
    [
        ({"time_msc": BASE + 1, "ts_msc": BASE + 2}, BASE + 1),
        ({"ts_msc": BASE + 2, "ts": "2025-10-20T02:20:00Z"}, BASE + 2),
        ({"ts": BASE + 3}, BASE + 3),
        ({"ts": "2019-02-04T00:00:00Z"}, BASE),
        ({"time": "2019-02-04T00:00:00.250Z"}, BASE + 250),
        ({"ts": "2019-02-04T02:00:00+02:00"}, BASE),
    ],
)
def test_the_time_is_the_first_that_is_there(item: dict[str, Any], ts: int) -> None:
    assert new_rows([{"symbol": "EURUSD", "bid": 1.5, **item}])[0].ts_ms == ts


def test_a_tick_is_stored_in_the_tables_columns_with_the_original_beside() -> None:
    item = tick(3, last=1.55, volume=2, volume_real=2.5, unknown={"kept": True})
    (row,) = new_rows([item])
    assert row[:9] == ("EURUSD", BASE + 3, "tick", 1.5, 1.6, 1.5, 1.55, 2.5, "tick")
    assert json.loads(row.meta) == item


def test_the_exporters_form_and_bars_are_read() -> None:
    exported = {"symbol": "A", "ts": BASE, "timeframe": "tick", "open": 1.0, "high": 2.0, "low": 1.0, "close": 0.0}
    bar = {"symbol": "A", "ts": BASE, "timeframe": "m1", "open": 1, "high": 3, "low": 1, "close": 2, "tick_volume": 9}
    assert [row[2:9] for row in new_rows([exported, bar])] == [
        ("tick", 1.0, 2.0, 1.0, 0.0, 0.0, "tick"), ("M1", 1.0, 3.0, 1.0, 2.0, 9.0, "bar"),
    ]  # fmt: skip


def test_what_the_request_says_goes_into_every_item() -> None:
    (row,) = new_rows([tick(0)], utc_offset_seconds=7200, source="ICMarkets-Demo")
    assert json.loads(row.meta) == tick(0)
    assert json.loads(row.facts) == {"utc_offset_seconds": 7200, "source": "ICMarkets-Demo"}


@pytest.mark.parametrize(
    ("item", "field"),
    [
        (7, ""), ({}, "symbol"), (tick(0, symbol="a\nb"), "symbol"), (tick(0, symbol="x" * 33), "symbol"),
        ({"symbol": "A", "bid": 1}, "ts"), (tick(0, ts_msc=1_549_238_400), "ts_msc"),
        (tick(0, ts_msc=10**40), "ts_msc"),
        (tick(0, ts_msc=None, ts="yesterday"), "ts"), (tick(0, ts_msc=True), "ts_msc"),
        (tick(0, bid="1,1"), "bid"), (tick(0, volume=-1), "volume"), (tick(0, ask=10**400), "ask"),
        ({"symbol": "A", "ts": BASE, "timeframe": "tick"}, "bid"),
        ({"symbol": "A", "ts": BASE, "open": 1, "timeframe": "M7"}, "timeframe"),
        ({"symbol": "A", "ts": BASE, "open": 1, "timeframe": "M1"}, "high"),
    ],
)  # fmt: skip
def test_an_item_that_cannot_be_used_names_its_field(item: object, field: str) -> None:
    with pytest.raises(InvalidItem) as caught:
        read_item(item, Clock(None, None), utc_offset_seconds=None, source=None)
    assert caught.value.field == field
