"""Settings are read from the environment, refused with the name of the variable, and all of them are documented."""

import importlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from pydantic import SecretStr

from marketdata.errors import SettingsError
from runtime.settings import Settings, load_settings, parse_zone

PAGE = Path(__file__).parents[3] / "docs" / "settings.md"


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKPIPE_API_KEYS", '{"ICMarkets-Demo": "0123456789"}')
    monkeypatch.setenv("TICKPIPE_SOURCE_ZONES", '{"ICMarkets-Demo": "+03:00"}')

    settings = load_settings()

    assert settings.api_keys["ICMarkets-Demo"].get_secret_value() == "0123456789"
    assert settings.zones["ICMarkets-Demo"].utcoffset(None) == timedelta(hours=3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kafka_partitions", 0),
        ("source_zones", {"s": "Atlantis/Capital"}),
        ("source_zones", {"s": "Atlantis/Capital+07:00"}),
        ("source_zones", {"s": "America/New_York+7:"}),
        ("source_zones", {"s": "America"}),
        ("source_zones", {"s": ""}),
        ("api_keys", {"s": "short"}),
        ("dashboard_password", "short"),
        ("api_keys", {"a": "the same key", "b": "the same key"}),
        ("log_format", "xml"),
        ("emit_interval_seconds", "often"),
    ],
)
def test_what_cannot_be_used_is_named(name: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"TICKPIPE_{name.upper()}: "):
        load_settings(**{name: value})


#: Settings of which every text is a value.
_FREE = frozenset({
    "stream_group", "sink_group", "archive_group", "archive", "dashboard_password", "data_dir", "keys_file",
    "known_log_file",
})  # fmt: skip


def refusal(name: str, value: str) -> str:
    """What is said to the value of a setting in the environment; empty, when it is taken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(f"TICKPIPE_{name.upper()}", value)
        try:
            load_settings()
        except SettingsError as exc:
            return str(exc)
    return ""


def test_nonsense_in_a_variable_is_one_sentence_that_names_it() -> None:
    said = {name: refusal(name, "? nonsense [") for name in Settings.model_fields.keys() - _FREE}
    assert {name: text for name, text in said.items() if not re.match(rf"TICKPIPE_{name.upper()}\b.*\Z", text)} == {}

    secrets = {name for name in said if isinstance(Settings.model_fields[name].default, SecretStr)}
    assert secrets
    assert {name for name in secrets if "nonsense" in said[name]} == set()


@pytest.mark.parametrize("value", ["-1", "99999999999999999999", "inf", "nan", "1e400"])
def test_no_number_is_without_bounds(value: str) -> None:
    numbers = [name for name, field in Settings.model_fields.items() if type(field.default) in (int, float)]
    assert len(numbers) > 20
    assert [name for name in numbers if f"TICKPIPE_{name.upper()}" not in refusal(name, value)] == []


@pytest.mark.parametrize("value", ["", "b:0", "b:65536", "b:x", "kafka://b:9092", "b:9092,", "::1:9092", "b 9092"])
def test_what_is_no_broker_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match=r"TICKPIPE_KAFKA_BOOTSTRAP: .* host:port"):
        load_settings(kafka_bootstrap=value)


def test_brokers_by_name_and_both_kinds_of_address() -> None:
    brokers = "kafka-1.example.com:9092, 10.0.0.1:9093,[::1]:9094,kafka"
    assert load_settings(kafka_bootstrap=brokers).kafka_bootstrap == brokers


def test_two_topics_do_not_share_a_name() -> None:
    with pytest.raises(SettingsError, match="TICKPIPE_TICKS_TOPIC and TICKPIPE_CANDLES_TOPIC name the same topic, t"):
        load_settings(ticks_topic="t", candles_topic="t")


def test_a_file_of_settings_as_windows_saves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / ".env"

    file.write_text("TICKPIPE_PRODUCER_PORT=1234\n", encoding="utf-8-sig")
    assert load_settings().producer_port == 1234

    file.write_text("TICKPIPE_PRODUCER_PORT=1234\n", encoding="utf-16")
    with pytest.raises(SettingsError, match=r"\.env is not UTF-8"):
        load_settings()


@pytest.mark.parametrize("service", ["producer", "stream_app", "sink", "dashboard"])
def test_a_service_ends_with_2_and_one_line(
    service: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TICKPIPE_API_KEYS", "nonsense")
    main = importlib.import_module(f"{service}.__main__").main

    try:
        code = main()
    except SystemExit as exc:
        code = exc.code

    said = capsys.readouterr()
    assert (code, said.out, said.err.count("\n")) == (2, "", 1)
    assert said.err.startswith("TICKPIPE_API_KEYS: ")


@pytest.mark.parametrize("days", [(30, 20, 0), (0, 20, 0), (30, 0, 3650), (30, 60, 59)])
def test_a_longer_timeframe_is_retained_at_least_as_long(days: tuple[int, int, int]) -> None:
    with pytest.raises(SettingsError, match=r"TICKPIPE_RETAIN_(H1|D1)_DAYS=\d+ needs TICKPIPE_RETAIN_(M1|H1)_DAYS"):
        load_settings(retain_m1_days=days[0], retain_h1_days=days[1], retain_d1_days=days[2])


def test_retention_is_off_unless_set() -> None:
    settings = load_settings()
    assert (settings.retain_m1_days, settings.retain_h1_days, settings.retain_d1_days) == (0, 0, 0)
    assert load_settings(retain_m1_days=30, retain_h1_days=30, retain_d1_days=60).retain_d1_days == 60


def test_secrets_do_not_show() -> None:
    settings = load_settings(api_keys={"s": "very secret"}, database_url="postgresql://u:very-secret@h/d")

    assert "very" not in repr(settings)


@pytest.mark.parametrize(("zone", "hours"), [("+03:00", 3), ("-0330", -3.5), ("+2", 2)])
def test_fixed_offsets_are_zones(zone: str, hours: float) -> None:
    assert parse_zone(zone).utcoffset(None) == timedelta(hours=hours)


def test_every_setting_is_on_its_page() -> None:
    page = PAGE.read_text()

    for name, field in Settings.model_fields.items():
        assert f"| `TICKPIPE_{name.upper()}` | {field.description} |" in page, f"docs/settings.md lacks {name}"


@pytest.mark.parametrize(
    ("zone", "hours"),
    [
        ("America/New_York+07:00", [2, 3]), ("America/New_York+7", [2, 3]), ("America/New_York-0030", [-5.5, -4.5]),
        ("Etc/GMT+3", [-3, -3]), ("Etc/GMT-2", [2, 2]), ("UTC+3", [3, 3]), ("Europe/Athens", [2, 3]),
    ],
)  # fmt: skip
def test_a_zone_may_be_put_forward(zone: str, hours: list[float]) -> None:
    winter, summer = datetime(2019, 1, 15, 12, tzinfo=UTC), datetime(2019, 7, 15, 12, tzinfo=UTC)
    assert [moment.astimezone(parse_zone(zone)).utcoffset() for moment in (winter, summer)] == [
        timedelta(hours=each) for each in hours
    ]


@pytest.mark.parametrize("password", ["pa%ss", "p@ss", "pa/ss", "pa?ss", "pa#ss", "p%", "100%sure"])
def test_a_password_that_a_url_cannot_hold_is_refused_without_being_shown(password: str) -> None:
    with pytest.raises(SettingsError, match=r"TICKPIPE_DATABASE_URL.*%25") as caught:
        load_settings(database_url=f"postgresql://u:{password}@h/d")
    assert password not in str(caught.value)

    escaped = quote(password, safe="")
    assert load_settings(database_url=f"postgresql://u:{escaped}@h/d").database_url.get_secret_value().count("@") == 1


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "localhost:5432", "http://h/d?a=b", "market"])
def test_another_kind_of_database_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=r"TICKPIPE_DATABASE_URL: .*postgresql://"):
        load_settings(database_url=url)


def test_other_connection_strings_are_left_to_libpq() -> None:
    for url in (
        "postgres://h/d",
        "postgresql:///d?host=/run/postgresql",
        "host=h password=p@s%s",
        "postgresql://u@[::1]:5/d",
        "",
    ):
        assert load_settings(database_url=url).database_url.get_secret_value() == url
