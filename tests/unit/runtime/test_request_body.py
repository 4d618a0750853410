"""Reading a body: its limit while it streams, its packing, its end."""

import asyncio
import gzip
import random
import time
import zlib
from collections.abc import MutableMapping
from typing import Any

import pytest

from marketdata.contract.http import Refusal
from runtime import request_body
from runtime.request_body import Intake, Receive, read_body


@pytest.mark.parametrize("sent", [1, 3, 10])
async def test_a_body_that_streams_is_cut_off_at_the_limit(sent: int) -> None:
    messages: list[MutableMapping[str, Any]] = [
        {"type": "http.request", "body": b"x" * 10, "more_body": True} for _ in range(sent)
    ]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> MutableMapping[str, Any]:
        return messages.pop(0)

    if sent == 1:
        assert await read_body(receive, {}, 25) == b"x" * 10
        return
    with pytest.raises(Refusal, match="split it") as refused:
        await read_body(receive, {}, 25)
    assert refused.value.status == 413
    assert len(messages) == sent + 1 - 3  # nothing is read beyond the limit


async def test_a_sender_that_goes_away_leaves_no_body() -> None:
    messages: list[MutableMapping[str, Any]] = [
        {"type": "http.request", "body": b"[", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> MutableMapping[str, Any]:
        return messages.pop(0)

    with pytest.raises(Refusal, match="closed"):
        await read_body(receive, {}, 25)


async def test_gzip_is_unpacked_within_the_limit() -> None:
    headers = {b"content-encoding": b"gzip"}
    assert await read_body(sends(gzip.compress(b"[]")), headers, 100) == b"[]"
    # What else could begin like that: a sender has forgotten the header.
    assert await read_body(sends(gzip.compress(b"[]")), {}, 100) == b"[]"
    for level in (1, 6, 9):  # zlib's header has the level
        assert await read_body(sends(zlib.compress(b"[]", level)), {}, 100) == b"[]"
    assert await read_body(sends(b"x=[]"), {}, 100) == b"x=[]"
    for body, status in ((gzip.compress(b" " * 101), 413), (b"no gzip", 400), (gzip.compress(b"[]")[:-3], 400)):
        with pytest.raises(Refusal) as caught:
            await read_body(sends(body), headers, 100)
        assert caught.value.status == status


async def test_a_body_that_hardly_packs_is_unpacked_part_by_part() -> None:
    headers = {b"content-encoding": b"gzip"}
    noise = random.Random(1).randbytes(300_000)
    packed = gzip.compress(noise)
    reserved: list[int] = []
    assert await read_body(sends(packed), headers, 400_000, reserved.append) == noise
    assert sum(reserved) == len(packed) + len(noise)
    for spoilt in (packed[:200_000], packed + b"more", packed + bytes(100_000)):
        with pytest.raises(Refusal, match="incomplete, or something follows it"):
            await read_body(sends(spoilt), headers, 500_000)


async def test_other_requests_have_their_turn_while_a_body_is_unpacked() -> None:
    size = 32 * 1024 * 1024
    reading = asyncio.ensure_future(
        read_body(sends(gzip.compress(bytes(size), 1)), {b"content-encoding": b"gzip"}, size)
    )
    turns = 0
    while not reading.done():
        turns += 1
        await asyncio.sleep(0)
    assert len(await reading) == size
    assert turns > 32


async def test_a_gzip_of_several_members_is_unpacked_as_one() -> None:
    headers = {b"content-encoding": b"gzip"}
    noise = random.Random(1).randbytes(200_000)
    several = gzip.compress(noise[:1]) + gzip.compress(b"") + gzip.compress(noise[1:])
    assert await read_body(sends(several), headers, 400_000) == noise
    for spoilt, status in ((several[:-1], 400), (several + gzip.compress(bytes(200_001)), 413)):
        with pytest.raises(Refusal) as caught:
            await read_body(sends(spoilt), headers, 400_000)
        assert caught.value.status == status
    # Each costs a copy of what is left of its part.
    with pytest.raises(Refusal, match="something follows"):
        await read_body(sends(gzip.compress(b"") * 10_001), headers, 400_000)
    # Of deflate there is one.
    with pytest.raises(Refusal, match="something follows"):
        await read_body(sends(zlib.compress(b"[]") * 2), {b"content-encoding": b"deflate"}, 100)


async def test_other_encodings_and_declared_lengths_are_refused_before_anything_is_read() -> None:
    for headers, status in (({b"content-encoding": b"br"}, 415), ({b"content-length": b"101"}, 413)):
        with pytest.raises(Refusal) as caught:
            await read_body(sends(), headers, 100)
        assert caught.value.status == status


def sends(*parts: bytes) -> Receive:
    """A sender of a body in these parts; reading beyond them fails the test."""
    messages: list[MutableMapping[str, Any]] = [
        {"type": "http.request", "body": part, "more_body": part is not parts[-1]} for part in parts
    ]

    async def receive() -> MutableMapping[str, Any]:
        return messages.pop(0)

    return receive


def test_bodies_that_never_come_are_bounded_apart_from_those_that_did() -> None:
    intake = Intake(100, max_bodies=2)
    with intake.place("A"), intake.place("B"):
        with pytest.raises(Refusal, match="on their way") as caught, intake.place("C"):
            pass
        assert (caught.value.status, caught.value.retry_after_seconds) == (503, 2)
    with intake.place("A"):
        assert intake.bodies == 1


def test_bodies_of_one_sender_leave_room_for_others() -> None:
    intake = Intake(100, max_bodies=4)
    with intake.place("A"), intake.place("A"):
        with pytest.raises(Refusal, match="of this sender are on their way"), intake.place("A"):
            pass
        with intake.place("B"), intake.place("C"):
            assert intake.bodies == 4
    with intake.place("A"), intake.place("A"):
        assert intake.bodies == 2


async def test_one_sender_leaves_memory_for_others_and_one_body_may_take_all() -> None:
    intake = Intake(100)
    with intake.place("A") as first, intake.place("A") as second, intake.place("B") as other:
        await first.read(sends(b"x" * 100), {}, 100)
        with pytest.raises(Refusal, match="its share"):
            await second.read(sends(b"x" * 51), {}, 100)
        await other.read(sends(b"x" * 99), {}, 100)
    with intake.place("A") as alone:
        packed = gzip.compress(random.Random(1).randbytes(70))
        await alone.read(sends(packed), {b"content-encoding": b"gzip"}, 100)
        assert intake.bytes == len(packed) + 70
    assert (intake.bytes, intake.bodies) == (0, 0)


async def test_two_of_the_largest_bodies_have_room_and_give_it_back() -> None:
    intake = Intake(100)
    with intake.place("A") as first, intake.place("B") as second, intake.place("C") as third:
        await first.read(sends(b"x" * 60, b"x" * 40), {}, 100)
        await second.read(sends(b"x" * 90), {}, 100)
        with pytest.raises(Refusal, match="fill the memory") as caught:
            await third.read(sends(b"x" * 5, b"x" * 6), {}, 100)
        assert caught.value.status == 503
    assert (intake.bytes, intake.bodies) == (0, 0)


async def test_a_packed_body_takes_the_room_of_what_it_unpacks_to() -> None:
    intake = Intake(100)
    packed = gzip.compress(b" " * 100)
    with intake.place("A") as place:
        await place.read(sends(packed), {b"content-encoding": b"gzip"}, 100)
        assert intake.bytes == len(packed) + 100


async def test_a_slow_sender_times_out_and_a_steady_one_gets_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_body, "_READ_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(request_body, "_LEAST_BYTES_PER_SECOND", 100)

    def sender(pauses: list[float], part: bytes) -> Receive:
        async def receive() -> MutableMapping[str, Any]:
            await asyncio.sleep(pauses.pop(0))
            return {"type": "http.request", "body": part, "more_body": bool(pauses)}

        return receive

    # 0.6 s in all, with 3 s more for 300 bytes.
    assert len(await read_body(sender([0.01, 0.3, 0.3], b"x" * 100), {}, 1_000)) == 300
    with pytest.raises(Refusal, match="in time") as caught:
        await read_body(sender([0.01, 10.0], b"x"), {}, 1_000)
    assert caught.value.status == 408


async def test_a_body_that_has_arrived_whole_needs_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, timers = asyncio.get_running_loop(), []
    call_at = loop.call_at

    def counted(when: float, *args: Any, **about: Any) -> asyncio.TimerHandle:
        timers.append(when)
        return call_at(when, *args, **about)

    monkeypatch.setattr(loop, "call_at", counted)
    assert await read_body(sends(b"[1]"), {}, 25) == b"[1]"
    assert timers == []
    assert await read_body(sends(b"[", b"1]"), {}, 25) == b"[1]"
    assert timers


async def test_a_first_part_that_does_not_come_times_out_within_the_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_body, "_READ_TIMEOUT_SECONDS", 0.05)
    ended = []

    async def receive() -> MutableMapping[str, Any]:
        try:
            await asyncio.sleep(10.0)
        finally:
            ended.append(True)
        raise AssertionError("the receiver was to be cancelled")

    with pytest.raises(Refusal, match="in time"):
        await read_body(receive, {}, 25)
    assert ended == [True]


async def test_a_receiver_may_wait_more_than_once_and_fail() -> None:
    async def receive() -> MutableMapping[str, Any]:
        for _ in range(3):
            await asyncio.sleep(0.001)
        return {"type": "http.request", "body": b"[]"}

    async def breaks() -> MutableMapping[str, Any]:
        await asyncio.sleep(0.001)
        raise OSError("the connection broke")

    assert await read_body(receive, {}, 25) == b"[]"
    with pytest.raises(OSError, match="broke"):
        await read_body(breaks, {}, 25)


async def test_a_request_that_is_cancelled_cancels_its_receiver() -> None:
    reached: list[BaseException] = []

    async def receive() -> MutableMapping[str, Any]:
        try:
            await asyncio.sleep(10.0)
        except asyncio.CancelledError as exc:
            reached.append(exc)
            raise
        return {"type": "http.disconnect"}

    reading = asyncio.create_task(read_body(receive, {}, 25))
    await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert len(reached) == 1


async def test_a_sender_with_many_long_bodies_waits_for_itself() -> None:
    intake, done = Intake(1_000_000), []

    async def work(sender: str, turns: int) -> None:
        with intake.place(sender) as place:
            for _ in range(turns):
                async with place.turn():
                    done.append(sender)

    flood = [asyncio.ensure_future(work("flood", 20)) for _ in range(20)]
    for _ in range(200):
        await asyncio.sleep(0)
    before = len(done)
    await work("other", 10)
    between = done[before:].count("flood")
    await asyncio.gather(*flood)
    assert 0 < before < 390
    assert between <= 12
    assert done.count("flood") == 400


async def test_a_pass_of_the_loop_unpacks_one_part_however_many_bodies_are_packed() -> None:
    intake, parts = Intake(64_000_000), []
    packed = gzip.compress(bytes(4_000_000))

    async def unpack() -> None:
        with intake.place("flood") as place:
            body = await place.read(sends(packed), {b"content-encoding": b"gzip"}, 64_000_000)
            assert len(body) == 4_000_000

    reading = [asyncio.ensure_future(unpack()) for _ in range(10)]
    await asyncio.sleep(0)
    while not all(task.done() for task in reading):
        before = intake.bytes
        await asyncio.sleep(0)
        parts.append(intake.bytes - before)
    assert max(parts) <= 256 * 1024


async def test_a_server_that_needs_several_steps_is_answered_within_some_turns_of_a_body() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1")
    pieces = 0

    async def ask() -> int:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for _ in range(5):
            writer.write(b"and?\n")
            await reader.readline()
        writer.close()
        return pieces

    asking = asyncio.create_task(ask())
    with Intake(1_000).place("me") as place:
        while not asking.done():
            async with place.turn():
                end = time.perf_counter() + 0.1
                while time.perf_counter() < end:
                    pass
                pieces += 1

    # With sleep(0) about twenty.
    assert asking.result() <= 5
    server.close()
