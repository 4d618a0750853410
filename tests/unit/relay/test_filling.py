"""What the server lacks is read through the MetaTrader5 package, newest first and behind live ticks."""

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from relay import filling
from relay.back_channel import Wishes
from relay.filling import ClockHistory
from tests.scripted import ScriptedServer
from tests.unit.relay.scripted_metatrader import FAIL, Fault
from tests.unit.relay.test_collector import AHEAD_MS, NOW_MS, Desk, quote

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
BROKER_NOW_MSC = NOW_MS + AHEAD_MS


class FillingDesk(Desk):
    """One whose server asks, and is answered."""

    def start(self) -> None:
        super().start()
        self.wishes = Wishes(lambda: self.package.now_ms / 1000)
        self.collector.fill(self.wishes)

    def ask(self, *ranges: dict[str, Any], seconds: int = 60) -> list[dict[str, Any]]:
        """Let the server want ranges for so long; what was reported of them."""
        for _ in range(seconds):
            self.wishes.take("Broker-Demo", {"wanted": list(ranges)})
            self.run(1)
        bodies = self.store.connection.execute("SELECT json_extract(body, '$.fills[0]') FROM reports ORDER BY id")
        return [json.loads(report) for (report,) in bodies]


def wanted(after_ms: int, symbol: str = "EURUSD", minutes: int = 1) -> dict[str, Any]:
    begin = NOW_MS + after_ms
    return {"symbol": symbol, "from": begin, "to": begin + minutes * MINUTE_MS}


@pytest.fixture
def desk(tmp_path: Path, server: ScriptedServer) -> Iterator[FillingDesk]:
    """A terminal with an hour and a half of history, a tick in 5 s."""
    desk = FillingDesk(tmp_path, server)
    desk.package.history["EURUSD"] = [quote(ms) for ms in range(-90 * MINUTE_MS, 10 * MINUTE_MS, 5_000)]
    desk.run(10)
    yield desk
    desk.store.close()


def test_ranges_are_filled_newest_first_and_reported_behind_their_ticks(
    desk: FillingDesk, server: ScriptedServer
) -> None:
    ranges = [wanted(-10 * MINUTE_MS), wanted(-HOUR_MS)]
    assert desk.ask(*ranges) == [asked | {"ticks": 12} for asked in ranges]
    counted = desk.held()
    fills = [request for request in server.requests if request.headers.get("X-Fill")]
    times = [item["time_msc"] - 7_200_000 for request in fills for item in request.items]
    assert times == [asked["from"] + ms for asked in ranges for ms in range(0, MINUTE_MS, 5_000)]
    assert {request.body["utc_offset_s"] for request in fills} == {7_200}
    assert set(counted.values()) == {1}
    last, after_id = (
        desk.store.connection.execute(query).fetchone()[0]
        for query in (
            "SELECT max(id) FROM ticks WHERE facts LIKE '%is_fill%'",
            "SELECT max(after_id) FROM reports",
        )
    )
    assert after_id >= last


def test_a_terminal_without_history_says_why(desk: FillingDesk) -> None:
    real = desk.package.copy_ticks_range

    def fail(symbol: str, date_from: int, date_to: int, flags: int) -> Any:
        if date_from < (NOW_MS + 7_200_000 - HOUR_MS // 2) // 1000:
            desk.package.faults.append(Fault(FAIL))
        return real(symbol, date_from, date_to, flags)

    desk.package.copy_ticks_range = fail  # type: ignore[method-assign]
    (report,) = desk.ask(wanted(-HOUR_MS))
    assert report == wanted(-HOUR_MS) | {"error": "-1: error"}


def test_a_time_without_ticks_is_said_to_have_none(desk: FillingDesk) -> None:
    asked = wanted(-10 * HOUR_MS)
    assert desk.ask(asked) == [asked | {"ticks": 0}]


def test_symbols_that_are_not_collected_are_left_to_others_at_first(desk: FillingDesk) -> None:
    asked = wanted(-HOUR_MS, "XAUUSD")
    assert desk.ask(asked, seconds=590) == []
    assert desk.ask(asked, seconds=20) == [asked | {"error": "this program does not collect the symbol"}]


def test_what_is_newer_than_the_cursor_is_not_sent_twice(desk: FillingDesk) -> None:
    asked = wanted(0, minutes=2)
    desk.ask(asked, seconds=240)
    assert set(desk.held().values()) == {1}


def test_the_clock_is_known_where_it_was_seen_and_back_to_the_last_change() -> None:
    # Europe put its clocks back at 01:00 UTC on 28 October 2018.
    change = 1_540_688_400.0
    history = ClockHistory()
    for after in range(-7_200, 7_201, 60):
        history.note(10_800 if after < 0 else 7_200, change + after)

    def offset(begin: float, minutes: int = 1) -> int | None:
        return history.offset_over(change + begin, change + begin + 60 * minutes)

    assert (offset(-7_200), offset(5_400)) == (10_800, 7_200)
    # The hour that is shown twice, the change itself, and what is not over.
    assert [offset(begin, 2) for begin in (-1_800, 1_800, -60, 7_200)] == [None] * 4
    # The day of the change is today, and the change before it was in spring.
    assert offset(-18 * 86_400) == 10_800
    assert offset(-220 * 86_400) is None


def test_no_ticks_and_no_error_are_not_believed_while_the_terminal_has_bars_of_that_time(desk: FillingDesk) -> None:
    asked = wanted(-HOUR_MS)
    desk.package.history_from_msc = BROKER_NOW_MSC - 30 * MINUTE_MS
    assert desk.ask(asked, seconds=10) == []
    desk.package.history_from_msc = 0
    assert desk.ask(asked) == [asked | {"ticks": 12}]


@pytest.mark.parametrize("has_bars", [True, False])
def test_a_time_is_said_to_have_no_ticks_only_by_its_bars(desk: FillingDesk, has_bars: bool) -> None:
    old, none = wanted(-HOUR_MS), wanted(-3 * HOUR_MS)
    desk.package.has_bars = has_bars
    desk.package.history_from_msc = BROKER_NOW_MSC - 30 * MINUTE_MS
    errors = {
        True: "the terminal has bars of it, but not all the ticks",
        False: "the terminal has no ticks of it, and its bars cannot be read",
    }
    said = {report["from"]: report for report in desk.ask(old, none)}
    assert said[old["from"]] == old | {"error": errors[has_bars]}
    assert said[none["from"]] == none | ({"ticks": 0} if has_bars else {"error": errors[False]})


def test_a_bar_that_counts_more_ticks_than_the_history_ever_has_is_given_in_to(desk: FillingDesk) -> None:
    asked = wanted(-HOUR_MS)
    desk.package.history_from_msc = BROKER_NOW_MSC - HOUR_MS + 10_000
    assert desk.ask(asked, seconds=300) == []
    assert desk.ask(asked, seconds=300) == [asked | {"ticks": 10}]


def test_live_ticks_go_between_the_pieces_of_a_range(desk: FillingDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "_PIECE", 30)
    asked = wanted(-70 * MINUTE_MS, minutes=60)
    assert desk.ask(asked) == [asked | {"ticks": 720}]
    rows = desk.store.connection.execute("SELECT ts_ms < ? FROM ticks ORDER BY id", [BROKER_NOW_MSC]).fetchall()
    runs = [(is_old, sum(1 for _ in group)) for (is_old,), group in groupby(rows)]
    # A live tick comes every five seconds, with some four turns in each.
    assert sum(1 for is_old, _ in runs if is_old) >= 3
    assert max(count for is_old, count in runs if is_old) < 720
    assert set(desk.held().values()) == {1}
