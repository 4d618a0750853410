"""Posts to the server, one request at a time over one connection; every answer is a result or an error."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

from httpx import Response

from marketdata.contract.request import source_header
from marketdata.contract.sender import agent_header
from marketdata.errors import SettingsError
from relay.lanes import Part
from runtime.posting import KeyRefused, address_of, is_this_machine, new_client, post, result_of

#: Smaller bodies fit into a packet or two as they are (bytes).
_LEAST_PACKED_BYTES: Final = 1_500

#: What servers answer to a packed body that they do not understand; the body is sent again as it is, once.
_MAY_MEAN_NO_GZIP: Final = frozenset({400, 406, 415, 422, 500, 501})

#: zlib: 16 for the gzip header, 15 for the largest window.
_GZIP_WINDOW_BITS: Final = 31


class Server:
    """One server and the key for it."""

    def __init__(self, url: str, key: str, *, user_agent: str = "tickpipe-relay", packs_nearby: bool = False) -> None:
        self.url = address_of(url)
        self._user_agent = user_agent
        if not key.isascii() or not key.isprintable():
            raise SettingsError("the server's key has characters that no header can carry; is it pasted completely?")
        # The old exporter's servers know the bearer token only.
        headers = {"X-API-Key": key, "Authorization": f"Bearer {key}"} if key else {}
        self._client = new_client(url, {**headers, "Content-Type": "application/json", "User-Agent": user_agent})
        #: None until the server has taken, or refused, a packed body. Nothing is packed for this machine, unless asked.
        self._packs: bool | None = False if is_this_machine(url) and not packs_nearby else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def send(self, parts: Sequence[Part]) -> dict[str, Any]:
        """The answer to one request that the server took, wholly, in part (207) or whose every item it refused (400).

        Raises:
            ServerUnavailable: it may be sent again, and has to be.
            ServerRefused: the key or the address is wrong.
            SourceRefused: the key may not speak for the source of these rows.
            BodyTooLarge, BodyRefused: it has to be split.
        """
        origin = parts[0][0].origin
        wrapper = b"ticks" if origin.path.endswith("/tick") else b"items"
        offset = origin.utc_offset_seconds
        said = b"" if offset is None else b'"utc_offset_s":%d,' % offset
        body = b'{%b"%b":[%b]}' % (said, wrapper, b",".join([row.item for part in parts for row in part]))
        headers = source_header(origin.source) | agent_header(self._user_agent, origin.server)
        return self.post(origin.path, body, headers)

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
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
        try:
            return result_of(response)
        except KeyRefused as exc:
            raise KeyRefused(
                f"{exc}; put TICKPIPE_RELAY_FORWARD_KEY (or --token) right and start again. Ticks stay stored."
            ) from exc

    def _post(self, path: str, body: bytes, headers: Mapping[str, str], *, packed: bool) -> Response:
        return post(self._client, self.url + path, body, {**headers, "Content-Encoding": "gzip"} if packed else headers)


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP_WINDOW_BITS)
    return packer.compress(body) + packer.flush()
