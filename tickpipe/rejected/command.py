"""`tickpipe rejected`: lists rejected records, sends them again, deletes them."""

# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

from collections import Counter
from collections.abc import AsyncIterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickpipe.connection import DataDir, connected_settings, producer_address
from tickpipe.console import (
    DONE,
    PROBLEM,
    Format,
    FormatOption,
    ask,
    err,
    moment_of,
    out,
    require_consent,
    run,
    write_rows,
)

if TYPE_CHECKING:
    from runtime.posting import Result
    from runtime.rejected import RejectedRecord, Which
    from runtime.settings import Settings
    from tickpipe.rejected.engine import Post, Produce, Unusable

app = typer.Typer(no_args_is_help=True, help="What could not be used: look at it, and send it again after a fix.")

#: Reasons that a resend quotes.
_QUOTED = 20

#: Characters of a reason in a table; `show` has all of it.
_REASON_CHARACTERS = 120


class What(StrEnum):
    """The topic of rejected records."""

    TICKS = "ticks"
    CANDLES = "candles"


TopicOption = Annotated[
    What | None, typer.Option("--topic", help="Rejected ticks or rejected candles only. Default: both.")
]


@app.command("list")
def list_(
    *,
    topic: TopicOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Only the newest N.")] = 50,
    format_: FormatOption = Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """List the newest rejected records: where each is, where it came from and why it was rejected.

    `ticks` are items of HTTP bodies and records of the ticks topic; `candles` are records that could not be stored. A
    record stays until `rejected delete`, also when it was sent again.

    Examples:

    * `tickpipe rejected list`
    * `tickpipe rejected list --topic candles --limit 10`
    * `tickpipe rejected list --limit 100000 --format csv > rejected.csv`
    """
    run(_list(connected_settings(data_dir), topic, limit, format_))


async def _list(settings: "Settings", topic: What | None, limit: int, format_: Format) -> None:
    from tickpipe.rejected.engine import RejectedTopics

    async with RejectedTopics(settings) as topics:
        records = await topics.newest(_which(topic), limit)
    columns = ("topic", "partition", "offset", "time", "origin", "reason", "bytes")

    if format_ is Format.TABLE and not records:
        out.print("Nothing was rejected.")
        return
    await write_rows(columns, (_row(record, format_) for record in records), format_)
    if format_ is Format.TABLE and len(records) == limit:
        err.print(f"The newest {limit:,}; --limit shows more.", markup=False)


def _row(record: "RejectedRecord", format_: Format) -> tuple[Any, ...]:
    reason = record.reason
    if format_ is Format.TABLE and len(reason) > _REASON_CHARACTERS:
        reason = f"{reason[:_REASON_CHARACTERS]}…"
    time = moment_of(max(0, record.timestamp))
    return str(record.which), record.partition, record.offset, time, record.origin, reason, record.size_bytes


@app.command()
def show(
    topic: Annotated[What, typer.Argument(help="ticks or candles.")],
    partition: Annotated[int, typer.Argument(min=0, help="As `rejected list` shows it.")],
    offset: Annotated[int, typer.Argument(min=0, help="As `rejected list` shows it.")],
    *,
    data_dir: DataDir = None,
) -> None:
    """Show one rejected record: reason, origin, headers, the input as it came, and whether it could be sent again.

    Examples:

    * `tickpipe rejected show ticks 2 17`
    """
    run(_show(connected_settings(data_dir), topic, partition, offset))


async def _show(settings: "Settings", topic: What, partition: int, offset: int) -> None:
    from tickpipe.rejected.engine import RejectedTopics, payload_text, resend_of

    async with RejectedTopics(settings) as topics:
        record = await topics.one(_which(topic)[0], partition, offset)
    lines = {
        "record": record.name,
        "time": moment_of(max(0, record.timestamp)).isoformat(),
        "reason": record.reason,
        "origin": record.origin,
        "key": "(none)" if record.key is None else repr(record.key)[2:-1],
        "bytes": f"{record.size_bytes:,}" if record.is_whole else f"{record.size_bytes:,}, not all of them stored",
        **{f"header {name}": value for name, value in record.headers.items() if name != "reason"},
        "resend": _described(resend_of(record, settings)),
    }
    for name, value in lines.items():
        out.print(f"{name}: {payload_text(value.encode())}" if name == "reason" else f"{name}: {value}",
                  markup=False, soft_wrap=True)  # fmt: skip
    out.print()
    out.print(payload_text(record.value), markup=False, soft_wrap=True)


@app.command()
def resend(
    *,
    topic: TopicOption = None,
    partition: Annotated[int | None, typer.Option(min=0, help="Partition of the one record to send.")] = None,
    offset: Annotated[int | None, typer.Option(min=0, help="Offset of the one record to send.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every record that is there now.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Annotated[str | None, typer.Option(help="Address of the producer. Default: that of the stack.")] = None,
    key: Annotated[str | None, typer.Option(help="Key of the producer. Default: that of the stack.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Send rejected records again, after what made them unusable was mended.

    Items that came over HTTP are posted to the producer again, for the source that sent them; records of a topic are
    written to it again as they came. What this version cannot use either is not sent, and the reason is shown. Nothing
    is deleted: a resent record stays in the list, and sending it twice changes no candle.

    Exit code 1 when a record could not be sent.

    Examples:

    * `tickpipe rejected resend --topic ticks --partition 2 --offset 17`
    * `tickpipe rejected resend --all --dry-run`
    * `tickpipe rejected resend --all --topic candles --yes`
    """
    name = _one_of(topic, partition, offset, all_=all_)
    if not dry_run:
        require_consent(yes, look="--dry-run")
    settings = connected_settings(data_dir)
    job = _Resend(settings, _which(topic), name, _Producer(data_dir, url, key))
    job.show()
    if dry_run:
        out.print("Nothing was sent.")
        raise typer.Exit(PROBLEM if job.unusable else DONE)
    if job.usable:
        ask(f"Send {job.usable:,} records again?", yes)
        run(job.send())
    raise typer.Exit(PROBLEM if job.unusable or job.failed else DONE)


@app.command()
def delete(
    *,
    topic: TopicOption = None,
    partition: Annotated[int | None, typer.Option(min=0, help="Partition of the last record to delete.")] = None,
    offset: Annotated[int | None, typer.Option(min=0, help="Offset of the last record to delete.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every record that is there now.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Delete rejected records for good: all of them, or one and every older one of its partition.

    Kafka deletes from the beginning of a partition only. Ticks and candles are not touched.

    Examples:

    * `tickpipe rejected delete --topic ticks --partition 2 --offset 17`
    * `tickpipe rejected delete --all --yes`
    """
    name = _one_of(topic, partition, offset, all_=all_)
    require_consent(yes, look="`tickpipe rejected list`")
    settings = connected_settings(data_dir)
    until = run(_deletable(settings, topic, name))
    deleted = "every rejected record" if name is None else f"the records of partition {name[0]} up to offset {name[1]}"
    ask(f"Delete {deleted} for good?", yes)
    out.print(f"{run(_delete(settings, until)):,} records deleted", markup=False)


async def _deletable(
    settings: "Settings", topic: What | None, name: tuple[int, int] | None
) -> "dict[Which, dict[int, int]]":
    from tickpipe.rejected.engine import RejectedTopics

    async with RejectedTopics(settings) as topics:
        if name is None:
            return {one: await topics.ends(one) for one in _which(topic)}
        [which] = _which(topic)
        await topics.one(which, *name)
        return {which: {name[0]: name[1] + 1}}


async def _delete(settings: "Settings", until: "dict[Which, dict[int, int]]") -> int:
    from tickpipe.rejected.engine import RejectedTopics

    async with RejectedTopics(settings) as topics:
        return sum([await topics.delete(which, ends) for which, ends in until.items()])


def _one_of(topic: What | None, partition: int | None, offset: int | None, *, all_: bool) -> tuple[int, int] | None:
    """Partition and offset of the single record that the options name; None for all records."""
    one = partition is not None or offset is not None
    if all_ == one:
        raise typer.BadParameter("say which: --topic, --partition and --offset of one record, or --all")
    if one and (topic is None or partition is None or offset is None):
        raise typer.BadParameter("one record is named by --topic, --partition and --offset together")
    return None if partition is None or offset is None else (partition, offset)


class _Producer:
    """Posts items to the producer with the key of their source."""

    def __init__(self, data_dir: Path | None, url: str | None, key: str | None) -> None:
        self._data_dir, self._url, self._key = data_dir, url, key

    def post(self, one: "Post") -> "Result":
        """What became of one; see `tickpipe.sending.sender.post`."""
        from marketdata.contract.http import source_header
        from runtime.exchange import Connection, address_of
        from tickpipe.sending.sender import keys_cure, post

        url, key = producer_address(self._data_dir, self._url, self._key, one.source or None)
        headers = {
            "X-API-Key": key, "Content-Type": "application/json", "User-Agent": "tickpipe-resend",
            **source_header(one.source or None),
        }  # fmt: skip
        # What was rejected as a whole may hold any number of items.
        with keys_cure(), Connection(url, headers) as connection:
            return post(connection, address_of(url) + one.path, one.body, None)


class _Resend:
    """Reads the records twice, first to count and then to send them, so that memory does not grow with their number."""

    def __init__(
        self, settings: "Settings", which: "list[Which]", name: tuple[int, int] | None, producer: _Producer
    ) -> None:
        self._settings, self._which, self._name, self._producer = settings, which, name, producer
        self.usable = self.unusable = self.failed = 0
        self._reasons: Counter[str] = Counter()

    async def _each(self) -> "AsyncIterator[tuple[RejectedRecord, Post | Produce | Unusable]]":
        from tickpipe.rejected.engine import RejectedTopics, resend_of

        async with RejectedTopics(self._settings) as topics:
            if self._name is not None:
                record = await topics.one(self._which[0], *self._name)
                yield record, resend_of(record, self._settings)
                return
            async for record in topics.all(self._which):
                yield record, resend_of(record, self._settings)

    def show(self) -> None:
        """Print how many records can be sent where, and what is wrong with the others."""
        run(self._count())

    async def _count(self) -> None:
        from tickpipe.rejected.engine import Unusable

        goals: Counter[str] = Counter()
        async for record, what in self._each():
            if isinstance(what, Unusable):
                self.unusable += 1
                if self.unusable <= _QUOTED:
                    err.print(f"{record.name}: {_described(what)}", markup=False, soft_wrap=True)
            else:
                self.usable += 1
                goals[_described(what)] += 1
        if self.unusable > _QUOTED:
            err.print(f"… and {self.unusable - _QUOTED:,} more that cannot be sent", markup=False)
        for goal, count in goals.items():
            out.print(f"{count:,} × {goal}", markup=False, soft_wrap=True)
        out.print(f"{self.usable:,} records can be sent, {self.unusable:,} cannot", markup=False)

    async def send(self) -> None:
        """Send the usable records one after another, in the order of their topics."""
        from rich.progress import track

        from tickpipe.rejected.engine import Post, Resender, Unusable

        sent = 0
        bar = iter(track(range(self.usable), "sending", console=err, transient=True))
        async with Resender(self._settings) as resender:
            async for record, what in self._each():
                if isinstance(what, Unusable) or sent + self.failed == self.usable:
                    continue  # the user has not agreed to send what was rejected meanwhile
                next(bar, None)
                if isinstance(what, Post):
                    if (refusal := self._refused(what)) is not None:
                        self.failed += 1
                        err.print(f"{record.name}: {refusal}", markup=False, soft_wrap=True)
                        continue
                else:
                    await resender.produce(what)
                sent += 1
        next(bar, None)
        out.print(
            f"{sent:,} records sent, {self.failed:,} refused. They stay in the list: a log only grows.", markup=False
        )

    def _refused(self, what: "Post") -> str | None:
        from runtime.posting import BodyRefused, BodyTooLarge, ServerRefused

        try:
            result = self._producer.post(what)
        except (ServerRefused, BodyTooLarge, BodyRefused) as exc:
            return str(exc)
        if result.errors:
            return f"the producer rejects it again: {'; '.join(result.reasons.values())}"
        return None


def _which(topic: What | None) -> "list[Which]":
    from runtime.rejected import Which

    return [Which(one.value) for one in ([topic] if topic is not None else What)]


def _described(what: "Post | Produce | Unusable") -> str:
    from tickpipe.rejected.engine import Post, Produce

    if isinstance(what, Post):
        return f"to the producer's {what.path} for source {what.source or 'default'}"
    if isinstance(what, Produce):
        return f"to the topic {what.topic}"
    return f"cannot be used: {what.why}"
