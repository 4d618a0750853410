"""What senders say of themselves and of their instruments, on the page and in the API: decimals, who sends."""

import pyarrow as pa
import pytest
from playwright.async_api import expect

from marketdata.wire import Instrument, Reference, SenderCount, encode, reference_key
from runtime import clock
from tests.integration.dashboard.market import MINUTE_MS, Market
from tests.integration.dashboard.reader import Reader, rows_of
from tests.waiting import eventually

pytestmark = pytest.mark.long(15)


async def say(market: Market, *records: Reference) -> None:
    await market.flow.send(
        market.settings.reference_topic, [(reference_key(record), encode(record)) for record in records]
    )


def quoted(symbol: str, point: float) -> Instrument:
    return Instrument(source="Live", symbol=symbol, point=point, received=clock.now_ms())


#: Symbol, point, price, digits, and the price as it is shown.
Case = tuple[str, float, float, int, str]

USUAL: list[Case] = [
    ("USDJPY", 0.001, 150.1, 3, "150.100"), ("EURCHF", 0.00001, 0.95, 5, "0.95000"),
    ("US30", 1.0, 39_000.0, 0, "39,000"), ("ETHBTC", 1e-8, 0.034, 8, "0.03400000"),
]  # fmt: skip
UNUSUAL: list[Case] = [("WHEAT", 0.25, 541.5, 2, "541.50"), ("PEPEUSD", 1e-10, 0.000008431, 10, "0.0000084310")]


@pytest.mark.parametrize("cases", [UNUSUAL, pytest.param(USUAL, marks=pytest.mark.full)], ids=["unusual", "usual"])
async def test_prices_have_the_decimals_that_their_sender_says(
    reader: Reader, market: Market, cases: list[Case]
) -> None:
    ts = clock.now_ms() // MINUTE_MS * MINUTE_MS
    await say(market, *(quoted(symbol, point) for symbol, point, *_ in cases))
    await market.publish(*(market.candle(symbol, ts, (close,) * 4, ticks=5) for symbol, _, close, *_ in cases))
    for symbol, _, _, digits, shown in cases:
        await market.stored(symbol, 1)

        async def is_told(symbol: str = symbol, digits: int = digits) -> bool:
            listed = market.get("/symbols").json()["symbols"]
            return [each["digits"] for each in listed if each["symbol"] == symbol] == [digits]

        await eventually(is_told, what=f"the digits of {symbol} in /symbols")
        assert market.get(f"/candles?symbol={symbol}").json()["digits"] == digits
        arrow = pa.ipc.open_stream(market.get(f"/candles?symbol={symbol}&format=arrow").content)
        assert arrow.schema.metadata[b"digits"] == str(digits).encode()

        await reader.open(f"?symbol={symbol}")
        await expect(reader.page.locator("#legend")).to_contain_text(f"C{shown}")
        await reader.page.keyboard.press("d")
        assert await rows_of(reader.page) == [[shown] * 4 + ["5"]]
        await reader.page.keyboard.press("p")
        row = reader.page.locator("#pane").get_by_role("row", name=f"{symbol} Live")
        await expect(row.get_by_role("cell").nth(1)).to_have_text(shown)
        # The page remembers that the pane is open.
        await reader.page.keyboard.press("p")


@pytest.mark.full
async def test_prices_of_a_sender_that_does_not_say_are_guessed_until_it_does(reader: Reader, market: Market) -> None:
    ts = clock.now_ms() // MINUTE_MS * MINUTE_MS
    await market.publish(market.candle("GUESS", ts, (0.000008431,) * 4, ticks=5))
    await market.stored("GUESS", 1)
    assert market.get("/candles?symbol=GUESS").json()["digits"] is None
    await reader.open("?symbol=GUESS")
    legend = reader.page.locator("#legend")
    await expect(legend).to_contain_text("C0.000008431")
    await say(market, quoted("GUESS", 1e-10))
    # Without a reload.
    await expect(legend).to_contain_text("C0.0000084310")


async def test_who_sends_is_listed_and_a_source_that_several_share_is_told(reader: Reader, market: Market) -> None:
    now = clock.now_ms()
    pdc = SenderCount(
        source="Shared & <co>", server="Broker-Demo", account="***45", build="3850", ea="PDC", version="1.65",
        address="10.0.0.7", counter="a", first_seen=now - 60_000, last_seen=now - 1_000, ticks=1_234, bars=0,
    )  # fmt: skip
    other = SenderCount(
        source="Shared & <co>", server="Broker-Real 2", account="***45", build="3850", ea="PDC", version="1.65",
        address="10.0.0.8", counter="b", first_seen=now - 60_000, last_seen=now, ticks=7, bars=0,
    )  # fmt: skip
    await say(market, pdc, other)

    async def is_told() -> bool:
        return len(market.get("/senders").json()["senders"]) == 2

    await eventually(is_told, what="both senders")
    first, second = market.get("/senders").json()["senders"]
    assert (first["server"], first["ticks"], first["shared"]) == ("Broker-Real 2", 7, "servers")
    assert (second["account"], second["address"], second["ea"]) == ("***45", "10.0.0.7", "PDC")
    assert market.get(f"/senders?since={now + 60_000}").json() == {"senders": []}
    assert market.get("/senders?since=x").status_code == 400

    await reader.open()
    await reader.page.keyboard.press("p")
    listed = reader.page.locator(".senders")
    await expect(listed).to_contain_text("Several servers send under Shared & <co>")
    cells = listed.get_by_role("row").nth(2).get_by_role("cell")
    await expect(cells.first).to_contain_text("PDC 1.65 · Broker-Demo · ***45 · build 3850 · 10.0.0.7")
    await expect(cells.nth(1)).to_have_text("1,234")


async def test_rejected_is_red_while_it_is_news(reader: Reader, market: Market) -> None:
    await market.flow.send(market.settings.candles_topic, [(b"k", b"no candle")])
    await reader.open()
    await reader.page.keyboard.press("p")
    candles = reader.page.locator(".rejected dl > div").nth(1)
    await expect(candles).to_have_class("news")
    bad = await reader.page.evaluate(
        "() => { const e = document.createElement('i'); e.style.color = 'var(--bad)'; document.body.append(e);"
        " const c = getComputedStyle(e).color; e.remove(); return c; }"
    )
    await expect(candles.locator("dd")).to_have_css("color", bad)
    await expect(reader.page.locator(".rejected dl > div").first).not_to_have_class("news")
