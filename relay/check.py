"""Checks step by step whether ticks would get from this PC to the server, without storing one."""

import os
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple

import msgspec

from marketdata.contract.request import TICKS_ROUTE, source_header
from marketdata.errors import TickpipeError
from relay.api import KEY_VARIABLE
from relay.server import Server
from runtime.posting import KeyRefused, NoAnswer, Reply, SourceRefused, answer_in, result_of

#: A clock that is off by more spoils what the PC says of its broker's zone (seconds).
_CLOCK_SECONDS: Final = 60.0

#: The symbol of the test tick, should a server store it.
_SYMBOL: Final = "TICKPIPE-CHECK"


class Finding(NamedTuple):
    """One thing that was looked at."""

    what: str
    is_good: bool
    text: str


def check_relay(url: str, server_url: str) -> Iterator[Finding]:
    """Hand the relay at `url` a test tick that it does not store, and ask whether it forwards to `server_url`."""
    with Server(url, os.environ.get(KEY_VARIABLE, ""), user_agent="tickpipe-check") as relay:
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

    The findings end where going on makes no sense.
    """
    began = time.monotonic()
    try:
        reply = server.connection.get(f"{server.url}/health")
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
