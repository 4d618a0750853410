"""A network cable between a client and a server of this machine that a test may pull."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self


class Cable:
    """Passes bytes both ways on a port of its own: `async with Cable(server_port) as cable`.

    Pulling it breaks every connection in the middle of whatever it carries, and refuses new ones.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self._carrying: set[asyncio.Task[None]] = set()
        self.port = 0
        self._is_plugged = False
        #: While this is set, requests arrive and their answers do not.
        self.loses_answers = False
        #: Bytes of answers that were lost.
        self.lost_bytes = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.plug()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.pull()

    async def plug(self) -> None:
        """Let connections through, on the same port as before."""
        self.loses_answers = False
        self._is_plugged = True
        self._listener = await asyncio.start_server(self._connect, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def pull(self) -> None:
        """Break what is under way and refuse what comes."""
        self._is_plugged = False
        if self._listener is not None:
            self._listener.close()
        for end in self._ends:
            end.transport.abort()
        if self._carrying:
            await asyncio.wait(self._carrying)

    async def lead_to(self, server_port: int) -> None:
        """Break what is under way, and lead to another server from now on."""
        await self.pull()
        self._server_port = server_port
        await self.plug()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        self._ends.add(writer)
        try:
            with suppress(OSError):
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
                self._ends.add(far_writer)
                if not self._is_plugged:  # pulled between the connection and this
                    far_writer.transport.abort()
                    writer.transport.abort()
                await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer, is_answer=True))
                self._ends.discard(far_writer)
        finally:
            writer.close()
            self._ends.discard(writer)
            self._carrying.discard(task)

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool = False
    ) -> None:
        """Copy until an end closes, and close the other."""
        with suppress(OSError):
            while data := await reader.read(65_536):
                if is_answer and self.loses_answers:
                    self.lost_bytes += len(data)
                    continue
                writer.write(data)
                await writer.drain()
        writer.close()
