"""`tickpipe rejected` lists, shows, resends and deletes rejected records of every form, without a stack."""

import asyncio
import json
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from marketdata.wire import encode
from runtime.kafka import MAX_RECORD_BYTES
from runtime.rejected import HTTP, Rejected, RejectedWriter, Stored, Which, headers_of
from runtime.settings import Settings
from tests.days import eurusd_ticks
from tests.kafka_log import KafkaLog, frames_of
from tests.services import environment
from tickpipe.cli import app


class Record(NamedTuple):
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp: int = 0
    timestamp_type: int = 0


@pytest.fixture
async def of_every_form(settings: Settings, kafka: KafkaLog) -> list[Rejected]:
    records = [
        Record(0, None, None),
        Record(1, None, b"no frame"),
        Record(2, b"key", None),
        Record(3, b"key", b"x" * MAX_RECORD_BYTES),
        Record(4, b"k" * MAX_RECORD_BYTES, None),
        Record(5, b"key", encode(frames_of(eurusd_ticks()[:2], 2)[0])),
    ]
    rejected = [Rejected(settings.ticks_topic, 0, record, f"reason {record.offset}") for record in records]
    async with RejectedWriter(settings, Which.TICKS) as writer:
        await writer.write(rejected)
        await writer.write_items([Stored(b"Broker", b'{"bid":"odd"}', headers_of("odd", HTTP, -1, 6), 1_000)])
    return rejected


async def run(settings: Settings, *arguments: str, expect: int = 0) -> str:
    words = ["rejected", *arguments, "--data-dir", str(settings.data_dir)]
    done = await asyncio.to_thread(CliRunner().invoke, app, words, env=environment(settings))
    assert done.exit_code == expect, done.output
    return done.stdout + done.stderr


async def listed(settings: Settings) -> dict[str, dict[str, Any]]:
    """By reason."""
    return {one["reason"]: one for one in json.loads(await run(settings, "list", "--format", "json"))}


async def test_all_forms_are_listed_shown_resent_and_deleted(
    settings: Settings, kafka: KafkaLog, of_every_form: list[Rejected]
) -> None:
    found = await listed(settings)
    assert {reason: one["bytes"] for reason, one in found.items()} == {
        **{rejected.reason: rejected.size_bytes for rejected in of_every_form}, "odd": 13,
    }  # fmt: skip
    assert found["reason 4"]["origin"] == f"{settings.ticks_topic}-0@4"

    def name(reason: str) -> list[str]:
        return [str(found[reason]["partition"]), str(found[reason]["offset"])]

    empty = await run(settings, "show", "ticks", *name("reason 0"))
    assert "key: (none)" in empty
    assert "it has no value" in empty
    large = await run(settings, "show", "ticks", *name("reason 3"))
    assert "bytes: 8,388,611, not all of them stored" in large
    assert f"the original is {settings.ticks_topic}-0@3" in large

    resent = await run(settings, "resend", "--all", "--topic", "ticks", "--yes", expect=1)
    assert "1 records can be sent, 6 cannot" in resent
    assert [value for _, value in await kafka.read(settings.ticks_topic)] == [of_every_form[5].record.value]

    newest_partition = found["reason 5"]["partition"]
    older = [one for one in found.values() if one["partition"] == newest_partition]
    last = max(one["offset"] for one in older)
    said = await run(settings, "delete", "--topic", "ticks", "--partition", str(newest_partition), "--offset",
                     str(last), "--yes")  # fmt: skip
    assert f"{last + 1} records deleted" in said
    assert all(one["partition"] != newest_partition for one in (await listed(settings)).values())
    await run(settings, "delete", "--all", "--yes")
    assert "Nothing was rejected" in await run(settings, "list")
    assert "0 records deleted" in await run(settings, "delete", "--all", "--yes")


async def test_a_record_that_is_not_there_is_not_deleted(settings: Settings, kafka: KafkaLog) -> None:
    said = await run(settings, "delete", "--topic", "candles", "--partition", "0", "--offset", "9", "--yes", expect=1)
    assert "no record at offset 9" in said
    assert "say which" in await run(settings, "delete", "--yes", expect=2)
