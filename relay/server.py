"""Posts to the server, one request at a time over one connection; every answer is a result or an error."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Final, Self

from marketdata.contract.request import agent_header, source_header
from marketdata.errors import SettingsError
from relay.lanes import Part
from runtime.exchange import ANSWER_SECONDS, Connection, address_of, is_this_machine
from runtime.posting import KeyRefused, Reply, Result, ServerRefused, result_of

#: Smaller bodies fit into a packet or two as they are (bytes).
_LEAST_PACKED_BYTES: Final = 1_500

#: What servers answer to a packed body that they do not understand; the body is sent again as it is, once.
_MAY_MEAN_NO_GZIP: Final = frozenset({400, 406, 415, 422, 500, 501})

#: zlib: 16 for the gzip header, 15 for the largest window.
_GZIP_WINDOW_BITS: Final = 31


class Server:
    """One server and the key for it."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        user_agent: str = "tickpipe-relay",
        packs_nearby: bool = False,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self.url = address_of(url)
        self._user_agent = user_agent
        if not key.isascii() or not key.isprintable():
            raise SettingsError("the server's key has characters that no header can carry; is it pasted completely?")
        # The old exporter's servers know the bearer token only.
        headers = {"X-API-Key": key, "Authorization": f"Bearer {key}"} if key else {}
        headers |= {"Content-Type": "application/json", "User-Agent": user_agent}
        self.connection = Connection(self.url, headers, answer_seconds=answer_seconds)
        #: None until the server has taken, or refused, a packed body. Nothing is packed for this machine, unless asked.
        self._packs: bool | None = False if is_this_machine(self.url) and not packs_nearby else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def send(self, parts: Sequence[Part]) -> Result:
        """What became of the rows of one request; see `runtime.posting.result_of` for the errors."""
        origin = parts[0][0].origin
        wrapper = b"ticks" if origin.path.endswith("/tick") else b"items"
        offset = origin.utc_offset_seconds
        said = b"" if offset is None else b'"utc_offset_s":%d,' % offset
        body = b'{%b"%b":[%b]}' % (said, wrapper, b",".join([row.item for part in parts for row in part]))
        headers = source_header(origin.source) | agent_header(self._user_agent, origin.server, origin.account)
        return self.post(origin.path, body, headers, sum(map(len, parts)))

    def post(self, path: str, body: bytes, headers: Mapping[str, str], sent: int) -> Result:
        """As `send`, for a body of `sent` items that is ready."""
        try:
            if self._packs is False or len(body) < _LEAST_PACKED_BYTES:
                return result_of(self._post(path, body, headers), sent)
            reply = self._post(path, _gzip(body), {**headers, "Content-Encoding": "gzip"})
            is_known = self._packs is not None
            if needs_plain := not is_known and reply.status in _MAY_MEAN_NO_GZIP:
                reply = self._post(path, body, headers)
            result = result_of(reply, sent)
        except KeyRefused as exc:
            raise KeyRefused(
                f"{exc}; is it in TICKPIPE_API_KEYS there? Where it is wrong here, put TICKPIPE_RELAY_FORWARD_KEY (or"
                " --token) right and start again. Ticks stay stored."
            ) from exc
        except ServerRefused:
            # Another server may have come into the place of one that takes packed bodies.
            self._packs = None if self._packs else self._packs
            raise
        if not is_known and reply.status < 300:
            self._packs = not needs_plain
        return result

    def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        return self.connection.post(self.url + path, body, headers)


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP_WINDOW_BITS)
    return packer.compress(body) + packer.flush()
