"""What befalls servers besides death: more partitions, lost offsets, a database that is put back to an older state."""

import asyncio
import random
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiokafka.admin import NewPartitions

from runtime.kafka import admin_client, log_ends
from runtime.settings import Settings
from sink.progress import with_sink_group
from tests.kafka_tool import tool_command
from tests.waiting import eventually
from tickpipe.embedded.stack import find_stack, start_service, stop_service
from tickpipe.replay.engine import wait_until_empty

#: Partitions are added one or two at a time, up to so many.
_MAX_PARTITIONS = 12

#: A service may wait for a server that was killed a moment before (seconds).
_START_SECONDS = 180.0


class Misfortunes:
    """Befall the running stack of a data directory, one at a time and in random order."""

    def __init__(self, data_dir: Path, settings: Settings, rng: random.Random) -> None:
        self._data_dir = data_dir
        self._settings = settings
        self._rng = rng
        self._saved = data_dir.parent / "saved"
        self._coming: list[Callable[[], Awaitable[None]]] = []
        self.befallen = Counter[str]()

    async def next(self) -> None:
        """Let one happen; each kind has its turn before one comes again."""
        if not self._coming:
            kinds = [self.add_partitions, self.lose_offsets, self.restore_database]
            self._coming = self._rng.sample(kinds, len(kinds))
        misfortune = self._coming.pop()
        await self._healed()
        await misfortune()
        self.befallen[misfortune.__name__] += 1

    async def save_database(self) -> None:
        """Copy the files of the database for a later `restore_database`."""
        await self._healed()
        await self._stop("postgres")
        await _run("rm", "-rf", str(self._saved))
        await _run("cp", "-a", str(self._data_dir / "postgres" / "data"), str(self._saved))
        await self._start("postgres")

    async def restore_database(self) -> None:
        """Put the database back to the saved state under everything that is connected to it."""
        await self._stop("postgres")
        await _run("rm", "-rf", str(self._data_dir / "postgres" / "data"))
        await _run("cp", "-a", str(self._saved), str(self._data_dir / "postgres" / "data"))
        await self._start("postgres")

    async def add_partitions(self) -> None:
        """Give the topic of ticks more partitions, of which the producers learn at different moments."""
        topic = self._settings.ticks_topic
        count = len(await log_ends(self._settings, topic))
        wanted = min(_MAX_PARTITIONS, count + self._rng.randint(1, 2))
        if wanted > count:
            async with admin_client(self._settings) as client:
                await client.create_partitions({topic: NewPartitions(total_count=wanted)})

    async def lose_offsets(self) -> None:
        """Delete a group with all its offsets, as Kafka itself does with one that was away for a week."""
        kind = self._rng.choice(["stream", "sink"])
        state = find_stack(self._data_dir)
        assert state is not None
        names = [service.name for service in state.services if service.name.startswith(kind)]
        group = self._settings.stream_group
        if kind == "sink":
            group = (await with_sink_group(self._settings)).sink_group
        for name in names:
            await self._stop(name)
        await wait_until_empty(self._settings, lambda members, waited: None, group=group)
        await _run(
            *tool_command(
                "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
                "--bootstrap-server", self._settings.kafka_bootstrap,
                "--command-config", str(self._data_dir / "kafka" / "client.properties"), "--group", group, "--delete",
            )
        )  # fmt: skip
        for name in names:
            await self._start(name)

    async def _healed(self) -> None:
        """Wait until what was killed a moment before is back, for an operator's commands need the servers."""
        await asyncio.sleep(1)

        async def is_ready() -> bool:
            state = find_stack(self._data_dir)
            return state is not None and state.is_ready

        await eventually(is_ready, what="a stack that is ready")

    async def _stop(self, name: str) -> None:
        await asyncio.to_thread(stop_service, self._data_dir, name)

    async def _start(self, name: str) -> None:
        await asyncio.to_thread(start_service, self._data_dir, name, _START_SECONDS)


async def _run(*command: str) -> None:
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
