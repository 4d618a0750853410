"""What a sender makes of each answer, and of none."""

import gc
import ssl
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from email.utils import formatdate
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.errors import SettingsError, TickpipeError
from runtime.exchange import Connection, address_of, is_this_machine
from runtime.posting import (
    BodyRefused,
    BodyTooLarge,
    ForeignAnswer,
    KeyRefused,
    NoAnswer,
    NoSuchEndpoint,
    Result,
    ServerRefused,
    ServerUnavailable,
    new_retrying,
    result_of,
    send_split,
)
from tests.certificates import Authority
from tests.ports import free_port
from tests.scripted import Answer, ScriptedServer, scripted_server


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as running:
        yield running


def answer_to_a_request(url: str, sent: int | None = 3) -> Result:
    with Connection(url, {}) as connection:
        return result_of(connection.post(f"{url}/ingest/tick", b'{"ticks":[{},{},{}]}'), sent)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, BodyRefused), (401, KeyRefused), (403, KeyRefused), (404, NoSuchEndpoint), (405, ServerRefused),
        (408, ServerUnavailable), (413, BodyTooLarge), (429, ServerUnavailable), (500, ServerUnavailable),
        (503, ServerUnavailable),
    ],
)  # fmt: skip
def test_each_refusal_is_an_error_that_knows_whether_to_try_again(
    server: ScriptedServer, status: int, error: type[TickpipeError]
) -> None:
    server.answers = [Answer(status, {"error": "because", "code": "WHY"})]
    with pytest.raises(error, match="because") as caught:
        answer_to_a_request(server.url)
    assert type(caught.value) is error
    assert caught.value.retriable is (error not in (BodyRefused, BodyTooLarge))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (301, ForeignAnswer), (400, ForeignAnswer), (401, ForeignAnswer), (403, ForeignAnswer), (404, NoSuchEndpoint),
        (405, ForeignAnswer), (409, ForeignAnswer), (413, BodyTooLarge), (511, ServerUnavailable),
    ],
)  # fmt: skip
def test_what_is_not_in_our_words_refuses_no_item_and_no_key(
    server: ScriptedServer, status: int, error: type[TickpipeError]
) -> None:
    server.answers = [Answer(status, {"message": "of a gateway"})]
    with pytest.raises(error) as caught:
        answer_to_a_request(server.url)
    assert type(caught.value) is error


def test_a_gateway_that_finds_one_item_too_large_is_not_believed(server: ScriptedServer) -> None:
    server.answers = [Answer(413, {}), Answer(413, {"error": "too large", "code": "PAYLOAD_TOO_LARGE"})]
    with pytest.raises(ForeignAnswer):
        answer_to_a_request(server.url, sent=1)
    with pytest.raises(BodyTooLarge):
        answer_to_a_request(server.url, sent=1)


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (200, {"ok": True, "received": 3, "inserted": 3, "duplicates": 0, "errors": 0, "total": 3}),
        (200, {"ok": True, "queued": True, "received": 3}),
        (202, {"received": 3}),
        (409, {"duplicates": 3}),
        (409, {"error": "all of them are here", "code": "DUPLICATE"}),
    ],
)
def test_what_counts_the_items_is_a_confirmation(server: ScriptedServer, status: int, answer: dict[str, Any]) -> None:
    server.answers = [Answer(status, answer)]
    assert answer_to_a_request(server.url) == Result(3, 0, {})


@pytest.mark.parametrize("received", [0, 2, 4, -3, True, "3", None, [3]])
def test_another_count_confirms_nothing(server: ScriptedServer, received: object) -> None:
    server.answers = [Answer(200, {"ok": True, "queued": True, "received": received})]
    with pytest.raises(ForeignAnswer):
        answer_to_a_request(server.url)


def test_refusals_come_with_their_reasons(server: ScriptedServer) -> None:
    details = [{"index": 1, "field": "bid", "message": "odd"}, {"index": "x"}, 7]
    server.answers = [
        Answer(207, {"errors": 1, "details": details}),
        Answer(207, {"errors": "many", "details": {}}),
        Answer(400, {"error": "odd", "code": "VALIDATION_ERROR", "details": details}),
    ]
    assert answer_to_a_request(server.url) == Result(3, 1, {1: "bid: odd"})
    assert answer_to_a_request(server.url) == Result(3, 0, {})
    assert answer_to_a_request(server.url) == Result(3, 3, {1: "bid: odd"})


def test_who_does_not_know_how_many_items_it_sent_is_told(server: ScriptedServer) -> None:
    server.answers = [Answer(200, {"received": 5}), Answer(200, {"received": 0})]
    assert answer_to_a_request(server.url, sent=None).sent == 5
    with pytest.raises(ForeignAnswer):
        answer_to_a_request(server.url, sent=None)


@pytest.mark.parametrize("form", ["seconds", "date", "nonsense"])
def test_retry_after_is_read_in_both_forms(server: ScriptedServer, form: str) -> None:
    said = {"seconds": "7", "date": formatdate(time.time() + 60, usegmt=True), "nonsense": "soon"}[form]
    server.answers = [Answer(503, {}, {"Retry-After": said})]
    with pytest.raises(ServerUnavailable) as caught:
        answer_to_a_request(server.url)
    at_least = {"seconds": 7, "date": 30, "nonsense": 0}[form]
    assert at_least <= caught.value.retry_after_seconds <= 60


def test_nobody_there_is_no_answer() -> None:
    with pytest.raises(NoAnswer, match="does not answer"):
        answer_to_a_request(f"http://127.0.0.1:{free_port()}")


def test_every_way_in_which_httpx_fails_to_ask_is_known() -> None:
    def below(error: type[Exception]) -> set[type[Exception]]:
        return {error}.union(*(below(each) for each in error.__subclasses__()))

    others = below(httpx.HTTPError) - below(httpx.RequestError)
    # Raised by raise_for_status alone, which nobody calls.
    assert others == {httpx.HTTPError, httpx.HTTPStatusError}


@pytest.mark.parametrize("url", ["", "127.0.0.1:18001", "ftp://host", "http://", "http://[::1"])
def test_what_is_no_address_is_wrong_use(url: str) -> None:
    with pytest.raises(SettingsError, match="no address"):
        Connection(url, {})


@pytest.mark.parametrize(
    "url",
    [
        "http://host:1", "http://host:1/", "http://host:1/ingest", "http://host:1/ingest/tick/", "http://host:1/Ingest/Tick",
        "http://host:1//ingest/tick", " http://host:1/ingest ",
    ],
)  # fmt: skip
def test_an_address_may_carry_a_route(url: str) -> None:
    assert address_of(url) == "http://host:1"


@pytest.mark.parametrize(
    ("url", "expected"),
    [("http://127.0.0.1:1", True), ("http://localhost", True), ("http://[::1]:1", True), ("http://10.0.0.1", False)],
)
def test_this_machine_is_known_by_its_loopback_address(url: str, expected: bool) -> None:
    assert is_this_machine(url) is expected


@given(
    items=st.lists(st.integers(0, 99), min_size=1, max_size=40),
    most=st.integers(1, 40),
    spoilt=st.sets(st.integers(0, 99), max_size=3),
)
def test_a_split_request_arrives_in_order_but_for_what_nobody_takes(
    items: list[int], most: int, spoilt: set[int]
) -> None:
    arrived: list[int] = []

    def send(part: Sequence[int]) -> Result:
        if len(part) > most:
            raise BodyTooLarge("too many")
        if spoilt & set(part):
            raise BodyRefused("something in it")
        arrived.extend(part)
        return Result(len(part), 0, {})

    def halves(part: Sequence[int]) -> Sequence[Sequence[int]]:
        middle = len(part) // 2
        return (part[:middle], part[middle:]) if middle else (part,)

    outcome = list(send_split(items, send, halves))

    assert [item for part, _ in outcome for item in part] == items
    assert arrived == [item for item in items if item not in spoilt]
    assert all(len(part) == 1 for part, answer in outcome if isinstance(answer, BodyRefused))


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("without_collector")
def test_a_body_is_freed_when_it_was_sent_without_the_collector(server: ScriptedServer) -> None:
    body = b'{"ticks":[{}]}' + b" " * 200_000
    held = sys.getrefcount(body)

    with Connection(server.url, {}) as connection:
        for _ in range(3):
            assert connection.post(f"{server.url}/ingest/tick", body).status == 200

    assert sys.getrefcount(body) == held


@pytest.mark.usefixtures("without_collector")
def test_a_body_that_is_too_large_is_freed_before_its_halves_are_sent() -> None:
    class Body:
        pass

    alive: weakref.WeakSet[Body] = weakref.WeakSet()
    most_alive = 0

    def send(part: Sequence[int]) -> Result:
        nonlocal most_alive
        body = Body()
        alive.add(body)
        most_alive = max(most_alive, len(alive))
        if len(part) > 1:
            raise BodyTooLarge("too many")
        return Result(1, 0, {})

    retrying = new_retrying(patience_seconds=None, on_wait=lambda exc, _seconds: None)
    list(send_split(range(8), lambda part: retrying(send, part), lambda part: (part[:1], part[1:])))

    assert most_alive == 1


def test_the_collector_comes_while_large_bodies_are_sent(server: ScriptedServer) -> None:
    """A sender that collected the youngest objects itself kept the older ones from ever being looked at."""
    thresholds = gc.get_threshold()
    gc.set_threshold(300, 1, 1)
    retrying = new_retrying(patience_seconds=None, on_wait=lambda exc, _seconds: None)
    collections = gc.get_stats()[1]["collections"]
    try:
        with Connection(server.url, {}) as connection:
            for _ in range(20):
                retrying(connection.post, f"{server.url}/ingest/tick", b'{"ticks":[{}]}' + b" " * 200_000)
    finally:
        gc.set_threshold(*thresholds)

    assert gc.get_stats()[1]["collections"] > collections


def test_what_may_succeed_later_is_tried_again_until_patience_ends() -> None:
    waits: list[str] = []
    retrying = new_retrying(patience_seconds=0.4, on_wait=lambda exc, _seconds: waits.append(str(exc)))

    def refuse() -> None:
        raise ServerUnavailable("later")

    with pytest.raises(ServerUnavailable, match="later"):
        retrying(refuse)
    assert waits
    assert set(waits) == {"later"}


def test_a_pause_ends_when_it_is_told_to() -> None:
    stop = threading.Event()
    retrying = new_retrying(patience_seconds=None, on_wait=lambda _exc, _seconds: stop.set(), stop=stop)
    began = time.monotonic()

    def refuse() -> None:
        raise ServerUnavailable("later", 300.0)

    with pytest.raises(ServerUnavailable):
        retrying(refuse)
    assert time.monotonic() - began < 30


def test_refusals_in_a_row_end_limited_patience_and_one_does_not() -> None:
    script: list[TickpipeError | None] = [
        KeyRefused("a"), KeyRefused("b"), ServerUnavailable("c"), KeyRefused("d"), KeyRefused("e"), None
    ]  # fmt: skip

    def ask() -> None:
        if (error := script.pop(0)) is not None:
            raise error

    waited: list[float] = []
    retrying = new_retrying(patience_seconds=60, on_wait=lambda _exc, _seconds: None)
    retrying.sleep = waited.append
    retrying(ask)
    assert script == []
    assert len(waited) == 5
    script = [KeyRefused("f"), KeyRefused("g"), KeyRefused("h"), None]
    with pytest.raises(KeyRefused, match="h"):
        retrying(ask)
    script = [KeyRefused("i") for _ in range(4)] + [None]
    patient = new_retrying(patience_seconds=None, on_wait=lambda _exc, _seconds: None)
    patient.sleep = waited.append
    patient(ask)
    assert script == []


def test_an_authority_of_ones_own_is_trusted_when_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.signed("server"))
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"https://127.0.0.1:{server.server_port}/"
        try:
            with Connection(url, {}) as connection, pytest.raises(NoAnswer, match="not trusted here"):
                connection.get(url)

            monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
            with Connection(url, {}) as connection:
                assert connection.get(url).status == 200
        finally:
            server.shutdown()


def test_an_address_without_tls_reads_no_authorities(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[ssl.SSLContext] = []
    usual = ssl.create_default_context

    def watched(**options: Any) -> ssl.SSLContext:
        made.append(usual(**options))
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", watched)
    with Connection(server.url, {}) as connection:
        connection.get(server.url)
    assert made == []
    with Connection("https://127.0.0.1", {}):
        assert len(made) == 1
