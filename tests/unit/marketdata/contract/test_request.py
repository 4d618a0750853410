"""Who sends: what a User-Agent and the first items of a body say of the broker's server and the account."""

import pytest

from marketdata.contract.request import Sender, sender_in

AGENT = b"PDC/1.65 (Account:%d; Server:%s; Build:3850)"
META = b'{"ticks":[{"meta":{"acct":%d,"srv":"%s"}}]}'


@pytest.mark.parametrize(
    ("agent", "body", "sender"),
    [
        (AGENT % (1, b"Agent"), META % (2, b"Meta"), Sender("Agent", "1")),
        (None, META % (2, b"Meta"), Sender("Meta", "2")),
        (b"tickpipe-relay (Server:Agent)", META % (2, b"Meta"), Sender("Agent", "2")),
        (b"curl", b'{"ticks":[]}', Sender()),
        # The field is named before it is said.
        (None, b'{"srv":1,"acct":null,"meta":{"srv":"Meta","acct":"2"}}', Sender("Meta", "2")),
        # Windows-1252, as terminals write it.
        (None, META % (2, b"B\xf6rse"), Sender("B\u00f6rse", "2")),
        (None, META % (2, b"x" * 65), Sender(None, "2")),
        (None, b" " * 4096 + META % (2, b"Meta"), Sender()),
    ],
)
def test_the_user_agent_comes_before_the_first_items(agent: bytes | None, body: bytes, sender: Sender) -> None:
    headers = {} if agent is None else {b"user-agent": agent}
    # Twice, for what was read once is remembered.
    assert [sender_in(headers, body), sender_in(headers, body)] == [sender, sender]
