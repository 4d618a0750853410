"""Whether there is a key, and how many new symbols one may bring."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from marketdata.contract.http import Refusal, Right
from marketdata.errors import SettingsError
from producer.app import create_app
from producer.auth import NewSymbols
from runtime.api_keys import ApiKey, Secret, digest_of, write_keys
from tests.unit.producer.conftest import new_bench, new_settings

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def test_without_a_key_there_is_no_application() -> None:
    with pytest.raises(SettingsError, match="TICKPIPE_API_KEYS"):
        create_app(new_settings(api_keys={}))


@pytest.mark.parametrize("source", ["", "x" * 65, "a\nb"])
def test_a_source_that_no_frame_can_carry_is_refused_at_start(source: str) -> None:
    with pytest.raises(SettingsError, match="TICKPIPE_API_KEYS"):
        create_app(new_settings(api_keys={source: "long-enough"}))


def test_new_symbols_are_limited_by_key_and_hour_and_known_ones_are_not() -> None:
    now = 1_800.0
    symbols = NewSymbols(3, clock=lambda: now)
    symbols.check("a", ["X", "Y"])
    with pytest.raises(Refusal, match="2 new symbols in this hour, and the request has 2 more") as refused:
        symbols.check("a", ["X", "V", "W"])
    assert (refused.value.status, refused.value.retry_after_seconds) == (429, 1_800)
    symbols.check("a", ["X", "Y", "Z"])
    symbols.check("b", ["V", "W"])

    now = 3_600.0
    symbols.check("a", ["X", "P", "Q", "R"])
    now = 7_200.0
    # Z was last sent two hours ago.
    symbols.check("a", ["X", "P", "Q", "R", "Z", "1", "2"])
    with pytest.raises(Refusal):
        symbols.check("a", ["3"])


async def test_a_key_of_the_file_writes_its_own_source_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    given = (("pc7", "A", Right.INGEST, 2), ("bot", "", Right.READ, 0), ("boss", "", Right.ADMIN, 0))
    keys = [
        ApiKey(
            name=name, source=source, rights=(right,), secrets=(Secret(digest_of(name.encode()), NOW),),
            ticks_per_minute=ticks,
        )
        for name, source, right, ticks in given
    ]  # fmt: skip
    write_keys(path, keys)
    bench = new_bench(api_keys={}, keys_file=path)

    async def code(key: str, source: str = "", ticks: int = 1) -> str:
        body = [{"time": 1_760_926_800, "symbol": "EURUSD", "bid": 1.1, "ask": 1.2}] * ticks
        answer = await bench.post("/ingest/tick", body, X_API_Key=key, **({"X_Source": source} if source else {}))
        return str(answer.json().get("code", answer.status_code))

    async with bench.client:
        assert await code("pc7", "B") == "FORBIDDEN"
        assert await code("pc7") == "200"
        assert await code("boss", "B") == "200"
        assert {frame.source for frame in bench.frames} == {"A", "B"}
        assert await code("bot") == "RIGHT_MISSING"
        assert await code("pc7", ticks=2) == "200"  # one was left
        assert await code("pc7") == "RATE_LIMITED"
        assert (await bench.client.get("/windows/", auth=("any", "bot"))).status_code == 403
        counted = (await bench.client.get("/metrics")).text
    assert 'tickpipe_producer_key_requests_total{key="pc7",status="200"} 2.0' in counted
    assert 'tickpipe_producer_key_requests_total{key="pc7",status="429"} 1.0' in counted
    assert 'key="bot"' not in counted


async def test_when_a_key_ends_is_a_metric_as_soon_as_it_is_known(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    end = datetime(2027, 1, 1, tzinfo=UTC)

    def key(name: str, expires_at: datetime | None) -> ApiKey:
        secret = Secret(digest_of(name.encode()), end, expires_at)
        return ApiKey(name=name, source="A", rights=(Right.INGEST,), secrets=(secret,))

    write_keys(path, [key("lasts", None), key("pc7", end)])
    bench = new_bench(api_keys={}, keys_file=path)
    async with bench.client:
        told = [
            line for line in (await bench.client.get("/metrics")).text.splitlines()
            if line.startswith("tickpipe_producer_key_end")
        ]  # fmt: skip
    ((name, value),) = (line.rsplit(" ", 1) for line in told)
    assert name == 'tickpipe_producer_key_end_timestamp_seconds{key="pc7"}'
    assert float(value) == end.timestamp()
