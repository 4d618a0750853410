"""What the server wants goes to the senders that can fill, and their reports to the server, behind the rows before."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from relay.api import Api
from relay.back_channel import Reports, Wishes
from relay.forwarder import BATCH, Forwarder
from relay.pending import Pending
from relay.server import Server
from relay.store import Store
from runtime.settings import load_settings
from tests.scripted import Answer, ScriptedServer
from tests.unit.relay.rows import BASE, tick
from tests.unit.relay.test_api import call
from tests.unit.relay.test_status import get, words

HOUR_MS = 3_600_000
FIRST_MS = BASE // HOUR_MS * HOUR_MS
RANGE = {"symbol": "EURUSD", "from": FIRST_MS, "to": FIRST_MS + HOUR_MS}
AGENT = "DataCollectorPRO/2.00 (Server:Broker-Demo; Account:0f; Build:5000)"


class Desk:
    """A relay without its threads."""

    def __init__(self, db: Path, server: ScriptedServer) -> None:
        self.now = 1_000.0
        self.wishes = Wishes(lambda: self.now)
        self.store = Store(db)
        self.api = Api(self.store, load_settings(), wishes=self.wishes)
        self.server = Server(server.url, "key")
        self.server.can_fill, self.server.on_answer = self.wishes.has_sender, self.wishes.take
        self.reports = Reports(self.store, self.wishes.counts, lambda: self.now)
        self.forwarder = Forwarder(self.store, self.server, Pending(self.store, limit=BATCH), reports=self.reports)

    def forward(self) -> None:
        while self.forwarder.step():
            self.forwarder._after_step()
        self.forwarder._after_step()

    def post(self, first: int, *, path: str = "/ingest/tick", agent: str = AGENT, **headers: str) -> dict[str, Any]:
        body = json.dumps({"ticks": [tick(first)]}).encode()
        status, answer, _ = call(self.api, body, path, user_agent=agent, **headers)
        assert status == 200, answer
        return answer

    def report(self, **report: Any) -> tuple[int, dict[str, Any]]:
        body = json.dumps({"fills": [RANGE | report]}).encode()
        return call(self.api, body, "/fills", user_agent=AGENT)[:2]

    def close(self) -> None:
        self.server.connection.close()
        self.store.close()


@pytest.fixture
def desk(tmp_path: Path, server: ScriptedServer) -> Iterator[Desk]:
    desk = Desk(tmp_path / "ea.db", server)
    yield desk
    desk.close()


def test_what_is_wanted_goes_to_senders_of_that_source_that_can_fill(desk: Desk, server: ScriptedServer) -> None:
    server.wanted = [RANGE]
    assert "wanted" not in desk.post(0, x_can_fill="ticks")
    desk.forward()
    assert server.requests[-1].headers["X-Can-Fill"] == "ticks"
    assert desk.post(1, x_can_fill="ticks")["wanted"] == [RANGE]
    assert "wanted" not in desk.post(2)
    assert "wanted" not in desk.post(3, x_can_fill="ticks", agent="EA/1 (Server:Other-Live)")
    assert "wanted" not in desk.post(4, x_can_fill="ticks", x_source="mine")
    # The newest answer counts, and one that is old counts no more.
    server.wanted = []
    desk.forward()
    assert "wanted" not in desk.post(5, x_can_fill="ticks")
    server.wanted = [RANGE]
    desk.forward()
    desk.now += 601
    assert "wanted" not in desk.post(6, x_can_fill="ticks")


def test_the_server_is_only_asked_while_a_sender_can_fill(desk: Desk, server: ScriptedServer) -> None:
    desk.post(0)
    desk.forward()
    desk.post(1, x_can_fill="ticks")
    desk.now += 601
    desk.forward()
    assert not any("X-Can-Fill" in request.headers for request in server.requests)


@pytest.mark.parametrize("wanted", [5, [5], [{"symbol": "EURUSD"}], [RANGE] * 100])
def test_an_answer_that_no_server_gives_does_no_harm(desk: Desk, server: ScriptedServer, wanted: Any) -> None:
    desk.post(0, x_can_fill="ticks")
    server.answers = [Answer(200, {"ok": True, "wanted": wanted})]
    desk.forward()
    assert len(desk.post(1, x_can_fill="ticks").get("wanted", [])) in (0, 8)


def test_ticks_of_a_fill_are_forwarded_as_such_and_never_joined_with_others(desk: Desk, server: ScriptedServer) -> None:
    for n, is_fill in enumerate([False, True, True, False]):
        desk.post(n, **({"x_fill": "ticks"} if is_fill else {}))
    desk.forward()
    sent = [(request.headers.get("X-Fill"), len(request.items)) for request in server.requests]
    assert sent == [(None, 1), ("ticks", 2), (None, 1)]


def test_a_report_goes_behind_the_rows_before_it_also_after_a_restart(
    desk: Desk, server: ScriptedServer, tmp_path: Path
) -> None:
    desk.post(0, x_fill="ticks")
    assert desk.report(ticks=1) == (200, {"ok": True, "queued": True, "received": 1})
    desk.reports.forward(desk.server, desk.forwarder.pending.confirmed_before)
    assert server.fills == []
    desk.close()
    again = Desk(tmp_path / "ea.db", server)
    try:
        again.reports.forward(again.server, again.forwarder.pending.confirmed_before)
        assert server.fills == []
        again.forward()
        again.forward()
    finally:
        again.close()
    (report,) = server.fills
    assert report.body == {"fills": [RANGE | {"ticks": 1}]}
    assert "Server:Broker-Demo; Account:0f" in report.headers["User-Agent"]


def test_a_report_of_an_empty_file_is_sent(desk: Desk, server: ScriptedServer) -> None:
    desk.report(ticks=0)
    desk.forward()
    assert [request.items for request in server.fills] == [[RANGE | {"ticks": 0}]]


@pytest.mark.parametrize("status", [503, 404, 401])
def test_rows_never_wait_for_a_report(desk: Desk, server: ScriptedServer, status: int) -> None:
    server.answers_to_fills = [Answer(status, {"error": "no", "code": "NO"})]
    desk.report(error="4401")
    for n in range(3):
        desk.post(n)
        desk.forward()
    assert (len(server.taken), len(server.fills)) == (3, 1)
    desk.now += 600
    desk.forward()
    desk.forward()
    assert [request.status for request in server.fills] == [status, 200]


@pytest.mark.parametrize(
    "answer", [Answer(400, {"error": "no", "code": "VALIDATION_ERROR"}), Answer(207, {"errors": 1})]
)
def test_a_report_that_the_server_refuses_is_not_sent_again(desk: Desk, server: ScriptedServer, answer: Answer) -> None:
    server.answers_to_fills = [answer]
    desk.report(ticks=-1)
    desk.report(ticks=2)
    desk.forward()
    desk.now += 600
    desk.forward()
    assert [request.items[0]["ticks"] for request in server.fills] == [-1, 2]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"fills":5}', b'{"fills":[5]}', b"\xff", b"[" * 5_000])
def test_a_body_without_reports_is_refused(desk: Desk, body: bytes) -> None:
    status, answer, _ = call(desk.api, body, "/fills")
    assert (status, answer["code"]) == (400, "VALIDATION_ERROR")


def test_reports_are_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.back_channel._MOST_REPORTS", 3)
    for n in range(6):
        desk.report(ticks=n)
    rows = desk.store.connection.execute("SELECT body FROM reports ORDER BY id").fetchall()
    assert [json.loads(body)["fills"][0]["ticks"] for (body,) in rows] == [3, 4, 5]


def test_a_dry_run_stores_no_report(desk: Desk) -> None:
    body = json.dumps({"fills": [RANGE | {"ticks": 1}]}).encode()
    assert call(desk.api, body, "/fills", x_dry_run="1")[0] == 200
    assert desk.store.connection.execute("SELECT count(*) FROM reports").fetchone() == (0,)


def test_metrics_and_the_page_say_what_became_of_what_was_asked_for(desk: Desk, server: ScriptedServer) -> None:
    api = Api(desk.store, load_settings(), wishes=desk.wishes, totals=desk.forwarder.totals)
    later = RANGE | {"from": FIRST_MS + HOUR_MS, "to": FIRST_MS + 2 * HOUR_MS}
    desk.post(0, x_can_fill="ticks")
    for wanted in ([RANGE], [RANGE, later], [later]):
        server.wanted = wanted
        desk.post(1, x_can_fill="ticks")
        desk.forward()

    server.answers_to_fills = [
        Answer(200),
        Answer(503),
        Answer(200),
        Answer(207, {"received": 1, "errors": 1, "details": [{"index": 0, "message": "no"}]}),
        Answer(400, {"error": "no", "code": "VALIDATION_ERROR"}),
    ]
    for report in ({"ticks": 1_200}, {"error": "4401"}, {"ticks": 7}, {"ticks": -1}):
        desk.report(**report)
    desk.forward()
    desk.now += 600
    desk.forward()

    assert asdict(desk.wishes.counts) == {"asked": 2, "done": 1, "failed": 3, "ticks": 1_200}
    text = generate_latest(api.metrics.registry).decode()
    for line in ("fills_asked_total 2.0", "fills_done_total 1.0", "fills_failed_total 3.0", "fills_ticks_total 1200.0"):
        assert f"\ntickpipe_relay_{line}\n" in text
    for query, row in (
        ("lang=en", "What the server lacked, since the start 2 ranges asked for, 1 filled, 3 not; 1,200 ticks"),
        (
            "lang=pt",
            "O que faltava no servidor, desde o início 2 intervalos pedidos, 1 preenchidos, 3 não; 1.200 ticks",
        ),
    ):
        assert row in words(get(api, "/", query)[1])
