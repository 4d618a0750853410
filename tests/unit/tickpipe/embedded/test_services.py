"""Commands and settings of our own services in the stack."""

import json
from pathlib import Path

import pytest

from marketdata.errors import SettingsError, StackError
from runtime.services import DECLARED
from runtime.settings import load_settings
from tickpipe.embedded.process import ServiceSpec
from tickpipe.embedded.services import Addresses, StackConfig, answers_ready, any_source_key, service_specs

_DATABASE_URL = "postgresql://postgres:pw@127.0.0.1:2/market"


def _specs(config: StackConfig) -> dict[str, ServiceSpec]:
    stream_ports = tuple(range(40, 40 + config.stream_workers))
    ports = {service.name: service.port for service in DECLARED}
    addresses = Addresses("127.0.0.1:1", _DATABASE_URL, ports, stream_ports)
    return {spec.name: spec for spec in service_specs(config, addresses, "the stack's key")}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # away from anybody's .env


def test_workers_have_names_ports_and_instances_of_their_own(tmp_path: Path) -> None:
    specs = _specs(StackConfig(tmp_path, stream_workers=2, demo=True))
    assert list(specs) == ["producer", "stream", "stream-2", "sink", "dashboard", "archive", "demo"]
    workers = [specs["stream"].env, specs["stream-2"].env]
    assert [env["TICKPIPE_STREAM_PORT"] for env in workers] == ["40", "41"]
    assert [env["TICKPIPE_STREAM_INSTANCE"] for env in workers] == ["stream", "stream-2"]


def test_users_settings_pass_but_not_those_that_the_stack_owns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKPIPE_EMIT_INTERVAL_SECONDS", "0.5")
    monkeypatch.setenv("TICKPIPE_KAFKA_BOOTSTRAP", "elsewhere:9092")
    monkeypatch.setenv("TICKPIPE_API_KEYS", '{"Broker": "the broker\'s key"}')

    env = _specs(StackConfig(tmp_path))["producer"].env
    monkeypatch.undo()
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()

    assert settings.emit_interval_seconds == 0.5
    assert settings.kafka_bootstrap == "127.0.0.1:1"
    assert settings.database_url.get_secret_value() == _DATABASE_URL
    keys = {source: key.get_secret_value() for source, key in settings.api_keys.items()}
    assert keys == {"Broker": "the broker's key", "*": "the stack's key"}


@pytest.mark.parametrize("place", ["environment", ".env"])
def test_the_users_key_for_any_source_is_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    keys = '{"*": "the user\'s own key", "Broker": "the broker\'s key"}'
    if place == ".env":
        (tmp_path / ".env").write_text(f"TICKPIPE_API_KEYS={keys}\n")
    else:
        monkeypatch.setenv("TICKPIPE_API_KEYS", keys)

    # What the stack gives to commands and to the simulated EA.
    assert any_source_key("the stack's key") == "the user's own key"
    env = _specs(StackConfig(tmp_path))["producer"].env
    assert json.loads(env["TICKPIPE_API_KEYS"]) == json.loads(keys)


def test_without_a_key_for_any_source_the_stack_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKPIPE_API_KEYS", '{"Broker": "the broker\'s key"}')
    assert any_source_key("the stack's key") == "the stack's key"


def test_setting_that_no_service_would_take_ends_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKPIPE_EMIT_INTERVAL_SECONDS", "soon")
    with pytest.raises(SettingsError, match="TICKPIPE_EMIT_INTERVAL_SECONDS"):
        _specs(StackConfig(tmp_path))


def test_demo_gets_the_address_and_the_key(tmp_path: Path) -> None:
    demo = _specs(StackConfig(tmp_path, demo=True, commands={"demo": ("ea",)}))["demo"]
    sent = str(tmp_path / "demo-history-sent")
    assert list(demo.argv) == ["ea", "--url", "http://127.0.0.1:18001", "--history", sent]
    assert demo.env["TICKPIPE_DEMO_KEY"] == "the stack's key"


def test_config_reaches_the_background_process_whole(tmp_path: Path) -> None:
    config = StackConfig(
        tmp_path, producer_port=0, demo=True, services=("kafka", "sink"), commands={"sink": ("a", "b")}
    )
    assert StackConfig.from_json(config.to_json()) == config
    assert "key" not in json.loads(config.to_json())


def test_unknown_service_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="no such service: redis; choose from kafka, postgres"):
        StackConfig(tmp_path, services=("redis",))


def test_closed_port_is_not_ready() -> None:
    assert not answers_ready("127.0.0.1", 1)()
