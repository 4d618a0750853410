"""Warnings about sources: a zone that does not fit, several senders under one name."""

from typing import Any
from zoneinfo import ZoneInfo

import pytest
from structlog.testing import capture_logs

from marketdata.contract.times import Clock, ShiftedZone, offset_zone
from producer.senders import SourceWatch
from runtime import clock as wall
from runtime.settings import parse_zone
from tests.unit.producer.conftest import ANY_KEY, Bench

HOUR = 3_600_000
WINTER = 1_763_000_000_000  # November 2025
SUMMER = 1_752_000_000_000  # July 2025


def values(watch: SourceWatch, metric: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in watch.collect()
        if family.name == f"p_{metric}"
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("zone", "now_ms", "behind_ms", "fits"),
    [
        ("UTC", WINTER, -2 * HOUR, "America/New_York+07:00"),  # New York is at -5
        ("UTC", SUMMER, -3 * HOUR, "America/New_York+07:00"),
        ("UTC", WINTER, -3 * HOUR, "+03:00"),
        ("+03:00", WINTER, HOUR, "America/New_York+07:00"),  # 3 - 1 = 2
        ("+02:00", WINTER, 2 * HOUR, "+00:00"),
        ("UTC", WINTER, 3 * HOUR + HOUR // 2, "-03:30"),
        ("America/New_York+07:00", SUMMER, -HOUR, "+04:00"),
    ],
)
def test_ticks_that_are_constantly_hours_off_name_the_zone_that_would_fit(
    monkeypatch: pytest.MonkeyPatch, zone: str, now_ms: int, behind_ms: int, fits: str
) -> None:
    watch, late = SourceWatch("p"), (0, 40_000, -900, 12_000, 60_000, 0, 300)
    with capture_logs() as lines:
        for n, late_ms in enumerate(late):
            received = now_ms + n * 60_000
            watch.ticks("A", Clock(parse_zone(zone), received), received - behind_ms - late_ms, received)

    monkeypatch.setattr(wall, "now_ms", lambda: now_ms + 360_000)
    assert [(line["action"], line["fits"], line["hours_ahead"]) for line in lines] == [
        ("zone_wrong", fits, -behind_ms / HOUR)
    ]
    assert values(watch, "zone_error_hours") == {("A", fits): -behind_ms / HOUR}
    monkeypatch.setattr(wall, "now_ms", lambda: now_ms + 2 * HOUR)
    assert not values(watch, "zone_error_hours")  # it went silent


@pytest.mark.parametrize(
    "ages_ms",
    [
        pytest.param([n * 100 for n in range(60)], id="live"),
        pytest.param([2 * HOUR] * 5, id="too short"),
        pytest.param([10 * HOUR - n * 600_000 for n in range(60)], id="history, ten minutes in each request"),
        pytest.param([2 * HOUR - n * 61_000 for n in range(100)], id="a backlog that is caught up with"),
        pytest.param([40 * 24 * HOUR] * 60, id="a demonstration of an old day"),
        pytest.param([2 * HOUR + 900_000] * 60, id="a clock that is off by no zone"),
    ],
)
def test_what_comes_as_it_happens_and_history_are_no_wrong_zone(ages_ms: list[int]) -> None:
    watch = SourceWatch("p")
    with capture_logs() as lines:
        for n, age_ms in enumerate(ages_ms):
            received = WINTER + n * 60_000
            watch.ticks("A", Clock(None, received), received - age_ms, received)
    assert not lines


def test_a_zone_that_was_put_right_is_no_longer_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = SourceWatch("p")
    for n in range(20):
        received = WINTER + n * 60_000
        behind = 2 * HOUR if n < 19 else 0
        watch.ticks("A", Clock(offset_zone(0), received), received - behind, received)
    monkeypatch.setattr(wall, "now_ms", lambda: WINTER + 1_200_000)
    assert not values(watch, "zone_error_hours")


def test_a_zone_that_moves_its_clock_is_read_at_the_moment_of_receipt() -> None:
    zone = ShiftedZone(ZoneInfo("America/New_York"), offset_zone(7 * 3600).utcoffset(None))
    watch = SourceWatch("p")
    with capture_logs() as lines:
        for n in range(10):
            received = WINTER + n * 60_000
            watch.ticks("A", Clock(zone, received), received + HOUR, received)
    assert [line["fits"] for line in lines] == ["+03:00"]


@pytest.mark.parametrize(
    ("agent", "meta", "servers", "accounts"),
    [
        ("PDC/1.65 (Account:{n}; Server:Broker-{n}; Build:3850)", {}, 2, 2),
        ("PDC/1.65 (Account:{n}; Server:Broker; trace_id:{n})", {}, 1, 2),
        ("curl", {"acct": "{n}", "srv": "Broker"}, 1, 2),
        ("tickpipe-relay (Server:Broker)", {}, 1, 0),
        ("curl", {}, 0, 0),
    ],
)
async def test_two_servers_or_accounts_under_one_source_are_warned_about(
    bench: Bench, agent: str, meta: dict[str, Any], servers: int, accounts: int
) -> None:
    with capture_logs() as lines:
        for n in (1, 2, 1, 2):
            told = {key: int(text.format(n=n)) if key == "acct" else text for key, text in meta.items()}
            tick = {"symbol": "EURUSD", "time_msc": wall.now_ms(), "bid": 1.1, "ask": 1.2, "meta": told}
            answer = await bench.post("/ingest/tick", {"ticks": [tick]}, User_Agent=agent.format(n=n))
            assert answer.status_code == 200

    warned = [line["kind"] for line in lines if line["action"] == "source_shared"]
    assert warned == ["server"] * (servers > 1) + ["account"] * (accounts > 1)
    value = bench.metrics.registry.get_sample_value
    for kind, count in (("server", servers), ("account", accounts)):
        assert value("tickpipe_producer_source_senders", {"source": "Broker-Demo", "kind": kind}) == count


async def test_a_source_of_its_own_for_each_server_is_no_reason_to_warn(bench: Bench) -> None:
    bench.headers = {"X-API-Key": ANY_KEY}
    with capture_logs() as lines:
        for n in (1, 2):
            tick = {"symbol": "EURUSD", "time_msc": wall.now_ms(), "bid": 1.1, "ask": 1.2}
            await bench.post("/ingest/tick", tick, User_Agent=f"PDC (Account:{n}; Server:Broker-{n})")
    assert not [line for line in lines if line["action"] == "source_shared"]
