"""What the chart draws as its last bar moves, and what that costs."""

import pytest

from tests.integration.dashboard.reader import BARE_CHART, Reader

pytestmark = pytest.mark.long(6)

#: Draws so many bars with four indicators.
DRAWN = """async (count) => {
    const begins = Date.UTC(2026, 0, 5);
    bare.bars = Array.from({ length: count }, (_, n) => ({
        time: begins + n * 60_000, open: 1.1, high: 1.2, low: 1, close: 1.1 + Math.sin(n / 40) / 100, volume: n % 90,
        closed: n < count - 1,
    }));
    bare.chart.chooseStudies("sma20,ema50,vwap,rsi14");
    bare.chart.draw(bare.bars, 5, { widthMs: 60_000, isWhole: true });
    bare.chart.reset();
    for (let frame = 0; frame < 5; frame += 1) await new Promise(requestAnimationFrame);
}"""

#: Updates the newest of them in each of 60 frames.
UPDATED = """async () => {
    const { bars, chart } = bare;
    for (let update = 0; update < 60; update += 1) {
        bars[bars.length - 1] = { ...bars.at(-1), close: 1.1 + update / 5_000 };
        chart.update(bars.at(-1));
        await new Promise(requestAnimationFrame);
    }
}"""

#: Draws the same points, step by step, as one series of the library and as a split one; gives how many pixels differ.
COMPARED = """async ([type, steps]) => {
    const { SplitSeries } = await import("./js/split-series.js");
    const [library, thin] = [LightweightCharts, { lineWidth: 1 }];
    const point = (n, by = 0) => {
        const [open, close] = [Math.sin(n), Math.sin(n + 1) + by];
        const prices = { open, close, high: Math.max(open, close) + 0.3, low: Math.min(open, close) - 0.3 };
        return { time: 60 * n, ...(type === "CandlestickSeries" ? prices : { value: close }) };
    };
    const mark = (n) => ({ time: 60 * n, position: "aboveBar", shape: "circle", color: "#000" });
    const pictures = [];
    for (const isSplit of [false, true]) {
        const element = document.createElement("div");
        Object.assign(element.style, { position: "fixed", inset: "0", width: "600px", height: "300px" });
        document.body.append(element);
        const chart = library.createChart(element, { width: 600, height: 300, layout: { attributionLogo: false } });
        const own = library[type];
        const series = isSplit ? new SplitSeries(library, chart, own, thin) : chart.addSeries(own, thin);
        const markers = isSplit ? series : library.createSeriesMarkers(series, []);
        let last = 40;
        series.setData(Array.from({ length: last + 1 }, (_, n) => point(n)));
        for (const step of steps) {
            if (step === "moves") series.update(point(last, 0.5));
            if (step === "begins") series.update(point(last += 1));
            if (step === "is silent") series.update({ time: 60 * (last += 1) });
            if (step === "was late") series.update(point(last - 1, 0.7), true);
            if (step === "is marked") markers.setMarkers([mark(last - 5), mark(last)]);
            if (step === "has no label") series.applyOptions({ lastValueVisible: false, priceLineVisible: false });
        }
        await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
        const picture = chart.takeScreenshot();
        pictures.push(picture.getContext("2d").getImageData(0, 0, picture.width, picture.height).data);
        element.remove();
    }
    const [whole, split] = pictures;
    let differing = 0;
    for (let at = 0; at < whole.length; at += 4) {
        differing += [0, 1, 2].some((channel) => whole[at + channel] !== split[at + channel]);
    }
    return [differing, new Set(whole).size];
}"""

STEPS = [
    ["moves"],
    ["moves", "begins", "moves"],
    ["begins", "is silent", "is silent", "begins", "moves"],
    ["begins", "was late", "moves"],
    ["moves", "is marked", "moves"],
    ["is marked", "begins", "moves", "has no label"],
]


async def made_by_updates(reader: Reader, bars: int) -> int:
    """Bytes that 60 updates of the newest of so many bars have made, those that are collected again included."""
    await reader.open()
    await reader.page.evaluate(BARE_CHART)
    await reader.page.evaluate(DRAWN, bars)
    devtools = await reader.page.context.new_cdp_session(reader.page)
    collected = {"includeObjectsCollectedByMajorGC": True, "includeObjectsCollectedByMinorGC": True}
    await devtools.send("HeapProfiler.startSampling", {"samplingInterval": 2048, **collected})
    await reader.page.evaluate(UPDATED)
    profile = (await devtools.send("HeapProfiler.stopSampling"))["profile"]
    await devtools.detach()
    nodes, made = [profile["head"]], 0
    while nodes:
        node = nodes.pop()
        made += node["selfSize"]
        nodes += node["children"]
    return made


async def test_an_update_makes_no_more_the_more_bars_there_are(reader: Reader) -> None:
    few = await made_by_updates(reader, 300)
    many = await made_by_updates(reader, 3_000)
    assert many < 1.5 * few, (many, few)


@pytest.mark.parametrize("kind", ["CandlestickSeries", "HistogramSeries", "LineSeries"])
async def test_a_split_series_looks_like_one_of_the_library(reader: Reader, kind: str) -> None:
    await reader.open()
    for steps in STEPS:
        differing, colours = await reader.page.evaluate(COMPARED, [kind, steps])
        assert colours > 2, steps
        # Where the two series of a line, or of columns, meet, their edges are drawn otherwise.
        assert differing <= (0 if kind == "CandlestickSeries" else 8), steps
