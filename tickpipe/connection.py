"""Which pipeline a command talks to: the embedded stack of a data directory, or the one that the environment names."""

# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from marketdata.errors import SettingsError, StackError
from tickpipe.console import err

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from pydantic import SecretStr

    from runtime.settings import Settings
    from tickpipe.embedded.state import StackState


def _directory(text: str) -> Path:
    # An empty path is the current folder, in which nobody wants a database by a variable that is not set.
    if not text:
        raise typer.BadParameter("the name of the directory is empty")
    return Path(text)


#: The option by which every command finds its stack.
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        parser=_directory,
        metavar="DIR",
        help="Data directory of the stack. Default: TICKPIPE_DATA_DIR, then ~/.local/share/tickpipe.",
    ),
]

#: Settings that show that the pipeline runs somewhere else (compose, Kubernetes).
_ELSEWHERE = frozenset({"kafka_bootstrap", "database_url"})


def data_directory(data_dir: Path | None) -> Path:
    """The directory that the option names, or else the settings."""
    from runtime.settings import load_settings

    return data_dir.expanduser().absolute() if data_dir is not None else load_settings().data_dir


def stack_on(directory: Path) -> "StackState | None":
    """The embedded stack of the directory, None when none runs, and on Windows."""
    if sys.platform == "win32":
        return None
    from tickpipe.embedded.state import find_stack

    return find_stack(directory)


def forget_other_postgresql() -> None:
    """Take libpq's variables from this process: the URL of a stack is whole, and PGSSLMODE, PGSERVICE and the like are
    meant for another server."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]


class StackServices:
    """The services of the embedded stack whose names match, stopped and started; none when they run elsewhere."""

    def __init__(self, directory: Path, pattern: re.Pattern[str]) -> None:
        stack = stack_on(directory)
        self._directory = directory
        self.names = [s.name for s in stack.services if pattern.fullmatch(s.name)] if stack is not None else []

    def stop(self) -> None:
        """Stop all of them, in the stack's order."""
        if not self.names:
            return  # the extra that a stack needs may not be there
        from tickpipe.embedded.stack import stop_service

        for name in self.names:
            err.print(f"Stopping {name}", markup=False)
            stop_service(self._directory, name)

    def start(self) -> None:
        """Start all of them.

        Raises:
            StackError: when some did not start; the others run.
        """
        if not self.names:
            return
        from tickpipe.embedded.stack import start_service

        failures = []
        for name in self.names:
            err.print(f"Starting {name}", markup=False)
            try:
                start_service(self._directory, name)
            except StackError as exc:
                failures.append(str(exc))
        if failures:
            raise StackError(f"{'; '.join(failures)}; start it by `tickpipe down` and `tickpipe up`")


def no_stack(directory: Path) -> StackError:
    """The error that says how to start one."""
    return StackError(f"no stack runs on {directory}; start one with `tickpipe up{data_dir_option(directory)}`")


def data_dir_option(directory: Path) -> str:
    """The option with which a command finds the stack of the directory; empty for the default directory."""
    from runtime.settings import load_settings

    return "" if directory == load_settings().data_dir else f" --data-dir {shlex.quote(str(directory))}"


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":…@")).geturl()


def _compose_deployment() -> "tuple[str, SecretStr] | None":
    """URL and key of the producer that `.env` of this folder publishes, None when it is not Docker Compose's."""
    from pydantic import SecretStr
    from pydantic_settings import BaseSettings, SettingsConfigDict

    from runtime.addresses import url_of

    class Deployment(BaseSettings):
        model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True)

        compose_project_name: str = ""
        tickpipe_bind: str = ""
        tickpipe_port: int = 18001
        tickpipe_api_key: SecretStr = SecretStr("")

    found = Deployment()
    return (
        (url_of(found.tickpipe_bind, found.tickpipe_port), found.tickpipe_api_key)
        if found.compose_project_name
        else None
    )


def archive_of(data_dir: Path) -> str:
    """Where the archive of a stack is, or `off`: as the user's settings say, else in the data directory.

    Raises:
        SettingsError: when a setting cannot be understood.
    """
    from runtime.settings import load_settings

    return load_settings().archive or str(data_dir / "archive")


def connected_settings(data_dir: Path | None) -> "Settings":
    """Settings that lead to the embedded stack of the directory, or to what the environment or `.env` names.

    Raises:
        StackError: when no stack runs and the environment names neither Kafka nor a database, or Docker Compose's.
        SettingsError: when a setting cannot be understood.
    """
    from runtime.known_log import KNOWN_LOG_FILE
    from runtime.settings import ANY_SOURCE, load_settings

    directory = data_directory(data_dir)
    stack = stack_on(directory)
    if stack is not None:
        forget_other_postgresql()
        return _quiet_logs(
            load_settings(
                data_dir=directory,
                archive=archive_of(directory),
                known_log_file=directory / KNOWN_LOG_FILE,
                **stack.kafka_settings,
                database_url=stack.database_url,
                api_keys={ANY_SOURCE: stack.api_key},
            )
        )
    settings = load_settings()
    if settings.model_fields_set & _ELSEWHERE:
        return _quiet_logs(settings)
    if _compose_deployment() is not None:
        raise StackError(
            "the Kafka and the database of this folder's deployment are reached from inside it alone: "
            "docker compose run --rm tickpipe, and then the command"
        )
    raise StackError(f"{no_stack(directory)}, or set TICKPIPE_KAFKA_BOOTSTRAP and TICKPIPE_DATABASE_URL")


def _quiet_logs(settings: "Settings") -> "Settings":
    # Log lines go to stderr, and only those that somebody at the terminal has to know.
    import logging

    from runtime.logs import configure_logs

    configure_logs(settings.model_copy(update={"log_level": "WARNING"}))
    # Whatever it reports reaches the command as an exception as well, and is reported there in one sentence.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    return settings


async def open_database(settings: "Settings", *, timeout_seconds: int = 10) -> "AsyncConnection[Any]":
    """A connection for reading, in autocommit mode; it may be idle for long, as under a pager.

    Raises:
        psycopg.OperationalError: when the database does not answer.
    """
    from sink.db.session import database_conninfo, open_session

    return await open_session(database_conninfo(settings), "tickpipe cli", connect_timeout=timeout_seconds)


def producer_address(data_dir: Path | None, url: str | None, key: str | None, source: str | None) -> tuple[str, str]:
    """URL of the producer and the key for `source`.

    What the options leave open comes from the stack, the settings, or the deployment of `.env` in this folder.

    Raises:
        StackError: when no stack runs and the environment names no pipeline either.
        SettingsError: when no key is known.
    """
    from runtime.addresses import url_of
    from runtime.settings import ANY_SOURCE, load_settings

    if url is not None and key is not None:
        return url, key
    stack = stack_on(data_directory(data_dir))
    if stack is not None and url in (None, stack.producer_url):
        return stack.producer_url, key or stack.api_key
    settings = load_settings()
    keys = settings.api_keys
    deployment = _compose_deployment()
    if deployment is not None:
        keys = keys or {ANY_SOURCE: deployment[1]}
    if url is None:
        if {"producer_port", "producer_host"} & settings.model_fields_set:
            url = url_of(settings.producer_host, settings.producer_port)
        elif deployment is not None:
            url = deployment[0]
        else:
            raise StackError(f"{no_stack(data_directory(data_dir))}, or name a producer with --url")
    found = keys.get(source or "") or keys.get(ANY_SOURCE) or (next(iter(keys.values())) if len(keys) == 1 else None)
    if key is None and found is None:
        raise SettingsError("no key for the producer: pass --key, or set TICKPIPE_API_KEYS")
    return url, key or (found.get_secret_value() if found else "")
