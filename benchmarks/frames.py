"""Frames of the chart while its newest bar moves, and the floor: those of a page that does hardly more than paint.

The floor is an empty page that fills canvases of the same sizes with one colour for each frame. What it drops too is
the browser's and the machine's. Both are measured in turns, in the same minutes.
"""

import asyncio
from collections.abc import Callable, Sequence
from statistics import median, quantiles
from typing import Any

from playwright.async_api import Browser, Page

TURNS = 4

#: Gives the milliseconds between frames for so many seconds; `act` is called in each.
_GAPS = """const gapsFor = async (seconds, act = () => {}) => {
    // What was prepared is drawn for the first time.
    for (let frames = 0; frames < 3; frames += 1) await new Promise(requestAnimationFrame);
    const gaps = [];
    const ends = performance.now() + seconds * 1000;
    let before = null;
    await new Promise((done) => {
        const frame = (now) => {
            if (before !== null) gaps.push(now - before);
            before = now;
            act();
            if (now < ends) requestAnimationFrame(frame);
            else done();
        };
        requestAnimationFrame(frame);
    });
    return gaps;
};"""

#: Draws the newest bar of 1,500 of the bare chart again 60 times a second.
_CHART = f"""async ([seconds, everyMs]) => {{
    {_GAPS}
    const {{ chart }} = bare;
    chart.chooseStudies("sma20,ema50,vwap,rsi14");
    const begins = Math.floor(Date.now() / 60_000) * 60_000 - 1_500 * 60_000;
    const bars = Array.from({{ length: 1_500 }}, (_, n) => {{
        const open = 1.1 + Math.sin(n / 40) / 100, close = 1.1 + Math.sin((n + 1) / 40) / 100;
        return {{ time: begins + n * 60_000, open, close, high: Math.max(open, close) + 1e-4,
            low: Math.min(open, close) - 1e-4, volume: 50 + n % 90, closed: n < 1_499 }};
    }});
    chart.draw(bars, 5, {{ widthMs: 60_000, isWhole: true }});
    chart.reset();
    let updates = 0;
    const timer = setInterval(() => {{
        updates += 1;
        const bar = {{ ...bars.at(-1), close: bars.at(-1).open + Math.sin(updates / 7) / 5_000, volume: updates }};
        bar.high = Math.max(bar.high, bar.close);
        bar.low = Math.min(bar.low, bar.close);
        bars[bars.length - 1] = bar;
        chart.update(bar);
    }}, everyMs);
    const gaps = await gapsFor(seconds);
    clearInterval(timer);
    return {{ updates, gaps }};
}}"""

#: The places and sizes of the bare chart's canvases.
_CANVASES = """() => [...document.querySelectorAll(".chart:not(#chart) canvas")]
    .map((canvas) => [canvas.width, canvas.height, canvas.getBoundingClientRect()])
    .map(([width, height, { left, top }]) => ({ width, height, left, top }))"""

#: Fills canvases there for each frame.
_FLOOR = f"""async ([seconds, canvases]) => {{
    {_GAPS}
    const pens = canvases.map(({{ width, height, left, top }}) => {{
        const canvas = Object.assign(document.createElement("canvas"), {{ width, height }});
        Object.assign(canvas.style, {{ position: "fixed", left: `${{left}}px`, top: `${{top}}px` }});
        document.body.append(canvas);
        return canvas.getContext("2d");
    }});
    let frames = 0;
    const gaps = await gapsFor(seconds, () => {{
        frames += 1;
        for (const pen of pens) {{
            pen.fillStyle = `hsl(${{frames % 360}} 50% 50%)`;
            pen.fillRect(0, 0, pen.canvas.width, pen.canvas.height);
        }}
    }});
    document.body.replaceChildren();
    return {{ updates: frames, gaps }};
}}"""


async def frames(browser: Browser, page: Page, seconds: float, cpu: Callable[[], float]) -> dict[str, dict[str, Any]]:
    """Of the bare chart on `page`, and of the floor: updates, gaps between frames (ms), seconds on a processor.

    Each is measured for `seconds`, in turns; `cpu()` gives what the browser has spent so far.
    """
    empty = await browser.new_page(viewport=page.viewport_size)
    found: dict[str, dict[str, Any]] = {name: {"updates": 0, "gaps": [], "cpu": 0.0} for name in ("chart", "floor")}
    for _ in range(TURNS):
        for name, shown in (("chart", page), ("floor", empty)):
            await shown.bring_to_front()
            await asyncio.sleep(1)
            script, how = (_CHART, 1000 / 60) if name == "chart" else (_FLOOR, await page.evaluate(_CANVASES))
            spent = cpu()
            drawn = await shown.evaluate(script, [seconds / TURNS, how])
            found[name]["cpu"] += cpu() - spent
            found[name]["updates"] += drawn["updates"]
            found[name]["gaps"] += drawn["gaps"]
    await empty.close()
    return found


def rows_of(found: dict[str, dict[str, Any]], seconds: float) -> list[list[str]]:
    """The chart's frames as rows of a table, each with the floor's."""
    chart, floor = found["chart"], found["floor"]
    return [
        [f"updates a second, for {seconds:.0f} s", f"{chart['updates'] / seconds:.0f}"],
        ["frames a second; dropped", _dropped(chart["gaps"], seconds)],
        ["those of an empty page that paints as many pixels", _dropped(floor["gaps"], seconds)],
        ["the browser on a processor, a frame; the empty page", f"{_cost(chart):.1f} ms; {_cost(floor):.1f} ms"],
        ["between frames, p50 / p99 / most", f"{_spread(chart['gaps'])} ms"],
        ["those of the empty page", f"{_spread(floor['gaps'])} ms"],
    ]


def _dropped(gaps: Sequence[float], seconds: float) -> str:
    usual = median(gaps)
    dropped = sum(max(0, round(gap / usual) - 1) for gap in gaps)
    return f"{len(gaps) / seconds:.0f}; {dropped} of {len(gaps) + dropped:,}"


def _cost(found: dict[str, Any]) -> float:
    """Milliseconds of processor a frame."""
    return float(found["cpu"] / len(found["gaps"]) * 1000)


def _spread(gaps: Sequence[float]) -> str:
    return " / ".join(f"{gap:.1f}" for gap in (median(gaps), quantiles(gaps, n=100)[98], max(gaps)))
