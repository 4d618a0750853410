"""Who sends, and how often: from the API key of a request to the source it may speak for, and its rate limit."""

import hmac
import math
import time
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Final

from marketdata.contract.fields import MAX_SOURCE, is_name
from marketdata.contract.http import Refusal, key_in, source_in
from marketdata.errors import SettingsError
from runtime.settings import ANY_SOURCE, Settings

_HOW_TO_SET_KEYS: Final = (
    "no API key is configured, and without one anybody could send; set for example "
    'TICKPIPE_API_KEYS=\'{"MyBroker-Demo": "a-long-random-key"}\' (the source "*" may speak for any source)'
)


class Keyring:
    """The configured keys, compared in constant time.

    Raises:
        SettingsError: when no key is configured, or a source has a name that no frame can carry.
    """

    def __init__(self, settings: Settings) -> None:
        if not settings.api_keys:
            raise SettingsError(_HOW_TO_SET_KEYS)
        for source in settings.api_keys:
            if not is_name(source, MAX_SOURCE):
                raise SettingsError(
                    f"TICKPIPE_API_KEYS: {source!r} is no source: use 1 to {MAX_SOURCE} printable characters"
                )
        # Digests have one length, so comparing does not tell how long a key is.
        self._keys = [
            (source, sha256(key.get_secret_value().encode()).digest()) for source, key in settings.api_keys.items()
        ]

    def identify(self, headers: Mapping[bytes, bytes]) -> tuple[str, str | None]:
        """The key's holder (a key of `api_keys`) and the source that it speaks for; None when it may be any.

        Args:
            headers: with lower-case names, as in ASGI.

        Raises:
            Refusal: 401 without a key or with a wrong one, 403 for a source that the key may not speak for, 400 for a
                name that no source can have.
        """
        given = sha256(key_in(headers)).digest()
        holder = None
        for source, digest in self._keys:
            # No early exit: the time must not tell which key matched.
            if hmac.compare_digest(digest, given):
                holder = source
        if holder is None:
            raise Refusal(401, "UNAUTHORIZED", "send a valid key as `X-API-Key: KEY` or `Authorization: Bearer KEY`")
        return holder, _source(holder, source_in(headers))


def _source(holder: str, named: str | None) -> str | None:
    if holder == ANY_SOURCE:
        return named
    if named not in (None, holder):
        raise Refusal(403, "FORBIDDEN", "this key speaks for another source than the one in X-Source")
    return holder


class TokenBuckets:
    """Each holder of a key may make `per_second` requests a second, and as many at once; 0 means no limit."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = max(per_second, 1.0)
        self._clock = clock
        # Holder to (tokens left, when they were counted); as many entries as there are keys.
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, holder: str) -> int:
        """0 when the request may pass, else the seconds after which one may."""
        if not self._per_second:
            return 0
        now = self._clock()
        tokens, counted = self._buckets.get(holder, (self._burst, now))
        tokens = min(self._burst, tokens + (now - counted) * self._per_second)
        if tokens >= 1.0:
            self._buckets[holder] = (tokens - 1.0, now)
            return 0
        self._buckets[holder] = (tokens, now)
        return max(1, math.ceil((1.0 - tokens) / self._per_second))


class NewSymbols:
    """Each holder of a key may bring `per_hour` symbols an hour that it has not sent lately; 0 means no limit.

    A symbol costs memory in every service and rows in the database for ever, so a wrong name for each tick must not
    become one. What was sent in this hour or the one before is known.
    """

    def __init__(self, per_hour: int, clock: Callable[[], float] = time.time) -> None:
        self._per_hour = per_hour
        self._clock = clock
        # Holder to the hour, how many new ones it has brought, and the symbols of that hour and of the one before.
        self._known: dict[str, tuple[int, int, set[str], set[str]]] = {}

    def check(self, holder: str, symbols: Iterable[str]) -> None:
        """Take note of symbols, all or none.

        Raises:
            Refusal: 429 when more of them are new than the holder may bring in this hour.
        """
        if not self._per_hour:
            return
        now = self._clock()
        hour = int(now // 3600)
        before, brought, current, former = self._known.get(holder, (hour, 0, set(), set()))
        if hour != before:
            brought, current, former = 0, set(), current if hour == before + 1 else set()
        sent = set(symbols)
        new = len(sent - current - former)
        if new and brought + new > self._per_hour:
            raise Refusal(
                429, "TOO_MANY_SYMBOLS",
                f"this key has brought {brought:,} new symbols in this hour, and the request has {new:,} more; it may "
                f"bring {self._per_hour:,} (TICKPIPE_MAX_NEW_SYMBOLS_PER_HOUR)",
                retry_after_seconds=math.ceil((hour + 1) * 3600 - now),
            )  # fmt: skip
        current |= sent
        self._known[holder] = (hour, brought + new, current, former)
