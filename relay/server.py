"""The server as the relay sees it: one request at a time over one connection, every answer a result or an error."""

import email.utils
import sys
import time
import zlib
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any, Final, Self

import httpx

from marketdata.errors import SettingsError
from relay.errors import BodyRefused, BodyTooLarge, NoSuchEndpoint, ServerRefused, ServerUnavailable
from relay.lanes import Part

#: The producer waits 10 s for Kafka before it answers 503; less would give up on answers that are on their way.
_ANSWER_SECONDS: Final = 30.0
_CONNECT_SECONDS: Final = 5.0

#: Smaller bodies fit into a packet or two as they are (bytes).
_LEAST_PACKED_BYTES: Final = 1_500

#: What servers answer to a packed body that they do not understand; the body is sent again as it is, once.
_MAY_MEAN_NO_GZIP: Final = frozenset({400, 406, 415, 422, 500, 501})

#: zlib: 16 for the gzip header, 15 for the largest window.
_GZIP_WINDOW_BITS: Final = 31


class Server:
    """One server and the key for it."""

    def __init__(self, url: str, key: str, *, user_agent: str = "tickpipe-relay") -> None:
        self.url = url.rstrip("/")
        try:
            host = httpx.URL(url).host
        except httpx.InvalidURL as exc:
            raise SettingsError(f"{url!r} is no address; use one such as https://ticks.example.com") from exc
        if not host or not url.startswith(("http://", "https://")):
            raise SettingsError(f"{url!r} is no address; use one such as https://ticks.example.com")
        if not key.isascii() or not key.isprintable():
            raise SettingsError("the server's key has characters that no header can carry; is it pasted completely?")
        is_near = _is_this_machine(host)
        #: None until the server has taken, or refused, a packed body. Nothing is packed for this machine.
        self._packs: bool | None = False if is_near else None
        # The old exporter's servers know the bearer token only.
        headers = {"X-API-Key": key, "Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(
            headers={**headers, "Content-Type": "application/json", "User-Agent": user_agent},
            timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
            trust_env=not is_near,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def send(self, parts: Sequence[Part]) -> dict[str, Any]:
        """The answer to one request that the server took, wholly, in part (207) or whose every item it refused (400).

        Raises:
            ServerUnavailable: it may be sent again, and has to be.
            ServerRefused: the key or the address is wrong.
            BodyTooLarge, BodyRefused: it has to be split.
        """
        origin = parts[0][0].origin
        wrapper = b"ticks" if origin.path.endswith("/tick") else b"items"
        offset = origin.utc_offset_seconds
        said = b"" if offset is None else b'"utc_offset_s":%d,' % offset
        body = b'{%b"%b":[%b]}' % (said, wrapper, b",".join([row.item for part in parts for row in part]))
        return self.post(origin.path, body, {} if origin.source is None else {"X-Source": origin.source})

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
        """As `send`, for a body that is ready."""
        packed = self._packs is not False and len(body) >= _LEAST_PACKED_BYTES
        response = self._post(path, _gzip(body) if packed else body, headers, packed=packed)
        if packed and self._packs is None:
            if response.status_code in _MAY_MEAN_NO_GZIP:
                response = self._post(path, body, headers, packed=False)
                if response.status_code < 300:
                    self._packs = False
            elif response.status_code < 300:
                self._packs = True
        return self._result(response)

    def _post(self, path: str, body: bytes, headers: dict[str, str], *, packed: bool) -> httpx.Response:
        url = self.url + path
        try:
            return self._client.post(
                url, content=body, headers={**headers, "Content-Encoding": "gzip"} if packed else headers
            )
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as exc:
            raise SettingsError(f"{url!r} is no address; use one such as https://ticks.example.com") from exc
        except httpx.TransportError as exc:
            raise ServerUnavailable(f"{url} does not answer ({exc or type(exc).__name__})") from exc

    def _result(self, response: httpx.Response) -> dict[str, Any]:
        status, url = response.status_code, response.url
        answer = _json_of(response)
        said = str(answer.get("error") or response.reason_phrase)
        if status < 300 or status == 409:
            return answer
        if status == 400:
            if not answer.get("details"):
                raise BodyRefused(said)
            # Nothing was usable: every item is an error, though a long body's details stop at the first hundred.
            return {**answer, "errors": sys.maxsize}
        if status == 413:
            raise BodyTooLarge(said)
        if status in (401, 403):
            raise ServerRefused(
                f"{url} refuses the key ({status}: {said}); put TICKPIPE_RELAY_FORWARD_KEY (or --token) right and"
                " start again. Ticks are kept until then."
            )
        if status in (408, 429) or status >= 500:
            raise ServerUnavailable(f"{url} answers {status}: {said}", _retry_after_seconds(response))
        error = NoSuchEndpoint if status == 404 else ServerRefused
        raise error(f"{url} answers {status}: {said}; is this the address of a Tickpipe producer?")


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP_WINDOW_BITS)
    return packer.compress(body) + packer.flush()


def _json_of(response: httpx.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _retry_after_seconds(response: httpx.Response) -> float:
    """Retry-After in either of its forms: seconds, or the date of the next try."""
    text = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0
