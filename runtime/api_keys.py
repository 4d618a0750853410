"""API keys: whom a request comes from, what it may do, how much of it, and until when.

The keys of `TICKPIPE_API_KEYS` may send. Those of the file `TICKPIPE_KEYS_FILE`, which `tickpipe keys` writes, have
rights, rates and an end; the file is read again when it changed, so a key begins and ends without a restart. It holds
digests alone. A key is 256 random bits, which nobody finds by trying, so a plain SHA-256 is as good as a slow one.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from math import ceil
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import msgspec
import structlog

from marketdata.contract.fields import MAX_SOURCE, is_name
from marketdata.contract.http import Refusal, Right
from marketdata.errors import SettingsError
from runtime.files import replace_file
from runtime.settings import ANY_SOURCE, Settings

log = structlog.get_logger(__name__)

#: What the file of an embedded stack is called, in its data directory.
KEYS_FILE: Final = "api-keys.json"

#: How often at most the file is looked at (seconds).
_LOOK_EVERY_SECONDS: Final = 1.0

#: Two keys of one name are valid while senders change from the one to the other.
MAX_SECRETS: Final = 2

#: In front of what the keys of the settings are called, so that none has the name of one in the file.
_OF_SETTINGS: Final = "settings:"

#: Senders need some days to be given another key.
ENDS_SOON: Final = timedelta(days=14)

_LONG_AGO: Final = datetime.fromtimestamp(0, UTC)


Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Secret(msgspec.Struct, frozen=True):
    """One key as it is stored: its SHA-256 in hexadecimal digits, and when it ends."""

    digest: str
    created_at: Moment
    expires_at: Moment | None = None

    def has_expired(self, now: datetime) -> bool:
        """Whether it had an end, and that has come."""
        return self.expires_at is not None and self.expires_at <= now


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is stored of a key; rates of 0 set no limit of the key's own."""

    name: str
    source: str
    rights: tuple[Right, ...]
    #: The newest first.
    secrets: tuple[Secret, ...]
    requests_per_minute: float = 0.0
    ticks_per_minute: float = 0.0
    revoked_at: Moment | None = None

    def has(self, right: Right) -> bool:
        """Whether it may do that."""
        return right in self.rights or Right.ADMIN in self.rights

    @property
    def speaks_for_any(self) -> bool:
        """Whether it may name any source."""
        return self.source == ANY_SOURCE or Right.ADMIN in self.rights

    @property
    def ends_at(self) -> datetime | None:
        """When the last of its secrets ends; None for a key that lasts, or was revoked on purpose."""
        ends = [secret.expires_at for secret in self.secrets]
        lasts = self.revoked_at is not None or None in ends
        return None if lasts else max((end for end in ends if end is not None), default=None)


class KeyFile(msgspec.Struct):
    """What the file holds."""

    keys: list[ApiKey] = []
    version: int = 1


def read_keys(path: Path) -> list[ApiKey]:
    """The keys in a file; none where there is no file.

    Raises:
        SettingsError: when it cannot be read, or holds something else.
    """
    try:
        content = path.read_bytes()
        return msgspec.json.decode(content, type=KeyFile).keys
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise SettingsError(f"TICKPIPE_KEYS_FILE: {path} cannot be read as keys ({exc})") from exc


def write_keys(path: Path, keys: list[ApiKey]) -> None:
    """Replace the file: a reader sees the old keys or the new ones, and its owner alone sees any."""
    replace_file(path, msgspec.json.format(msgspec.json.encode(KeyFile(keys)), indent=2) + b"\n")


def digest_of(secret: bytes) -> str:
    """How a key is stored and found."""
    return sha256(secret).hexdigest()


class _Found(NamedTuple):
    key: ApiKey
    secret: Secret


class ApiKeys:
    """The keys of the settings and of the file.

    Raises:
        SettingsError: when a source has a name that no frame can carry, or the file cannot be read.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._path = settings.keys_file
        self._of_settings = [
            _key_of_settings(source, key.get_secret_value()) for source, key in settings.api_keys.items()
        ]
        self._looked_at = clock()
        self._seen = self._signature()
        self._by_digest = self._index(self._read())

    @property
    def is_empty(self) -> bool:
        """Whether there is no key, and none can come."""
        return not self._of_settings and self._path is None

    @property
    def names(self) -> set[str]:
        """What the keys are called."""
        return {found.key.name for found in self._by_digest.values()}

    def ends(self) -> dict[str, datetime]:
        """When keys end, by name, the first to end first; without those that last."""
        self._look()
        keys = {found.key.name: found.key for found in self._by_digest.values()}
        found = [(end, name) for name, key in keys.items() if (end := key.ends_at) is not None]
        return {name: end for end, name in sorted(found)}

    def authorise(self, given: bytes, right: Right) -> ApiKey:
        """The key that was given, when it may do that now.

        Raises:
            Refusal: 401 for none, a wrong one, or one that has ended; 403 for one without the right.
        """
        self._look()
        # Found by its digest: the time that this takes tells of digests, which lead to no key.
        found = self._by_digest.get(digest_of(given))
        if found is None:
            raise Refusal(401, "UNAUTHORIZED", "send a valid key as `X-API-Key: KEY` or `Authorization: Bearer KEY`")
        key, secret = found
        if key.revoked_at is not None:
            raise Refusal(
                401, "KEY_REVOKED", f"the key {key.name} was revoked on {_day(key.revoked_at)}; ask for another"
            )
        if secret.expires_at is not None and secret.has_expired(datetime.fromtimestamp(self._clock(), UTC)):
            raise Refusal(
                401, "KEY_EXPIRED",
                f"this key {key.name} expired on {_day(secret.expires_at)}; `tickpipe keys rotate {key.name}` makes "
                "another",
            )  # fmt: skip
        if not key.has(right):
            raise Refusal(
                403, "RIGHT_MISSING",
                f"the key {key.name} has no right `{right}`, only {', '.join(key.rights)}; "
                f"`tickpipe keys create NAME --right {right}` makes one that has",
            )  # fmt: skip
        return key

    def _look(self) -> None:
        if self._path is None:
            return
        now = self._clock()
        if abs(now - self._looked_at) < _LOOK_EVERY_SECONDS:
            return
        self._looked_at = now
        signature = self._signature()
        if signature == self._seen:
            return
        self._seen = signature
        try:
            keys = self._read()
        except SettingsError as exc:
            log.error("The keys stay as they were; the file cannot be read.", action="keys_unreadable", error=str(exc))
            return
        self._by_digest = self._index(keys)
        log.info("Read the keys again.", action="keys_read", path=str(self._path), keys=len(keys))

    def _signature(self) -> tuple[int, int, int] | None:
        """What changes with the file; None without one."""
        if self._path is not None:
            with suppress(OSError):
                found = self._path.stat()
                return found.st_ino, found.st_mtime_ns, found.st_size
        return None

    def _read(self) -> list[ApiKey]:
        return [] if self._path is None else read_keys(self._path)

    def _index(self, keys: Iterable[ApiKey]) -> Mapping[str, _Found]:
        return {s.digest: _Found(key, s) for key in (*keys, *self._of_settings) for s in key.secrets}


def _key_of_settings(source: str, secret: str) -> ApiKey:
    if not is_name(source, MAX_SOURCE):
        raise SettingsError(f"TICKPIPE_API_KEYS: {source!r} is no source: use 1 to {MAX_SOURCE} printable characters")
    stored = Secret(digest_of(secret.encode()), _LONG_AGO)
    return ApiKey(name=_OF_SETTINGS + source, source=source, rights=(Right.INGEST,), secrets=(stored,))


def _day(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d at %H:%M UTC")


class Rates:
    """How much each key may still send or ask: buckets that time refills.

    A key's own rate by the minute comes before `per_second`, which holds for all others; 0 means no limit. As much as a
    minute or a second allows may come at once.
    """

    def __init__(self, per_second: float = 0.0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._requests = _Buckets(clock)
        self._ticks = _Buckets(clock)

    def request(self, key: ApiKey) -> None:
        """Count a request.

        Raises:
            Refusal: 429 when the key has to wait.
        """
        if key.requests_per_minute:
            per_second, at_once = key.requests_per_minute / 60, key.requests_per_minute
            said = f"the key {key.name} may make {key.requests_per_minute:g} requests a minute"
        else:
            per_second = at_once = self._per_second
            said = "too many requests"
        if per_second and (wait := self._requests.wait_seconds(key.name, per_second, max(at_once, 1.0), least=1.0)):
            raise Refusal(429, "RATE_LIMITED", said, retry_after_seconds=wait)
        # How many ticks a body holds is not known yet: it passes while anything is left, and the next ones wait.
        if (ticks := key.ticks_per_minute) and (wait := self._ticks.wait_seconds(key.name, ticks / 60, ticks)):
            said = f"the key {key.name} may send {ticks:g} ticks a minute"
            raise Refusal(429, "RATE_LIMITED", said, retry_after_seconds=wait)
        if per_second:
            self._requests.take(key.name, 1.0)

    def sent(self, key: ApiKey, ticks: int) -> None:
        """Count what a request held."""
        if key.ticks_per_minute:
            self._ticks.take(key.name, ticks)


class _Buckets:
    """What is left to each holder, as many as there are keys."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        #: What is left, and when that was counted.
        self._left: dict[str, tuple[float, float]] = {}

    def wait_seconds(self, holder: str, per_second: float, at_once: float, *, least: float = 0.0) -> int:
        """0 when the holder has anything left, `least` or more; else the whole seconds until it has."""
        now = self._clock()
        left, counted = self._left.get(holder, (at_once, now))
        left = min(at_once, left + (now - counted) * per_second)
        self._left[holder] = (left, now)
        if left >= least and left > 0:
            return 0
        return max(1, ceil((least - left) / per_second))

    def take(self, holder: str, amount: float) -> None:
        """Take from what is left, and from what is still to come."""
        left, counted = self._left[holder]
        self._left[holder] = (left - amount, counted)
