"""The settings that say who this process is to Kafka, those that contradict each other, and secrets from files."""

from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

from pydantic import Field, SecretStr, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource

from marketdata.errors import SettingsError

_PROTOCOL = "TICKPIPE_KAFKA_SECURITY_PROTOCOL"
_SASL_NAMES = ("kafka_sasl_mechanism", "kafka_sasl_username", "kafka_sasl_password", "kafka_sasl_password_file",
               "kafka_sasl_token_command")  # fmt: skip
_FILE_NAMES = ("kafka_ssl_ca_file", "kafka_ssl_certificate_file", "kafka_ssl_key_file")


class SecuritySettings(BaseSettings):
    """How clients of Kafka authenticate and encrypt; part of the settings of every service."""

    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="what Kafka's listener speaks: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`"
    )
    kafka_sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        "", description="how this user logs in: `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` or `OAUTHBEARER`"
    )
    kafka_sasl_username: str = Field("", description="user that logs in to Kafka")
    kafka_sasl_password: SecretStr = Field(SecretStr(""), description="password of that user")
    kafka_sasl_password_file: str = Field("", description="file that holds the password of that user instead")
    kafka_sasl_token_command: str = Field(
        "", description="command that prints a token for `OAUTHBEARER`; it runs for every connection, without a shell"
    )
    kafka_ssl_ca_file: str = Field(
        "", description="PEM file of the authority that signed the brokers' certificates; by default the system's"
    )
    kafka_ssl_certificate_file: str = Field("", description="PEM file of this client's certificate")
    kafka_ssl_key_file: str = Field("", description="PEM file of the key of that certificate")
    kafka_ssl_key_password: SecretStr = Field(SecretStr(""), description="password of that key, if it has one")
    kafka_ssl_check_hostname: bool = Field(
        True, description="whether the brokers' certificates must name the host that is connected to"
    )

    @property
    def uses_tls(self) -> bool:
        """Whether connections to Kafka are encrypted."""
        return self.kafka_security_protocol in {"SSL", "SASL_SSL"}

    @property
    def uses_sasl(self) -> bool:
        """Whether this process logs in to Kafka."""
        return self.kafka_security_protocol in {"SASL_PLAINTEXT", "SASL_SSL"}

    @model_validator(mode="after")
    def _check_security(self) -> Self:
        for problem in (self._sasl_problem(), self._tls_problem()):
            if problem:
                raise ValueError(problem)
        return self

    def _sasl_problem(self) -> str:
        given = self._given(*_SASL_NAMES)
        if not self.uses_sasl:
            return given and f"{given} is set, but {_PROTOCOL}={self.kafka_security_protocol} logs nobody in; " + (
                f"set {_PROTOCOL} to SASL_SSL (or SASL_PLAINTEXT), or unset it"
            )
        if not self.kafka_sasl_mechanism:
            return f"{_PROTOCOL}={self.kafka_security_protocol} needs TICKPIPE_KAFKA_SASL_MECHANISM"
        problem = self._token_problem() if self.kafka_sasl_mechanism == "OAUTHBEARER" else self._password_problem()
        return problem and f"TICKPIPE_KAFKA_SASL_MECHANISM={self.kafka_sasl_mechanism} {problem}"

    def _token_problem(self) -> str:
        if unused := self._given("kafka_sasl_username", "kafka_sasl_password", "kafka_sasl_password_file"):
            return f"does not use {unused}; unset it"
        return "" if self.kafka_sasl_token_command else "needs TICKPIPE_KAFKA_SASL_TOKEN_COMMAND"

    def _password_problem(self) -> str:
        if self.kafka_sasl_token_command:
            return "does not use TICKPIPE_KAFKA_SASL_TOKEN_COMMAND; unset it, or choose OAUTHBEARER"
        if not self.kafka_sasl_username:
            return "needs TICKPIPE_KAFKA_SASL_USERNAME"
        if bool(self.kafka_sasl_password.get_secret_value()) == bool(self.kafka_sasl_password_file):
            return "needs one of TICKPIPE_KAFKA_SASL_PASSWORD and TICKPIPE_KAFKA_SASL_PASSWORD_FILE"
        missing = self._missing_file("kafka_sasl_password_file")
        return missing and f"needs a password; {missing}"

    def _tls_problem(self) -> str:
        given = self._given(*_FILE_NAMES, "kafka_ssl_key_password") or (
            "" if self.kafka_ssl_check_hostname else "TICKPIPE_KAFKA_SSL_CHECK_HOSTNAME"
        )
        if not self.uses_tls:
            return given and f"{given} is set, but {_PROTOCOL}={self.kafka_security_protocol} does not encrypt; " + (
                f"set {_PROTOCOL} to SSL or SASL_SSL, or unset it"
            )
        if self.kafka_ssl_certificate_file and not self.kafka_ssl_key_file:
            return "TICKPIPE_KAFKA_SSL_CERTIFICATE_FILE needs TICKPIPE_KAFKA_SSL_KEY_FILE"
        unsigned = self._given("kafka_ssl_key_file", "kafka_ssl_key_password")
        if unsigned and not self.kafka_ssl_certificate_file:
            return f"{unsigned} needs TICKPIPE_KAFKA_SSL_CERTIFICATE_FILE"
        return next(filter(None, map(self._missing_file, _FILE_NAMES)), "")

    def _given(self, *names: str) -> str:
        # The first of these settings that has a value, as its variable.
        for name in names:
            value = getattr(self, name)
            if value.get_secret_value() if isinstance(value, SecretStr) else value:
                return f"TICKPIPE_{name.upper()}"
        return ""

    def _missing_file(self, name: str) -> str:
        path = getattr(self, name)
        return f"TICKPIPE_{name.upper()}: there is no file {path}" if path and not Path(path).is_file() else ""


#: Behind the name of a secret's variable: the variable that names the file which holds it.
_OF_FILE: Final = "_file"


class SecretFiles(PydanticBaseSettingsSource):
    """The source of secrets that are in files: `TICKPIPE_API_KEYS_FILE` names the file that holds `TICKPIPE_API_KEYS`.

    Every secret can be given like this, without a setting of its own for it. `kafka_sasl_password_file` is one, because
    its file is read again for every new client.
    """

    def __init__(self, settings_cls: type[BaseSettings], *others: PydanticBaseSettingsSource) -> None:
        super().__init__(settings_cls)
        # The environment comes before `.env`; names are in lower case there.
        sources = [source.env_vars for source in reversed(others) if isinstance(source, EnvSettingsSource)]
        self._variables = {name: value for source in sources for name, value in source.items()}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[str | None, str, bool]:
        """The secret as it stands in its file (None without one), the name of its setting, and False: it is a text.

        `Settings` decodes secrets that are JSON, as it does those of variables.

        Raises:
            SettingsError: when the file cannot be read, or the secret is given as well.
        """
        is_secret = field.annotation is SecretStr or SecretStr in get_args(field.annotation)
        if not is_secret or field_name + _OF_FILE in self.settings_cls.model_fields:
            return None, field_name, False
        variable = f"{self.config.get('env_prefix', '')}{field_name}"
        path = self._variables.get(f"{variable}{_OF_FILE}".lower())
        if not path:
            return None, field_name, False
        name = variable.upper()
        if self._variables.get(variable.lower()):
            raise SettingsError(f"{name} and {name}_FILE are both set; unset one of them")
        try:
            return Path(path).read_text().strip(), field_name, False
        except OSError as exc:
            raise SettingsError(f"{name}_FILE: {path} cannot be read: {exc.strerror}") from exc

    def __call__(self) -> dict[str, Any]:
        """The secrets that are in files, by the names of their settings."""
        values = (
            (name, self.get_field_value(field, name)[0]) for name, field in self.settings_cls.model_fields.items()
        )
        return {name: value for name, value in values if value is not None}


#: The settings of a Kafka that asks nobody anything, whatever the environment says of another.
UNSECURED: Final = dict.fromkeys(SecuritySettings.model_fields, "") | {
    "kafka_security_protocol": "PLAINTEXT",
    "kafka_ssl_check_hostname": "true",
}


def scram_login(user: str, password: str) -> dict[str, str]:
    """Settings of a client that logs in by SCRAM and does not encrypt; `UNSECURED` without a password."""
    if not password:
        return UNSECURED
    return UNSECURED | {
        "kafka_security_protocol": "SASL_PLAINTEXT", "kafka_sasl_mechanism": "SCRAM-SHA-256",
        "kafka_sasl_username": user, "kafka_sasl_password": password,
    }  # fmt: skip
