"""Somebody with a shell on the machine of a stack: what operators use to do things by hand."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg
from aiokafka import AIOKafkaProducer
from psycopg.conninfo import make_conninfo

from marketdata.errors import TickpipeError
from runtime.kafka_access import client_options
from runtime.settings import load_settings
from sink.verify import verify
from tests.faults import truth
from tests.faults.sender import Sender
from tests.integration.stack import Stack
from tests.kafka_tool import tool_command
from tests.waiting import eventually
from tickpipe.embedded.postgres import SUPERUSER
from tickpipe.embedded.stack import start_service, stop_service
from tickpipe.embedded.state import load_credentials

#: For what a service waits for meanwhile, on a busy machine (seconds).
HEAL_SECONDS: Final = 180.0


class Operator:
    """Somebody with a shell on the machine of the stack."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.stack = Stack(data_dir)
        state = self.stack.found()
        self.api_key, self.producer_url = state.api_key, state.producer_url
        self.settings = load_settings(database_url=state.database_url, grace_seconds=1, **state.kafka_settings)

    def connection(self, database: str = "") -> psycopg.Connection[Any]:
        """A session of the superuser; the services' own role may not do most of what is done here."""
        url = self.settings.database_url.get_secret_value()
        own = {"user": SUPERUSER, "password": load_credentials(self.data_dir).database_password}
        own |= {"dbname": database} if database else {}
        # Stated, or what an act has set would be in its own way.
        stated = "-c statement_timeout=0 -c lock_timeout=0 -c default_transaction_read_only=off -c search_path=public"
        return psycopg.connect(make_conninfo(url, options=stated, **own), autocommit=True)

    def sql(self, *statements: str, database: str = "") -> list[Any]:
        with self.connection(database) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    async def reconnect(self) -> None:
        """End everybody's sessions, so that new ones have what was set."""
        self.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )

    async def with_setting(self, change: str, undo: str) -> None:
        """Set something for a while, for sessions that begin then."""
        self.sql(change, "SELECT pg_reload_conf()")
        await self.reconnect()
        await asyncio.sleep(4)
        self.sql(undo, "SELECT pg_reload_conf()")
        await self.reconnect()

    async def stop(self, *names: str) -> None:
        for name in names:
            await asyncio.to_thread(stop_service, self.data_dir, name)

    async def start(self, *names: str) -> None:
        for name in names:
            await asyncio.to_thread(start_service, self.data_dir, name, HEAL_SECONDS)

    async def signal(self, name: str, number: signal.Signals) -> None:
        pid = self.stack.found().service(name).pid
        assert pid is not None
        os.kill(pid, number)

    async def run_again(self, name: str, module: str) -> tuple[int, str]:
        """Start a service of the stack a second time, with the environment of the first; exit code and stderr."""
        state = self.stack.found().service(name)
        entries = await asyncio.to_thread(Path(f"/proc/{state.pid}/environ").read_text)
        own = dict(entry.split("=", 1) for entry in entries.split("\0") if entry)
        done = await asyncio.to_thread(
            lambda: subprocess.run(
                [sys.executable, "-m", module], env=own, capture_output=True, text=True, timeout=60, check=False
            )
        )
        return done.returncode, done.stderr

    async def copy(self, folder: Path, to: Path) -> None:
        """Copy a folder of a server with its owner, who is not root."""
        await asyncio.to_thread(lambda: subprocess.run(["cp", "-a", str(folder), str(to)], check=True))

    def named(self, beginning: str) -> list[str]:
        return [service.name for service in self.stack.found().services if service.name.startswith(beginning)]

    async def tool(self, main_class: str, *arguments: str, stdin: str = "", expect: int | None = 0) -> str:
        """One of Kafka's own tools."""
        command = tool_command(
            main_class, "--bootstrap-server", self.settings.kafka_bootstrap,
            "--command-config", str(self.data_dir / "kafka" / "client.properties"), *arguments,
        )  # fmt: skip
        done = await asyncio.to_thread(
            subprocess.run, command, input=stdin, capture_output=True, text=True, timeout=120, check=False
        )
        assert expect is None or done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    async def topic(self, name: str, *arguments: str) -> None:
        await self.tool("org.apache.kafka.tools.TopicCommand", "--topic", name, *arguments)

    async def configure(self, topic: str, *arguments: str) -> None:
        about = ("--entity-type", "topics", "--entity-name", topic, "--alter", *arguments)
        await self.tool("kafka.admin.ConfigCommand", *about)

    async def group(self, *arguments: str, expect: int | None = 0) -> str:
        return await self.tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", *arguments, expect=expect)

    @asynccontextmanager
    async def writer(self) -> AsyncIterator[AIOKafkaProducer]:
        """A client of Kafka that writes what it likes."""
        async with AIOKafkaProducer(**client_options(self.settings), acks="all") as producer:
            yield producer

    async def write_by_hand(self, topic: str, lines: str, *properties: str) -> None:
        options = [word for each in properties for word in ("--reader-property", each)]
        await self.tool("org.apache.kafka.tools.ConsoleProducer", "--topic", topic, *options, stdin=lines)


async def is_read(operator: Operator) -> bool:
    """Whether workers and sink have read everything; False as well while Kafka does not answer."""
    with suppress(TickpipeError, psycopg.Error):
        return await truth.lag(operator.settings) == 0
    return False


async def judged(
    operator: Operator, senders: list[Sender], act: Callable[[Operator], Awaitable[None]], *, repair: bool = False
) -> None:
    """Act while the senders trade; then everything heals and the whole table is compared with the fold of the log."""
    over = asyncio.Event()
    trading = [asyncio.create_task(sender.trade(operator.producer_url, operator.api_key, over)) for sender in senders]
    try:
        await asyncio.sleep(1)
        await act(operator)
        await asyncio.sleep(1)
    finally:
        over.set()
        async with asyncio.timeout(HEAL_SECONDS):
            await asyncio.gather(*trading)

    async def is_settled() -> bool:
        return await truth.is_settled(operator.settings)

    if repair:
        # A minute whose ticks nobody folds any more stays open until then.
        await eventually(partial(is_read, operator), what="no lag", within_seconds=HEAL_SECONDS)
        found = await verify(operator.settings, complete=True, repair=True)
        assert found.missing or found.differences or found.wrong_roll_ups, "nothing was missing"
    await eventually(is_settled, what="a table that is settled", within_seconds=HEAL_SECONDS)
    found = await verify(operator.settings, complete=True)
    assert (found.missing, found.differences, found.unfilled, found.wrong_roll_ups) == ([], [], [], [])
    expected = (await truth.read_log(operator.settings)).expected()
    assert truth.differences(await truth.table(operator.settings), expected) == []
