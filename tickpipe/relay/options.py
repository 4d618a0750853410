"""What the commands of the relay share: options, settings, the server's key, and a missing package as a sentence."""

# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

import logging
import math
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marketdata.errors import SettingsError
from tickpipe.console import err, explain

if TYPE_CHECKING:
    from runtime.settings import Settings

#: The server's key, so that it need not stand in a command line.
KEY_VARIABLE = "TICKPIPE_RELAY_FORWARD_KEY"

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)", re.I)
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def duration(text: str | float) -> float:
    """Seconds of `7d`, `12h`, `5m`, `30s` or a plain number of seconds."""
    found = _DURATION.fullmatch(str(text).strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no duration; use for example 30s, 5m, 12h or 7d")
    return float(found[1]) * _SECONDS[found[2].lower()]


def retention(text: str | float) -> float:
    """Seconds of a duration, infinity for `forever`."""
    return math.inf if str(text).strip().lower() == "forever" else duration(text)


_OFFSET = re.compile(r"([+-])(\d{1,2}):(\d\d)")


def broker_offset(text: str) -> int | str | None:
    """Seconds of `+02:00`; None for `quotes`, and `server` as it is."""
    if (word := text.strip().lower()) in ("quotes", "server"):
        return None if word == "quotes" else word
    if (found := _OFFSET.fullmatch(word)) is None:
        raise typer.BadParameter(f"{text!r} is no clock; use quotes, server, or an offset from UTC such as +02:00")
    return (int(found[2]) * 3_600 + int(found[3]) * 60) * (-1 if found[1] == "-" else 1)


Db = Annotated[Path, typer.Option("--db", metavar="FILE", help="The database of ticks; created when missing.")]
Keep = Annotated[
    float | None,
    typer.Option(
        "--keep",
        parser=retention,
        metavar="TIME",
        help="Delete rows so long after the server confirmed them: 7d, 12h, forever. Default: 7d, but forever in a file"
        " that was there before the relay's first start.",
    ),
]

Host = Annotated[str, typer.Option(help="Address to listen on; others than 127.0.0.1 need a key.")]
ForwardTo = Annotated[
    str | None, typer.Option("--forward", metavar="URL", help="Server to forward to. Default: only store.")
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file", metavar="FILE", help=f"The server's key is its first line. Default: the variable {KEY_VARIABLE}."
    ),
]
LogFile = Annotated[
    Path | None,
    typer.Option(
        "--log-file", metavar="FILE", help="Write the log there, in UTF-8; at 5 MB it becomes FILE.1. Default: stderr."
    ),
]


class Extra:
    """Turns a missing package into a sentence."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, exc: object, _traceback: object) -> None:
        if isinstance(exc, ModuleNotFoundError):
            raise SettingsError(
                f"{exc.name} is not installed; install what requirements.txt of the kit lists (`tickpipe kit DIR`)"
            ) from exc


@contextmanager
def settings_for(log_file: Path | None) -> "Iterator[Settings]":
    """The settings; an error that ends the command is logged where a file was named: nobody sees a task's console."""
    from runtime.logs import configure_logs
    from runtime.settings import Settings, load_settings

    if log_file is not None:
        configure_logs(Settings.model_construct(), log_file)
    try:
        settings = load_settings()
        configure_logs(settings, log_file)
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        yield settings
    except (typer.Exit, typer.BadParameter):
        raise
    except sqlite3.Error as exc:
        from relay.database import explained

        failure = explained(exc)
        _log_end(failure, log_file)
        raise failure from exc
    except Exception as exc:
        _log_end(exc, log_file)
        raise


def _log_end(exc: Exception, log_file: Path | None) -> None:
    if log_file is None:
        return
    sentence = explain(exc)
    logging.getLogger(__name__).error(
        sentence[0] if sentence else "The command failed; this is a bug.", exc_info=None if sentence else exc
    )


def key_of(file: Path | None, token: str | None = None) -> str:
    """The server's key, from wherever it was said.

    Raises:
        SettingsError: when it was not, or the file cannot be read.
    """
    key = token or (_first_line(file) if file is not None else os.environ.get(KEY_VARIABLE, ""))
    if not key:
        raise SettingsError(f"no key for the server: name a --key-file, or set {KEY_VARIABLE} to what the server knows")
    return key


def _first_line(file: Path) -> str:
    try:
        content = file.read_bytes()
    except OSError as exc:
        raise SettingsError(f"the key cannot be read: {exc}") from exc
    # Windows PowerShell's > and Notepad may write UTF-16.
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    key = content.decode(encoding, "replace").partition("\n")[0].strip()
    if not key:
        raise SettingsError(f"{file} is empty; write the server's key into its first line")
    return key


def existing(db: Path) -> Path:
    if not db.exists():
        raise SettingsError(f"{db} does not exist; name the EA's database with --db")
    return db


def say(text: str, log_file: Path | None) -> None:
    """Tell the user, or the log where a file was named."""
    if log_file is None:
        err.print(text, markup=False, soft_wrap=True)
    else:
        logging.getLogger(__name__).info(text)
