"""`tickpipe status`: what runs, how far it is, what is down; `tickpipe senders`: who sends.

Kafka and PostgreSQL are asked at the same time and each within a few seconds; what does not answer becomes a sentence
in `problems` instead of an error, because a status is needed most when something is down.
"""
# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

from collections.abc import Awaitable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.markup import escape

from marketdata.errors import SettingsError, TickpipeError
from tickpipe.connection import DataDir, connected_settings, data_directory, open_database, stack_on
from tickpipe.console import (
    DONE,
    PROBLEM,
    TIME_HELP,
    AllRows,
    Format,
    FormatOption,
    err,
    iso_utc,
    out,
    print_head,
    print_json,
    print_table,
    run,
    time_option,
    write_rows,
)

if TYPE_CHECKING:
    from aiokafka.admin import AIOKafkaAdminClient

    from runtime.kafka import Ends
    from runtime.settings import Settings
    from sink.queries import SenderRow
    from tickpipe.embedded.state import StackState


_ADDRESSES = (
    "dashboard_url",
    "producer_url",
    "stream_url",
    "sink_url",
    "kafka_bootstrap",
    "database_url",
    "reader_url",
)

#: How long Kafka may take to tell, and PostgreSQL to let us in (seconds).
_PATIENCE_SECONDS: Final = 5

#: How long a PostgreSQL that let us in may take to list ten thousand symbols while it is busy (seconds).
_READING_SECONDS: Final = 30


@dataclass
class PipelineStatus:
    """The pipeline apart from its processes; empty where `problems` says that something is down."""

    topics: dict[str, dict[str, int]] = field(default_factory=dict)
    #: Records that a group has not committed yet; a partition without a commit counts from the start of the log.
    lag: dict[str, int | None] = field(default_factory=lambda: {"stream": None, "sink": None})
    newest: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    #: What works and will not for long.
    warnings: list[str] = field(default_factory=list)


def status(
    *,
    json: Annotated[
        bool, typer.Option("--json", help="Write JSON, with the API key and the database's password.")
    ] = False,
    key: Annotated[bool, typer.Option("--key", help="Write the key of the producer, and nothing else.")] = False,
    all_rows: AllRows = False,
    data_dir: DataDir = None,
) -> None:
    """Show the services, the ends of the topics, the lag of both groups and the newest candle of each symbol.

    Exit code 1 when a service is not running, or Kafka or PostgreSQL does not answer; with `--json` the document says
    so and the exit code is 0. Exit code 2 when no stack runs.

    Examples:

    * `tickpipe status`
    * `tickpipe status --json | jq .lag`
    """
    settings = connected_settings(data_dir)
    stack = stack_on(data_directory(data_dir))
    if key:
        print(_api_key(stack, settings))
        raise typer.Exit(DONE)
    pipeline = run(pipeline_status(settings))
    if json:
        secret = settings.database_url.get_secret_value()
        print_json(_as_json(stack, pipeline, settings.kafka_bootstrap, secret))
        raise typer.Exit(DONE)
    _show(stack, pipeline, all_rows=all_rows)
    services_run = stack is None or stack.is_ready
    raise typer.Exit(DONE if services_run and not pipeline.problems else PROBLEM)


def _as_json(
    stack: "StackState | None", pipeline: PipelineStatus, kafka_bootstrap: str, database_url: str
) -> dict[str, Any]:
    content: dict[str, Any] = {"services": [asdict(service) for service in stack.services] if stack else []}
    content |= asdict(pipeline)
    if stack is None:
        return content | {"kafka_bootstrap": kafka_bootstrap, "database_url": database_url}
    content |= {name: getattr(stack, name) for name in _ADDRESSES}
    return content | {
        "api_key": stack.api_key,
        # As TICKPIPE_… they let a program elsewhere on this machine in.
        "kafka_settings": {name: value for name, value in stack.kafka_settings.items() if value},
        "supervisor_pid": stack.supervisor_pid,
        "started_at": stack.started_at,
    }


def _api_key(stack: "StackState | None", settings: "Settings") -> str:
    if stack is not None:
        return stack.api_key
    keys = settings.api_keys
    if not keys:
        raise SettingsError("no key is set: TICKPIPE_API_KEYS")
    return next(iter(keys.values())).get_secret_value()


def _show(stack: "StackState | None", pipeline: PipelineStatus, *, all_rows: bool) -> None:
    if stack is not None:
        services = [(s.name, _state(s.state), s.pid, s.restarts, s.log) for s in stack.services]
        print_table(("name", "state", "pid", "restarts", "log"), services, title="Services")
        out.print(f"Producer {stack.producer_url}   Kafka {stack.kafka_bootstrap}", markup=False, soft_wrap=True)
        out.print(f"Database, for reading {stack.reader_url}", markup=False, soft_wrap=True)
    if pipeline.topics:
        rows = [(name, t["partitions"], t["records"], t["end_offset"]) for name, t in pipeline.topics.items()]
        print_table(("topic", "partitions", "records", "end offset"), rows, title="Topics")
        lags = [(group, "unknown" if lag is None else f"{lag:,}") for group, lag in pipeline.lag.items()]
        print_table(("group", "lag (records)"), lags, title="Lag")
    if pipeline.newest:
        columns = ("symbol", "source", "ts", "last_tick", "closed")
        rows_of_newest = [[row[column] for column in columns] for row in pipeline.newest]
        print_head(columns, rows_of_newest, all_rows=all_rows, title="Newest candles")
    for warning in pipeline.warnings:
        err.print(f"[bold yellow]Soon:[/] {escape(warning)}", soft_wrap=True)
    for problem in pipeline.problems:
        err.print(f"[bold red]Down:[/] {escape(problem)}", soft_wrap=True)


def _state(state: str) -> str:
    return state if state == "running" else f"{state} !"


async def pipeline_status(settings: "Settings") -> PipelineStatus:
    """Ask Kafka and PostgreSQL."""
    import asyncio

    # What this loads takes seconds on a busy machine, and no server may be blamed for them.
    import sink.queries  # noqa: F401
    import tickpipe.topics  # noqa: F401

    status = PipelineStatus()
    await asyncio.gather(
        _or_problem(status, "Kafka", asyncio.wait_for(_ask_kafka(settings, status), _PATIENCE_SECONDS)),
        _or_problem(status, "PostgreSQL", _ask_database(settings, status)),
    )
    return status


async def _or_problem(status: PipelineStatus, who: str, asking: Awaitable[None]) -> None:
    import psycopg

    try:
        await asking
    except TimeoutError:
        status.problems.append(f"{who} does not answer within {_PATIENCE_SECONDS} s")
    except (TickpipeError, psycopg.Error, OSError) as exc:
        status.problems.append(f"{who}: {' '.join(str(exc).split()).partition(' Is the server running')[0]}")


async def _ask_kafka(settings: "Settings", status: PipelineStatus) -> None:
    import asyncio
    from contextlib import suppress

    import psycopg

    from runtime.kafka import admin_client
    from runtime.volumes import CURE, log_volumes
    from sink.progress import with_sink_group
    from tickpipe.topics import present_ends

    async with admin_client(settings) as client:
        found = await present_ends(settings, client)
        status.topics = {
            name: {
                "partitions": len(ends),
                "end_offset": sum(end for _, end in ends.values()),
                "records": sum(end - first for first, end in ends.values()),
            }
            for name, ends in found.items()
        }
        # While the database, which knows the name of the sinks' group, is away, their lag is unknown.
        with suppress(psycopg.Error, TimeoutError):
            settings = await asyncio.wait_for(with_sink_group(settings), _PATIENCE_SECONDS / 2)
        status.lag |= await _lags(settings, client, found)
        for volume in await log_volumes(client):
            if volume.is_low:
                said = f"disk of {volume.name}: {volume.room}; {CURE}"
                (status.problems if volume.is_almost_full else status.warnings).append(said)


async def group_lags(settings: "Settings", client: "AIOKafkaAdminClient") -> dict[str, int]:
    """Records that the stream workers and the sinks have not committed; without those whose group is not known.

    Raises:
        KafkaUnavailable, KafkaRefused: when Kafka does not tell.
    """
    from tickpipe.topics import present_ends

    return await _lags(settings, client, await present_ends(settings, client))


async def _lags(settings: "Settings", client: "AIOKafkaAdminClient", found: "dict[str, Ends]") -> dict[str, int]:
    from runtime.kafka_errors import kafka_errors
    from runtime.kafka_groups import committed_offsets, lag_of
    from runtime.topics import sink_topics

    lags = {}
    for name, group, read in (
        ("stream", settings.stream_group, (settings.ticks_topic,)),
        ("sink", settings.sink_group, sink_topics(settings)),
    ):
        if not group:
            continue
        with kafka_errors(settings, group=group, right="DESCRIBE"):
            committed = await committed_offsets(client, group)
        lags[name] = lag_of({topic: found[topic] for topic in read}, committed)
    return lags


async def _ask_database(settings: "Settings", status: PipelineStatus) -> None:
    import asyncio

    from sink.queries import newest_candles

    opening = open_database(settings, timeout_seconds=_PATIENCE_SECONDS)
    async with await asyncio.wait_for(opening, _PATIENCE_SECONDS) as connection:
        try:
            newest = await asyncio.wait_for(newest_candles(connection), _READING_SECONDS)
        except TimeoutError:
            status.problems.append(
                f"PostgreSQL answers, but it did not tell the newest candles within {_READING_SECONDS} s: is it busy?"
            )
            return
    status.newest = [
        {
            "source": candle.source,
            "symbol": candle.symbol,
            "ts": iso_utc(candle.ts),
            "last_tick": iso_utc(candle.last_tick) if candle.last_tick is not None else None,
            "closed": candle.closed,
        }
        for candle in newest
    ]


#: How far back senders are shown unless told.
_SHOWN = timedelta(days=7)


def senders(
    *,
    since: Annotated[
        datetime | None,
        typer.Option(parser=time_option, metavar="T", help=f"Seen since T: {TIME_HELP}. Default: -7d."),
    ] = None,
    format_: FormatOption = Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """Show who sends: server, account, terminal build, EA and address of each sender, and how much it sent.

    First and last seen go by the receipt of requests, not by the time of ticks. `shared` names what several senders of
    one source differ in within the hour: their ticks become one candle, so each server and account needs a source of
    its own.

    Examples:

    * `tickpipe senders`
    * `tickpipe senders --since -1h --format json`
    """
    rows = run(_read(connected_settings(data_dir), since or datetime.now(UTC) - _SHOWN))
    for source, shared in sorted({(row.source, row.shared) for row in rows if row.shared}):
        err.print(
            f"Several {shared.replace(', ', ' and ')} send under the source {source}, and their ticks become one "
            "candle; give each a source of its own.",
            style="yellow", markup=False,
        )  # fmt: skip
    if not rows and format_ is Format.TABLE:
        err.print("Nobody has sent anything since then.", markup=False)
        return
    run(write_rows(_columns(), rows, format_))


def _columns() -> tuple[str, ...]:
    from sink.queries import SenderRow

    return SenderRow._fields


async def _read(settings: "Settings", since: datetime) -> "list[SenderRow]":
    from sink.queries import read_senders

    async with await open_database(settings) as connection:
        return await read_senders(connection, since)
