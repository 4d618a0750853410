"""What a request says beside its items."""

import pytest

from marketdata.contract.http import (
    NOBODY,
    Refusal,
    Sender,
    _meta_in,
    check_said_once,
    route_of,
    sender_in,
    source_in,
)

AGENT = "DataCollectorPRO/PDC/1.65 (Account:12345; Server:Broker-Demo; Build:3850; Symbols:28; trace_id:0f3a9c)"
META = '{"ea":"PDC","ver":"1.64","src":"tick","acct":99,"srv":"Other-Real 2","build":3851}'


@pytest.mark.parametrize(
    ("agent", "meta", "expected"),
    [
        ("", "", NOBODY),
        (AGENT, "", Sender("Broker-Demo", "12345", "3850", "DataCollectorPRO/PDC", "1.65")),
        ("", META, Sender("Other-Real 2", "99", "3851", "PDC", "1.64")),
        # The server decides the source, and goes by the User-Agent; the rest is the EA's own word.
        (AGENT, META, Sender("Broker-Demo", "12345", "3851", "PDC", "1.64")),
        # A relay sends on what an EA wrote.
        ("tickpipe-relay/1.0 (Server:Broker-Demo)", META, Sender("Broker-Demo", "99", "3851", "PDC", "1.64")),
        ("DataCollectorPRO/2.0 (Server:X; Build:9)", "", Sender("X", "", "9", "DataCollectorPRO", "2.0")),
        # An account that does not leave the PC as a number.
        ("EA/1 (Account:9f86d081884c7d65; Server:X)", "", Sender("X", "9f86d081884c7d65", "", "EA", "1")),
        ("EA/1 (Account:***45; Server:X)", "", Sender("X", "***45", "", "EA", "1")),
        ("", '{"acct":"5e884898da28"}', Sender(account="5e884898da28")),
        ("python-requests/2.32.3", "", Sender(ea="python-requests", version="2.32.3")),
        ("curl", "", Sender(ea="curl")),
        ("ea/1 (account:7; server:b; build:9)", "", Sender("b", "7", "9", "ea", "1")),
        ("EA (Server:\x01bad)", "", Sender(ea="EA")),
        (f"EA (Server:{'x' * 65})", "", Sender(ea="EA")),
    ],
)
def test_a_sender_is_read_from_its_user_agent_and_from_meta(agent: str, meta: str, expected: Sender) -> None:
    body = f'{{"ticks":[{{"symbol":"EURUSD","bid":1.1{f",{chr(34)}meta{chr(34)}:{meta}" if meta else ""}}}]}}'.encode()

    assert sender_in({b"user-agent": agent.encode("cp1252")}, body) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'[{"meta":null},{"meta":{}},{"meta":{"ea":"PDC","srv":"B"}}]', Sender("B", ea="PDC")),
        (b'[{"meta":{"ts":1,"meta":{"acct":"7","srv":"B"}}}]', Sender("B", "7")),
        (b'[{"meta":{"x":{},"srv":"B"}}]', Sender("B")),
        (b'[{"meta":{"acct":7}}]', Sender(account="7")),
        # The field is named before it is said.
        (b'{"srv":1,"acct":null,"meta":{"srv":"Meta","acct":"2"}}', Sender("Meta", "2")),
        # As json writes it in Python and PHP, and MQL with the end of its text.
        (
            b'[{"meta":{"srv":"B\\u00f6rse \\/ 2","ea":"\\u042f","ver":"1\\/2"}}]',
            Sender("Börse / 2", ea="Я", version="1/2"),
        ),
        (b'[{"meta":{"srv":" B\0","acct":"7"}},{"meta":{"srv":"C"}}]', Sender("B", "7")),
        (b'[{"meta":{"srv":"B\\u0000"}}]', Sender("B")),
        (b'[{"meta":{"srv":"B\\x"}}]', Sender("B\\x")),
        # Windows-1252, as terminals write it.
        (b'[{"meta":{"srv":"B\xf6rse"}}]', Sender("B\u00f6rse")),
        (b'[{"meta":{"srv":"' + b"x" * 65 + b'","acct":2}}]', Sender("", "2")),
        (b" " * 4096 + b'[{"meta":{"srv":"B"}}]', NOBODY),
        (b'[{"meta":{"srv":"B","note":"' + b"x" * 100_000, Sender("B")),
        (b'[{"meta":{"note":"' + b"x" * 100_000 + b'","srv":"B"}}]', NOBODY),
    ],
)
def test_meta_is_found_in_the_first_items(body: bytes, expected: Sender) -> None:
    assert sender_in({}, body) == expected


def test_no_more_than_a_meta_is_remembered_of_a_body() -> None:
    """Each of these would stay in the cache with all its bytes."""
    for body in (b'{"meta":' + b"x" * 100_000, b'{"srv":' + b"x" * 100_000, b'"srv"' + b"x" * 100_000):
        assert len(_meta_in(body)) <= 1024


def test_a_body_that_is_no_body_has_no_sender() -> None:
    assert sender_in({}, b'"meta"') == NOBODY
    assert sender_in({}, b'{"meta":{"srv":"Broker' + b"x" * 5000) == NOBODY


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("http://127.0.0.1:18000/ingest/tick", "/ingest/tick"), ("HTTPS://H.example//Ingest/", "/ingest"),
        ("http://h.example", "/"), ("/http://h/ingest", "/http:/h/ingest"),
    ],
)  # fmt: skip
def test_a_client_that_speaks_through_a_proxy_names_the_server_before_the_path(path: str, route: str) -> None:
    assert route_of(path) == route


def test_a_header_that_counts_may_stand_twice_but_say_one_thing() -> None:
    said = [(b"x-source", b"A"), (b"x-source", b"A "), (b"accept", b"a"), (b"accept", b"b")]
    check_said_once(dict(said), said)
    for name in (b"x-source", b"x-api-key", b"authorization", b"content-encoding", b"x-dry-run"):
        pairs = [(name, b"gzip"), (b"host", b"x"), (name, b"identity")]
        with pytest.raises(Refusal, match=name.decode()):
            check_said_once(dict(pairs), pairs)


def test_a_source_in_the_cyrillic_of_a_pc_would_be_another_in_windows_1252() -> None:
    assert source_in({b"x-source": "Открытие".encode()}) == "Открытие"
    assert source_in({b"x-source": "Société £".encode("cp1252")}) == "Société £"
    with pytest.raises(Refusal, match="in UTF-8"):
        source_in({b"x-source": "Открытие".encode("cp1251")})
