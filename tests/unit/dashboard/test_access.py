"""Who gets into a dashboard with a password, and how guesses at it are slowed."""

from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from dashboard.access import Guesses
from dashboard.answers import Refusal
from dashboard.app import Parts, create_app
from marketdata.contract.http import Right
from runtime.api_keys import ApiKey, Secret, digest_of, write_keys
from runtime.settings import load_settings

WORD = "the-right-one"
NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Visitors:
    """Clients of one dashboard, each with an address of its own."""

    def __init__(self, folder: Path, *keys: ApiKey) -> None:
        path = folder / "keys.json"
        write_keys(path, list(keys))
        self.parts = Parts(load_settings(dashboard_password=WORD, keys_file=path))
        self._app = create_app(self.parts)

    def at(self, address: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self._app, client=(address, 1))
        return httpx.AsyncClient(transport=transport, base_url="http://dashboard")


def new_key(secret: bytes, **more: object) -> ApiKey:
    fields = {"name": "bot", "source": "", "rights": (Right.READ,), "secrets": (Secret(digest_of(secret), NOW),)} | more
    return ApiKey(**fields)  # type: ignore[arg-type]  # what a test chooses


async def test_a_key_that_may_read_opens_what_the_password_opens(tmp_path: Path) -> None:
    sender = new_key(b"sender", name="pc7", source="A", rights=(Right.INGEST,))
    visitors = Visitors(tmp_path, new_key(b"reader", requests_per_minute=3), sender)
    async with visitors.at("10.0.0.1") as client:
        assert (await client.get("/")).status_code == 401
        assert (await client.get("/", auth=("anybody", WORD))).status_code == 200
        assert (await client.get("/", auth=("anybody", "reader"))).status_code == 200
        assert (await client.get("/", headers={"X-API-Key": "reader"})).status_code == 200
        assert (await client.get("/", headers={"Authorization": "Bearer reader"})).status_code == 200
        limited = await client.get("/", headers={"X-API-Key": "reader"})
        assert (limited.status_code, limited.headers["Retry-After"]) == (429, "20")
        refused = await client.get("/", headers={"X-API-Key": "sender"})
        assert (refused.status_code, refused.json()["code"]) == (403, "RIGHT_MISSING")
        counted = (await client.get("/metrics")).text
    assert 'tickpipe_dashboard_key_requests_total{key="bot"} 4.0' in counted


async def test_guesses_at_the_password_are_slowed_whatever_the_last_one_is(tmp_path: Path) -> None:
    visitors = Visitors(tmp_path)
    async with visitors.at("10.0.0.1") as client, visitors.at("10.0.0.2") as other:
        for number in range(10):
            assert (await client.get("/", auth=("a", f"guess {number}"))).status_code == 401
        for guess in ("wrong again", WORD):
            answer = await client.get("/", auth=("a", guess))
            assert (answer.status_code, answer.json()["code"]) == (429, "TOO_MANY_GUESSES")
            assert 1 <= int(answer.headers["Retry-After"]) <= 6
        assert (await client.get("/")).status_code == 401  # asks, shows nothing
        assert (await other.get("/", auth=("a", WORD))).status_code == 200


async def test_who_was_let_in_before_is_not_locked_out_by_others_of_the_address(tmp_path: Path) -> None:
    visitors = Visitors(tmp_path)
    async with visitors.at("10.0.0.1") as browser, visitors.at("10.0.0.1") as guesser:
        assert (await browser.get("/", auth=("a", WORD))).status_code == 200
        for number in range(11):
            status = (await guesser.get("/", auth=("a", f"guess {number}"))).status_code
        assert status == 429
        assert (await browser.get("/", auth=("a", WORD))).status_code == 200
        # The cookie alone opens nothing, and does not come with a refusal.
        assert (await browser.get("/")).status_code == 401
        assert not guesser.cookies


def test_guesses_are_forgotten_one_after_the_other_and_addresses_are_bounded() -> None:
    now = 0.0
    guesses = Guesses(clock=lambda: now)
    for _ in range(10):
        guesses.check("a")
        guesses.note("a")
    with pytest.raises(Refusal):
        guesses.check("a")
    now = 6.0
    guesses.check("a")
    guesses.note("a")
    with pytest.raises(Refusal):
        guesses.check("a")
    for number in range(20_000):
        guesses.note(str(number))
    guesses.check("a")
    assert len(guesses._until) == 10_000
