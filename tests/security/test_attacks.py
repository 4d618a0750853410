"""Attacks by their names: each is one request, answered without harm, without a secret, and never with a 500."""

import base64
import gzip
import json
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from tests.security.targets import (
    ANY_SENDER,
    BODY,
    DASHBOARD,
    ENDED,
    READER,
    RELAY,
    REVOKED,
    SECRETS,
    SENDER,
    SLOW,
    TICK,
    Targets,
    bomb,
    http,
    running_targets,
)


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Targets]:
    with running_targets(tmp_path_factory.mktemp("targets")) as running:
        yield running


class Attack(NamedTuple):
    """What is sent to whom, which answers are right, and what the answer says."""

    name: str
    target: str
    request: bytes | Callable[[], bytes]
    statuses: set[int]
    says: str = ""


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"me:{password}".encode()).decode()


def tick(**fields: object) -> bytes:
    return json.dumps({"ticks": [TICK | fields]}).encode()


def post(body: bytes = BODY, *, path: str = "/ingest/tick", key: str = SENDER, **headers: str) -> bytes:
    return http("POST", path, body, X_API_Key=key, **headers)


def chunked(*pieces: bytes, trailer: bytes = b"") -> bytes:
    head = http("POST", "/ingest/tick", X_API_Key=SENDER, Transfer_Encoding="chunked")
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n" + trailer + b"\r\n"


TAKEN, UNUSABLE, NO_KEY, NOT_ALLOWED, NOT_THERE = {200}, {400}, {401}, {403}, {404}
#: What is no HTTP is answered 400, or not at all.
NO_HTTP = {400, 0}
#: More than a read of the connection brings at once.
LONG = b"x" * 600_000
MANY = {f"x{number}": "y" * 20 for number in range(20_000)}
PACKED = gzip.compress(BODY)
OPEN, LOCKED = "open dashboard", "dashboard"

ATTACKS = [
    # Keys.
    Attack("no key", "producer", http("POST", "/ingest/tick", BODY), NO_KEY, "UNAUTHORIZED"),
    Attack("wrong key", "producer", post(key="wrong"), NO_KEY, "UNAUTHORIZED"),
    Attack("empty key", "producer", post(Authorization="Bearer ", key=""), NO_KEY, "UNAUTHORIZED"),
    Attack("prefix of a key", "producer", post(key=SENDER[:-1]), NO_KEY, "UNAUTHORIZED"),
    Attack("digest of a key", "producer", post(key="e3b0c44298fc1c149afbf4c8996fb924"), NO_KEY),
    Attack("key in the query", "producer", http("POST", f"/ingest/tick?key={SENDER}", BODY), NO_KEY),
    Attack("key as a cookie", "producer", http("POST", "/ingest/tick", BODY, Cookie=f"X-API-Key={SENDER}"), NO_KEY),
    Attack("key of the length of a header", "producer", post(key="k" * 60_000), NO_KEY),
    Attack("expired key", "producer", post(key=ENDED), NO_KEY, "KEY_EXPIRED"),
    Attack("revoked key", "producer", post(key=REVOKED), NO_KEY, "KEY_REVOKED"),
    Attack("key that may read sends", "producer", post(key=READER), NOT_ALLOWED, "RIGHT_MISSING"),
    Attack("key that may send reads", LOCKED, http("GET", "/symbols", X_API_Key=SENDER), NOT_ALLOWED, "RIGHT_MISSING"),
    Attack("another key's source", "producer", post(X_Source="Another"), NOT_ALLOWED, "FORBIDDEN"),
    Attack("source of control characters", "producer", post(key=ANY_SENDER, X_Source="a\x0bb"), {400}),
    Attack("source beyond its length", "producer", post(key=ANY_SENDER, X_Source="x" * 65), UNUSABLE, "INVALID_SOURCE"),
    Attack("key beyond its rate", "producer", post(key=SLOW), {200, 429}),
    Attack("kit without a key", "producer", http("GET", "/windows/tickpipe-windows.zip"), NO_KEY),
    Attack("kit with a key that reads", "producer", http("GET", "/windows/", Authorization=basic(READER)), NOT_ALLOWED),
    # Bodies.
    Attack("gzip bomb", "producer", lambda: post(bomb(), Content_Encoding="gzip"), {413}, "PAYLOAD_TOO_LARGE"),
    Attack("gzip bomb to the relay", "relay", lambda: post(bomb(), key=RELAY, Content_Encoding="gzip"), {413}),
    Attack("packing within packing", "producer", post(gzip.compress(PACKED), Content_Encoding="gzip"), {400}),
    Attack("damaged packing", "producer", post(PACKED[:-9], Content_Encoding="gzip"), {400}),
    Attack("unknown packing", "producer", post(Content_Encoding="br"), {415}),
    Attack("lists in lists", "producer", post(b"[" * 100_000), UNUSABLE),
    Attack("objects in objects", "producer", post(b'{"ticks":' * 50_000), UNUSABLE),
    Attack("lists in lists in meta", "producer", post(tick(meta=json.loads("[" * 500 + "]" * 500))), {200, 400}),
    Attack("unclosed strings", "producer", post(b'"' * 80_000), UNUSABLE),
    Attack("unclosed strings to the relay", "relay", post(b'"\\' * 40_000, key=RELAY), UNUSABLE),
    Attack("number of a million digits", "producer", post(b'[{"bid":' + b"9" * 1_000_000 + b"}]"), UNUSABLE),
    Attack("price without end", "producer", post(b'[{"symbol":"A","ts":1760926800,"bid":1e999,"ask":1}]'), {400}),
    Attack("absurd price", "producer", post(tick(bid=1e308)), UNUSABLE),
    Attack("the year 9999", "producer", post(tick(time_msc=253402300799000)), UNUSABLE),
    Attack("time before time", "producer", post(tick(time_msc=-(2**63))), UNUSABLE),
    Attack("symbol of escape sequences", "producer", post(tick(symbol="\x1b[2J")), UNUSABLE),
    Attack("symbol that turns the reading", "producer", post(tick(symbol="a\u202eb")), UNUSABLE),
    Attack("symbol of half a character", "producer", post(b'[{"symbol":"\\ud800","bid":1,"ask":1}]'), UNUSABLE),
    Attack("symbol beyond its length", "producer", post(tick(symbol="x" * 33)), UNUSABLE),
    Attack("not UTF-8", "producer", post(b"\xff\xfe\xff" * 1_000), UNUSABLE),
    Attack("nothing", "producer", post(b" "), UNUSABLE),
    Attack("form data", "producer", post(b"data=" + BODY, Content_Type="application/x-www-form-urlencoded"), UNUSABLE),
    Attack("trace id that is a log line", "producer", post(X_Trace_Id="a\x0b[error] forged"), TAKEN | UNUSABLE),
    # Requests that two servers could read in two ways, and heads.
    Attack("two lengths", "producer", post(Content_Length=f"{len(BODY)}\r\ncontent-length: 1"), NO_HTTP),
    Attack("length and chunks", "producer", post(Transfer_Encoding="chunked"), NO_HTTP),
    Attack("negative length", "producer", post(Content_Length="-1"), NO_HTTP),
    Attack("length of letters", "producer", post(Content_Length="0x10"), NO_HTTP),
    Attack("chunk of no size", "producer", chunked()[:-5] + b"zz\r\n", NO_HTTP),
    Attack("trailers without end", "producer", chunked(BODY, trailer=b"a: " + LONG + b"\r\n"), {200, 400, 431, 0}),
    Attack("head beyond its room", "producer", post(X_Long=LONG.decode()), {431}, "HEAD_TOO_LARGE"),
    Attack("thousands of headers", "relay", http("GET", "/health", b"", **MANY), {400, 431}),
    Attack("URL beyond its room", LOCKED, http("GET", "/" + LONG.decode()), {400, 431}),
    Attack("no HTTP at all", "producer", b"\x16\x03\x01\x02\x00\x01" + b"\x00" * 64 + b"\r\n\r\n", NO_HTTP),
    Attack("header that is two", "producer", post(X_Source="a\r\nX-API-Key: other"), {200, 400, 401, 403}),
    Attack("unknown method", "producer", http("TRACE", "/ingest/tick"), {400, 405}),
    Attack("proxy request", "producer", http("GET", "http://evil.example/metrics"), {200, 400, 404}),
    # Other people's names, files and pages.
    Attack("a foreign page's name, relay", "relay", http("GET", "/health", Host="evil.example"), {421}, "UNKNOWN_HOST"),
    Attack("a foreign page's name, dashboard", OPEN, http("GET", "/symbols", Host="evil.example:18080"), {421}),
    Attack("a name that ends like ours", OPEN, http("GET", "/", Host="localhost.evil.example"), {421}),
    Attack("a name with an address in it", OPEN, http("GET", "/", Host="127.0.0.1.evil.example"), {421}),
    Attack("a web page writes", "relay", post(key=RELAY, Origin="http://evil.example"), NOT_ALLOWED, "FORBIDDEN"),
    Attack("relay without its key", "relay", post(key=""), NO_KEY),
    Attack("relay's rows without its key", "relay", http("GET", "/debug/recent"), NO_KEY),
    Attack("relay's query", "relay", http("GET", "/debug/recent?limit=-1'%20OR%201=1", X_API_Key=RELAY), {200, 400}),
    Attack("dots out of the page's folder", OPEN, http("GET", "/../app.py"), NOT_THERE),
    Attack("encoded dots", OPEN, http("GET", "/%2e%2e/%2e%2e/etc/passwd"), NOT_THERE),
    Attack("encoded twice", OPEN, http("GET", "/%252e%252e/app.py"), NOT_THERE),
    Attack("backslashes", OPEN, http("GET", "/..%5c..%5capp.py"), NOT_THERE),
    Attack("NUL in a path", OPEN, http("GET", "/index.html%00.js"), NOT_THERE),
    Attack("folder of the page", OPEN, http("GET", "/js/"), NOT_THERE),
    Attack("redirect to a foreign host", OPEN, http("GET", "//evil.example/..", Host="localhost"), NOT_THERE),
    Attack("redirect by the header Host", "producer", http("GET", "/windows", Host="evil.example"), {307}),
    # Queries and passwords of the dashboard.
    Attack("no password", LOCKED, http("GET", "/"), NO_KEY),
    Attack("wrong password", LOCKED, http("GET", "/", Authorization=basic("wrong")), NO_KEY),
    Attack("password that is no base64", LOCKED, http("GET", "/", Authorization="Basic %%%"), NO_KEY),
    Attack("path of a probe and more", LOCKED, http("GET", "/health/../symbols"), NO_KEY),
    Attack("probe in capitals", LOCKED, http("GET", "/HEALTH"), NO_KEY),
    Attack("cookie without a password", LOCKED, http("GET", "/", Cookie="tickpipe_known=x"), NO_KEY),
    Attack("SQL in a symbol", OPEN, http("GET", "/candles?symbol='%3BDROP%20TABLE%20market_data--"), {400, 503}),
    Attack("SQL in a timeframe", OPEN, http("GET", "/candles?symbol=A&timeframe=M1'%20OR%201=1"), {400}),
    Attack("limit beyond its bound", OPEN, http("GET", "/candles?symbol=A&limit=999999999999"), {400}),
    Attack("limit of letters", OPEN, http("GET", "/candles?symbol=A&limit=1e3"), {400}),
    Attack("time without end", OPEN, http("GET", "/candles?symbol=A&from=99999999999999999999"), {400}),
    Attack("a parameter twice", OPEN, http("GET", "/candles?symbol=A&symbol=B"), {400}, "more than once"),
    Attack("an unknown parameter", OPEN, http("GET", "/candles?symbol=A&admin=1"), {400}, "no such parameter"),
    Attack("markup in a parameter", OPEN, http("GET", "/candles?symbol=A&x=%3Cscript%3E"), {400}),
    Attack("place in a stream that is none", OPEN, http("HEAD", "/stream?since=" + "9" * 64), {200}),
    Attack("writing to the dashboard", OPEN, http("POST", "/candles", b"{}"), {405}),
]  # fmt: skip


def test_there_are_sixty_and_their_names_differ() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 60


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack(targets: Targets, attack: Attack) -> None:
    stored, rows = len(targets.gateway.records), sum(targets.store.counts().by_symbol.values())
    request = attack.request if isinstance(attack.request, bytes) else attack.request()
    status, head, body = targets.ask(attack.target, request)

    assert status in attack.statuses, (status, body[:500])
    assert attack.says in body.decode(errors="replace")
    assert not any(secret.encode() in body or secret in head for secret in SECRETS)
    assert "evil.example" not in head
    if status != 200:
        # Nothing of it was taken as ticks; what is no tick is stored with the rejected records.
        assert not [record for record in targets.gateway.records[stored:] if record.topic == "ticks"]
        assert sum(targets.store.counts().by_symbol.values()) == rows
        if body and "content-type: application/json" in head:
            assert "\x1b" not in json.loads(body)["error"]


def test_after_all_of_them_the_services_work_as_before(targets: Targets) -> None:
    for target in targets.ports:
        assert targets.ask(target, http("GET", "/health"))[0] == 200
    before = len(targets.gateway.records)
    assert targets.ask("producer", post())[0] == 200
    assert len(targets.gateway.records) == before + 1
    assert targets.ask("relay", post(key=RELAY))[0] == 200
    assert targets.ask("dashboard", http("GET", "/", Authorization=basic(DASHBOARD)))[0] == 200
