"""Every setting of every service, read from `TICKPIPE_*` variables, a `.env` file, and files that hold secrets."""

import json
import re
from datetime import timedelta, timezone, tzinfo
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from marketdata.contract.times import ShiftedZone
from marketdata.errors import SettingsError
from runtime.security_settings import SecretFiles, SecuritySettings
from runtime.services import BY_NAME

#: The key of `api_keys` whose holder may speak for any source, by sending `X-Source`.
ANY_SOURCE = "*"

#: A number of things, or of bytes: no more than a machine has.
Count = Annotated[int, Field(ge=1, le=2**40)]
#: Up to a century; more overflows the times of databases and Kafka.
Days = Annotated[int, Field(ge=0, le=36_525)]
#: Up to eleven days: an infinite wait is a mistake, and so is one that outlasts the log of its reason.
Seconds = Annotated[float, Field(gt=0, le=1_000_000)]
Port = Annotated[int, Field(ge=0, le=65_535)]
#: A name or an address to listen on; empty is everywhere.
Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:%-]*$")]
#: Kafka's rule for names of topics, and for lasting names of a group's members.
TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
InstanceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,249}$")]

#: One broker: a name, an IPv4 address or an IPv6 address in brackets, and a port.
_BROKER = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+)(?::(?P<port>\d{1,5}))?")

#: Settings whose variable holds JSON.
_AS_JSON: Final = ("api_keys", "source_zones", "last_mode_symbols", "allowed_hosts")

_TOPICS: Final = (
    "ticks_topic", "candles_topic", "broker_candles_topic", "reference_topic", "fills_topic", "wanted_topic",
    "ticks_rejected_topic", "candles_rejected_topic",
)  # fmt: skip

_OFFSET_AT_END = re.compile(r"([+-])([01]?\d|2[0-3])(?::?([0-5]\d))?$", re.ASCII)


class Settings(SecuritySettings):
    """One immutable set of settings; `kafka_bootstrap` is read from `TICKPIPE_KAFKA_BOOTSTRAP`, and so on."""

    # Notepad puts a byte order mark in front. JSON is decoded by a validator, whose error names the variable.
    model_config = SettingsConfigDict(
        env_prefix="TICKPIPE_", env_file=".env", env_file_encoding="utf-8-sig", extra="ignore", frozen=True,
        enable_decoding=False,
    )  # fmt: skip

    kafka_bootstrap: str = Field("127.0.0.1:9092", description="host:port of one or more brokers, by comma")
    kafka_partitions: Count = Field(4, le=10_000, description="partitions of a topic that is created")
    kafka_replication: Count = Field(1, le=100, description="replicas of a topic that is created")
    ticks_retention_days: Days = Field(0, description="least age at which Kafka may delete ticks; 0 is never (days)")
    ticks_topic: TopicName = Field("ticks", description="topic of the ticks: the only truth")
    candles_topic: TopicName = Field("candles.m1", description="topic of the folded candles")
    broker_candles_topic: TopicName = Field("candles.broker", description="topic of the bars that brokers computed")
    reference_topic: TopicName = Field("reference", description="topic of who sends, and how instruments are quoted")
    fills_topic: TopicName = Field("fills", description="topic of what senders report of ranges that were wanted")
    wanted_topic: TopicName = Field("wanted", description="topic of the ranges of which ticks are wanted")
    ticks_rejected_topic: TopicName = Field(
        "ticks.rejected", description="topic of items and records that are no ticks"
    )
    candles_rejected_topic: TopicName = Field(
        "candles.rejected", description="topic of candles that could not be stored"
    )
    ticks_local_retention_days: Days = Field(
        0, description="age at which ticks that are archived and compared are deleted from Kafka; 0 is never (days)"
    )
    archive: str = Field(
        "", description="folder, or URL of a bucket, for the archive of the ticks (docs/archive.md); `off` has none"
    )
    archive_group: str = Field(
        "tickpipe-archive", min_length=1, description="consumer group in which the archiver's progress shows"
    )
    archive_flush_seconds: Seconds = Field(
        300.0, description="how long ticks wait until they are archived: less makes smaller files (seconds)"
    )
    archive_host: Host = Field("127.0.0.1", description="address of the archiver's health and metrics")
    archive_port: Port = Field(BY_NAME["archive"].port, description="port of the archiver's health and metrics")
    stream_group: str = Field("tickpipe-stream", min_length=1, description="consumer group of the stream workers")
    sink_group: str = Field(
        "", description="consumer group of the sinks; by default `tickpipe-sink-` and the id of their database"
    )
    # With a lasting name a restarted worker takes its partitions back at once instead of after the session timeout.
    stream_instance: InstanceName = Field("", description="lasting name of this stream worker, unlike any other's")
    sink_instance: InstanceName = Field("", description="lasting name of this sink, unlike any other's")

    database_url: SecretStr = Field(
        SecretStr("postgresql://postgres@127.0.0.1:5432/postgres"), description="libpq URL of the database"
    )
    database_schema: str = Field(
        "public",
        pattern=r"^[a-z_][a-z0-9_]{0,62}$",
        description="schema of the tables, views and functions; one that is missing is created",
    )

    check_days: Days = Field(
        2, description="newest days that an idle sink checks for minutes missing from the table; 0 checks none (days)"
    )

    ledger_days: Days = Field(
        8,
        description="newest days in which the sink looks for missing ticks and has senders fill them; 0 is off (days)",
    )

    compress_after_days: Days = Field(
        0, description="age at which TimescaleDB's community edition compresses candles; 0 compresses none (days)"
    )

    retain_m1_days: Days = Field(
        0, description="age at which M1, and with it M5 to M30, is deleted; 0 never deletes it (days)"
    )
    retain_h1_days: Days = Field(
        0, description="age at which H1 and H4 are deleted, not before M1; 0 never deletes them (days)"
    )
    retain_d1_days: Days = Field(
        0, description="age at which D1, W1 and MN1 are deleted, not before H1; 0 never deletes them (days)"
    )

    api_keys: dict[str, SecretStr] = Field(
        default_factory=dict,
        description='JSON, source to key: `{"ICMarkets-Demo": "…"}`; the source `*` may speak for any source',
    )
    keys_file: Path | None = Field(
        None, description="file of the keys that `tickpipe keys` makes; producer and dashboard read it when it changes"
    )
    known_log_file: Path | None = Field(
        None,
        description="file in which the producer writes down its log, so that a lost one is not replaced in silence",
    )
    source_zones: dict[str, str] = Field(
        default_factory=dict,
        description='JSON, source to the zone of its clock: `{"ICMarkets-Demo": "America/New_York+07:00"}`',
    )
    last_mode_symbols: list[str] = Field(
        default_factory=list,
        description='JSON, patterns of symbols charted by last price (exchanges): `["PETR4", "WIN*"]`',
    )

    producer_host: Host = Field("127.0.0.1", description="address that the producer listens on")
    producer_port: Port = Field(BY_NAME["producer"].port, description="port of the producer")
    stream_host: Host = Field("127.0.0.1", description="address of the stream worker's health and metrics")
    stream_port: Port = Field(BY_NAME["stream"].port, description="port of the stream worker's health and metrics")
    sink_host: Host = Field("127.0.0.1", description="address of the sink's health and metrics")
    sink_port: Port = Field(BY_NAME["sink"].port, description="port of the sink's health and metrics")
    dashboard_host: Host = Field("127.0.0.1", description="address that the dashboard (chart and read API) listens on")
    dashboard_port: Port = Field(BY_NAME["dashboard"].port, description="port of the dashboard")
    dashboard_password: SecretStr = Field(
        SecretStr(""),
        description="password of the dashboard (HTTP basic, any user), 8 characters or more; without one it is open",
    )
    dashboard_database_url: SecretStr = Field(
        SecretStr(""), description="libpq URL that the dashboard reads from, for a role of its own that may only read"
    )
    dashboard_max_streams: Count = Field(
        200, description="live streams that the dashboard serves at once, half of them to one address; one more is 503"
    )
    allowed_hosts: list[str] = Field(
        default_factory=list,
        description='JSON, names with dots by which pages without a password are opened: `["pc7.example.com"]`',
    )
    max_connections: Count = Field(
        4096, description="connections to the producer, and to the dashboard, at once; one address may have half"
    )
    max_tick_body_bytes: Count = Field(64 * 1024 * 1024, description="largest body of ticks (bytes)")
    max_bar_body_bytes: Count = Field(64 * 1024 * 1024, description="largest body of bars (bytes)")
    max_pending_requests: Count = Field(
        256, description="requests that may wait for Kafka at once; one more is answered 503"
    )
    rate_limit_per_second: float = Field(0.0, ge=0, le=1e9, description="requests a second and key; 0 sets no limit")
    max_new_symbols_per_hour: int = Field(
        10_000, ge=0, le=2**40, description="symbols an hour and key that were not sent lately; 0 sets no limit"
    )
    confirm_timeout_seconds: Seconds = Field(
        10.0, description="wait for Kafka's confirmation, and 1 s more for each MB, before a request is 503 (seconds)"
    )

    emit_interval_seconds: Seconds = Field(
        0.2,
        description="longest pause between two updates of a moving candle: with 200 or more moving, with fewer it is "
        "as much shorter, and a lone tick is published at once (seconds)",
    )
    grace_seconds: Seconds = Field(
        5.0,
        description="how far behind the newest tick of its symbol a tick may come before its minute closes (seconds)",
    )
    # Two minutes of standstill are ordinary: an open minute holds the commit.
    watchdog_seconds: Seconds = Field(
        300.0, description="standstill with lag after which a stream worker ends to start afresh (seconds)"
    )

    otlp_endpoint: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="URL of an OpenTelemetry collector (OTLP over HTTP) that takes spans; needs the extra `otel`",
    )
    log_format: Literal["console", "json"] = Field("console", description="`console` for people, `json` for machines")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least important line to write")
    data_dir: Path = Field(
        Path("~/.local/share/tickpipe"), description="where the embedded stack stores its data", validate_default=True
    )

    @field_validator(*_AS_JSON, mode="before")
    @classmethod
    def _decode(cls, value: Any) -> Any:
        try:
            return json.loads(value) if isinstance(value, str) else value
        except ValueError as exc:
            raise ValueError(f"it is no JSON ({exc}); docs/settings.md has an example") from None

    @field_validator("kafka_bootstrap")
    @classmethod
    def _check_brokers(cls, value: str) -> str:
        for broker in value.split(","):
            found = _BROKER.fullmatch(broker.strip())
            if found is None or not 0 < int(found["port"] or 9092) < 65_536:
                raise ValueError(f"{broker!r} is no broker: write host:port, several by comma")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What the caller passes, then files of secrets, the environment, `.env`."""
        files = SecretFiles(settings_cls, env_settings, dotenv_settings)
        return init_settings, files, env_settings, dotenv_settings

    @field_validator("data_dir", "keys_file", "known_log_file", mode="before")
    @classmethod
    def _expand(cls, value: Path | str | None) -> Path | None:
        return Path(value).expanduser().absolute() if value else None

    @field_validator("dashboard_password")
    @classmethod
    def _check_password(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value.get_secret_value()) < 8:
            raise ValueError("a password is shorter than 8 characters")
        return value

    @field_validator("database_url", "dashboard_database_url")
    @classmethod
    def _check_database_url(cls, value: SecretStr) -> SecretStr:
        check_database_url(value.get_secret_value())
        return value

    @field_validator("source_zones")
    @classmethod
    def _check_zones(cls, value: dict[str, str]) -> dict[str, str]:
        for zone in value.values():
            parse_zone(zone)
        return value

    @field_validator("api_keys")
    @classmethod
    def _check_keys(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for source, key in value.items():
            if len(key.get_secret_value()) < 8:
                raise ValueError(f"the key of source {source!r} is shorter than 8 characters")
        if len({key.get_secret_value() for key in value.values()}) != len(value):
            raise ValueError("two sources share a key; a key belongs to one source")
        return value

    @model_validator(mode="after")
    def _check_topics(self) -> Self:
        names = self.topic_names
        if (shared := next((name for name in names if names.count(name) > 1), None)) is not None:
            both = [f"TICKPIPE_{field.upper()}" for field in _TOPICS if getattr(self, field) == shared]
            raise ValueError(f"{' and '.join(both)} name the same topic, {shared}; each needs one of its own")
        return self

    @model_validator(mode="after")
    def _check_retention(self) -> Self:
        for shorter, longer in (("retain_m1_days", "retain_h1_days"), ("retain_h1_days", "retain_d1_days")):
            days, more_days = getattr(self, shorter), getattr(self, longer)
            if more_days and not 0 < days <= more_days:
                raise ValueError(
                    f"TICKPIPE_{longer.upper()}={more_days} needs TICKPIPE_{shorter.upper()} between 1 and "
                    f"{more_days}: a longer timeframe is made of the shorter one and retained at least as long"
                )
        return self

    @property
    def topic_names(self) -> tuple[str, ...]:
        """The names of all topics, in the order of the flow."""
        return tuple(getattr(self, field) for field in _TOPICS)

    @property
    def has_archive(self) -> bool:
        """Whether ticks are archived, and read from there once Kafka no longer has them."""
        return self.archive not in ("", "off")

    @cached_property
    def zones(self) -> dict[str, tzinfo]:
        """The zone of each source's clock; a source that is not listed sends UTC."""
        return {source: parse_zone(zone) for source, zone in self.source_zones.items()}


def check_database_url(url: str) -> None:
    """Refuse a URL whose password is not written as a URL needs it.

    libpq takes a piece of such a password for a host or a port, and shows it in its error.

    Raises:
        ValueError: telling how; the URL is not in it.
    """
    if url and "=" not in url.partition("://")[0] and not re.match(r"postgres(?:ql)?://", url):
        raise ValueError("it is neither a URL, postgresql://…, nor libpq's keywords, host=… dbname=…")
    authority = re.match(r"postgres(?:ql)?://([^/?#]*)", url)
    if authority is None:
        return
    ends = authority[1].count("@")
    if ends > 1 or (not ends and "@" in url) or re.search(r"%(?![0-9A-Fa-f]{2})", url):
        raise ValueError("in a URL a password has %25 for %, %40 for @, %2F for /, %3F for ? and %23 for #")


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment and `.env`, with `overrides` on top.

    Raises:
        SettingsError: naming each variable that cannot be used and why.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # pydantic validates what the caller passes
    except ValidationError as exc:
        raise SettingsError("\n".join(map(_sentence, exc.errors()))) from exc
    except UnicodeDecodeError as exc:
        raise SettingsError("the file .env is not UTF-8; save it with that encoding") from exc


def _sentence(error: ErrorDetails) -> str:
    # Pydantic's prefix of what our own checks say.
    said = error["msg"].removeprefix("Value error, ")
    # What two settings say together has no place of its own; its message names both.
    return f"TICKPIPE_{str(error['loc'][0]).upper()}: {said}" if error["loc"] else said


def parse_zone(zone: str) -> tzinfo:
    """The zone named by an IANA name (`Europe/Athens`), an offset (`+03:00`, `-0330`), or both
    (`America/New_York+07:00`: New York's time plus seven hours, the clock of most MetaTrader brokers).

    Raises:
        ValueError: when it is none of these.
    """
    if not zone or not (name := _OFFSET_AT_END.sub("", zone)):
        return timezone(_offset_at_end(zone))
    # A name may end like an offset: Etc/GMT+3.
    for candidate, ahead in ((zone, None), (name, zone.removeprefix(name))):
        try:
            found = ZoneInfo(candidate)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            continue
        return found if not ahead else ShiftedZone(found, _offset_at_end(ahead))
    raise _no_zone(zone)


def _offset_at_end(text: str) -> timedelta:
    found = _OFFSET_AT_END.fullmatch(text)
    if found is None:
        raise _no_zone(text)
    sign, hours, minutes = found.groups(default="0")
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    return -offset if sign == "-" else offset


def _no_zone(zone: str) -> ValueError:
    return ValueError(
        f"{zone!r} is no zone: use an IANA name such as Europe/Athens, an offset such as +03:00, or both, such as "
        "America/New_York+07:00 for New York's time plus seven hours"
    )
