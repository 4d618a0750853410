"""Ticks over HTTP: two hours of the day, some of it sent twice, out of a real log and a real database."""

import csv
import io
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio
from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry

from marketdata.tick import Tick
from runtime.logreader import wait_for_log
from runtime.settings import Settings
from sink.db.connection import connect
from sink.db.schema import migrate
from sink.metrics import Metrics
from sink.writer import LogEnds, Writer
from tests import plainhttp, preloaded
from tests.integration.dashboard.market import market_settings
from tests.integration.dashboard.test_stream import events
from tests.integration.dashboard.test_stream import first as next_event
from tests.integration.sink.flow import Flow, day_frames
from tests.servers import EmbeddedServers
from tests.services import Service, environment, running
from tests.unit.marketdata.test_ticks import naive_candle
from tickpipe.replay.engine import set_offsets

FRAMES = 130

QUERY = "symbol=EURUSD&from=2019-02-04&to=2019-02-05"


@dataclass
class Ticks:
    """The dashboard, and what it has to show."""

    settings: Settings
    dashboard: Service
    ticks: list[Tick]
    records: int

    def get(self, path: str, **headers: str) -> httpx.Response:
        return plainhttp.get(
            self.dashboard.url + path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )

    def pages(self, path: str) -> list[list[dict[str, Any]]]:
        found = []
        url: httpx.URL | None = httpx.URL(self.dashboard.url + path)
        while url is not None:
            page = plainhttp.get(str(url)).json()
            found.append(page["ticks"])
            url = url.join(page["next"]) if page["next"] else None
            assert len(found) < 100
        return found


@pytest_asyncio.fixture(scope="module")
async def ticks(servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ticks]:
    settings = market_settings(servers, "ticks", tmp_path_factory.mktemp("ticks"))
    url = settings.database_url.get_secret_value()
    await migrate(url)
    log_name = await wait_for_log(settings)
    frames = day_frames()[:FRAMES]
    sent = [*frames, *frames[10:20], *frames[15:20]]
    async with Flow(settings, log_name) as flow, await connect(url) as connection:
        logged = await flow.log_frames(sent)
        writer = Writer(LogEnds(settings, log_name), Metrics(CollectorRegistry()))
        await writer.write(connection, flow.candles(logged))
        await set_offsets(settings, settings.stream_group, {TopicPartition(settings.ticks_topic, 0): len(sent)})
    with running(settings, "dashboard") as (dashboard,):
        yield Ticks(settings, dashboard, [tick for one in frames for tick in one.ticks], len(sent))


def values(tick: Tick) -> tuple[Any, ...]:
    return tick.time_msc, tick.bid, tick.ask, tick.last, tick.volume, tick.flags


def rows(found: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(one[name] for name in ("time_msc", "bid", "ask", "last", "volume", "flags")) for one in found]


def test_every_form_has_every_tick_once(ticks: Ticks) -> None:
    expected = list(map(values, ticks.ticks))
    assert rows(ticks.get(f"/ticks?{QUERY}&limit=20000").json()["ticks"]) == expected
    as_csv = ticks.get(f"/ticks?{QUERY}&limit=20000&format=csv")
    assert as_csv.text.partition("\n")[0] == "time,time_msc,bid,ask,last,volume,flags"
    assert parsed("csv", as_csv) == expected
    import polars  # noqa: PLC0415  # slow to load

    frame = polars.read_ipc_stream(
        ticks.get(f"/ticks?{QUERY}&limit=20000", accept="application/vnd.apache.arrow.stream").content
    )
    assert frame.drop("time").rows() == expected
    assert frame["time"][0] == datetime.fromtimestamp(expected[0][0] / 1000, UTC)


def test_pages_join_and_raw_ones_hold_every_record(ticks: Ticks) -> None:
    pages = ticks.pages(f"/ticks?{QUERY}&limit=1999")
    assert [len(page) for page in pages[:-1]] == [1999] * (len(pages) - 1)
    assert rows([tick for page in pages for tick in page]) == list(map(values, ticks.ticks))
    raw = [tick for page in ticks.pages(f"/ticks?{QUERY}&raw=true&limit=3000") for tick in page]
    assert len(raw) == ticks.records * 100
    assert len({(one["partition"], one["offset"], one["index"]) for one in raw}) == len(raw)
    assert {one["offset"] for one in raw} == set(range(ticks.records))


@pytest.mark.parametrize("form", ["json", "csv", "arrow"])
def test_large_pages_are_sent_while_they_are_read_and_join_with_others(ticks: Ticks, form: str) -> None:
    expected = list(map(values, ticks.ticks))
    path = f"/ticks?{QUERY}&format={form}&limit="
    whole, large = ticks.get(path + "200000"), ticks.get(path + "11000", accept_encoding="identity")
    rest = httpx.URL(ticks.dashboard.url + "/ticks").join(large.headers["link"].partition(";")[0].strip("<>"))

    assert "content-length" not in whole.headers
    assert "content-length" not in large.headers
    assert "link" not in whole.headers
    found = [parsed(form, answer) for answer in (whole, large, plainhttp.get(f"{rest}&format={form}"))]
    assert found[0] == found[1] + found[2] == expected
    assert len(found[1]) == 11_000
    # What the minutes were folded from tells whether a client has them, without reading the log.
    assert ticks.get(path + "200000", if_none_match=whole.headers["etag"]).status_code == 304
    head = plainhttp.head(ticks.dashboard.url + path + "11000")
    assert (head.headers["etag"], head.headers["link"]) == (large.headers["etag"], large.headers["link"])
    # From within a minute on, and with a cursor: rows of one millisecond are cut between pages.
    late = [row for row in expected if row[0] >= expected[500][0] + 1]
    assert parsed(form, ticks.get(path + f"200000&cursor={expected[500][0] + 1}-0")) == late
    assert parsed(form, ticks.get(path + f"200000&cursor={late[0][0]}-1")) == late[1:]
    part = ticks.get(path + f"11000&cursor={late[0][0]}-1")
    assert parsed(form, part) == late[1:11_001]
    assert "link" in part.headers


def test_large_page_that_is_full_at_the_end_of_a_minute_leads_to_the_next(ticks: Ticks) -> None:
    expected = list(map(values, ticks.ticks))
    full = next(
        number
        for number in range(10_001, len(expected))
        if expected[number - 1][0] // 60_000 < expected[number][0] // 60_000
    )
    pages = ticks.pages(f"/ticks?{QUERY}&limit={full}")
    assert [len(page) for page in pages] == [full, len(expected) - full]
    assert rows([tick for page in pages for tick in page]) == expected
    # The page that follows such a one begins with a minute of which nothing is left, and has much to come.
    first = sum(row[0] < expected[0][0] // 60_000 * 60_000 + 60_000 for row in expected)
    given = sum(row[0] == expected[first - 1][0] for row in expected)
    (page,) = ticks.pages(f"/ticks?{QUERY}&limit=200000&cursor={expected[first - 1][0]}-{given}")
    assert rows(page) == expected[first:]


def parsed(form: str, answer: httpx.Response) -> list[tuple[Any, ...]]:
    if form == "json":
        return rows(answer.json()["ticks"])
    if form == "arrow":
        import polars  # noqa: PLC0415  # slow to load

        return polars.read_ipc_stream(answer.content).drop("time").rows()
    _, *lines = csv.reader(io.StringIO(answer.text))
    return [(int(cells[1]), *map(float, cells[2:6]), int(cells[6])) for cells in lines]


@pytest.mark.parametrize(("timeframe", "at"), [("M1", "2019-02-04T00:07Z"), ("M5", "1549238820000")])
def test_the_ticks_behind_a_candle_fold_to_it(ticks: Ticks, timeframe: str, at: str) -> None:
    answer = ticks.get(f"/candles/{at}/ticks?symbol=EURUSD&timeframe={timeframe}").json()

    (candle,) = ticks.get(f"/candles?symbol=EURUSD&timeframe={timeframe}&from={answer['from']}&limit=1").json()[
        "candles"
    ]
    assert candle["ts"] == answer["from"].replace(".000Z", "Z")
    assert naive_candle(rows(answer["ticks"]), "bid") == (
        candle["open"], candle["high"], candle["low"], candle["close"], candle["volume"], candle["real_volume"],
    )  # fmt: skip
    paged = ticks.pages(f"/candles/{at}/ticks?symbol=EURUSD&timeframe={timeframe}&limit=40")
    assert len(paged) > 1
    assert [tick for page in paged for tick in page] == answer["ticks"]


@pytest.mark.parametrize(
    ("path", "cure"),
    [
        ("/ticks?symbol=EURUSD", "from: say from when on"),
        ("/ticks?from=2019-02-04", "symbol: Field required"),
        (f"/ticks?{QUERY}&cursor=x", "cursor: take it from `next`"),
        (f"/ticks?{QUERY}&limit=200001", "limit: "),
        (f"/ticks?{QUERY}&format=mt5", "use one of json, csv, arrow"),
        (f"/ticks?{QUERY}&page=2", "page: no such parameter; use cursor, format, from"),
        ("/ticks?symbol=EURUSD&from=2019-02-05&to=2019-02-04", "`from` must be before `to`"),
        ("/ticks?symbol=EURUSD&from=1969-02-05&to=2019-02-04", "ticks begin in 1970"),
        ("/candles/noon/ticks?symbol=EURUSD", "ts: 'noon' is no time"),
        ("/candles/2019-02-04/ticks?symbol=EURUSD&timeframe=M2", "timeframe: 'M2' is no timeframe"),
    ],
)
def test_error_tells_the_cure(ticks: Ticks, path: str, cure: str) -> None:
    answer = ticks.get(path)
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_PARAMETER")
    assert cure in answer.json()["error"]


def test_it_answers_as_the_other_reads_do(ticks: Ticks) -> None:
    path = f"/ticks?{QUERY}&limit=5"
    got, head = ticks.get(path), plainhttp.head(ticks.dashboard.url + path)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", got.headers["etag"])
    assert head.headers["link"] == f'<{got.json()["next"]}>; rel="next"'
    assert ticks.get(path, if_none_match=got.headers["etag"]).status_code == 304
    assert ticks.get(path, accept_encoding="gzip").headers["content-encoding"] == "gzip"
    assert "content-encoding" not in ticks.get(path, accept_encoding="identity").headers
    nobody = ticks.get("/ticks?symbol=NONE&from=2019-02-04").json()
    assert (nobody["ticks"], nobody["source"], nobody["next"]) == ([], None, None)
    documented = ticks.get("/openapi.json").json()["paths"]
    assert {"/ticks", "/candles/{ts}/ticks"} <= set(documented)
    assert "429" in documented["/ticks"]["get"]["responses"]


def test_the_command_gives_the_same(ticks: Ticks) -> None:
    command = ["tickpipe", "ticks", "-s", "EURUSD", "--from", "2019-02-04", "--to", "2019-02-05"]
    of_command = preloaded.run([*command, "--format", "csv"], environment=environment(ticks.settings))
    assert of_command.stdout == ticks.get(f"/ticks?{QUERY}&limit=20000&format=csv").text
    table = preloaded.run(command, environment=environment(ticks.settings))
    assert table.stdout.count("2019-02-04T") == 50
    assert f"… and {len(ticks.ticks) - 50:,} more of {len(ticks.ticks):,}" in table.stderr


async def test_live_ticks_come_as_they_are_received_and_go_on_behind_the_last(ticks: Ticks) -> None:
    url = f"{ticks.dashboard.url}/stream/ticks?symbol=LIVE/1&symbol=LIVE2"
    log_name = await wait_for_log(ticks.settings)
    first, second, other = (msgspec.structs.replace(day_frames()[n], symbol=name) for n, name in enumerate(
        ("LIVE/1", "LIVE2", "OTHER")
    ))  # fmt: skip
    async with Flow(ticks.settings, log_name) as flow:
        async with aclosing(events(url, "ticks")) as stream:
            assert (await anext(stream))["event"] == "ping"
            await flow.log_frames([first, other, first])
            got = [await next_event(stream, "ticks") for _ in range(2)]
        # While nobody listens.
        await flow.log_frames([second, other])
        async with aclosing(events(url, "ticks", "gap", last_event_id=got[0]["id"])) as stream:
            resumed = [await next_event(stream, "ticks") for _ in range(2)]

    # What was received twice is told twice.
    assert [one["symbol"] for one in got] == ["LIVE/1", "LIVE/1"]
    assert rows(got[0]["ticks"]) == rows(got[1]["ticks"]) == list(map(values, first.ticks))
    assert got[1]["offset"] == got[0]["offset"] + 2
    assert resumed[0] == got[1]
    assert (resumed[1]["symbol"], rows(resumed[1]["ticks"])) == ("LIVE2", list(map(values, second.ticks)))


@pytest.mark.parametrize(
    ("path", "cure"),
    [
        ("/stream/ticks", "symbol: Field required"),
        ("/stream/ticks?symbol=EURUSD&since=x", "since: take the id of an event of this stream"),
        ("/stream/ticks?" + "&".join(f"symbol=S{n}" for n in range(51)), "symbol: 50 at most"),
        ("/stream/ticks?symbol=EURUSD&timeframe=M1", "timeframe: no such parameter; use since, source, symbol"),
    ],
)
def test_streams_of_ticks_that_cannot_be_are_refused(ticks: Ticks, path: str, cure: str) -> None:
    answer = ticks.get(path)
    assert answer.status_code == 400
    assert cure in answer.json()["error"]
