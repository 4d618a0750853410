"""What a sender makes of each answer, and of none."""

import threading
import time
from collections.abc import Iterator, Sequence
from email.utils import formatdate
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.errors import SettingsError, TickpipeError
from runtime.posting import (
    BodyRefused,
    BodyTooLarge,
    KeyRefused,
    NoAnswer,
    NoSuchEndpoint,
    ServerRefused,
    ServerUnavailable,
    address_of,
    is_this_machine,
    new_client,
    new_retrying,
    post,
    result_of,
    send_split,
)
from tests.ports import free_port
from tests.scripted import Answer, ScriptedServer, scripted_server


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as running:
        yield running


def answer_to_a_request(url: str) -> dict[str, object]:
    with new_client(url, {}) as client:
        return result_of(post(client, f"{url}/ingest/tick", b'{"ticks":[]}'))


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
    server.answers = [Answer(status, {"error": "because"})]
    with pytest.raises(error, match="because") as caught:
        answer_to_a_request(server.url)
    assert type(caught.value) is error
    assert caught.value.retriable is (error is ServerUnavailable)


@pytest.mark.parametrize("status", [200, 207, 409])
def test_what_was_taken_is_a_result(server: ScriptedServer, status: int) -> None:
    server.answers = [Answer(status, {"inserted": 1})]
    assert answer_to_a_request(server.url) == {"inserted": 1}


def test_a_400_with_details_means_that_every_item_is_an_error(server: ScriptedServer) -> None:
    server.answers = [Answer(400, {"details": [{"index": 0}]})]
    errors = answer_to_a_request(server.url)["errors"]
    assert isinstance(errors, int)
    assert errors >= 20_000  # the items of one body


@pytest.mark.parametrize("form", ["seconds", "date", "nonsense"])
def test_retry_after_is_read_in_both_forms(server: ScriptedServer, form: str) -> None:
    said = {"seconds": "7", "date": formatdate(time.time() + 60, usegmt=True), "nonsense": "soon"}[form]
    server.answers = [Answer(503, {}, {"Retry-After": said})]
    with pytest.raises(ServerUnavailable) as caught:
        answer_to_a_request(server.url)
    at_least = {"seconds": 7, "date": 30, "nonsense": 0}[form]
    assert at_least <= caught.value.retry_after_seconds <= 60


def test_an_answer_that_cannot_be_unpacked_is_none(server: ScriptedServer) -> None:
    server.answers = [Answer(200, {}, {"Content-Encoding": "gzip"})]
    with pytest.raises(NoAnswer):
        answer_to_a_request(server.url)


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
        new_client(url, {})


@pytest.mark.parametrize(
    "url",
    [
        "http://host:1", "http://host:1/", "http://host:1/ingest", "http://host:1/ingest/tick/", "http://host:1/Ingest/Tick",
        "http://host:1//ingest/tick",
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

    def send(part: Sequence[int]) -> dict[str, Any]:
        if len(part) > most:
            raise BodyTooLarge("too many")
        if spoilt & set(part):
            raise BodyRefused("something in it")
        arrived.extend(part)
        return {"inserted": len(part)}

    def halves(part: Sequence[int]) -> Sequence[Sequence[int]]:
        middle = len(part) // 2
        return (part[:middle], part[middle:]) if middle else (part,)

    outcome = list(send_split(items, send, halves))

    assert [item for part, _ in outcome for item in part] == items
    assert arrived == [item for item in items if item not in spoilt]
    assert all(len(part) == 1 for part, answer in outcome if isinstance(answer, BodyRefused))


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
