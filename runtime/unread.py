"""Reads the rest of a request's body before the request is answered.

A server that answers and closes while its sender is still sending makes the system reset the connection, and the answer
is lost: the sender never learns that its body was too large or its key wrong.
"""

import asyncio
from typing import Final

from runtime.request_body import Application, Message, Receive, Scope, Send, patience_seconds

#: How much of a body is read for nothing: four times the largest body by default. Beyond that a sender must notice by
#: the reset (bytes).
_MAX_BYTES: Final = 256 * 1024 * 1024

_REQUEST_TIMEOUT: Final = 408


def reading_to_the_end(app: Application) -> Application:
    """The application, whose answers wait until the body of the request has been read, within bytes and seconds.

    Where the body does not end within them, the answer says `Connection: close`.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"]) if scope["type"] == "http" else {}
        if b"content-length" in headers or b"transfer-encoding" in headers:
            exchange = _Exchange(headers, receive, send)
            await app(scope, exchange.receive, exchange.send)
        else:
            await app(scope, receive, send)

    return answer


class _Exchange:
    """A request with a body and its answer."""

    __slots__ = ("_asks_first", "_declared", "_is_read", "_receive", "_send")

    def __init__(self, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._declared = headers.get(b"content-length", b"")
        #: Sends its body only when it is asked for it, which the first `receive` does.
        self._asks_first = headers.get(b"expect", b"").lower() == b"100-continue"
        self._is_read = False

    async def receive(self) -> Message:
        self._asks_first = False
        message = await self._receive()
        self._is_read = not message.get("more_body")  # neither the last part has it nor a disconnect
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._is_read and not await self._read_rest(message):
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await self._send(message)

    async def _read_rest(self, answer: Message) -> bool:
        """Whether the body was read to its end."""
        # A sender that is answered 408 has used up its time already.
        if self._asks_first or answer["status"] == _REQUEST_TIMEOUT or int(self._declared or 0) > _MAX_BYTES:
            return False
        size = 0
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(patience_seconds(0)) as deadline:
                while not self._is_read and size <= _MAX_BYTES:
                    size += len((await self.receive()).get("body", b""))
                    if not deadline.expired():
                        deadline.reschedule(started + patience_seconds(size))
        except TimeoutError:
            return False
        return self._is_read
