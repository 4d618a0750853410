"""Who sends: from the API key of a request to the source it may speak for."""

import hmac
from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from marketdata.contract.answers import Refusal
from marketdata.contract.names import MAX_SOURCE, is_name
from marketdata.contract.request import key_in, source_in
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
