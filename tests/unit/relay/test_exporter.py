"""M1 bars from stored ticks are what the server would fold."""

from typing import Any

import msgspec
import pytest

from marketdata.tick import Frame, Tick
from relay.exporter import BarFold, by_origin
from relay.lanes import Lanes
from relay.pending import Pending
from relay.store import Store
from tests import oracle
from tests.days import eurusd_ticks
from tests.unit.relay.rows import BASE, put, tick


def post(ticks: list[Tick]) -> list[dict[str, object]]:
    return [
        {"ts_msc": each.time_msc, "symbol": "EURUSD", "bid": each.bid, "ask": each.ask, "flags": 6, "point": 1e-5}
        for each in ticks
    ]


async def test_bars_of_an_hour_with_resends_equal_the_oracle(store: Store) -> None:
    ticks = eurusd_ticks()[:3_000]
    batches = [ticks[i : i + 50] for i in range(0, 3_000, 50)]
    sent = [batch for each in batches for batch in (each, each)]
    for batch in sent:
        await put(store, *post(batch))
    pending, fold = Pending(store, limit=500), BarFold()
    while parts := pending.next_request():
        for part in parts:
            fold.add(part)

    log = [
        (n, Frame(v=1, source="s", symbol="EURUSD", mode="bid", point=1e-5, request=str(n), received=n, ticks=batch))
        for n, batch in enumerate(sent)
    ]
    expected = {key[2]: oracle.fold(log, *key, ranges) for key, ranges in oracle.minutes_in(log).items()}
    bars = {bar.item["ts"]: bar.item for bar in fold.bars(without_first=False)}
    assert bars.keys() == expected.keys()
    for ts, candle in expected.items():
        assert candle is not None
        for field in ("open", "high", "low", "close", "volume", "real_volume", "spread"):
            assert bars[ts][field] == getattr(candle, field), (ts, field)


@pytest.mark.parametrize("said", [{"mode": "last"}, {"chart_mode": "last"}, {"mode": 1, "chart_mode": "last"}])
async def test_exchange_symbols_fold_by_last_and_the_first_minute_can_be_left_out(
    store: Store, said: dict[str, Any]
) -> None:
    await put(store, tick(0, **said, last=7.0, flags=56), tick(60_000, **said, last=8.0, volume_real=2.5, flags=56))
    fold, lanes = BarFold(), Lanes()
    for part in Pending(store, limit=10).next_request():
        fold.add(part)
    assert lanes.waiting == 0
    (bar,) = fold.bars(without_first=True)
    assert (bar.item["ts"], bar.item["close"], bar.item["real_volume"]) == (BASE + 60_000, 8.0, 2.5)
    assert [len(items) for _, items in by_origin(list(fold.bars(without_first=False)) * 3, 4)] == [4, 2]
    assert msgspec.json.encode(bar.item)
