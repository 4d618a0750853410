"""Odd bodies of kinds that field samples do not show; producer and relay give each the same right answer.

What is right was written down from docs/http.md before the code was asked.
"""

from typing import NamedTuple

import pytest

from relay.store import Store
from tests.unit.producer.conftest import Bench, new_bench
from tests.unit.test_same_answers import MSC, SECOND, bars_in, both, forwarded, refused_in, ticks_in

#: symbol, time, bid, ask.
Quote = tuple[str, int, float, float]

GOOD: Quote = ("A", MSC, 1.5, 1.6)


class Odd(NamedTuple):
    """A body, the ticks that are right, and what of it is refused by index and field; None is a refusal of the body."""

    name: str
    body: bytes
    ticks: list[Quote]
    refused: list[tuple[int, str]] | None = []  # noqa: RUF012 - never changed


def item(fields: str = "", *, symbol: str = '"symbol":"A",', prices: str = '"bid":1.5,"ask":1.6,', at: str = "") -> str:
    """A tick of A; what stands in `fields` comes last, and a time is added unless `at` is one."""
    return "{" + symbol + prices + (at or f'"ts_msc":{MSC}') + (f",{fields}" if fields else "") + "}"


def spoiled(name: str, field: str, **parts: str) -> Odd:
    """An item that is refused for a field of it, before one that is good."""
    return Odd(name, f"[{item(**parts)},{item()}]".encode(), [GOOD], [(0, field)])


def fine(name: str, *expected: Quote, **parts: str) -> Odd:
    return Odd(name, f"[{item(**parts)}]".encode(), list(expected) or [GOOD])


def at(name: str, time: str, *, field: str = "ts", is_: int | None = None) -> Odd:
    """A tick whose time is written so; None is refused."""
    said = f'"{field}":{time}'
    return spoiled(name, field, at=said) if is_ is None else fine(name, ("A", is_, 1.5, 1.6), at=said)


THREE_HOURS = 3 * 3_600_000
DEEP = "[" * 300 + "]" * 300

BODIES = [
    # Fields written twice.
    fine("the last of two symbols", ("B", MSC, 1.5, 1.6), fields='"symbol":"B"'),
    fine("the last of two bids, the first none", prices='"bid":"x","bid":1.5,"ask":1.6,'),
    spoiled("the last of two bids is none", "bid", prices='"bid":1.5,"bid":"x","ask":1.6,'),
    fine("the last of two bids, one with an escape", prices='"b\\u0069d":9,"bid":1.5,"ask":1.6,'),
    fine("an escape in a name is the name", prices='"bid":9,"b\\u0069d":1.5,"ask":1.6,'),
    fine("lower case goes before capitals", prices='"Bid":9,"bid":1.5,"ask":1.6,'),
    fine("lower case goes before capitals behind it", prices='"bid":1.5,"BID":9,"ask":1.6,'),
    # Exotic numbers.
    fine("negative zero is none", ("A", MSC, 0.0, 1.6), prices='"bid":-0.0,"ask":1.6,'),
    fine("negative zero, whole", ("A", MSC, 0.0, 1.6), prices='"bid":-0,"ask":1.6,'),
    fine("subnormal", ("A", MSC, 1e-320, 1.6), prices='"bid":1e-320,"ask":1.6,'),
    fine("smaller than any double is 0", ("A", MSC, 0.0, 1.6), prices='"bid":1e-400,"ask":1.6,'),
    fine("exponents", ("A", MSC, 1.5, 1.6), prices='"bid":15E-1,"ask":0.16e+1,'),
    fine("more digits than a double", ("A", MSC, 0.1, 1.6), prices=f'"bid":0.1{"0" * 400},"ask":1.6,'),
    spoiled("beyond any double", "bid", prices='"bid":1e400,"ask":1.6,'),
    spoiled("whole and beyond any double", "bid", prices=f'"bid":1{"0" * 400},"ask":1.6,'),
    spoiled("beyond any price", "ask", prices='"bid":1.5,"ask":1.1e15,'),
    fine("a volume beyond 2^53", fields='"volume":9007199254740993'),
    fine("a volume beyond any double", fields='"volume":1e309'),
    spoiled("a negative volume", "volume", fields='"volume":-1'),
    fine("the volume negative zero", fields='"volume":-0.0'),
    fine("flags of 63 bits", fields='"flags":9223372036854775807'),
    spoiled("flags of 64 bits", "flags", fields='"flags":9223372036854775808'),
    spoiled("negative flags", "flags", fields='"flags":-1'),
    spoiled("half a flag", "flags", fields='"flags":6.5'),
    fine("a point of 0 and absurd digits", fields='"point":0,"digits":1e18'),
    # Other types.
    spoiled("true for a price", "bid", prices='"bid":true,"ask":1.6,'),
    spoiled("an array for a price", "bid", prices='"bid":[1.5],"ask":1.6,'),
    spoiled("an object for a price", "ask", prices='"bid":1.5,"ask":{},'),
    spoiled("an array for a symbol", "symbol", symbol='"symbol":["A"],'),
    spoiled("a number for a symbol", "symbol", symbol='"symbol":123,'),
    spoiled("an array for a volume", "volume", fields='"volume":[1]'),
    spoiled("true for flags", "flags", fields='"flags":true'),
    fine("an array for what is not needed", fields='"point":[1],"digits":{},"mode":["last"],"late":"no"'),
    fine("null for one price", ("A", MSC, 0.0, 1.6), prices='"bid":null,"ask":1.6,'),
    spoiled("null for both prices", "bid", prices='"bid":null,"ask":null,'),
    *(
        spoiled(f"the text {text} for a price", "bid", prices=f'"bid":"{text}","ask":1.6,')
        for text in ("1_5", "0x1p0", "1 500.5", "1,500.5", "1'500", "$1.5", "１.５", "١.٥", "½", "--1")
    ),
    *(
        Odd(f"{text} is no item", f"[{text},{item()}]".encode(), [GOOD], [(0, "")])
        for text in ("null", "1", '"x"', "[]")
    ),
    Odd("an array in the array", f"[[{item()}],{item()}]".encode(), [GOOD], [(0, "")]),
    # Names.
    fine("a character beyond 16 bits", ("A😀", MSC, 1.5, 1.6), symbol='"symbol":"A\\ud83d\\ude00",'),
    fine("a combining accent", ("e\u0301", MSC, 1.5, 1.6), symbol='"symbol":"e\\u0301",'),
    fine("32 characters of four bytes", ("😀" * 32, MSC, 1.5, 1.6), symbol=f'"symbol":"{"😀" * 32}",'),
    *(
        spoiled(f"a symbol with U+{code:04X}", "symbol", symbol=f'"symbol":"A\\u{code:04x}B",')
        for code in (0, 0x0A, 0x7F, 0xA0, 0xAD, 0x200B, 0x2028, 0xD83D, 0xFEFF, 0xFFFD)
    ),
    # Times.
    at("ten decimals", '"2025-10-20T02:20:00.4179999999Z"', is_=MSC),
    at("a decimal comma in a time", '"2025-10-20 02:20:00,417"', is_=MSC),
    at("the basic form", '"20251020T022000Z"', is_=SECOND),
    at("a day of a week", '"2025-W43-1T02:20:00"', is_=SECOND),
    at("small letters", '"2025-10-20t02:20:00z"', is_=SECOND),
    at("an offset without a colon", '"2025-10-20T02:20:00+0300"', is_=SECOND - THREE_HOURS),
    at("an offset of hours", '"2025-10-20T02:20:00+03"', is_=SECOND - THREE_HOURS),
    at("an offset of nothing", '"2025-10-20T02:20:00-00:00"', is_=SECOND),
    at("no leading zeros", '"2025.10.20 2:20"', field="time", is_=SECOND),
    *(
        at(f"no time: {text}", f'"{text}"')
        for text in (
            "2025-10-20T02:20:60Z", "2025-02-30T00:00:00", "2025-10-20T25:00:00", "2025-10-20T02:20:00+24:00",
            "2025-10-20T02:20:00+00:00Z", "2025-10-20T02:20:00 UTC", "Mon, 20 Oct 2025 02:20:00 GMT",
            "/Date(1760926800417)/", "２０２５-10-20T02:20:00", "2025-10-20", "02:20:00", "20.10.2025 02:20:00", "now",
        )
    ),
    at("a fraction of a millisecond", f"{MSC}.9", field="ts_msc", is_=MSC),
    at("digits of another script", '"１７６０９２６８００４１７"', field="ts_msc"),
    at("digits with underscores", '"1_760_926_800_417"', field="ts_msc"),
    at("seconds for milliseconds", "1760926800", field="ts_msc"),
    at("before all time", "-1", field="ts_msc"),
    at("beyond 64 bits", "9223372036854775808", field="ts_msc"),
    at("true for a time", "true", field="ts_msc"),
    at("an array for a time", "[1760926800417]", field="ts_msc"),
    spoiled("an infinite time is none", "ts", at='"ts_msc":1e999'),
    fine("a time of 0 is none", ("A", SECOND, 1.5, 1.6), at='"ts_msc":0,"time":"2025.10.20 02:20:00"'),
    # Whatever else an item holds.
    fine("half a character in meta", fields='"meta":{"x":"\\ud800"}'),
    fine("lists in lists in meta", fields=f'"meta":{DEEP}'),
    fine("NUL in meta", fields='"meta":{"x\\u0000":"\\u0000"}'),
    fine("names of a reader's own", fields='"__proto__":{},"constructor":1,"":2,"index":9,"received":0'),
    # Bodies.
    *(
        Odd(f"the body {body!r}", body, [], None)
        for body in (b"1", b'"x"', b"null", b"true", b"", b"\0", b"{}", b"[1]")
    ),
    Odd("no items at all", b'{"ticks":[]}', []),
    Odd("two values", f"{item()}{item()}".encode(), [], None),
    Odd("one value in each line", f"{item()}\n{item()}\n".encode(), [], None),
    Odd("a remark", f"/* ticks */[{item()}]".encode(), [], None),
    Odd("single quotation marks", f"[{item()}]".replace('"', "'").encode(), [], None),
    Odd("a price that ends in its exponent", item(prices='"bid":1.5e,"ask":1.6,').encode(), [], None),
    Odd("a mark of UTF-8", b"\xef\xbb\xbf" + f"[{item()}]".encode(), [GOOD]),
    Odd("UTF-16 from its other end", f"\ufeff[{item()}]".encode("utf-16-be"), [GOOD]),
    Odd("UTF-16 without its mark", f"[{item()}]".encode("utf-16-le"), [], None),
    Odd("UTF-32", f"[{item()}]".encode("utf-32"), [], None),
    Odd("an object for the array", f'{{"ticks":{item()}}}'.encode(), [], None),
    Odd("an array within an object", f'{{"data":{{"ticks":[{item()}]}}}}'.encode(), [], None),
    Odd("lists in lists", b'{"ticks":' + b"[" * 3_000 + b"]" * 3_000 + b"}", [], None),
    # The offset of the clock.
    *(
        Odd(f"the offset {offset}", f'{{"utc_offset_s":{offset},"ticks":[{item()}]}}'.encode(), [], None)
        for offset in ("true", "1e400", "[]", "64801", "0.5", '"７２００"', '"+02:00"')
    ),
    *(
        Odd(f"the offset {offset}", f'{{"ticks":[{item()}],{offset}}}'.encode(), [("A", MSC - 7_200_000, 1.5, 1.6)])
        for offset in ('"utc_offset_s":"7200"', '"utc_offset_s":7.2e3', '"UTC_OFFSET_S":7200', '"Utc_Offset_s":"+7200"')
    ),
    Odd("two offsets", f'{{"Utc_offset_s":0,"ticks":[{item()}],"utc_offset_s":7200}}'.encode(), [], None),
]  # fmt: skip


def quotes(bench: Bench) -> list[Quote]:
    return sorted(seen[:4] for seen in ticks_in(bench))


@pytest.mark.parametrize("odd", BODIES, ids=lambda odd: odd.name)
async def test_odd_bodies_get_the_right_answer_from_both(bench: Bench, store: Store, odd: Odd) -> None:
    answer = await both(bench, store, "/ingest/tick", odd.body)

    assert quotes(bench) == sorted(odd.ticks)
    if odd.refused is None:
        assert answer["status"] == 400
        return
    assert (answer["status"], refused_in(answer)) == (207 if odd.refused else 200, odd.refused)
    # What the relay sends on gets the server's answer once more.
    forwarding = new_bench()
    for path, body in forwarded(store):
        assert (await forwarding.post(path, body)).status_code == 200
    assert quotes(forwarding) == sorted(odd.ticks)


BAR = (
    '{"symbol":"A","timeframe":"M1","ts":1760926800000,"open":1.5,"high":2,"low":1,"close":1.5,'
    '"tick_volume":3,"spread":2}'
)


@pytest.mark.parametrize(
    ("written", "field"),
    [
        ('"open":-0.0', "open"), ('"open":true', "open"), ('"high":1e400', "high"), ('"low":[1]', "low"),
        ('"close":"1,5"', "close"), ('"tick_volume":9223372036854775808', "tick_volume"),
        ('"tick_volume":-1', "tick_volume"),
        ('"tick_volume":true', "tick_volume"), ('"tick_volume":2.5', "tick_volume"), ('"spread":4294967296', "spread"),
        ('"spread":-4294967296', "spread"),
        ('"spread":true', "spread"), ('"real_volume":-0.5', "real_volume"), ('"timeframe":true', "timeframe"),
        ('"timeframe":["M1"]', "timeframe"), ('"timeframe":"M１"', "timeframe"), ('"timeframe":"M2"', "timeframe"),
        ('"ts":1760926801000', "ts"), ('"symbol":"A\\u0000B"', "symbol"),
    ],
)  # fmt: skip
async def test_an_odd_bar_costs_itself_and_nothing_beside_it(
    bench: Bench, store: Store, written: str, field: str
) -> None:
    odd = BAR[:-1] + f",{written}}}"

    answer = await both(bench, store, "/ingest", f'{{"items":[{odd},{item()},{BAR}]}}'.encode())

    assert refused_in(answer) == [(0, field)]
    assert quotes(bench) == [GOOD]
    (bar,) = bars_in(bench)
    assert (bar.open, bar.volume, bar.spread, bar.closed) == (1.5, 3, 2, True)


@pytest.mark.parametrize("written", ['"closed":0.0', '"complete":"FALSE"', '"is_closed":false', '"Closed":"0"'])
async def test_a_bar_is_open_however_that_is_written(bench: Bench, store: Store, written: str) -> None:
    await both(bench, store, "/ingest", (BAR[:-1] + f",{written}}}").encode())

    (bar,) = bars_in(bench)
    assert bar.closed is False
