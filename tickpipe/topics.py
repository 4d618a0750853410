"""`tickpipe topics`: the topics in Kafka."""
# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

from typing import TYPE_CHECKING, Annotated

import typer

from marketdata.errors import StackError
from tickpipe.connection import DataDir, connected_settings, data_directory
from tickpipe.console import DONE, PROBLEM, Format, FormatOption, err, out, run, write_rows

if TYPE_CHECKING:
    from aiokafka.admin import AIOKafkaAdminClient

    from runtime.kafka import Ends
    from runtime.settings import Settings
    from runtime.topics import Difference

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Change what is shown.")]

Recreate = Annotated[bool, typer.Option("--recreate", help="Begin an empty log in the place of one that Kafka lost.")]

app = typer.Typer(no_args_is_help=True, help="The topics in Kafka.")


@app.command()
def create(*, recreate: Recreate = False, data_dir: DataDir = None) -> None:
    """Create the topics that are missing; those that exist are left as they are.

    The producer does the same when it starts; other services wait for the topic of the ticks. When Kafka had that topic
    (TICKPIPE_KNOWN_LOG_FILE) and lost it, neither creates anything and ticks stay with their senders, until it is there
    again or `--recreate` begins an empty one: now, or with the next `tickpipe up` where the data directory's stack does
    not run. Rows in the database stay. Partitions and replicas of new topics: TICKPIPE_KAFKA_PARTITIONS,
    TICKPIPE_KAFKA_REPLICATION.

    Examples:

    * `tickpipe topics create`
    * `tickpipe topics create --recreate`
    """
    from runtime.known_log import KNOWN_LOG_FILE, KnownLog
    from runtime.topics import topics, wait_for_kafka

    try:
        settings = connected_settings(data_dir)
    except StackError:
        # A stack that does not come up for want of its log cannot be told while it runs.
        remembered = data_directory(data_dir) / KNOWN_LOG_FILE
        if not (recreate and remembered.exists()):
            raise
        remembered.unlink()
        out.print(
            f"No stack runs on {remembered.parent}; the next `tickpipe up` there begins an empty log "
            "if Kafka has none.",
            markup=False, soft_wrap=True,
        )  # fmt: skip
        return
    known = None if recreate else KnownLog(settings.known_log_file)
    cluster_id = run(wait_for_kafka(settings, known=known, timeout_seconds=15.0))
    names = ", ".join(topic.name for topic in topics(settings))
    out.print(f"Cluster {cluster_id} has {names}", markup=False, soft_wrap=True)


@app.command("list")
def list_(*, format_: FormatOption = Format.TABLE, data_dir: DataDir = None) -> None:
    """List the project's topics with their partitions and records; exit code 1 when one is missing or cannot be seen.

    Examples:

    * `tickpipe topics list`
    * `tickpipe topics list --format json`
    """
    settings = connected_settings(data_dir)
    found, hidden = run(_visible_ends(settings))
    columns = ("topic", "partitions", "records", "end_offset")
    rows = [(name, len(ends), sum(e - f for f, e in ends.values()), sum(e for _, e in ends.values()))
            for name, ends in found.items()]  # fmt: skip
    run(write_rows(columns, rows, format_))
    missing = [name for name, ends in found.items() if not ends and name not in hidden]
    if missing:
        err.print(f"Missing: {', '.join(missing)}; create with `tickpipe topics create`", markup=False)
    if hidden:
        err.print(
            f"Not allowed to see: {', '.join(hidden)}; grant this user DESCRIBE (kafka-acls)", markup=False,
            soft_wrap=True,
        )  # fmt: skip
    raise typer.Exit(PROBLEM if missing or hidden else DONE)


async def _visible_ends(settings: "Settings") -> "tuple[dict[str, Ends], list[str]]":
    # And the names of the topics that this user may not see.
    from runtime.kafka import admin_client
    from runtime.kafka_errors import kafka_errors
    from runtime.rights import hidden_topics

    async with admin_client(settings) as client:
        found = await present_ends(settings, client)
        with kafka_errors(settings):
            return found, await hidden_topics(client, [name for name, ends in found.items() if not ends])


@app.command()
def fix(*, yes: Yes = False, data_dir: DataDir = None) -> None:
    """Show where topics that exist are not configured as they need; with `--yes` change them.

    A topic of the ticks that deletes or compacts is refused by every service when it starts. Only the settings that are
    listed are changed, and no record is touched. The number of replicas is shown, but only kafka-reassign-partitions
    changes it. Exit code 1 when something differs and is left so.

    Examples:

    * `tickpipe topics fix`
    * `tickpipe topics fix --yes`
    """
    found, left, hidden = run(_fix(connected_settings(data_dir), apply=yes))
    for difference in found:
        said = "" if not yes else " (left)" if difference in left else " (changed)"
        out.print(f"{difference}{said}", markup=False, soft_wrap=True)
    if hidden:
        err.print(
            f"Not allowed to look at: {', '.join(hidden)}; grant DESCRIBE_CONFIGS (kafka-acls)", markup=False,
            soft_wrap=True,
        )  # fmt: skip
    elif not found:
        out.print("Every topic that exists is configured as it needs.")
    if found and not yes:
        err.print("Nothing was changed; `tickpipe topics fix --yes` does it.", markup=False)
    raise typer.Exit(PROBLEM if left or hidden else DONE)


async def _fix(settings: "Settings", *, apply: bool) -> "tuple[list[Difference], list[Difference], list[str]]":
    # What differs, what of it still does, and the topics that this user may not look at.
    from runtime.kafka import admin_client
    from runtime.kafka_errors import kafka_errors
    from runtime.topics import change, differences, topics

    async with admin_client(settings) as client:
        with kafka_errors(settings):
            found, hidden = await differences(settings, client, topics(settings))
            return found, await change(settings, client, found) if apply else found, hidden


async def present_ends(settings: "Settings", shared: "AIOKafkaAdminClient | None" = None) -> "dict[str, Ends]":
    """First and next offset of each partition of the project's topics; a topic that does not exist has none.

    Asks over `shared`, if it is given.

    Raises:
        KafkaUnavailable: when no broker answers.
    """
    from runtime.kafka import admin_client, topic_ends
    from runtime.kafka_errors import kafka_errors
    from runtime.topics import topics

    names = [topic.name for topic in topics(settings)]
    async with admin_client(settings, shared) as client:
        with kafka_errors(settings):
            # Asking about a topic that is missing could create it.
            present = set(await client.list_topics())
            ends = await topic_ends(client, [name for name in names if name in present])
    return {name: ends.get(name, {}) for name in names}
