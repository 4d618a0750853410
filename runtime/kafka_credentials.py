"""What every client of Kafka is given so that brokers know it and it knows them: TLS and SASL from the settings."""

import asyncio
import shlex
import ssl
import subprocess
from pathlib import Path
from typing import Any, Final

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import AuthenticationFailedError

from marketdata.errors import SettingsError
from runtime.settings import Settings

#: Longer than a token service takes as a rule, shorter than a client's patience for a connection (seconds).
_TOKEN_TIMEOUT_SECONDS: Final = 20.0


def client_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments of any aiokafka client: the brokers' addresses, TLS and SASL.

    Files are read at every call, so that a client made later has a renewed certificate or password.

    Raises:
        SettingsError: when a certificate, key or password cannot be read.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap,
        "security_protocol": settings.kafka_security_protocol,
    }
    if settings.uses_tls:
        options["ssl_context"] = tls_context(settings)
    if settings.uses_sasl:
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        if settings.kafka_sasl_mechanism == "OAUTHBEARER":
            options["sasl_oauth_token_provider"] = TokenCommand(settings.kafka_sasl_token_command)
        else:
            options["sasl_plain_username"] = settings.kafka_sasl_username
            options["sasl_plain_password"] = _password(settings)
    return options


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Checks the broker's certificate, and shows the client's own if there is one.

    Raises:
        SettingsError: naming the files when they cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ssl_ca_file or None)
    except OSError as exc:  # of which `ssl.SSLError` is one
        raise SettingsError(
            f"TICKPIPE_KAFKA_SSL_CA_FILE: {settings.kafka_ssl_ca_file} has no certificate: {exc}"
        ) from exc
    context.check_hostname = settings.kafka_ssl_check_hostname
    if settings.kafka_ssl_certificate_file:
        try:
            # Without a password OpenSSL would ask on the terminal for that of an encrypted key.
            context.load_cert_chain(
                settings.kafka_ssl_certificate_file,
                settings.kafka_ssl_key_file,
                settings.kafka_ssl_key_password.get_secret_value(),
            )
        except OSError as exc:
            raise SettingsError(
                f"TICKPIPE_KAFKA_SSL_CERTIFICATE_FILE={settings.kafka_ssl_certificate_file} and "
                f"TICKPIPE_KAFKA_SSL_KEY_FILE={settings.kafka_ssl_key_file} cannot be used together: {exc}; is "
                "TICKPIPE_KAFKA_SSL_KEY_PASSWORD the key's?"
            ) from exc
    return context


def _password(settings: Settings) -> str:
    if not settings.kafka_sasl_password_file:
        return settings.kafka_sasl_password.get_secret_value()
    try:
        return Path(settings.kafka_sasl_password_file).read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"TICKPIPE_KAFKA_SASL_PASSWORD_FILE cannot be read: {exc}") from exc


class TokenCommand(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka ships no types
    """Runs a command that prints a bearer token; each connection asks for one of its own."""

    def __init__(self, command: str) -> None:
        self._command = shlex.split(command)

    async def token(self) -> str:
        """The token.

        Raises:
            AuthenticationFailedError: when the command fails or prints nothing.
        """
        try:
            done = await asyncio.to_thread(
                subprocess.run,
                self._command,
                capture_output=True,
                text=True,
                timeout=_TOKEN_TIMEOUT_SECONDS,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as exc:
            raise AuthenticationFailedError(f"TICKPIPE_KAFKA_SASL_TOKEN_COMMAND failed: {exc}") from exc
        if not (token := done.stdout.strip()):
            raise AuthenticationFailedError("TICKPIPE_KAFKA_SASL_TOKEN_COMMAND printed no token")
        return str(token)
