import pytest

from marketdata.errors import SettingsError
from runtime.kafka_access import client_options
from runtime.security_settings import UNSECURED
from runtime.settings import load_settings

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
