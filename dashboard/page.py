"""Serves the page: its scripts joined into one file, the chart library, and every other file as it is stored."""

import hashlib
import re
from collections.abc import Mapping
from graphlib import TopologicalSorter
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import structlog
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from dashboard.answers import Prepared, encode
from marketdata.tick import DAY_MS
from marketdata.timeframes import TIMEFRAMES

log = structlog.get_logger(__name__)

#: The files of the page.
STATIC: Final = Path(__file__).parent / "static"

#: TradingView's lightweight-charts (Apache 2.0), which the package `lwcharts` carries as it is published. The file is
#: not part of this project, and nothing of that package is ever run here.
CHART_LIBRARY_VERSION: Final = "5.2.0"
_CHART_LIBRARY_SHA256: Final = "c0992580867c4912cc9385b3c2728315bcc1a76c7f1087dca908430fccdf31d7"

_SCRIPT: Final = "text/javascript"

#: The only forms of import and export that the scripts have.
_IMPORT: Final = re.compile(r'^import \{([^}]*)\} from "\./([\w-]+)\.js";\n', re.MULTILINE)
_EXPORT: Final = re.compile(r"^export ((?:async )?(?:class|function|const) ([\w$]+))", re.MULTILINE)
_OTHER_FORM: Final = re.compile(r"^[ \t]*(?:import|export)\b.*|\bimport\(.*", re.MULTILINE)


class _Files(StaticFiles):
    """The files, without redirects: Starlette's name the host that the client sent."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        if response.status_code == 307:
            raise HTTPException(404)
        return response


def add_page(app: FastAPI) -> None:
    """Add the files to the application, behind all other routes."""
    widths = timeframe_widths()
    _add_script(app, "/js/timeframe-widths.js", widths)
    sources = {path.stem: path.read_text() for path in (STATIC / "js").glob("*.js")}
    _add_script(app, "/js/page.js", joined("main", {**sources, "timeframe-widths": widths.decode()}).encode())
    library = chart_library()
    if library is None:
        log.warning(
            "The chart library is not installed, so the page shows no chart; `make setup` or `pip install lwcharts` "
            "brings it.", action="no_chart_library",
        )  # fmt: skip
    else:
        _add_script(app, "/vendor/lightweight-charts.js", library)
    app.mount("/", _Files(directory=STATIC, html=True))


def _add_script(app: FastAPI, path: str, content: bytes) -> None:
    script = Prepared(content, _SCRIPT)

    @app.head(path, include_in_schema=False)
    @app.get(path, include_in_schema=False)
    async def send(request: Request) -> Response:
        return script.answer(request)


def joined(entry: str, sources: Mapping[str, str]) -> str:
    """One module that runs `entry` and all that it imports, each module in a function of its own.

    A browser asks for six files at a time and learns of the next when it has parsed one: forty files took it half a
    second longer than one. `sources` are the modules by name.

    Raises:
        ValueError: when a module imports or exports in another form than the one that this reads, or in a circle.
    """
    imports: dict[str, set[str]] = {}
    wanted = [entry]
    while wanted:
        name = wanted.pop()
        if name not in imports:
            imports[name] = {found for _, found in _IMPORT.findall(sources[name])}
            wanted += imports[name]
    return "".join(_wrapped(name, sources[name]) for name in TopologicalSorter(imports).static_order())


def _wrapped(name: str, source: str) -> str:
    body = _IMPORT.sub(lambda found: f"const {{{found[1]}}} = {_variable(found[2])};\n", source)
    names = [exported for _, exported in _EXPORT.findall(body)]
    body = _EXPORT.sub(r"\1", body)
    if other := _OTHER_FORM.search(body):
        raise ValueError(f"{name}.js: {other[0]!r} is in no form that can be joined")
    return f"const {_variable(name)} = (() => {{\n{body}\nreturn {{ {', '.join(names)} }};\n}})();\n"


def _variable(name: str) -> str:
    return "$" + name.replace("-", "_")


def timeframe_widths() -> bytes:
    """The module of the page that names the timeframes, shortest first, and the milliseconds from a bar to the next.

    Days, weeks and months are not equally far apart, and hold weekends anyway: theirs are null.
    """
    widths = {t.name: t.width_ms if t.width_ms and t.width_ms < DAY_MS else None for t in TIMEFRAMES.values()}
    return b"export const WIDTHS = " + encode(widths) + b";\n"


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
