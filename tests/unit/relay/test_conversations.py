"""The relay answers recorded conversations as the HTTP contract says, and hands them on as they came."""

import json

import pytest

from marketdata.contract.body import decode
from relay.api import Api
from relay.pending import Pending
from relay.store import Store
from runtime.settings import load_settings
from tests.conversations import Conversation, conversations
from tests.unit.relay.test_api import call


@pytest.mark.parametrize("conversation", conversations(), ids=lambda each: each.name)
def test_every_request_gets_the_answer_that_its_sender_expects(store: Store, conversation: Conversation) -> None:
    api = Api(store, load_settings())
    for exchange in conversation.exchanges:
        headers = {name.lower(): value for name, value in exchange.headers.items()}
        status, answer, _ = call(api, exchange.body, exchange.path, **headers)
        queued = {"queued": True} if exchange.answer.get("ok") else {}
        assert (status, answer) == (exchange.status, exchange.answer | queued), exchange.why


@pytest.mark.parametrize("conversation", conversations(), ids=lambda each: each.name)
def test_what_was_taken_is_handed_on_as_it_came(store: Store, conversation: Conversation) -> None:
    api = Api(store, load_settings())
    sent = []
    for exchange in conversation.exchanges:
        call(api, exchange.body, exchange.path)
        body = decode(exchange.body)
        refused = {detail["index"] for detail in exchange.answer.get("details", ())}
        sent += [item for index, item in enumerate(body.items) if index not in refused]

    pending = Pending(store, limit=10)
    handed_on = []
    while parts := pending.next_request():
        handed_on += [json.loads(row.item) for part in parts for row in part]

    assert len(handed_on) == len(sent)
    for symbol in {item["symbol"] for item in sent}:
        assert [i for i in handed_on if i["symbol"] == symbol] == [i for i in sent if i["symbol"] == symbol]
