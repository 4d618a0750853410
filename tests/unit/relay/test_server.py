"""What `tickpipe relay check` finds, against a real server of the producer's application and against others."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from email.utils import formatdate

import pytest
import uvicorn

from producer.app import create_app
from relay.api import Api
from relay.forwarder import Totals
from relay.server import Finding, Server, check, check_relay
from relay.service import http_server
from relay.store import Store
from runtime.posting import Reply
from runtime.serving import server_config
from runtime.settings import load_settings
from tests.lying import PORTAL, lying_server
from tests.ports import free_port
from tests.unit.producer.conftest import ANY_KEY, KEY, new_settings
from tests.unit.producer.gateway import InMemoryGateway
from tests.unit.serving import served
from tests.waiting import PATIENCE_SECONDS


@pytest.fixture
def gateway() -> InMemoryGateway:
    return InMemoryGateway()


@pytest.fixture
def producer(gateway: InMemoryGateway) -> Iterator[str]:
    app = create_app(new_settings(), gateway=gateway)
    with served(uvicorn.Server(server_config(app, "127.0.0.1", free_port(), graceful_seconds=1))) as url:
        yield url


def checked(url: str, key: str, source: str | None = None) -> dict[str, Finding]:
    with Server(url, key) as server:
        return {finding.what: finding for finding in check(server, source)}


@pytest.mark.parametrize(
    ("key", "named", "expected"), [(KEY, None, "Broker-Demo"), (ANY_KEY, "XM.COM-Real 2", "XM.COM-Real 2")]
)
def test_all_is_well_and_nothing_is_stored(
    producer: str, gateway: InMemoryGateway, key: str, named: str | None, expected: str
) -> None:
    found = checked(f"{producer}/ingest/tick", key, named)
    assert list(found) == ["server", "clock", "key", "source", "test tick"]
    assert all(finding.is_good for finding in found.values()), found
    assert expected in found["source"].text
    assert "not stored" in found["test tick"].text
    assert gateway.records == []


def test_what_is_wrong_is_found(producer: str, gateway: InMemoryGateway) -> None:
    key = checked(producer, "another-key")["key"]
    assert (key.is_good, "TICKPIPE_API_KEYS" in key.text) == (False, True)
    source = checked(producer, KEY, "Another")["source"]
    assert (source.is_good, "another source" in source.text) == (False, True)
    gateway.is_open = False
    tick = checked(producer, KEY)["test tick"]
    assert (tick.is_good, "Kafka cannot be reached" in tick.text) == (False, True)
    nobody = checked(f"http://127.0.0.1:{free_port()}", KEY)
    assert (list(nobody), nobody["server"].is_good) == (["server"], False)


def test_a_relay_and_a_login_page_are_no_server(store: Store) -> None:
    with served(http_server(Api(store, load_settings()), "127.0.0.1", free_port())) as url:
        found = checked(url, KEY)
        assert "is a relay" in found["server"].text
    with lying_server() as lying:
        lying.lies = [PORTAL]
        found = checked(lying.url, KEY)
        assert (list(found), found["server"].is_good) == (["server"], False)
        assert "login page" in found["server"].text


def test_the_relay_is_tried_with_a_tick_that_it_does_not_store(store: Store) -> None:
    totals = Totals()
    api = Api(store, load_settings(), totals=totals)
    with served(http_server(api, "127.0.0.1", free_port())) as url:
        (found,) = check_relay(url, "http://server")
        assert (found.is_good, "0 rows wait" in found.text) == (True, True)
        totals.fail("the key is wrong", "key")
        (found,) = check_relay(url, "http://server")
        assert (found.is_good, "the key is wrong" in found.text) == (False, True)
    assert store.counts().last_id == 0


def test_a_relay_that_forwards_nothing_or_is_none_is_found(store: Store, producer: str) -> None:
    with served(http_server(Api(store, load_settings()), "127.0.0.1", free_port())) as url:
        (found,) = check_relay(url, "http://server")
        assert (found.is_good, "--forward http://server" in found.text) == (False, True)
    (found,) = check_relay(f"http://127.0.0.1:{free_port()}", "http://server")
    assert (found.is_good, "does it run?" in found.text) == (False, True)
    (found,) = check_relay(producer, "http://server")
    assert found.is_good is False


@pytest.mark.parametrize(("ahead", "is_good"), [(0, True), (30, True), (600, False), (-7_200, False)])
def test_clocks_are_compared(producer: str, ahead: float, *, is_good: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(producer, KEY) as server:
        get = server.connection.get

        def of_another_time(url: str) -> Reply:
            reply = get(url)
            return reply._replace(headers={"Date": formatdate(time.time() - ahead, usegmt=True)})

        monkeypatch.setattr(server.connection, "get", of_another_time)
        clock = next(finding for finding in check(server) if finding.what == "clock")
    assert clock.is_good is is_good
    assert (" s ahead of" in clock.text, " s behind" in clock.text) == (ahead > 0, ahead < 0)


@pytest.mark.parametrize(("key", "code", "line"), [(KEY, 0, "ok    key: "), ("another-key", 1, "WRONG key: ")])
def test_the_command_says_each_finding_and_whether_all_is_well(producer: str, key: str, code: int, line: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tickpipe", "relay", "check", "--to", producer],
        capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
        env={**os.environ, "TICKPIPE_RELAY_FORWARD_KEY": key},
    )  # fmt: skip
    assert ended.returncode == code, ended.stderr
    assert line in ended.stdout
    assert key not in ended.stdout + ended.stderr
