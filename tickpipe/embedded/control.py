"""The control channel of a running stack: a unix socket that takes one command a connection, as lines of JSON.

Request `{"command": "restart", "service": "stream"}`, answer `{"ok": true}` or `{"ok": false, "error": "…"}`.
"""

import asyncio
import contextlib
import json
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

from marketdata.errors import StackError
from tickpipe.embedded.supervisor import Command

#: sun_path holds 108 bytes with the closing zero.
_LONGEST_PATH_BYTES = 107


@contextlib.asynccontextmanager
async def control_socket(data_dir: Path, commands: Mapping[str, Command]) -> AsyncIterator[Path]:
    """Take commands until the block ends; gives the path of the socket, which only its owner can use."""
    with _socket_path(data_dir) as path:

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                request = json.loads(await reader.readline())
                await commands[request["command"]](request.get("service", ""))
                outcome: dict[str, object] = {"ok": True}
            except StackError as exc:
                outcome = {"ok": False, "error": str(exc)}
            except (ValueError, KeyError, TypeError) as exc:
                outcome = {"ok": False, "error": f"not a command: {exc!r}"}
            with contextlib.suppress(OSError):  # whoever asked may have gone
                writer.write(json.dumps(outcome).encode() + b"\n")
                await writer.drain()
            writer.close()

        server = await asyncio.start_unix_server(answer, path)
        path.chmod(0o600)
        try:
            yield path
        finally:
            server.close()


def send_command(path: Path, command: str, service: str, timeout_seconds: float) -> None:
    """Let the stack do something and return when it is done.

    Raises:
        StackError: when it cannot be done, takes longer than the timeout or the stack is gone.
    """
    request = json.dumps({"command": command, "service": service}).encode() + b"\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_seconds)
            connection.connect(str(path))
            connection.sendall(request)
            with connection.makefile("rb") as answers:
                line = answers.readline()
    except TimeoutError as exc:
        raise StackError(f"{command} {service}: not done after {timeout_seconds:g} s; see its log") from exc
    except OSError as exc:
        raise StackError(f"{command} {service}: the stack does not answer ({exc})") from exc
    if not line:
        raise StackError(f"{command} {service}: the stack ended meanwhile")
    answer = json.loads(line)
    if not answer["ok"]:
        raise StackError(answer["error"])


@contextlib.contextmanager
def _socket_path(data_dir: Path) -> Iterator[Path]:
    path = data_dir / "control.sock"
    folder: str | None = None
    if len(str(path).encode()) > _LONGEST_PATH_BYTES:
        folder = tempfile.mkdtemp(prefix="tickpipe-")
        path = Path(folder) / "control.sock"
    path.unlink(missing_ok=True)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
