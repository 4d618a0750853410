"""The examples of the documentation, run as a reader would."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.days import EURUSD_COUNT, eurusd_bars
from tests.integration.dashboard.market import Market
from tests.waiting import PATIENCE_SECONDS

SCRIPT = Path(__file__).parents[3] / "docs" / "examples" / "plot_day.py"


def run(market: Market, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--url", market.url, "--symbol", "EURUSD", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)


@pytest.mark.full
async def test_a_day_is_plotted(market: Market, tmp_path: Path) -> None:
    output = tmp_path / "day.png"

    done = run(market, "--day", "2019-02-04", "--output", str(output))

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{output}: {len(eurusd_bars())} candles of {EURUSD_COUNT} ticks\n"
    from matplotlib import image  # noqa: PLC0415  # slow to load

    pixels = image.imread(output)
    assert pixels.shape[:2] == (960, 1680)
    # Candles that rise are green, those that fall red: there are a good many of both.
    red, green = pixels[..., 0], pixels[..., 1]
    assert (green - red > 0.3).sum() > 3_000
    assert (red - green > 0.3).sum() > 3_000
    # Nearly every minute of this day has ticks, so nearly all columns of their bars are coloured.
    bars = (abs(green - red) > 0.03)[int(0.64 * 960) : int(0.78 * 960)].any(axis=0)
    assert bars.sum() > 1_500


@pytest.mark.full
async def test_a_day_without_candles_is_an_error_that_tells_where_to_look(market: Market) -> None:
    done = run(market, "--day", "2001-01-01")

    assert done.returncode == 1
    assert "EURUSD has no candles on 2001-01-01" in done.stderr
    assert "/symbols" in done.stderr
