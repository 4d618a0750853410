"""The files of the page: our own, and the chart library out of an installed package.

The library is TradingView's lightweight-charts (Apache 2.0), which the package `lwcharts` carries as it is published.
Neither is the file part of this project, nor is anything of that package ever run here: what it holds is served only
when it is, byte for byte, the file that TradingView published.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Final

STATIC: Final = Path(__file__).parent / "static"

CHART_LIBRARY_VERSION: Final = "5.2.0"
_CHART_LIBRARY_SHA256: Final = "c0992580867c4912cc9385b3c2728315bcc1a76c7f1087dca908430fccdf31d7"


def chart_library() -> bytes | None:
    """`lightweight-charts.standalone.production.js`; None when it is not installed or is another than expected."""
    package = find_spec("lwcharts")
    if package is None or not package.submodule_search_locations:
        return None
    path = Path(package.submodule_search_locations[0], "vendor", "lightweight-charts.standalone.production.js")
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == _CHART_LIBRARY_SHA256 else None
