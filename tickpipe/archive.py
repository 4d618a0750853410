"""`tickpipe archive`: the archive of the ticks (docs/archive.md)."""
# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

from dataclasses import asdict, astuple
from typing import TYPE_CHECKING, Annotated

import typer

from marketdata.errors import SettingsError, TickpipeError
from tickpipe.connection import DataDir, archive_of, connected_settings, data_directory
from tickpipe.console import DONE, PROBLEM, ask, err, out, print_json, print_table, require_consent, run

if TYPE_CHECKING:
    from marketdata.offsets import Range
    from runtime.archive.files import ArchiveFiles
    from runtime.archive.reader import ArchiveReader
    from runtime.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The archive of the ticks.")

#: Records that are on their way to Kafka at once.
_IN_FLIGHT = 1_000


def _files(data_dir: DataDir) -> "ArchiveFiles":
    """The archive that the settings name, or that of the data directory; no server is asked."""
    from runtime.archive.files import open_files

    archive = archive_of(data_directory(data_dir))
    if archive == "off":
        raise SettingsError("TICKPIPE_ARCHIVE=off: there is no archive")
    return open_files(archive)


@app.command()
def status(
    *, json: Annotated[bool, typer.Option("--json", help="Write it as JSON.")] = False, data_dir: DataDir = None
) -> None:
    """Show how far each partition is archived, and how large it is.

    Examples:

    * `tickpipe archive status`
    """
    from archive.checking import states

    found = list(states(_files(data_dir)))
    if json:
        print_json([asdict(state) for state in found])
        return
    columns = ("log", "partition", "first", "next", "compared", "days", "files", "ticks", "bytes")
    print_table(columns, [astuple(state) for state in found])
    ticks = sum(state.ticks for state in found)
    if ticks:
        size = sum(state.bytes for state in found)
        out.print(f"{ticks:,} ticks in {size:,} bytes, {size / ticks:.1f} bytes a tick")
    else:
        out.print("Nothing is archived yet.")


@app.command()
def check(*, data_dir: DataDir = None) -> None:
    """Read every file and compare it with its manifest; exit code 1 when something is wrong.

    Examples:

    * `tickpipe archive check`
    """
    from archive.checking import check as faults_of

    read = 0

    def count() -> None:
        nonlocal read
        read += 1

    wrong = 0
    with err.status("reading"):
        for fault in faults_of(_files(data_dir), count):
            wrong += 1
            out.print(fault, markup=False, soft_wrap=True)
    out.print(f"{read:,} files read, {wrong:,} faults")
    raise typer.Exit(PROBLEM if wrong else DONE)


@app.command()
def compact(*, data_dir: DataDir = None) -> None:
    """Merge the small files of each source, symbol and day into one; the archiver must not run.

    Examples:

    * `tickpipe archive compact`
    """
    from archive.writer import Writer
    from runtime.archive.manifest import Catalogue, logs_in

    files = _files(data_dir)
    gone = 0
    with files.lock() as is_alone:
        if not is_alone:
            raise TickpipeError("the archiver runs, and merges by itself; stop it to merge now")
        for log in logs_in(files):
            catalogue = Catalogue(files, log)
            writer = Writer(catalogue)
            for partition in catalogue.partitions():
                writer.resume(partition)
                for date in sorted(catalogue.progress(partition).days):
                    gone += writer.merge(partition, date, at_least=2)
    out.print(f"{gone:,} files fewer")


@app.command()
def forget(
    *, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False, data_dir: DataDir = None
) -> None:
    """Have the archiver go on without records that the archive has lost and Kafka no longer holds.

    The archiver waits when its folder ends before what it has archived: the volume is not mounted, the folder was moved
    or an older copy was put back. Bring the archive back, and it goes on by itself. Where it is gone for good, this
    begins a new one, or goes on behind the older copy, with what Kafka still holds.

    Examples:

    * `tickpipe archive forget`
    """
    require_consent(yes, look="`tickpipe archive status`")
    settings = connected_settings(data_dir)
    ask("Archive on without what the archive has lost?", yes)
    run(_forget(settings))
    out.print("The archiver goes on with the first record that Kafka holds and the archive does not.")


async def _forget(settings: "Settings") -> None:
    from aiokafka import TopicPartition

    from runtime.kafka import log_ends
    from runtime.kafka_groups import commit_offsets

    ends = await log_ends(settings, settings.ticks_topic)
    offsets = {TopicPartition(settings.ticks_topic, partition): 0 for partition in ends}
    await commit_offsets(settings, settings.archive_group, offsets)


@app.command()
def restore(
    *,
    to: Annotated[str, typer.Option(metavar="TOPIC", help="Topic to write to; it must exist.")],
    partition: Annotated[int, typer.Option(min=0, help="Partition, in the archive and in the topic.")],
    first: Annotated[int, typer.Option(min=0, help="First offset.")] = 0,
    last: Annotated[int | None, typer.Option(min=0, help="Last offset. Default: the last one archived.")] = None,
    log: Annotated[
        str | None, typer.Option(help="Log in the archive, as `status` names it, when it has several.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Write a range of archived records to a topic of Kafka, in their order, with their keys and times.

    Offsets are those that Kafka gives them; headers are not archived. Into the topic that they came from they would be
    resends, which the candles count once. The topic must keep what is old: one with Kafka's default of seven days
    (`retention.ms`) would delete it, and is refused.

    Examples:

    * `tickpipe archive restore --to ticks.again --partition 0 --first 0 --last 9999`
    """
    from runtime.archive.manifest import Catalogue, logs_in
    from runtime.archive.reader import ArchiveReader

    settings = connected_settings(data_dir)
    files = _files(data_dir)
    logs = [name for name in logs_in(files) if log in (None, name)]
    if len(logs) != 1:
        raise TickpipeError(f"name one log with --log; the archive has {', '.join(logs_in(files)) or 'none'}")
    reader = ArchiveReader(Catalogue(files, logs[0]))
    spans = reader.progress(partition).spans
    last = spans[-1][1] if last is None and spans else last or 0
    written = run(_restore(settings, reader, to, (partition, first, last)))
    lost = _gaps(spans, first, last)
    out.print(f"{written:,} records written to {to}", markup=False)
    if lost:
        err.print(f"The archive does not hold offsets {', '.join(lost)}.", markup=False)
    raise typer.Exit(PROBLEM if lost else DONE)


async def _restore(settings: "Settings", reader: "ArchiveReader", topic: str, range_: "Range") -> int:
    """Write the archived records of the range to the same partition of a topic; their number.

    Raises:
        UnknownTopic: when the topic does not have this partition.
        TopicUnsafe: when it would delete what it is given.
    """
    import asyncio

    from marketdata.errors import UnknownTopic
    from marketdata.wire import encode, frame_key
    from runtime.kafka import log_ends, new_producer
    from runtime.kafka_errors import kafka_errors

    partition, first, last = range_
    if partition not in await log_ends(settings, topic):
        raise UnknownTopic(topic, partition)
    await _require_safe(settings, topic)
    producer = new_producer(settings)
    written = 0
    try:
        with kafka_errors(settings, topic=topic, right="WRITE"):
            await producer.start()
            for chunk in reader.read(partition, first, last):
                for begin in range(0, len(chunk), _IN_FLIGHT):
                    sent = [
                        await producer.send(
                            topic, encode(frame), key=frame_key(frame.source, frame.symbol), partition=partition,
                            timestamp_ms=min(frame.ticks[0].time_msc, frame.received),
                        )
                        for _, frame in chunk[begin : begin + _IN_FLIGHT]
                    ]  # fmt: skip
                    await asyncio.gather(*sent)
                    written += len(sent)
    finally:
        await producer.stop()
    return written


async def _require_safe(settings: "Settings", topic: str) -> None:
    """Check that a topic which somebody made deletes no ticks.

    Raises:
        TopicUnsafe: when it would.
    """
    from dataclasses import replace

    from marketdata.errors import TopicUnsafe
    from runtime.kafka import admin_client
    from runtime.kafka_errors import kafka_errors
    from runtime.topics import differences, topics

    async with admin_client(settings) as client:
        with kafka_errors(settings):
            found, _ = await differences(settings, client, [replace(topics(settings)[0], name=topic)])
    if vital := [difference for difference in found if difference.is_vital]:
        raise TopicUnsafe(f"{'; '.join(map(str, vital))}. Change it with Kafka's kafka-configs, then try again")


def _gaps(spans: list[tuple[int, int]], first: int, last: int) -> list[str]:
    """The parts of the range that are in no span, as people read them."""
    gaps = []
    for begin, end in [*spans, (last + 1, last + 1)]:
        if first < begin <= last + 1:
            gaps.append(f"{first} to {min(begin - 1, last)}")
        first = max(first, end + 1)
    return gaps
