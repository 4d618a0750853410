"""Posts to the server, one request at a time over one connection; every answer is a result or an error.

`check` tells step by step whether ticks would get from this PC to the server, without storing one.
"""

import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple, Self

import msgspec

from marketdata.contract.http import CAN_FILL, FILL, FILLS_TICKS, TICKS_ROUTE, agent_header, source_header
from marketdata.errors import SettingsError, TickpipeError
from relay.lanes import Part
from runtime.exchange import ANSWER_SECONDS, Connection, address_of, is_this_machine
from runtime.posting import (
    KeyRefused,
    NoAnswer,
    NotTrusted,
    Reply,
    Result,
    ServerRefused,
    SourceRefused,
    answer_in,
    result_of,
)

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
        self.user_agent = user_agent
        #: Asked before ticks are sent whether their sender could fill, and told what the server then wants of it.
        self.can_fill: Callable[[str], bool] = lambda sender: False
        self.on_answer: Callable[[str, Mapping[str, Any]], None] = lambda sender, answer: None
        self._reply: Reply | None = None
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
        headers = source_header(origin.source) | agent_header(self.user_agent, origin.server, origin.account)
        if origin.is_fill:
            headers[FILL] = FILLS_TICKS
        asks = wrapper == b"ticks" and self.can_fill(origin.sender)
        if asks:
            headers[CAN_FILL] = FILLS_TICKS
        result = self.post(origin.path, body, headers, sum(map(len, parts)))
        if asks and self._reply is not None:
            self.on_answer(origin.sender, answer_in(self._reply))
        return result

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
        self._reply = self.connection.post(self.url + path, body, headers)
        return self._reply


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP_WINDOW_BITS)
    return packer.compress(body) + packer.flush()


#: A clock that is off by more spoils what the PC says of its broker's zone (seconds).
_CLOCK_SECONDS: Final = 60.0

#: The symbol of the test tick, should a server store it.
_SYMBOL: Final = "TICKPIPE-CHECK"


class Finding(NamedTuple):
    """One thing that was looked at."""

    what: str
    is_good: bool
    text: str


def check_relay(url: str, server_url: str, key: str = "") -> Iterator[Finding]:
    """Hand the relay at `url` a test tick that it does not store, and ask whether it forwards.

    `key` is the one that it asks senders for.
    """
    with Server(url, key, user_agent="tickpipe-check") as relay:
        try:
            reply = _dry_run(relay, None)
            refused = result_of(reply, 1).errors
            health = answer_in(relay.connection.get(f"{relay.url}/health"))
        except TickpipeError as exc:
            yield Finding("relay", False, f"{exc}; does it run?")
            return
    if refused or answer_in(reply).get("dry_run") is not True or "total_ticks" not in health:
        yield Finding(
            "relay", False, f"{relay.url} answers, but not as this version's relay: another program, an older one?"
        )
    elif health.get("trouble"):
        yield Finding("relay", False, f"it stores ticks, but cannot forward them: {health['trouble']}")
    elif "trouble" not in health:
        yield Finding(
            "relay", False, f"it stores ticks, but forwards them nowhere; start it with --forward {server_url}"
        )
    else:
        yield Finding("relay", True, f"{relay.url} takes ticks; {health['queue']:,} rows wait for the server")


def check(server: Server, source: str | None = None) -> Iterator[Finding]:
    """Ask the server for its health, then how it would answer a tick of `source`.

    What could not be checked after a failure is left out.
    """
    began = time.monotonic()
    try:
        reply = server.connection.get(f"{server.url}/health")
    except NotTrusted as exc:
        yield Finding("server", False, str(exc))
        return
    except NoAnswer as exc:
        yield Finding("server", False, f"{exc}; is it up, and does a firewall let this PC through?")
        return
    milliseconds = (time.monotonic() - began) * 1000
    answer = answer_in(reply)
    if "total_ticks" in answer:
        yield Finding("server", False, f"{server.url} is a relay, not the server")
        return
    if "status" not in answer:
        yield Finding(
            "server", False, f"{server.url} answers {reply.status}, but not as Tickpipe: a login page, a proxy?"
        )
        return
    yield Finding("server", reply.status == 200, f"{server.url} answers {reply.status} within {milliseconds:.0f} ms")
    yield _clock(reply)
    yield from _tick(server, source)


def _clock(reply: Reply) -> Finding:
    try:
        there = parsedate_to_datetime(reply.headers.get("Date", "")).timestamp()
    except (ValueError, OverflowError):
        return Finding("clock", True, "the server does not say its time")
    # The header has whole seconds.
    ahead = time.time() - there - 0.5
    if abs(ahead) < 1.5:
        return Finding("clock", True, "this PC's is the server's, to a second or two")
    text = f"this PC's is {abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} the server's"
    is_good = abs(ahead) < _CLOCK_SECONDS
    return Finding("clock", is_good, text if is_good else f"{text}; on Windows: w32tm /resync")


def _dry_run(server: Server, source: str | None) -> Reply:
    # Without a price it draws no candle where a server that knows no dry run stores it.
    tick = {"time_msc": int(time.time() * 1000), "symbol": _SYMBOL, "bid": 0, "ask": 0, "last": 0, "flags": 0}
    body = msgspec.json.encode({"utc_offset_s": 0, "ticks": [tick]})
    return server.connection.post(server.url + TICKS_ROUTE, body, {"X-Dry-Run": "1", **source_header(source)})


def _tick(server: Server, source: str | None) -> Iterator[Finding]:
    try:
        reply = _dry_run(server, source)
        result = result_of(reply, 1)
    except KeyRefused as exc:
        yield Finding("key", False, f"{exc}; it must be one of TICKPIPE_API_KEYS there")
        return
    except SourceRefused as exc:
        yield Finding("key", True, "the server knows it")
        yield Finding("source", False, str(exc))
        return
    except TickpipeError as exc:
        yield Finding("test tick", False, str(exc))
        return
    yield Finding("key", True, "the server knows it")
    answer = answer_in(reply)
    if answer.get("source"):
        yield Finding(
            "source", True, f"ticks get the source {answer['source']!r}, unless a request names its broker's server"
        )
    if result.errors:
        yield Finding("test tick", False, f"refused ({'; '.join(result.reasons.values())})")
    elif answer.get("dry_run") is True:
        yield Finding("test tick", True, "would be taken; it was not stored")
    else:
        yield Finding(
            "test tick", True, f"taken; this server knows no dry run, so {_SYMBOL} is stored, without a candle"
        )
