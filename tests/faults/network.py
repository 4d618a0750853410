"""A bad network: a TCP proxy that cuts, hangs or slows connections, and servers whose clients come through it."""

import asyncio
import contextlib
import dataclasses
from pathlib import Path

from pydantic import SecretStr

from runtime.settings import Settings
from tests.ports import free_port
from tests.servers import Child, EmbeddedServers
from tickpipe.embedded.kafka import Kafka

_HOST = "127.0.0.1"


class Proxy:
    """Forwards `port` to `target`, well or badly; attributes may be changed at any time."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.target = target
        #: Added to every piece of data, both ways (seconds).
        self.delay_seconds = 0.0
        #: Bytes a second of each connection and direction; 0 sets no limit.
        self.rate = 0.0
        #: New connections are closed at once.
        self.refuses = False
        self._flows = asyncio.Event()
        self._flows.set()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, _HOST, self.port)

    async def stop(self) -> None:
        """Close the listener and every connection."""
        if self._server is not None:
            self._server.close()
        await self.cut()

    async def cut(self) -> None:
        """Close every connection, as a router that restarts."""
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def hang(self) -> None:
        """Let nothing through and close nothing, as a cable that is pulled."""
        self._flows.clear()

    def heal(self) -> None:
        """Forward well again."""
        self.delay_seconds = self.rate = 0.0
        self.refuses = False
        self._flows.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            # asyncio would report the task of a connection that was cut.
            with contextlib.suppress(asyncio.CancelledError):
                await self._connect(reader, writer)
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flows.wait()
        if self.refuses:
            return
        try:
            target_reader, target_writer = await asyncio.open_connection(_HOST, self.target)
        except OSError:
            return
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, target_writer))
                both.create_task(self._pump(target_reader, writer))
        finally:
            target_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(16_384):
                await asyncio.sleep(self.delay_seconds + (len(data) / self.rate if self.rate else 0.0))
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@dataclasses.dataclass(frozen=True)
class ProxiedKafka(Kafka):
    """A broker with a second listener, whose clients are told the proxy's port."""

    behind_port: int = 0
    proxy_port: int = 0

    def prepare(self) -> None:
        super().prepare()
        text = self._properties.read_text()
        for line in ("listeners=BROKER", "advertised.listeners=BROKER"):
            port = self.proxy_port if line.startswith("advertised") else self.behind_port
            text = text.replace(f"\n{line}://", f"\n{line.replace('BROKER', 'PROXIED')}://{_HOST}:{port},BROKER://")
        self._properties.write_text(text.replace("map=BROKER:", "map=PROXIED:PLAINTEXT,BROKER:"))


class ProxiedServers(EmbeddedServers):
    """Servers that can be reached directly, as ever, and through a proxy each."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        behind = free_port()
        self.broker_proxy = Proxy(behind)
        self.database_proxy = Proxy(self._postgres.port)
        fields = {field.name: getattr(self._kafka, field.name) for field in dataclasses.fields(self._kafka)}
        self._kafka = ProxiedKafka(**fields, behind_port=behind, proxy_port=self.broker_proxy.port)
        self._kafka_child = Child(self._kafka.spec)

    def through_proxies(self, settings: Settings) -> Settings:
        """The settings of a client on the far side of the bad network."""
        port, proxy_port = f":{self._postgres.port}/", f":{self.database_proxy.port}/"
        url = settings.database_url.get_secret_value().replace(port, proxy_port)
        bootstrap = f"{_HOST}:{self.broker_proxy.port}"
        return settings.model_copy(update={"kafka_bootstrap": bootstrap, "database_url": SecretStr(url)})
