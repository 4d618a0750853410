"""Ticks as EAs post them, and rows of them."""

from collections.abc import Sequence
from typing import Any

from marketdata.contract.times import Clock
from relay.item import NewRow, read_item
from relay.store import Store

BASE = 1_549_238_400_000


def tick(after: int, /, symbol: str = "EURUSD", **more: Any) -> dict[str, Any]:
    """A tick of DataCollectorPRO, `after` ms after BASE."""
    return {
        "ts_msc": BASE + after,
        "symbol": symbol,
        "bid": 1.5,
        "ask": 1.6,
        "last": 0.0,
        "flags": 6,
        "digits": 5,
    } | more


def new_rows(items: Sequence[dict[str, Any]], **context: Any) -> list[NewRow]:
    known: dict[str, Any] = {"utc_offset_seconds": None, "source": None} | context
    return [read_item(item, Clock(None, None), **known) for item in items]


async def put(store: Store, *items: dict[str, Any], **context: Any) -> None:
    """Store items as one request."""
    await store.insert(new_rows(items, **context))
