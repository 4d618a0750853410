"""A supervisor of child processes: starts them in order, restarts whatever dies, stops them in reverse.

It takes commands through a unix socket, one a connection, as lines of JSON: `{"command": "restart", "service":
"stream"}` is answered `{"ok": true}` or `{"ok": false, "error": "…"}`.
"""

import asyncio
import contextlib
import json
import random
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from marketdata.errors import StackError
from tickpipe.embedded.process import ServiceSpec, append_to_log, open_log, rotate_log

State = Literal["starting", "running", "backoff", "stopped"]

_FIRST_DELAY_SECONDS = 0.2
_LONGEST_DELAY_SECONDS = 15.0
#: A process that lived this long was healthy; its next death counts as the first.
_HEALTHY_SECONDS = 30.0
#: How long a process may take to stop before it is killed. Shorter would cut the last commit of a loaded service.
_STOP_TIMEOUT_SECONDS = 15.0
_PROBE_INTERVAL_SECONDS = 0.1
_ROTATION_INTERVAL_SECONDS = 60.0

#: sun_path holds 108 bytes with the closing zero.
_LONGEST_PATH_BYTES = 107

#: What a control command does with the service it names.
Command = Callable[[str], Awaitable[None]]


@dataclass(frozen=True)
class StackEvent:
    """An event to report to the user; `service` is empty when it concerns the whole stack."""

    message: str
    service: str = ""
    state: State | None = None


class Service:
    """One supervised process; `state`, `pid` and `restarts` describe it at the moment."""

    def __init__(self, spec: ServiceSpec, on_event: Callable[[StackEvent], None]) -> None:
        self.spec = spec
        self.state: State = "stopped"
        self.restarts = 0
        #: Set while the service is ready.
        self.is_ready = asyncio.Event()
        #: Set as soon as the service was ready once.
        self.was_ready = asyncio.Event()
        self._on_event = on_event
        self._process: asyncio.subprocess.Process | None = None
        self._runner: asyncio.Task[None] | None = None
        #: Runners that were told to end and have not yet.
        self._ending: set[asyncio.Task[None]] = set()
        #: Held by the runner that has the process.
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The pid of the process, None when there is none."""
        return self._process.pid if self._process is not None else None

    def start(self, after: Sequence["Service"] = ()) -> None:
        """Run the process, once the services of `after` were ready, and restart it whenever it dies.

        One that is being stopped at the moment ends first.
        """
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run(after), name=f"run {self.spec.name}")

    async def stop(self) -> None:
        """Stop the process gracefully, after 15 seconds by force; it is not restarted."""
        runner, self._runner = self._runner, None
        self.is_ready.clear()
        if runner is not None:
            self._ending.add(runner)
            runner.add_done_callback(self._ending.discard)
            runner.cancel()
        if self._ending:
            await asyncio.wait(set(self._ending))

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _run(self, after: Sequence["Service"]) -> None:
        async with self._turn:
            await self._keep(after)

    async def _keep(self, after: Sequence["Service"]) -> None:
        failures = 0
        self._enter("starting", "is to start")
        try:
            for service in after:
                await service.was_ready.wait()
            while True:
                started = time.monotonic()
                try:
                    reason = await self._live()
                except Exception as exc:  # whatever failed, the process must go on being supervised
                    await self._terminate()
                    reason = f"could not be watched: {exc!r}"
                    append_to_log(self.spec.log, reason)
                failures = 0 if time.monotonic() - started >= _HEALTHY_SECONDS else failures
                delay_seconds = backoff_seconds(failures)
                failures += 1
                self.restarts += 1
                self._enter("backoff", f"{reason}; it starts again in {delay_seconds:.1f} s")
                await asyncio.sleep(delay_seconds)
        finally:
            await self._terminate()
            self._enter("stopped", "is stopped")

    async def _live(self) -> str:
        """Run the process once, from its preparation to its end; return why it ended."""
        spec = self.spec
        self._enter("starting", "starts")
        try:
            await asyncio.to_thread(spec.prepare)
            await self._spawn()
        except Exception as exc:  # the cause may be gone at the next attempt
            append_to_log(spec.log, f"could not start: {exc}")
            return f"could not start: {exc}"
        assert self._process is not None  # noqa: S101 - for the type checker
        async with _watched(self._process) as death:
            while not death.done() and not await asyncio.to_thread(spec.ready):
                await asyncio.wait([death], timeout=_PROBE_INTERVAL_SECONDS)
            if not death.done():
                self.is_ready.set()
                self.was_ready.set()
                self._enter("running", "is ready")
            code = await death
        self._process = None
        return f"died of {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"

    async def _spawn(self) -> None:
        # Started from the thread of the event loop: the kernel ties the death signal to the thread that forks.
        with open_log(self.spec.log) as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.spec.command,
                env=dict(self.spec.env),
                cwd=self.spec.cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )

    async def _terminate(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(self.spec.stop_signal)
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_TIMEOUT_SECONDS)
        except TimeoutError:
            self.kill()
            await self._process.wait()
        self._process = None

    def _enter(self, state: State, message: str) -> None:
        self.state = state
        if state != "running":
            self.is_ready.clear()
        try:
            self._on_event(StackEvent(f"{self.spec.name} {message}", self.spec.name, state))
        except Exception as exc:  # such as a closed terminal; the process runs on
            append_to_log(self.spec.log, f"could not be reported: {exc!r}")


class Supervisor:
    """Services by name; a service starts when those named in its `after` were ready and stops before them."""

    def __init__(self, specs: Sequence[ServiceSpec], on_event: Callable[[StackEvent], None]) -> None:
        self._services = {spec.name: Service(spec, on_event) for spec in specs}
        self._rotation: asyncio.Task[None] | None = None

    @property
    def services(self) -> list[Service]:
        """All services in the order in which they were given."""
        return list(self._services.values())

    def start_all(self) -> None:
        """Start every service as soon as those it needs were ready."""
        self._rotation = asyncio.create_task(self._rotate_logs())
        for service in self.services:
            service.start(self._needed_by(service))

    async def stop_all(self) -> None:
        """Stop every service, each after those that need it."""
        if self._rotation is not None:
            self._rotation.cancel()
        gone = {name: asyncio.Event() for name in self._services}

        async def stop_in_turn(service: Service) -> None:
            for dependent in self.services:
                if service.spec.name in dependent.spec.after:
                    await gone[dependent.spec.name].wait()
            await service.stop()
            gone[service.spec.name].set()

        await asyncio.gather(*(stop_in_turn(service) for service in self.services))

    def kill_all(self) -> None:
        """Kill every process at once."""
        for service in self.services:
            service.kill()

    async def start(self, name: str) -> None:
        """Start one service and return when it is ready.

        Raises:
            StackError: when there is none of that name.
        """
        service = self._service(name)
        service.start()
        await service.is_ready.wait()

    async def stop(self, name: str) -> None:
        """Stop one service; it is not restarted.

        Raises:
            StackError: when there is none of that name.
        """
        await self._service(name).stop()

    async def restart(self, name: str) -> None:
        """Stop one service gracefully, start it again and return when it is ready.

        Raises:
            StackError: when there is none of that name.
        """
        await self.stop(name)
        await self.start(name)

    def _service(self, name: str) -> Service:
        try:
            return self._services[name]
        except KeyError:
            raise StackError(f"no service {name!r} in this stack; it has {', '.join(self._services)}") from None

    def _needed_by(self, service: Service) -> list[Service]:
        return [self._services[name] for name in service.spec.after if name in self._services]

    async def _rotate_logs(self) -> None:
        while True:
            await asyncio.sleep(_ROTATION_INTERVAL_SECONDS)
            for service in self.services:
                try:
                    await asyncio.to_thread(rotate_log, service.spec.log)
                except OSError as exc:  # such as a full disk; the next round may find some space
                    append_to_log(service.spec.log, f"could not be rotated: {exc}")


def backoff_seconds(failures: int) -> float:
    """How long to wait before the next start after so many failures in a row: 0.2 s doubling up to 15 s, with jitter.

    The jitter spreads the restarts of services that died together of the same cause.
    """
    delay: float = min(_LONGEST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2 ** min(failures, 16))
    return delay * random.uniform(0.75, 1.0)  # noqa: S311 - no secret


@contextlib.asynccontextmanager
async def _watched(process: asyncio.subprocess.Process) -> AsyncIterator[asyncio.Task[int]]:
    """A task that ends with the process, and is cancelled at the end of the block."""
    death = asyncio.create_task(process.wait())
    try:
        yield death
    finally:
        death.cancel()


@contextlib.asynccontextmanager
async def control_socket(data_dir: Path, commands: Mapping[str, Command]) -> AsyncIterator[Path]:
    """Accept commands until the block ends; yields the path of the socket, which only its owner can use."""
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
            with contextlib.suppress(OSError):  # the client may have gone
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
    """Send a command to the stack and return when it is done.

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
