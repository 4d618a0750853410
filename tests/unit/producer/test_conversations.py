"""The producer answers recorded conversations as the HTTP contract says."""

import pytest

from tests.conversations import Conversation, conversations
from tests.unit.producer.conftest import Bench


@pytest.mark.parametrize("conversation", conversations(), ids=lambda each: each.name)
async def test_every_request_gets_the_answer_that_its_sender_expects(bench: Bench, conversation: Conversation) -> None:
    for exchange in conversation.exchanges:
        headers = {name: value for name, value in exchange.headers.items() if name != "Authorization"}
        response = await bench.post(exchange.path, exchange.body, **headers)
        assert (response.status_code, response.json()) == (exchange.status, exchange.answer), exchange.why
