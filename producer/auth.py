"""Who sends: from the API key of a request to the source it may speak for, and the new symbols that it may bring."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from marketdata.contract.http import Refusal, Right, key_in, source_in
from marketdata.errors import SettingsError
from runtime.api_keys import ApiKey, ApiKeys
from runtime.settings import Settings

_HOW_TO_SET_KEYS: Final = (
    "no API key is configured, and without one anybody could send; set for example "
    'TICKPIPE_API_KEYS=\'{"MyBroker-Demo": "a-long-random-key"}\' (the source "*" may speak for any source), or '
    "TICKPIPE_KEYS_FILE, which `tickpipe keys create` writes"
)


class Keyring:
    """The keys of those who may send.

    Raises:
        SettingsError: when no key is configured, a source has a name that no frame can carry, or the file of the keys
            cannot be read.
    """

    def __init__(self, settings: Settings) -> None:
        self.keys = ApiKeys(settings)
        if self.keys.is_empty:
            raise SettingsError(_HOW_TO_SET_KEYS)

    def identify(self, headers: Mapping[bytes, bytes]) -> tuple[ApiKey, str | None]:
        """The key and the source that it speaks for; None when it may be any and names none.

        Args:
            headers: with lower-case names, as in ASGI.

        Raises:
            Refusal: 401 without a valid key, 403 for one that may not send, or not for this source, 400 for a name that
                no source can have.
        """
        key = self.keys.authorise(key_in(headers), Right.INGEST)
        named = source_in(headers)
        if key.speaks_for_any:
            return key, named
        if named not in (None, key.source):
            raise Refusal(403, "FORBIDDEN", "this key speaks for another source than the one in X-Source")
        return key, key.source


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
        known = self._known.get(holder)
        if known is None:
            known = self._known[holder] = (hour, 0, set(), set())
        before, brought, current, former = known
        if hour != before:
            brought, current, former = 0, set(), current if hour == before + 1 else set()
        elif current.issuperset(symbols):
            return
        sent = set(symbols) - current
        new = len(sent - former)
        if new and brought + new > self._per_hour:
            raise Refusal(
                429, "TOO_MANY_SYMBOLS",
                f"this key has brought {brought:,} new symbols in this hour, and the request has {new:,} more; it may "
                f"bring {self._per_hour:,} (TICKPIPE_MAX_NEW_SYMBOLS_PER_HOUR)",
                retry_after_seconds=math.ceil((hour + 1) * 3600 - now),
            )  # fmt: skip
        current |= sent
        self._known[holder] = (hour, brought + new, current, former)
