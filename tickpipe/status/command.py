"""`tickpipe status`: what runs, how far it is, what is down."""
# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from marketdata.errors import StackError
from tickpipe.connection import DataDir, connected_settings, data_directory, stack_on
from tickpipe.console import DONE, PROBLEM, err, out, print_json, print_table, run

if TYPE_CHECKING:
    from tickpipe.embedded.state import StackState
    from tickpipe.status.engine import PipelineStatus

_ADDRESSES = ("dashboard_url", "producer_url", "stream_url", "sink_url", "kafka_bootstrap", "database_url")


def status(
    *,
    json: Annotated[
        bool, typer.Option("--json", help="Write JSON, with the API key and the database's password.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Show the services, the ends of the topics, the lag of both groups and the newest candle of each symbol.

    Exit code 1 when no stack runs, a service is not running, or Kafka or PostgreSQL does not answer. With `--json` the
    document says the latter two and the exit code is 0.

    Examples:

    * `tickpipe status`
    * `tickpipe status --json | jq .lag`
    """
    from tickpipe.status.engine import pipeline_status

    try:
        settings = connected_settings(data_dir)
    except StackError as exc:
        err.print(f"[bold red]Error:[/] {escape(str(exc))}", soft_wrap=True)
        raise typer.Exit(PROBLEM) from exc
    stack = stack_on(data_directory(data_dir))
    pipeline = run(pipeline_status(settings))
    if json:
        secret = settings.database_url.get_secret_value()
        print_json(_as_json(stack, pipeline, settings.kafka_bootstrap, secret))
        raise typer.Exit(DONE)
    _show(stack, pipeline)
    services_run = stack is None or stack.is_ready
    raise typer.Exit(DONE if services_run and not pipeline.problems else PROBLEM)


def _as_json(
    stack: "StackState | None", pipeline: "PipelineStatus", kafka_bootstrap: str, database_url: str
) -> dict[str, Any]:
    content: dict[str, Any] = {"services": [asdict(service) for service in stack.services] if stack else []}
    content |= asdict(pipeline)
    if stack is None:
        return content | {"kafka_bootstrap": kafka_bootstrap, "database_url": database_url}
    content |= {name: getattr(stack, name) for name in _ADDRESSES}
    return content | {
        "api_key": stack.api_key,
        "supervisor_pid": stack.supervisor_pid,
        "started_at": stack.started_at,
    }


def _show(stack: "StackState | None", pipeline: "PipelineStatus") -> None:
    if stack is not None:
        services = [(s.name, _state(s.state), s.pid, s.restarts, s.log) for s in stack.services]
        print_table(("name", "state", "pid", "restarts", "log"), services, title="Services")
        out.print(f"Producer {stack.producer_url}   Kafka {stack.kafka_bootstrap}", markup=False, soft_wrap=True)
    if pipeline.topics:
        rows = [(name, t["partitions"], t["records"], t["end_offset"]) for name, t in pipeline.topics.items()]
        print_table(("topic", "partitions", "records", "end offset"), rows, title="Topics")
        lags = [(group, "unknown" if lag is None else f"{lag:,}") for group, lag in pipeline.lag.items()]
        print_table(("group", "lag (records)"), lags, title="Lag")
    if pipeline.newest:
        columns = ("symbol", "source", "ts", "last_tick", "closed")
        print_table(columns, [[row[column] for column in columns] for row in pipeline.newest], title="Newest candles")
    for problem in pipeline.problems:
        err.print(f"[bold red]Down:[/] {escape(problem)}", soft_wrap=True)


def _state(state: str) -> str:
    return state if state == "running" else f"{state} !"
