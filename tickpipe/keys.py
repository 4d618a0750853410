"""`tickpipe keys`: makes, lists, replaces and ends the API keys in the file that producer and dashboard read.

Only this module writes that file, one command at a time.
"""
# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marketdata.contract.http import Right
from marketdata.errors import SettingsError
from tickpipe.connection import DataDir, data_directory, no_stack
from tickpipe.console import UNIT_SECONDS, Format, FormatOption, as_utc, err, iso_utc, out, parse_time, run, write_rows

if TYPE_CHECKING:
    from runtime.api_keys import ApiKey, Secret

app = typer.Typer(no_args_is_help=True, help="API keys with rights, rates and an end.")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}", re.ASCII)
_SPAN = re.compile(r"(\d{1,5})([smhdw])", re.ASCII)


class NoSuchKey(SettingsError):
    """There is no key of that name; `tickpipe keys list` names them."""


def _span(text: str) -> timedelta:
    found = _SPAN.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no length of time; use for example 90d, 12h or 0s")
    return timedelta(seconds=int(found[1]) * UNIT_SECONDS[found[2]])


def _end(text: str) -> datetime:
    if _SPAN.fullmatch(text):
        return datetime.now(UTC) + _span(text)
    try:
        return as_utc(parse_time(text))
    except ValueError as exc:
        raise typer.BadParameter(f"{exc}; or a length of time such as 90d") from exc


Name = Annotated[str, typer.Argument(metavar="NAME", help="1 to 32 letters, digits, dots, - or _; shown in metrics.")]
Expires = Annotated[
    datetime | None,
    typer.Option(parser=_end, metavar="WHEN", help="When it ends: 90d, 12h, or a time. Default: never."),
]


@app.command()
def create(
    name: Name,
    *,
    source: Annotated[str, typer.Option(help="The one source that it may send for, or `*` for any.")] = "",
    right: Annotated[list[Right] | None, typer.Option(help="What it may do; repeat it. Default: ingest.")] = None,
    requests_per_minute: Annotated[float, typer.Option(min=0, help="Requests a minute; 0 sets no limit.")] = 0,
    ticks_per_minute: Annotated[float, typer.Option(min=0, help="Ticks a minute; 0 sets no limit.")] = 0,
    expires: Expires = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key and show it, this once: only its digest is stored.

    It works within two seconds, without a restart. `ingest` may send for its source, `read` may read the dashboard
    (where that has a password), `admin` may do both for every source.

    Examples:

    * `tickpipe keys create pc7 --source ICMarkets-Demo`
    * `tickpipe keys create bot --right read --requests-per-minute 600 --expires 90d`
    """
    from runtime.api_keys import ApiKey, Secret, digest_of

    rights = tuple(dict.fromkeys(right or [Right.INGEST]))
    _check(name, source, rights, expires)
    secret = _new_secret()
    with _keys(data_dir) as keys:
        if (known := keys.get(name)) is not None and known.revoked_at is None:
            raise SettingsError(
                f"there is a key {name} already; `tickpipe keys rotate {name}` makes another of it, "
                f"`tickpipe keys revoke {name}` ends it"
            )
        keys[name] = ApiKey(
            name=name, source=source, rights=rights, requests_per_minute=requests_per_minute,
            ticks_per_minute=ticks_per_minute, secrets=(Secret(digest_of(secret.encode()), _now(), expires),),
        )  # fmt: skip
    _show(secret, name)


@app.command("list")
def list_(*, format_: FormatOption = Format.TABLE, data_dir: DataDir = None) -> None:
    """List the keys of the file: what each may do, how fast, and until when. The keys themselves are not stored.

    While a key is being rotated there are two lines of its name. Keys of `TICKPIPE_API_KEYS` are not listed.

    Examples:

    * `tickpipe keys list`
    * `tickpipe keys list --format json`
    """
    from runtime.api_keys import read_keys

    columns = ("name", "source", "rights", "requests_per_minute", "ticks_per_minute", "created", "expires", "state")
    rows = [
        (
            key.name, key.source, ", ".join(key.rights), key.requests_per_minute or None, key.ticks_per_minute or None,
            iso_utc(secret.created_at), None if secret.expires_at is None else iso_utc(secret.expires_at),
            _state(key, secret),
        )
        for key in read_keys(_path(data_dir)) for secret in key.secrets
    ]  # fmt: skip
    run(write_rows(columns, rows, format_))


@app.command()
def rotate(
    name: Name,
    *,
    overlap: Annotated[
        timedelta, typer.Option(parser=_span, metavar="TIME", help="How long the former key stays valid.")
    ] = "24h",  # type: ignore[assignment]  # the parser makes a timedelta of it
    expires: Expires = None,
    data_dir: DataDir = None,
) -> None:
    """Make another key of the same name and rights and show it; the former one ends after the overlap.

    Two are valid at most: one from a rotation before ends at once. After a leak use `--overlap 0s`.

    Examples:

    * `tickpipe keys rotate pc7`
    * `tickpipe keys rotate pc7 --overlap 0s`
    """
    from runtime.api_keys import MAX_SECRETS, Secret, digest_of

    secret, now = _new_secret(), _now()
    with _keys(data_dir) as keys:
        key = _valid(keys, name)
        former = key.secrets[0]
        ends = min(now + overlap, former.expires_at or datetime.max.replace(tzinfo=UTC))
        secrets_ = (Secret(digest_of(secret.encode()), now, expires), Secret(former.digest, former.created_at, ends))
        keys[name] = _with(key, secrets=secrets_[:MAX_SECRETS])
    _show(secret, name)
    err.print(f"The former key is valid until {iso_utc(ends.replace(microsecond=0))}.", markup=False, soft_wrap=True)


@app.command()
def revoke(name: Name, *, data_dir: DataDir = None) -> None:
    """End a key at once. It stays listed, and its holder is told so.

    Examples:

    * `tickpipe keys revoke pc7`
    """
    with _keys(data_dir) as keys:
        keys[name] = _with(_valid(keys, name), revoked_at=_now())
    err.print(f"The key {name} is revoked; within two seconds nobody gets in with it.", markup=False, soft_wrap=True)


def _check(name: str, source: str, rights: tuple[Right, ...], expires: datetime | None) -> None:
    from marketdata.contract.fields import MAX_SOURCE, is_name
    from runtime.settings import ANY_SOURCE

    if not _NAME.fullmatch(name):
        raise typer.BadParameter(f"{name!r} is no name: use 1 to 32 letters, digits, dots, - or _")
    if Right.INGEST in rights and not source:
        raise typer.BadParameter(f"--source says whose ticks it may send; {ANY_SOURCE!r} is any")
    if source and not is_name(source, MAX_SOURCE):
        raise typer.BadParameter(f"{source!r} is no source: use 1 to {MAX_SOURCE} printable characters")
    if expires is not None and expires <= _now():
        raise typer.BadParameter(f"--expires: {iso_utc(expires)} is over")


def _valid(keys: "dict[str, ApiKey]", name: str) -> "ApiKey":
    key = keys.get(name)
    if key is None:
        raise NoSuchKey(f"there is no key {name!r}; `tickpipe keys list` names them")
    if key.revoked_at is not None:
        raise NoSuchKey(f"the key {name} was revoked; `tickpipe keys create {name}` makes a new one")
    return key


def _with(key: "ApiKey", **changes: object) -> "ApiKey":
    from msgspec.structs import replace

    return replace(key, **changes)


def _state(key: "ApiKey", secret: "Secret") -> str:
    if key.revoked_at is not None:
        return "revoked"
    if secret.has_expired(_now()):
        return "expired"
    return "valid" if secret is key.secrets[0] else "valid, former"


def _new_secret() -> str:
    return f"tp_{secrets.token_urlsafe(32)}"


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _show(secret: str, name: str) -> None:
    out.print(secret, markup=False, soft_wrap=True)
    err.print(f"This is the key {name}. It is shown only now: put it where it is used.", markup=False, soft_wrap=True)


def _path(data_dir: Path | None) -> Path:
    from runtime.api_keys import KEYS_FILE
    from runtime.settings import load_settings

    if (path := load_settings().keys_file) is not None:
        return path
    directory = data_directory(data_dir)
    if not directory.is_dir():
        raise SettingsError(f"{no_stack(directory)}, or set TICKPIPE_KEYS_FILE for services that run elsewhere")
    return directory / KEYS_FILE


@contextmanager
def _keys(data_dir: Path | None) -> "Iterator[dict[str, ApiKey]]":
    """The keys by name, to be changed; they are stored when the block ends without an error."""
    if sys.platform == "win32":
        raise SettingsError("keys are made where the producer runs, which is not Windows")
    import fcntl

    from runtime.api_keys import read_keys, write_keys

    path = _path(data_dir)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = {key.name: key for key in read_keys(path)}
        yield keys
        write_keys(path, list(keys.values()))
