"""Odd bodies, as programs and people write them, to a producer and a relay that listen: both read the same.

What is right was written down from docs/http.md before the servers were asked.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from marketdata.wire import decode_frame
from tests.security.targets import RELAY, SENDER, Targets, http, running_targets
from tests.waiting import wait_until

KEYS = {"producer": SENDER, "relay": RELAY}
#: 2025-10-20 02:20:00.417
MS = 1_760_926_800_417
WHOLE_MS = 1_760_926_800_000


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Targets]:
    with running_targets(tmp_path_factory.mktemp("targets")) as running:
        yield running


class Odd(NamedTuple):
    """A body, the symbols and times of the ticks that it brings, and how many of its items are refused.

    `refused` is None where the body is no list of items at all.
    """

    name: str
    body: bytes
    taken: list[tuple[str, int]]
    refused: int | None = 0


def item(**fields: Any) -> dict[str, Any]:
    """A tick with these fields instead of its own; None leaves one out."""
    given = {"time_msc": MS, "symbol": "EURUSD", "bid": 1.1, "ask": 1.2} | fields
    return {name: value for name, value in given.items() if value is not None}


def ticks(*items: object) -> bytes:
    return json.dumps({"ticks": items}).encode()


def beside(text: str) -> bytes:
    """An item written so, with a good one of another symbol behind it."""
    return b'{"ticks":[%s,%s]}' % (text.encode("utf-8", "surrogatepass"), json.dumps(item(symbol="GOOD")).encode())


def with_field(field: str) -> bytes:
    """The same with a field written so."""
    return beside(f'{{"time_msc":{MS},"symbol":"EURUSD","bid":1.1,"ask":1.2,{field}}}')


GOOD, EURUSD = ("GOOD", MS), ("EURUSD", MS)
BOTH, ONE = [EURUSD, GOOD], [EURUSD]


def timed(name: str, value: object, ms: int | None = MS) -> Odd:
    body = ticks(item(**{"time_msc": None} | {name: value}))
    return Odd(f"{name} {value!r}", body, [] if ms is None else [("EURUSD", ms)], 1 if ms is None else 0)


def priced(value: object, *, is_read: bool = False) -> Odd:
    return Odd(f"bid {value!r}"[:40], ticks(item(bid=value)), ONE if is_read else [], int(not is_read))


def named(name: str, read: str | None) -> Odd:
    return Odd(f"symbol {name!r}", ticks(item(symbol=name)), [] if read is None else [(read, MS)], int(read is None))


BODIES = [
    # Times.
    timed("ts", "2025-10-20T02:20:00.417999999Z"),
    timed("ts", "2025-10-20t02:20:00.417z"),
    timed("ts", "2025-10-20 02:20:00,417"),
    timed("time", "2025/10/20 02:20", WHOLE_MS),
    timed("ts", " 2025.10.20  02:20:00.417\t", None),
    timed("ts", "2025.10.20 02:20:00.417\u00a0"),
    timed("ts", 1_760_926_800.417),
    timed("timestamp", "1760926800.417"),
    timed("time_msc", " 1760926800417.0 "),
    timed("time", 45_950.097, None),
    timed("ts", "/Date(1760926800417)/", None),
    timed("ts", "Mon Oct 20 2025 02:20:00 GMT+0000", None),
    timed("ts", "２０２５-10-20T02:20:00Z", None),
    timed("time_msc", True, None),
    Odd("time_msc 1.760926800417E+12", beside(f'{{"time_msc":{MS / 1e12}E+12,"symbol":"EURUSD","bid":1.1}}'), BOTH),
    # Prices.
    priced(" 1.1\n", is_read=True),
    priced("\u00a01.1\u00a0", is_read=True),
    priced("11e-1", is_read=True),
    *map(priced, ("1_000.5", "1 000.5", "1'000.5", "$1.1", "1.1%", "0x1", "１.１", "1.1.1", "--1", True)),
    *map(priced, ([1.1], {"v": 1})),
    Odd("a price beyond all doubles", with_field('"bid":1e400'), [GOOD], 1),
    Odd("a volume beyond all doubles", with_field('"volume":1e400'), BOTH),
    Odd("a number of 5000 digits in a field that nobody reads", with_field(f'"x":{"1" * 5_000}'), BOTH),
    # Symbols.
    named("EURUSD\u00a0", "EURUSD"),
    named("\ufeffEURUSD\u202f", "EURUSD"),
    named("\tEURUSD\r\n", "EURUSD"),
    named("\u202eEURUSD", None),
    named("EUR\u0000USD", None),
    named("EUR\u2028USD", None),
    named("e\u0301", "e\u0301"),
    # Texts.
    Odd("half a character in a comment", with_field(r'"comment":"\ud83d"'), BOTH),
    Odd("half a character in a symbol", with_field(r'"symbol":"EU\ud83d"'), [GOOD], 1),
    Odd("an escape that JSON does not know", with_field(r'"comment":"C:\Users\x"'), BOTH),
    Odd("a line break within a text", with_field('"comment":"a\nb"'), BOTH),
    Odd("a field twice", with_field('"ask":1.3,"ask":1.4'), BOTH),
    # Bodies.
    Odd("a mark of UTF-8 before it", b"\xef\xbb\xbf" + ticks(item()), ONE),
    Odd("UTF-32", ticks(item()).decode().encode("utf-32"), [], None),
    Odd("JSON within a text", json.dumps(ticks(item()).decode()).encode(), [], None),
    Odd("something behind it", ticks(item()) + b"x", [], None),
    Odd("a body that ends early", ticks(item())[:-2], [], None),
    Odd("a list by number", json.dumps({"ticks": {"0": item()}}).encode(), [], None),
    Odd("a list of lists", ticks([item()], item(symbol="GOOD")), [GOOD], 1),
    Odd("nothing in the list", ticks(None, "", 5, item(symbol="GOOD")), [GOOD], 3),
    Odd("a comment of JavaScript", b"// ticks\n" + ticks(item()), [], None),
    Odd("single quotes", repr({"ticks": [item()]}).encode(), [], None),
    Odd("a field that is very deep", with_field(f'"x":{"[" * 3_000}{"]" * 3_000}'), [], None),
]  # fmt: skip


def read_by(targets: Targets, target: str) -> list[tuple[str, int]]:
    if target == "relay":
        rows = targets.store.connection.execute("SELECT symbol, ts_ms FROM ticks ORDER BY id")
        return [(symbol, ts_ms) for symbol, ts_ms in rows]
    frames = [decode_frame(record.value) for record in targets.gateway.records if record.topic == "ticks"]
    return [(frame.symbol, tick.time_msc) for frame in frames for tick in frame.ticks]


@pytest.mark.parametrize("target", ["producer", "relay"])
def test_odd_bodies_are_read_alike(targets: Targets, target: str) -> None:
    wrong = []
    for odd in BODIES:
        before = len(read_by(targets, target))
        status, _, answer = targets.ask(target, http("POST", "/ingest/tick", odd.body, x_api_key=KEYS[target]))
        told = json.loads(answer) if answer else {}
        if status < 300:
            wait_until(lambda: len(read_by(targets, target)) > before, what="what was taken")  # noqa: B023
        taken = read_by(targets, target)[before:]
        expected = 400 if not odd.taken else 207 if odd.refused else 200
        refused = None if status == 400 and not told.get("details") else len(told.get("details", []))
        if (status, sorted(taken), refused) != (expected, sorted(odd.taken), odd.refused):
            wrong.append((odd.name, status, taken, told))
    assert wrong == []
