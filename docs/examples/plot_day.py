# /// script
# requires-python = ">=3.11"
# dependencies = ["httpx>=0.28", "matplotlib>=3.10"]
# ///
"""Plot a day of a symbol: candles, ticks and spread, read from the dashboard's API.

    uv run docs/examples/plot_day.py --symbol EURUSD --day 2019-02-04

or, where httpx and matplotlib are installed, `python docs/examples/plot_day.py …`. The picture is written to
`SYMBOL-DAY.png`, or to the file that `--output` names (png, svg or pdf).
"""

import argparse
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import matplotlib as mpl
from matplotlib import dates as mdates

mpl.use("Agg")
from matplotlib import pyplot as plt

UP, DOWN, INK = "#1a936f", "#c8434d", "#57606a"


def read_day(client: httpx.Client, symbol: str, day: date, timeframe: str, source: str | None) -> list[dict[str, Any]]:
    """The candles of one UTC day, in order of time; a day has at most 1,440, so one answer holds them."""
    asked = {
        "symbol": symbol, "timeframe": timeframe, "from": day.isoformat(), "to": (day + timedelta(days=1)).isoformat(),
        "limit": "1440",
    }  # fmt: skip
    answer = client.get("/candles", params=asked | ({"source": source} if source else {}))
    if answer.is_error:
        raise SystemExit(f"{client.base_url} answers {answer.status_code}: {answer.text}")
    candles: list[dict[str, Any]] = answer.json()["candles"]
    return candles


def plot(candles: list[dict[str, Any]], title: str, output: Path) -> None:
    """Candles above, ticks and spread below, on one axis of time."""
    times = mdates.date2num([datetime.fromisoformat(candle["ts"]) for candle in candles])
    width = min((after - before for before, after in pairwise(times)), default=1 / 1440) * 0.8
    colours = [UP if candle["close"] >= candle["open"] else DOWN for candle in candles]
    figure, (prices, ticks, spread) = plt.subplots(
        3, sharex=True, figsize=(14, 8), height_ratios=(5, 1.4, 1.2), layout="constrained"
    )
    # Bars are narrower than pixels: snapped to them, many would vanish.
    prices.vlines(times, [c["low"] for c in candles], [c["high"] for c in candles], colors=colours, linewidth=0.7)
    prices.bar(
        times, [abs(c["close"] - c["open"]) for c in candles], width, [min(c["open"], c["close"]) for c in candles],
        color=colours, snap=False,
    )  # fmt: skip
    prices.set_title(title, loc="left", color=INK)
    prices.set_ylabel("price")
    ticks.bar(times, [c["volume"] for c in candles], width, color=colours, snap=False)
    ticks.set_ylabel("ticks")
    # Where the size of a point is unknown there is no spread.
    known = [float("nan") if c["spread"] is None else c["spread"] for c in candles]
    spread.step(times, known, where="mid", color=INK, linewidth=0.8)
    spread.set_ylabel("spread (points)")
    spread.set_ylim(bottom=0)
    spread.set_xlim(times[0] - width, times[-1] + width)
    spread.xaxis.set_major_locator(mdates.AutoDateLocator(tz=UTC))
    spread.xaxis.set_major_formatter(mdates.DateFormatter("%H:%M", tz=UTC))
    spread.set_xlabel("UTC")
    for axes in (prices, ticks, spread):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(output, dpi=120)


def main() -> None:
    """Read, plot, say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:18080", help="the dashboard (default: %(default)s)")
    parser.add_argument("--symbol", default="EURUSD", help="as the sender names it (default: %(default)s)")
    parser.add_argument("--source", help="the feed; without it the one with the newest candle")
    parser.add_argument("--day", type=date.fromisoformat, default=datetime.now(UTC).date(), help="default: today (UTC)")
    parser.add_argument("--timeframe", default="M1", choices=["M1", "M5", "M15", "M30", "H1"], help="(default: M1)")
    parser.add_argument("--password", default="", help="the dashboard's, if it has one")
    parser.add_argument("--output", type=Path, help="file to write: png, svg or pdf")
    options = parser.parse_args()
    auth = ("", options.password) if options.password else None
    try:
        with httpx.Client(base_url=options.url, timeout=30, auth=auth) as client:
            candles = read_day(client, options.symbol, options.day, options.timeframe, options.source)
    except httpx.TransportError as exc:
        raise SystemExit(f"no dashboard answers on {options.url} ({exc}); `tickpipe status` shows its address") from exc
    if not candles:
        raise SystemExit(f"{options.symbol} has no candles on {options.day}; {options.url}/symbols lists what there is")
    output = options.output or Path(f"{options.symbol.replace('/', '-')}-{options.day}.png")
    ticks = sum(candle["volume"] for candle in candles)
    plot(candles, f"{options.symbol} · {options.timeframe} · {options.day} · {candles[0]['source']}", output)
    print(f"{output}: {len(candles)} candles of {ticks} ticks")


if __name__ == "__main__":
    main()
