"""`tickpipe doctor`: looks at every part of a pipeline and says what to do about each that is not as it should be.

It changes nothing. What cannot be asked because its server is away is told once, by the line of that server.
"""
# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from marketdata.errors import NotAuthorized, TickpipeError
from tickpipe.connection import DataDir, connected_settings, data_directory, open_database, stack_on
from tickpipe.console import DONE, PROBLEM, explain, print_json, print_table, run
from tickpipe.upkeep import Level, Line, ends_of_keys, installed, stored_backups, time_span

if TYPE_CHECKING:
    from aiokafka.admin import AIOKafkaAdminClient
    from psycopg import AsyncConnection

    from runtime.settings import Settings
    from runtime.volumes import Volume

#: How long a server may take to answer (seconds).
_PATIENCE_SECONDS: Final = 10.0

#: Clocks that differ by more make latencies wrong, then candles close early or late (seconds).
_CLOCKS_DIFFER_SECONDS: Final = 2.0
_CLOCKS_WRONG_SECONDS: Final = 30.0

#: The alert StreamLag begins here (records).
_MUCH_LAG: Final = 10_000

#: While one sender is heard the market is open; another that was heard lately and is silent for so long has stopped.
_HEARD: Final = timedelta(minutes=10)
_SILENT: Final = timedelta(hours=1)
_LATELY: Final = timedelta(days=7)

#: The newest tick of a source that sends is no further from its receipt, whatever the market does (seconds).
_ZONE_FITS_SECONDS: Final = 300
_HALF_HOUR_SECONDS: Final = 1_800

#: PostgreSQL 14 has multiranges, which offsets are stored in.
_OLDEST_POSTGRESQL: Final = 140_000


def doctor(
    *,
    json: Annotated[bool, typer.Option("--json", help="Write the lines as JSON.")] = False,
    backups: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where `tickpipe backup` writes: how old is the newest?")
    ] = None,
    producer: Annotated[
        str | None, typer.Option(metavar="URL", help="Address of the producer. Default: the stack's, or the settings'.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Look at every part of the pipeline, and say what to do about each that is not as it should be.

    Asks producer, Kafka and PostgreSQL: are they reachable, do their clocks agree, are topics, rights and the schema as
    they need to be, how much disk is left, do the zones of sources fit their ticks, is somebody silent, does a group
    lag. Nothing is changed. Exit code 1 when a line is red.

    Examples:

    * `tickpipe doctor`
    * `tickpipe doctor --backups /mnt/backup`
    * `docker compose run --rm tickpipe doctor --producer http://producer:18001`
    """
    from runtime.addresses import url_of
    from runtime.api_keys import KEYS_FILE
    from runtime.volumes import Volume

    settings = connected_settings(data_dir)
    directory = data_directory(data_dir)
    stack = stack_on(directory)
    own = stack.producer_url if stack is not None else url_of(settings.producer_host, settings.producer_port)
    lines = [*installed(settings), *stored_backups(backups), *ends_of_keys(settings.keys_file or directory / KEYS_FILE)]
    if directory.is_dir():
        # The volume of an embedded stack's servers. That of another PostgreSQL only its own host knows.
        usage = shutil.disk_usage(directory)
        lines.append(_volume(Volume(str(directory), usage.total, usage.free)))
    lines += run(examine(settings, producer or own))
    if json:
        print_json([asdict(line) for line in lines])
    else:
        print_table(("", "part", "found", "cure"), [(line.level, line.part, line.found, line.cure) for line in lines])
    raise typer.Exit(PROBLEM if any(line.level is Level.RED for line in lines) else DONE)


async def examine(settings: "Settings", producer_url: str) -> list[Line]:
    """Ask the producer, the database and Kafka."""
    import asyncio

    from sink.progress import with_sink_group

    producer, (database, database_skew) = await asyncio.gather(_producer(producer_url), _database(settings))
    # Without the database the name of the sinks' group is not known.
    known = await with_sink_group(settings) if database_skew is not None else settings
    lines, producer_skew = producer
    lines += database
    if producer_skew is not None and database_skew is not None:
        lines.append(_clocks(producer_skew - database_skew))
    return lines + await _kafka(known)


def _clocks(seconds: float) -> Line:
    said = f"the producer's clock is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} the database's"
    if abs(seconds) <= _CLOCKS_DIFFER_SECONDS:
        return Line("clocks", Level.GREEN, "producer and database agree")
    level = Level.RED if abs(seconds) > _CLOCKS_WRONG_SECONDS else Level.YELLOW
    return Line("clocks", level, said, "set both by NTP: timedatectl set-ntp true; on Windows w32tm /resync")


async def _producer(url: str) -> tuple[list[Line], float | None]:
    # And how far its clock is ahead of this machine's (seconds).
    from email.utils import parsedate_to_datetime

    import httpx

    try:
        async with httpx.AsyncClient(timeout=_PATIENCE_SECONDS, trust_env=False) as client:
            asked = datetime.now(UTC)
            answer = await client.get(f"{url.rstrip('/')}/ready")
            took = datetime.now(UTC) - asked
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        cure = "start it (`tickpipe up`, `docker compose up -d producer`), or say where it is: --producer URL"
        return [Line("producer", Level.RED, f"{url} does not answer: {exc or type(exc).__name__}", cure)], None
    skew = None
    if date := answer.headers.get("Date"):
        # A date has whole seconds, cut off.
        skew = (parsedate_to_datetime(date) + timedelta(seconds=0.5) - (asked + took / 2)).total_seconds()
    if answer.status_code == 200:
        return [Line("producer", Level.GREEN, f"{url} takes ticks")], skew
    said = f"{url} answers {answer.status_code}: {answer.text[:200]}"
    return [Line("producer", Level.RED, said, "its log says what it waits for, mostly Kafka or a topic")], skew


async def _database(settings: "Settings") -> tuple[list[Line], float | None]:
    # And how far its clock is ahead of this machine's (seconds); None when it does not answer.
    import psycopg

    from sink.db.session import SQL

    try:
        async with await open_database(settings, timeout_seconds=int(_PATIENCE_SECONDS)) as connection:
            asked = datetime.now(UTC)
            row = await (await connection.execute(SQL["server_clock"])).fetchone()
            took = datetime.now(UTC) - asked
            skew = (row[0] - (asked + took / 2)).total_seconds() if row else 0.0
            return [line async for line in _schema(connection, settings.database_schema)], skew
    except (psycopg.Error, OSError, TickpipeError) as exc:
        said, _ = explain(exc) or (str(exc), PROBLEM)
        return [Line("database", Level.RED, said, "start it, or mend TICKPIPE_DATABASE_URL")], None


async def _schema(connection: "AsyncConnection[Any]", schema: str) -> AsyncIterator[Line]:
    from sink.db.schema import applied_migrations, edition, migration_files, missing_rights, other_migrations
    from sink.db.session import SQL

    name = await edition(connection)
    if connection.info.server_version < _OLDEST_POSTGRESQL:
        yield Line("database", Level.RED, f"{name} is too old", "move to PostgreSQL 14 or later")
    else:
        yield Line("database", Level.GREEN, f"{connection.info.dbname} on {name}")
    if denied := await missing_rights(connection, schema):
        role = connection.info.user
        yield Line(
            "rights in the database", Level.RED, f"the role {role} lacks {', '.join(denied)}, so a sink cannot store",
            f"GRANT … TO {role} (docs/deploy/database.md); or name the sink's role in TICKPIPE_DATABASE_URL",
        )  # fmt: skip
        if any(right.startswith(("USAGE", "SELECT")) for right in denied):
            return  # what cannot be read cannot be looked at
    else:
        yield Line("rights in the database", Level.GREEN, f"the role {connection.info.user} may do what a sink does")
    stored = await applied_migrations(connection)
    applied, files = set(stored), set(migration_files())
    if missing := sorted(files - applied):
        yield Line("schema", Level.RED, f"lacks {', '.join(missing)}", "tickpipe db migrate")
        return
    if other := other_migrations(stored):
        cure = "TICKPIPE_DATABASE_SCHEMA=tickpipe, and fold the log again (docs/deploy/operations.md)"
        yield Line("schema", Level.RED, f"another version before the first release made {', '.join(other)}", cure)
        return
    if newer := sorted(applied - files):
        yield Line("schema", Level.RED, f"a newer Tickpipe made {', '.join(newer)}", "update this installation")
    else:
        yield Line("schema", Level.GREEN, f"{len(applied)} migrations, none is missing")
    for line in _senders(await _last_heard(connection)):
        yield line
    for source, heard, newest in await (await connection.execute(SQL["sender_clocks"])).fetchall():
        yield _zone(source, (newest - heard).total_seconds() if newest is not None else 0.0)


async def _last_heard(connection: "AsyncConnection[Any]") -> dict[str, datetime]:
    from sink.queries import read_senders

    heard: dict[str, datetime] = {}
    for row in await read_senders(connection, datetime.now(UTC) - _LATELY):
        name = " ".join(filter(None, (row.source, row.server, row.account, row.address)))
        heard[name] = max(row.last_seen, heard.get(name, row.last_seen))
    return heard


def _senders(heard: Mapping[str, datetime]) -> Iterator[Line]:
    now = datetime.now(UTC)
    if not any(now - last < _HEARD for last in heard.values()):
        last = (
            f"; the last was heard {time_span(now - max(heard.values()))} ago" if heard else f" for {_LATELY.days} days"
        )
        cure = "on a weekend nothing; else look at the terminal, its EA and the relay: `tickpipe relay check`"
        yield Line("senders", Level.YELLOW, f"nobody sends{last}", cure)
        return
    silent = {name: now - last for name, last in heard.items() if now - last > _SILENT}
    for name, since in silent.items():
        cure = "look at that terminal, its EA and the relay: `tickpipe relay check`"
        yield Line("senders", Level.YELLOW, f"{name} has been silent for {time_span(since)} while others send", cure)
    if not silent:
        yield Line("senders", Level.GREEN, f"{len(heard)} heard")


def _zone(source: str, ahead_seconds: float) -> Line:
    part = f"zone of {source}"
    half_hours = round(ahead_seconds / _HALF_HOUR_SECONDS)
    if ahead_seconds > _ZONE_FITS_SECONDS:
        return Line(
            part, Level.RED, f"its ticks are {ahead_seconds / 3600:.1f} h ahead of their receipt",
            f"TICKPIPE_SOURCE_ZONES='{{\"{source}\":\"America/New_York+07:00\"}}' or whatever its clock runs at; "
            "seconds or minutes are the PC's clock",
        )  # fmt: skip
    # Constantly behind by half hours; what is behind by any other time is history or a closed market.
    if half_hours and abs(ahead_seconds - half_hours * _HALF_HOUR_SECONDS) < 60:
        said = f"its newest tick is {-half_hours / 2:g} h older than its receipt"
        return Line(part, Level.YELLOW, said, "if it sends live ticks, TICKPIPE_SOURCE_ZONES is wrong for it")
    return Line(part, Level.GREEN, "fits its ticks")


async def _kafka(settings: "Settings") -> list[Line]:
    import asyncio

    from runtime.kafka import admin_client
    from runtime.kafka_errors import kafka_errors

    lines: list[Line] = []
    try:
        async with asyncio.timeout(2 * _PATIENCE_SECONDS), admin_client(settings) as client:
            lines.append(Line("Kafka", Level.GREEN, f"{settings.kafka_bootstrap} answers"))
            # One after the other: what is told before one cannot be asked stays told.
            for check in (_topics, _rights, _volumes, _groups):
                try:
                    with kafka_errors(settings):
                        lines += [line async for line in check(settings, client)]
                except NotAuthorized as exc:
                    cure = "grant it (docs/deploy/kafka.md)"
                    lines.append(Line("rights in Kafka", Level.YELLOW, " ".join(str(exc).split()), cure))
    except (TickpipeError, OSError) as exc:
        said = " ".join(str(exc).split()) or f"does not answer within {2 * _PATIENCE_SECONDS:.0f} s"
        cure = "start it, or mend TICKPIPE_KAFKA_BOOTSTRAP and TICKPIPE_KAFKA_SECURITY_PROTOCOL"
        lines.append(Line("Kafka", Level.RED, said, cure))
    return lines


async def _topics(settings: "Settings", client: "AIOKafkaAdminClient") -> AsyncIterator[Line]:
    from runtime.topics import absent, differences, topics

    missing, hidden = await absent(client, topics(settings))
    found, unread = await differences(settings, client, topics(settings))
    for topic in missing:
        yield Line("topics", Level.RED, f"{topic.name} is missing", "tickpipe topics create")
    for difference in found:
        level = Level.RED if difference.is_vital else Level.YELLOW
        yield Line("topics", level, str(difference), "tickpipe topics fix, then tickpipe topics fix --yes")
    if unseen := sorted({*hidden, *unread}):
        said = f"this user may not look at {', '.join(unseen)}"
        yield Line("topics", Level.YELLOW, said, "grant DESCRIBE and DESCRIBE_CONFIGS (kafka-acls)")
    if not missing and not found:
        yield Line("topics", Level.GREEN, "all that can be seen are as they need to be")


async def _rights(settings: "Settings", client: "AIOKafkaAdminClient") -> AsyncIterator[Line]:
    from runtime.rights import Service, missing_rights

    lacking: dict[str, list[str]] = {}
    for service in Service:
        missing, _ = await missing_rights(settings, client, service)
        for right in missing:
            lacking.setdefault(str(right), []).append(service)
    user = settings.kafka_sasl_username or "this user"
    for right_text, services in lacking.items():
        # Each service may have a user of its own, so this is no fault of the pipeline by itself.
        said = f"{user} lacks {right_text}, which {', '.join(services)} need"
        yield Line(
            "rights in Kafka", Level.YELLOW, said, "grant it (docs/deploy/kafka.md), unless they log in otherwise"
        )
    if not lacking:
        yield Line("rights in Kafka", Level.GREEN, f"{user} may do what every service does")


async def _volumes(settings: "Settings", client: "AIOKafkaAdminClient") -> AsyncIterator[Line]:
    from runtime.volumes import log_volumes

    for volume in await log_volumes(client):
        yield _volume(volume)


def _volume(volume: "Volume") -> Line:
    from runtime.volumes import CURE

    part = f"disk of {volume.name}"
    if not volume.is_low:
        return Line(part, Level.GREEN, volume.room)
    return Line(part, Level.RED if volume.is_almost_full else Level.YELLOW, volume.room, CURE)


async def _groups(settings: "Settings", client: "AIOKafkaAdminClient") -> AsyncIterator[Line]:
    from runtime.kafka_errors import kafka_errors
    from runtime.kafka_groups import describe_group
    from tickpipe.status import group_lags

    lags = await group_lags(settings, client)
    for name, group in (("stream", settings.stream_group), ("sink", settings.sink_group)):
        if not group:
            continue
        with kafka_errors(settings, group=group, right="DESCRIBE"):
            _, members = await describe_group(client, group)
        lag = lags[name]
        said = f"{len(members)} in the group {group}, {lag:,} records wait"
        if not members:
            yield Line(name, Level.RED, f"none runs, {lag:,} records wait", f"docker compose up -d {name}, tickpipe up")
        elif lag > _MUCH_LAG:
            yield Line(name, Level.YELLOW, said, f"after an outage it shrinks; else more of them: --scale {name}=2")
        else:
            yield Line(name, Level.GREEN, said)
