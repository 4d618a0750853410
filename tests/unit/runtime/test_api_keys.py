"""Keys in a file: what they may do, until when, how much of it; and the file is read again when it changes."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from marketdata.contract.http import Refusal, Right
from marketdata.errors import SettingsError
from runtime.api_keys import ApiKey, ApiKeys, Rates, Secret, digest_of, read_keys, write_keys
from runtime.settings import load_settings

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def new_key(secret: bytes = b"secret", *, expires_at: datetime | None = None, **more: object) -> ApiKey:
    stored = Secret(digest_of(secret), NOW, expires_at)
    fields = {"name": "pc7", "source": "A", "rights": (Right.INGEST,), "secrets": (stored,)} | more
    return ApiKey(**fields)  # type: ignore[arg-type]  # what a test chooses


class Opened:
    """The keys of a file, and a clock that the test moves."""

    def __init__(self, folder: Path, *keys: ApiKey, **settings: object) -> None:
        self.now = NOW.timestamp()
        self.path = folder / "keys.json"
        write_keys(self.path, list(keys))
        self.keys = ApiKeys(load_settings(keys_file=self.path, **settings), clock=lambda: self.now)

    def refusal(self, secret: bytes, right: Right = Right.INGEST) -> tuple[int, str]:
        with pytest.raises(Refusal) as refused:
            self.keys.authorise(secret, right)
        return refused.value.status, f"{refused.value.code} {refused.value.message}"


def test_a_key_is_known_by_its_secret_and_the_file_does_not_hold_that(tmp_path: Path) -> None:
    opened = Opened(tmp_path, new_key(b"a-secret-of-pc7"), api_keys={"B": "a-key-of-the-settings"})

    assert opened.keys.authorise(b"a-secret-of-pc7", Right.INGEST).name == "pc7"
    assert opened.keys.authorise(b"a-key-of-the-settings", Right.INGEST).source == "B"
    assert opened.refusal(b"another")[0] == 401
    assert opened.refusal(b"")[0] == 401
    assert b"a-secret-of-pc7" not in opened.path.read_bytes()
    assert stat.S_IMODE(opened.path.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]


@pytest.mark.parametrize(
    ("rights", "allowed"),
    [
        ((Right.INGEST,), {Right.INGEST}),
        ((Right.READ,), {Right.READ}),
        ((Right.INGEST, Right.READ), {Right.INGEST, Right.READ}),
        ((Right.ADMIN,), {Right.INGEST, Right.READ, Right.ADMIN}),
    ],
)
def test_a_key_may_do_what_its_rights_say(tmp_path: Path, rights: tuple[Right, ...], allowed: set[Right]) -> None:
    opened = Opened(tmp_path, new_key(rights=rights))
    for right in Right:
        if right in allowed:
            assert opened.keys.authorise(b"secret", right).name == "pc7"
        else:
            status, said = opened.refusal(b"secret", right)
            assert (status, f"no right `{right}`" in said) == (403, True)


def test_the_keys_of_the_settings_may_send_and_do_no_more(tmp_path: Path) -> None:
    opened = Opened(tmp_path, api_keys={"*": "a-key-of-the-settings"})
    assert opened.keys.authorise(b"a-key-of-the-settings", Right.INGEST).speaks_for_any
    assert opened.refusal(b"a-key-of-the-settings", Right.READ)[0] == 403


def test_a_key_ends_when_it_expires_and_says_when(tmp_path: Path) -> None:
    opened = Opened(tmp_path, new_key(expires_at=NOW + timedelta(hours=1)))
    assert opened.keys.authorise(b"secret", Right.INGEST)
    opened.now += 3_600
    assert opened.refusal(b"secret") == (
        401, "KEY_EXPIRED this key pc7 expired on 2026-03-01 at 13:00 UTC; `tickpipe keys rotate pc7` makes another"
    )  # fmt: skip


def test_both_keys_of_a_rotation_are_valid_until_the_former_one_ends(tmp_path: Path) -> None:
    secrets = (Secret(digest_of(b"new"), NOW), Secret(digest_of(b"old"), NOW, NOW + timedelta(minutes=1)))
    opened = Opened(tmp_path, new_key(secrets=secrets))
    assert {opened.keys.authorise(secret, Right.INGEST).name for secret in (b"new", b"old")} == {"pc7"}
    opened.now += 60
    assert opened.keys.authorise(b"new", Right.INGEST)
    assert opened.refusal(b"old")[1].startswith("KEY_EXPIRED")


def test_the_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    opened = Opened(tmp_path)
    assert opened.refusal(b"secret")[1].startswith("UNAUTHORIZED")

    write_keys(opened.path, [new_key()])
    opened.now += 1
    assert opened.keys.authorise(b"secret", Right.INGEST)

    write_keys(opened.path, [new_key(revoked_at=NOW)])
    opened.now += 1
    assert opened.refusal(b"secret")[1].startswith("KEY_REVOKED the key pc7 was revoked on 2026-03-01 at 12:00 UTC")

    opened.path.unlink()
    opened.now += 1
    assert opened.refusal(b"secret")[1].startswith("UNAUTHORIZED")


def test_a_file_that_cannot_be_read_leaves_the_keys_as_they_were_and_is_refused_at_start(tmp_path: Path) -> None:
    opened = Opened(tmp_path, new_key())
    opened.path.write_text('{"keys": [{"name": ')
    opened.now += 1
    assert opened.keys.authorise(b"secret", Right.INGEST)
    with pytest.raises(SettingsError, match=r"TICKPIPE_KEYS_FILE: .*keys\.json cannot be read as keys"):
        ApiKeys(load_settings(keys_file=opened.path))


def test_times_of_the_file_have_a_zone(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    write_keys(path, [new_key(expires_at=NOW)])
    path.write_text(path.read_text().replace("12:00:00Z", "12:00:00"))
    with pytest.raises(SettingsError, match="cannot be read as keys"):
        read_keys(path)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def waits(rates: Rates, key: ApiKey) -> int:
    """0 when the key may make a request now, else the seconds after which it may."""
    try:
        rates.request(key)
    except Refusal as refusal:
        return refusal.retry_after_seconds or -refusal.status
    return 0


def test_a_rate_refills_with_time_and_belongs_to_one_key() -> None:
    clock = Clock()
    rates = Rates(2.0, clock=clock)
    a, b = new_key(name="a"), new_key(name="b")
    assert [waits(rates, a) for _ in range(3)] == [0, 0, 1]  # two at once, the third after half a second
    assert waits(rates, b) == 0
    clock.now = 0.5
    assert [waits(rates, a) for _ in range(2)] == [0, 1]


def test_no_rate_means_no_limit() -> None:
    rates = Rates()
    assert not any(waits(rates, new_key()) for _ in range(1000))


def test_a_keys_own_rate_of_requests_comes_before_that_of_all() -> None:
    clock = Clock()
    rates, key = Rates(1.0, clock=clock), new_key(requests_per_minute=3)
    assert [waits(rates, key) for _ in range(4)] == [0, 0, 0, 20]  # three a minute, so one each 20 s
    clock.now = 20
    assert [waits(rates, key) for _ in range(2)] == [0, 20]


def test_ticks_are_counted_when_they_were_read_and_what_is_overdrawn_is_waited_for() -> None:
    clock = Clock()
    rates, key = Rates(clock=clock), new_key(ticks_per_minute=600)
    assert waits(rates, key) == 0
    rates.sent(key, 900)  # 300 more than there were: 30 s at ten a second
    assert waits(rates, key) == 30
    clock.now = 31
    assert waits(rates, key) == 0


def test_the_end_of_a_key_is_that_of_its_last_secret(tmp_path: Path) -> None:
    hour = timedelta(hours=1)
    keys = [
        new_key(b"1", name="ends", expires_at=NOW + 2 * hour),
        new_key(b"2", name="lasts"),
        new_key(name="rotated", secrets=(Secret("a", NOW, NOW + hour), Secret("b", NOW, NOW - hour))),
        new_key(b"3", name="revoked", expires_at=NOW + hour, revoked_at=NOW),
    ]
    assert list(Opened(tmp_path, *keys).keys.ends().items()) == [("rotated", NOW + hour), ("ends", NOW + 2 * hour)]
