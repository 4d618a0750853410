"""One request of the command line to the producer, with errors that tell the cure."""

from typing import Any

import httpx

from marketdata.errors import SettingsError
from runtime import posting
from runtime.posting import KeyRefused, NoAnswer, SourceRefused, result_of


def post(client: httpx.Client, url: str, body: bytes) -> dict[str, Any]:
    """The producer's answer to one request that it took, wholly, in part (207) or whose every item it rejected (400).

    Raises:
        ServerUnavailable, ServerRefused, SettingsError: as `Sender.send`.
        BodyTooLarge, BodyRefused: when the body has to be split.
    """
    try:
        return result_of(posting.post(client, url, body))
    except NoAnswer as exc:
        raise NoAnswer(f"{exc}; is the producer up?") from exc
    except (KeyRefused, SourceRefused) as exc:
        raise SettingsError(f"{exc}; pass the right one with --key or TICKPIPE_API_KEYS") from exc
