"""The chart library that is served is the one that TradingView published, and says whose it is.

A dashboard of which a part failed does not go on looking alive.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from starlette.types import Message

from dashboard.app import Parts, create_app
from dashboard.page import CHART_LIBRARY_VERSION, STATIC, chart_library, joined
from marketdata.timeframes import TIMEFRAMES
from runtime.health import Guard, Health
from runtime.settings import load_settings


def test_library_is_installed_with_its_notice() -> None:
    library = chart_library()
    assert library is not None
    head = library[:400].decode()
    assert f"Lightweight Charts™ v{CHART_LIBRARY_VERSION}" in head
    assert "Apache License 2.0" in head


def test_another_file_than_the_published_one_is_not_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    vendor = tmp_path / "lwcharts" / "vendor"
    vendor.mkdir(parents=True)
    (vendor.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert chart_library() is None
    (vendor / "lightweight-charts.standalone.production.js").write_text("alert('not ours')")
    assert chart_library() is None


def test_page_carries_the_attribution_and_no_inline_code() -> None:
    page = (STATIC / "index.html").read_text()
    assert "Copyright © 2026 TradingView, Inc." in page
    assert 'href="https://www.tradingview.com/"' in page
    assert "style=" not in page
    assert "onclick" not in page
    assert "<script>" not in page


def test_scripts_put_text_never_markup() -> None:
    scripts = list(STATIC.rglob("*.js"))
    assert len(scripts) > 20
    assert [path for path in scripts if "innerHTML" in path.read_text()] == []


def test_languages_have_the_same_texts() -> None:
    source = (STATIC / "js" / "i18n.js").read_text()
    english, portuguese = source.split("  pt: {")[0], source.split("  pt: {")[1]
    names = [set(re.findall(r'(?:^ {4}|, )(\w+): "', half, re.MULTILINE)) for half in (english, portuguese)]
    assert names[0] == names[1]
    assert len(names[0]) > 60


async def test_the_page_has_the_servers_timeframes() -> None:
    app = create_app(Parts(load_settings()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://dashboard") as client:
        answer = await client.get("/js/timeframe-widths.js")
        again = await client.get("/js/timeframe-widths.js", headers={"If-None-Match": answer.headers["etag"]})

    assert answer.headers["content-type"].startswith("text/javascript")
    widths = json.loads(answer.text.removeprefix("export const WIDTHS = ").removesuffix(";\n"))
    assert list(widths) == list(TIMEFRAMES)
    assert (widths["M1"], widths["H4"], widths["D1"], widths["MN1"]) == (60_000, 4 * 3_600_000, None, None)
    assert again.status_code == 304


def test_scripts_are_joined_each_once_and_before_whoever_imports_it() -> None:
    sources = {
        "main": 'import { A, one } from "./a.js";\nimport { far } from "./far-off.js";\nrun(A, one, far);\n',
        "a": 'import { far } from "./far-off.js";\nconst own = far;\nexport class A {}\nexport const one = own;\n',
        "far-off": "const own = 2;\nexport async function far() {}\n",
        "unused": "export const never = 1;\n",
    }

    page = joined("main", sources)

    places = [page.index(f"const ${name} = (() => {{") for name in ("far_off", "a", "main")]
    assert places == sorted(places)
    assert page.count("async function far") == 1
    assert "return { A, one };" in page
    assert "const { A, one } = $a;" in page
    assert "never" not in page
    assert "export" not in page


@pytest.mark.parametrize(
    "source",
    [
        'export { one } from "./a.js";\n', "export default 1;\n", "export let one = 1;\n", 'import "./a.js";\n',
        'import * as a from "./a.js";\n', 'const a = await import("./a.js");\n',
        'import { one } from "./main.js";\nexport const two = 2;\n',
    ],
)  # fmt: skip
def test_scripts_of_another_form_and_circles_are_not_joined(source: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the cycle's message is the library's
        joined("main", {"main": source, "a": "export const one = 1;\n"})


async def test_scripts_are_compressed_for_who_takes_that() -> None:
    app = create_app(Parts(load_settings()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://dashboard") as client:
        for path in ("/js/page.js", "/vendor/lightweight-charts.js"):
            packed = await client.get(path, headers={"Accept-Encoding": "gzip"})
            plain = await client.get(path, headers={"Accept-Encoding": "identity"})
            assert packed.headers["content-encoding"] == "gzip"
            assert "content-encoding" not in plain.headers
            assert packed.text == plain.text
            assert packed.headers["etag"] == plain.headers["etag"]
            assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
            assert int(packed.headers["content-length"]) < len(plain.content) / 2


@pytest.mark.parametrize(
    "path", ["/js", "/js/", "/vendor", "/candles/", "//evil.example/..", "/\\evil.example", "/js/.."]
)
async def test_no_redirect_names_the_host_that_the_client_sent(path: str) -> None:
    app = create_app(Parts(load_settings()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://evil.example") as client:
        answer = await client.get(path, headers={"X-Forwarded-Proto": "ftp", "X-Forwarded-Host": "evil.example"})
    assert "evil.example" not in answer.headers.get("location", "")
    assert answer.status_code in (200, 404)


async def _fail() -> None:
    raise RuntimeError("a bug")


async def _work() -> None:
    await asyncio.Event().wait()


class Dashboard:
    """An application whose background tasks are the test's own."""

    def __init__(self, live: Callable[[], object], pipeline: Callable[[], object]) -> None:
        self.ends = 0
        self.parts = Parts(load_settings(), guard=Guard(Health("kafka", "database"), end=self._end))
        self.parts.live.run = live  # type: ignore[method-assign, assignment]  # stands for a bug in it
        self.parts.pipeline.run = pipeline  # type: ignore[method-assign, assignment]  # likewise
        self.app = create_app(self.parts)

    def _end(self) -> None:
        self.ends += 1

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        async with (
            self.app.router.lifespan_context(self.app),
            httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://dashboard") as client,
        ):
            await asyncio.sleep(0.01)  # the tasks' turn
            yield client


@pytest.mark.parametrize(("live", "pipeline", "failed"), [(_fail, _work, "live"), (_work, _fail, "pipeline")])
async def test_failed_part_shows_and_ends_the_process(
    live: Callable[[], object], pipeline: Callable[[], object], failed: str
) -> None:
    dashboard = Dashboard(live, pipeline)
    async with dashboard.client() as client:
        answer = await client.get("/health")
        assert (answer.status_code, answer.json()["failed"]) == (503, {failed: "RuntimeError: a bug"})
    assert dashboard.ends == 1
    assert dashboard.parts.guard.exit_code != 0


async def test_parts_that_are_told_to_stop_end_nothing() -> None:
    dashboard = Dashboard(_work, _work)
    async with dashboard.client() as client:
        assert (await client.get("/health")).status_code == 200
    assert (dashboard.ends, dashboard.parts.guard.exit_code) == (0, 0)


async def test_one_address_may_have_half_of_the_streams() -> None:
    parts = Parts(load_settings(dashboard_max_streams=4))
    app = create_app(parts)

    @asynccontextmanager
    async def open_stream(address: str) -> AsyncIterator[int]:
        opened, closed = asyncio.get_running_loop().create_future(), asyncio.Event()
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "method": "GET", "path": "/stream",
            "raw_path": b"/stream", "root_path": "", "scheme": "http", "query_string": b"", "headers": [],
            "server": ("dashboard", 80), "client": (address, 1),
        }  # fmt: skip

        async def receive() -> Message:
            await closed.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                opened.set_result(message["status"])

        task = asyncio.ensure_future(app(scope, receive, send))
        yield await opened
        closed.set()
        await task

    async with (
        open_stream("10.0.0.1") as first, open_stream("10.0.0.1") as second, open_stream("10.0.0.1") as third,
        open_stream("10.0.0.2") as other,
    ):  # fmt: skip
        assert [first, second, third, other] == [200, 200, 503, 200]
    async with open_stream("10.0.0.1") as again:
        assert again == 200


async def test_client_that_goes_before_the_first_event_leaves_no_stream_open() -> None:
    parts = Parts(load_settings())
    app = create_app(parts)
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "method": "GET", "path": "/stream",
        "raw_path": b"/stream", "root_path": "", "scheme": "http", "query_string": b"", "headers": [],
        "server": ("dashboard", 80), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    open_streams: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_: Message) -> None:
        open_streams.append(len(parts.hub))
        raise OSError("the client is gone")

    with pytest.raises(Exception, match=r"gone|^$"):
        await app(scope, receive, send)
    assert open_streams[0] == 1
    assert len(parts.hub) == 0
