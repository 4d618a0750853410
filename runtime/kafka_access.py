"""How clients reach Kafka: TLS and login from the settings, and why a Kafka that answers cannot be used.

One that answers may refuse the login or the encryption, or name addresses of its brokers that cannot be reached.
"""

import asyncio
import shlex
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any, Final

from aiokafka.abc import AbstractTokenProvider
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import AuthenticationFailedError
from aiokafka.protocol.metadata import MetadataRequest

from marketdata.errors import KafkaRefused, KafkaUnavailable, SettingsError, TickpipeError
from runtime.kafka_errors import CUT, KAFKA_ERRORS, LOGIN_REFUSED, mapped, said_by
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
        """A fresh token.

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


#: The longest wait for an answer and for each connection: a reachable one takes milliseconds (seconds).
_PATIENCE_SECONDS: Final = 2.0

#: OpenSSL's numbers for a certificate that is not valid yet, has expired, or names another host.
_EXPIRED: Final = (9, 10)
_OTHER_HOST: Final = (62, 64)

_PROTOCOL: Final = "TICKPIPE_KAFKA_SECURITY_PROTOCOL"


async def why_unavailable(settings: Settings) -> TickpipeError | None:
    """Why clients cannot use a Kafka that does answer, with the cure; None when nothing answers.

    Raises:
        SettingsError: when a certificate, key or password cannot be read.
    """
    for host, port, _ in collect_hosts(settings.kafka_bootstrap):
        if (refusal := await _refusal(settings, host, port)) is not None:
            return refusal
    unreachable = await _unreachable_brokers(settings)
    if not unreachable:
        return None
    return KafkaUnavailable(
        f"Kafka answers on {settings.kafka_bootstrap} and sends clients to {', '.join(unreachable)}, which cannot "
        "be reached from here; set advertised.listeners of the broker to an address that can"
    )


async def _refusal(settings: Settings, host: str, port: int) -> TickpipeError | None:
    options = client_options(settings)
    del options["bootstrap_servers"]
    try:
        connection = await create_conn(host, port, request_timeout_ms=round(_PATIENCE_SECONDS * 1000), **options)
    except KAFKA_ERRORS as exc:
        return await _why_not_connected(settings, host, port, exc)
    try:
        await connection.send(MetadataRequest([]))
    except KAFKA_ERRORS:
        return None if settings.uses_sasl else _login_wanted(settings, host, port)
    finally:
        connection.close()
    return None


async def _why_not_connected(settings: Settings, host: str, port: int, exc: BaseException) -> TickpipeError | None:
    if isinstance(exc, LOGIN_REFUSED):
        return mapped(exc, settings)
    if isinstance(exc, ssl.SSLCertVerificationError):
        return KafkaRefused(f"the certificate of Kafka on {host}:{port} {_certificate_fault(settings, exc)}")
    if isinstance(exc, socket.gaierror):
        return KafkaUnavailable(
            f"the name {host} cannot be resolved ({exc.strerror}); correct TICKPIPE_KAFKA_BOOTSTRAP, or this machine's "
            "name service"
        )
    return await _wrong_protocol(settings, host, port, exc) if isinstance(exc, CUT) else None


def _login_wanted(settings: Settings, host: str, port: int) -> KafkaRefused:
    # Versions are told to everybody; at the next request a broker that wants a login cuts the connection.
    needed = "SASL_SSL" if settings.uses_tls else "SASL_PLAINTEXT"
    return KafkaRefused(
        f"Kafka on {host}:{port} wants a login; set {_PROTOCOL}={needed} and TICKPIPE_KAFKA_SASL_MECHANISM"
    )


def _certificate_fault(settings: Settings, exc: ssl.SSLCertVerificationError) -> str:
    if exc.verify_code in _EXPIRED:
        return "has expired or is not valid yet; renew it on the broker, or set this machine's clock"
    if exc.verify_code in _OTHER_HOST:
        return (
            f"is for another host ({exc.verify_message}); connect to a name that it has, or set "
            "TICKPIPE_KAFKA_SSL_CHECK_HOSTNAME=false"
        )
    authority = settings.kafka_ssl_ca_file or "the system's authorities"
    return (
        f"is not signed by {authority} ({exc.verify_message}); set TICKPIPE_KAFKA_SSL_CA_FILE to the certificate of "
        "the authority that signed it"
    )


async def _wrong_protocol(settings: Settings, host: str, port: int, exc: BaseException) -> TickpipeError | None:
    """Why a connection that was made was then cut."""
    speaks_tls = await _speaks_tls(host, port)
    if speaks_tls is None:
        return None
    given = f"{_PROTOCOL}={settings.kafka_security_protocol}"
    if not settings.uses_tls:
        if not speaks_tls:
            return None
        needed = "SASL_SSL" if settings.uses_sasl else "SSL, or to SASL_SSL with a login"
        return KafkaRefused(f"Kafka on {host}:{port} encrypts (TLS), but {given}; set it to {needed}")
    if not speaks_tls:
        needed = "SASL_PLAINTEXT" if settings.uses_sasl else "PLAINTEXT"
        return KafkaRefused(f"Kafka on {host}:{port} does not encrypt, but {given}; set it to {needed}")
    if settings.kafka_ssl_certificate_file:
        return KafkaRefused(
            f"Kafka on {host}:{port} does not accept this client's certificate ({said_by(exc)}); is it expired, or "
            f"signed by an authority that the broker does not know? {settings.kafka_ssl_certificate_file} is "
            "TICKPIPE_KAFKA_SSL_CERTIFICATE_FILE"
        )
    return KafkaRefused(
        f"Kafka on {host}:{port} cuts the encrypted connection ({said_by(exc)}); if it wants a certificate of clients, "
        "set TICKPIPE_KAFKA_SSL_CERTIFICATE_FILE and TICKPIPE_KAFKA_SSL_KEY_FILE"
    )


async def _speaks_tls(host: str, port: int) -> bool | None:
    """Whether a server shakes hands over TLS; None when nothing answers. Nothing is sent, so nothing is checked."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except (ssl.SSLError, ConnectionResetError):
        return False
    except OSError:  # of which TimeoutError is one
        return None
    writer.close()
    return True


async def _unreachable_brokers(settings: Settings) -> list[str]:
    # host:port of the brokers that Kafka names and nothing answers on; empty when Kafka itself does not answer.
    client = AIOKafkaClient(**client_options(settings), request_timeout_ms=round(_PATIENCE_SECONDS * 1000))
    try:
        await client.bootstrap()
        brokers = sorted({(broker.host, broker.port) for broker in client.cluster.brokers()})
    except KAFKA_ERRORS:
        return []
    finally:
        await client.close()
    reachable = await asyncio.gather(*(_is_reachable(host, port) for host, port in brokers))
    return [f"{host}:{port}" for (host, port), answers in zip(brokers, reachable, strict=True) if not answers]


async def _is_reachable(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except OSError:  # of which TimeoutError is one
        return False
    writer.close()
    return True
