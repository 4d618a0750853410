"""A service's health: checks, guarded tasks and threads, and how `/health` and `/ready` report them."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from runtime.addresses import ThreadedServer, cannot_listen
from runtime.process import EXIT_FAILED, end_process
from runtime.service import cancel

#: Status code and JSON of an answer.
Answer = tuple[int, dict[str, object]]


class Health:
    """The results of a service's checks, and which of its tasks and threads have failed.

    Checks pass and fail as Kafka and the database come and go; that is `/ready`. A part that failed stays failed until
    the process is replaced; that is `/health`. May be used from any thread.
    """

    def __init__(self, *checks: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        #: Since when each check has failed; None while it passes.
        self._failing_since: dict[str, datetime | None] = dict.fromkeys(checks, now())
        self._failed: dict[str, str] = {}
        self._warnings: dict[str, str] = {}

    def set(self, check: str, passes: bool) -> None:
        """Record the outcome of a check; it fails until its first success."""
        if passes:
            self._failing_since[check] = None
        elif self._failing_since[check] is None:
            self._failing_since[check] = self._now()

    def passes(self, check: str) -> bool:
        """Whether the check passed when it last ran."""
        return self._failing_since[check] is None

    def fail(self, part: str, why: str) -> None:
        """Record that a part of the service failed for good."""
        self._failed.setdefault(part, why)

    def warn(self, about: str, what: str) -> None:
        """Have `/health` tell of something that will need an operator; an empty `what` takes it back."""
        if what:
            self._warnings[about] = what
        else:
            self._warnings.pop(about, None)

    @property
    def failed(self) -> Mapping[str, str]:
        """The parts that failed, and why."""
        return self._failed

    def health(self) -> Answer:
        """`/health`: 200 while every part runs, 503 with the name of each that does not."""
        if self._failed:
            return 503, {"status": "failed", "failed": dict(self._failed)}
        return 200, {"status": "ok", "warnings": dict(self._warnings)} if self._warnings else {"status": "ok"}

    def ready(self) -> Answer:
        """`/ready`: 200 when every check passes, 503 with the checks that fail and since when (UTC)."""
        failing = {check: since for check, since in self._failing_since.items() if since is not None}
        body: dict[str, object] = {
            "status": "not ready" if failing or self._failed else "ready",
            "checks": {check: check not in failing for check in self._failing_since},
        }
        if failing:
            body["since"] = {check: since.isoformat(timespec="seconds") for check, since in failing.items()}
        if self._failed:
            body["failed"] = dict(self._failed)
        return (503 if failing or self._failed else 200), body


log = structlog.get_logger(__name__)


class Guard:
    """Starts tasks and threads; one that ends unexpectedly is logged, shows in `/health` and ends the process.

    A service that lacks a part looks alive and does not work, and nothing inside it can repair that: a supervisor has
    to start a new process. `end` begins the shutdown; it is called once, from whatever thread or task failed.
    """

    def __init__(self, health: Health, end: Callable[[], None] = end_process) -> None:
        self.health = health
        self._end = end
        self._ending = threading.Lock()

    @property
    def exit_code(self) -> int:
        """The exit code of the process: 0 as long as nothing failed."""
        return EXIT_FAILED if self.health.failed else 0

    def fail(
        self, part: str, error: BaseException | None, on_failure: Callable[[BaseException], None] = lambda _: None
    ) -> None:
        """Report that a part of the service ended; without `error` it returned although it should not."""
        why = "it ended" if error is None else f"{type(error).__name__}: {error}"
        log.critical(
            f"{part} failed, so the process ends: it cannot do its work without.",
            action="part_failed", part=part, error=why, exc_info=error,
        )  # fmt: skip
        self.health.fail(part, why)
        try:
            if error is not None:
                on_failure(error)
        finally:
            self._begin_end()

    def _begin_end(self) -> None:
        if self._ending.acquire(blocking=False):
            self._end()

    @asynccontextmanager
    async def running(self, **work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Run the coroutines as named tasks until the block is left; then cancel them.

        They are not to end before, in whatever way: returning and being cancelled by a library count as failures too.
        """
        leaving = False

        def ended(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            if not leaving:
                self.fail(task.get_name(), error)

        tasks = [asyncio.create_task(coroutine, name=name) for name, coroutine in work.items()]
        for task in tasks:
            task.add_done_callback(ended)
        try:
            yield
        finally:
            leaving = True
            await cancel(*tasks)

    def thread(
        self, name: str, work: Callable[[], None], on_failure: Callable[[BaseException], None] = lambda _: None
    ) -> threading.Thread:
        """A daemon thread, not started, that does `work`; returning from it is an orderly end.

        When it raises, `on_failure` is called before the process ends: whoever waits for the thread must be told.
        """

        def guarded() -> None:
            try:
                work()
            except BaseException as exc:
                self.fail(name, exc, on_failure)

        return threading.Thread(target=guarded, name=name, daemon=True)


class StatusServer:
    """A small HTTP server, so that probes are answered however busy the event loop is.

    Raises:
        SettingsError: when the address cannot be listened on.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry, health: Health, guard: Guard) -> None:
        try:
            self._server = ThreadedServer(host, port, _handler(registry, health))
        except OSError as exc:
            raise cannot_listen(host, port, exc) from exc
        self._thread = guard.thread("status server", self._server.serve_forever)

    @property
    def port(self) -> int:
        """The port that was bound; it differs from the one asked for when that was 0."""
        return self._server.server_port

    def start(self) -> None:
        """Start answering."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering and free the port."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


def _handler(registry: CollectorRegistry, health: Health) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(HTTPStatus.OK, CONTENT_TYPE_PLAIN_0_0_4, generate_latest(registry))
            elif path == "/health":
                self._answer_json(*health.health())
            elif path == "/ready":
                self._answer_json(*health.ready())
            else:
                self._answer_json(HTTPStatus.NOT_FOUND, {"error": "not found", "code": "NOT_FOUND"})

        def _answer_json(self, status: int, body: Mapping[str, object]) -> None:
            self._answer(status, "application/json", json.dumps(body).encode())

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing: a probe every few seconds is no news."""

    return Handler
