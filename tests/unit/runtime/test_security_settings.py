from pathlib import Path

import pytest
from pydantic import SecretStr

from marketdata.errors import SettingsError
from runtime.kafka_access import client_options
from runtime.security_settings import UNSECURED
from runtime.settings import Settings, load_settings

SASL = {"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_sasl_mechanism": "PLAIN", "kafka_sasl_username": "sink"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kafka_sasl_password": "secret"}, "PROTOCOL=PLAINTEXT logs nobody in; set .* to SASL_SSL"),
        ({"kafka_security_protocol": "SASL_SSL"}, "needs TICKPIPE_KAFKA_SASL_MECHANISM"),
        (SASL | {"kafka_sasl_username": ""}, "PLAIN needs TICKPIPE_KAFKA_SASL_USERNAME"),
        (SASL, "needs one of TICKPIPE_KAFKA_SASL_PASSWORD and"),
        (SASL | {"kafka_sasl_password": "a", "kafka_sasl_password_file": "b"}, "needs one of"),
        (SASL | {"kafka_sasl_password_file": "/nowhere"}, "there is no file /nowhere"),
        (SASL | {"kafka_sasl_mechanism": "OAUTHBEARER"}, "does not use TICKPIPE_KAFKA_SASL_USERNAME"),
        (SASL | {"kafka_sasl_token_command": "token"}, "does not use TICKPIPE_KAFKA_SASL_TOKEN_COMMAND"),
        ({"kafka_ssl_ca_file": __file__}, "PROTOCOL=PLAINTEXT does not encrypt; set .* to SSL"),
        ({"kafka_ssl_check_hostname": False}, "CHECK_HOSTNAME is set, but"),
        ({"kafka_security_protocol": "SSL", "kafka_ssl_certificate_file": __file__}, "needs .*_KEY_FILE"),
        ({"kafka_security_protocol": "SSL", "kafka_ssl_key_file": __file__}, "needs .*_CERTIFICATE_FILE"),
        ({"kafka_security_protocol": "SSL", "kafka_ssl_ca_file": "/nowhere"}, "there is no file /nowhere"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_the_cure(given: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_settings(**given)


def test_the_embedded_kafka_is_not_asked_for_what_another_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (SASL | {"kafka_sasl_password": "secret"}).items():
        monkeypatch.setenv(f"TICKPIPE_{name.upper()}", value)
    assert client_options(load_settings(**UNSECURED)) == {
        "bootstrap_servers": "127.0.0.1:9092", "security_protocol": "PLAINTEXT",
    }  # fmt: skip


#: What each secret's file may hold.
_SECRETS = {
    "api_keys": '{"*": "0123456789"}\n',
    "database_url": "postgresql://trader:secret@db/market\n",
    "dashboard_password": "long-enough\n",
    "dashboard_database_url": "postgresql://reader:secret@db/market\n",
    "kafka_ssl_key_password": "",
}


def test_every_secret_can_be_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    assert secret == {*_SECRETS, "kafka_sasl_password"}, "which has a setting for its file"
    (tmp_path / ".env").write_text(f"TICKPIPE_DATABASE_URL_FILE={tmp_path}/database_url\n")
    monkeypatch.chdir(tmp_path)
    for name, text in _SECRETS.items():
        (tmp_path / name).write_text(text)
        if name != "database_url":
            monkeypatch.setenv(f"TICKPIPE_{name.upper()}_FILE", str(tmp_path / name))

    settings = load_settings()

    assert settings.api_keys == {"*": SecretStr("0123456789")}
    for name in _SECRETS.keys() - {"api_keys"}:
        assert getattr(settings, name).get_secret_value() == _SECRETS[name].strip(), name


def test_a_secrets_file_that_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKPIPE_API_KEYS_FILE", str(tmp_path / "keys"))
    with pytest.raises(SettingsError, match=r"TICKPIPE_API_KEYS_FILE: .*/keys cannot be read: No such file"):
        load_settings()

    (tmp_path / "keys").write_text("no JSON")
    with pytest.raises(SettingsError, match=r"TICKPIPE_API_KEYS: it is no JSON \(.*\); docs/settings.md"):
        load_settings()

    monkeypatch.setenv("TICKPIPE_API_KEYS", '{"*": "0123456789"}')
    with pytest.raises(SettingsError, match="TICKPIPE_API_KEYS and TICKPIPE_API_KEYS_FILE are both set"):
        load_settings()
