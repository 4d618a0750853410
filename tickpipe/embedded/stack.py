"""The whole stack on one machine: run it here, start it in the background, find it, command it, stop it.

`python -m tickpipe.embedded.stack CONFIG`, CONFIG as JSON, is the background process.
"""

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
import structlog

from marketdata.errors import StackError, TickpipeError
from runtime.addresses import url_of
from runtime.process import on_stop_signal
from runtime.serving import raise_descriptor_limit
from runtime.settings import load_settings
from tickpipe.connection import forget_other_postgresql
from tickpipe.embedded.kafka import local_kafka, ready_kafka
from tickpipe.embedded.kafka_users import SERVICE_USERS, KafkaUsers
from tickpipe.embedded.postgres import Access, local_postgres
from tickpipe.embedded.process import ServiceSpec, open_log, tail
from tickpipe.embedded.services import (
    SERVICES,
    StackConfig,
    any_source_key,
    claim_addresses,
    service_specs,
)
from tickpipe.embedded.state import (
    HOST,
    Ports,
    ServiceState,
    StackState,
    find_stack,
    is_locked,
    load_credentials,
    make_data_directory,
    stack_lock,
    write_state,
)
from tickpipe.embedded.supervisor import StackEvent, Supervisor, control_socket, send_command

__all__ = [
    "SERVICES",
    "StackConfig",
    "StackEvent",
    "StackState",
    "find_stack",
    "restart_service",
    "run_stack",
    "start_detached",
    "start_service",
    "stop_service",
    "stop_stack",
]

#: After so many deaths before it was ever ready a start is given up: the first attempts may meet a server that starts.
_HOPELESS_RESTARTS = 3
_POLL_INTERVAL_SECONDS = 0.1

#: Descriptors for each process: with fewer Kafka does not start, and a log of many partitions needs many.
_FEWEST_DESCRIPTORS = 256
_WANTED_DESCRIPTORS = 65_536

OnEvent = Callable[[StackEvent], None]

_log = structlog.get_logger("tickpipe.embedded")


def _ignore(_: StackEvent) -> None:
    pass


def run_stack(config: StackConfig, on_event: OnEvent = _ignore) -> None:
    """Run the stack in this process, from the main thread, until SIGINT, SIGTERM, SIGHUP or `stop_stack`.

    A second signal kills every process at once. `on_event` is called from the event loop and must not block.

    Raises:
        StackError: when another stack runs on the data directory, a port is taken or a server is not installed.
    """
    config = replace(config, data_dir=config.data_dir.expanduser().absolute())
    _prepare_for_children()
    # A broker that is not ready is asked again.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    with stack_lock(config.data_dir):
        specs, state = _plan(config, on_event)
        asyncio.run(_supervise(config, specs, state, on_event))


def _prepare_for_children() -> None:
    """Set what the services inherit: what they write is ours alone, they may open many files, and nothing
    leads them to another PostgreSQL.

    Raises:
        StackError: when they may not open enough.
    """
    os.umask(0o077)
    forget_other_postgresql()
    if (limit := raise_descriptor_limit(_WANTED_DESCRIPTORS)) < _FEWEST_DESCRIPTORS:
        raise StackError(
            f"a process may open no more than {limit} files here, and Kafka needs {_FEWEST_DESCRIPTORS}; raise the "
            f"limit with `ulimit -n {_WANTED_DESCRIPTORS}`, or where your system sets it, and start again"
        )


def start_detached(config: StackConfig, timeout_seconds: float = 180.0, on_event: OnEvent = _ignore) -> StackState:
    """Start the stack in the background and return when every service is ready.

    Raises:
        StackError: when it does not come up, with the end of the log of the service that failed; it is stopped then.
    """
    config = replace(config, data_dir=config.data_dir.expanduser().absolute())
    make_data_directory(config.data_dir)
    if is_locked(config.data_dir):
        raise StackError(f"a stack is already running on {config.data_dir}; stop it or choose another data directory")
    if "kafka" in config.services:
        # Here and not in the background, so that the user sees the download.
        ready_kafka(lambda message: on_event(StackEvent(message)))
    announced: set[str] = set()
    log = config.data_dir / "logs" / "stack.log"
    with open_log(log) as output:
        log_start_bytes = os.fstat(output).st_size
        process = subprocess.Popen(  # noqa: S603 - the command is ours
            [sys.executable, "-m", "tickpipe.embedded.stack", config.to_json()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # Reaped when it ends, if this process still runs: a zombie would look like a supervisor.
    threading.Thread(target=process.wait, name="reap stack", daemon=True).start()
    try:
        for state in _states(config.data_dir, process, timeout_seconds):
            _announce(state, announced, on_event)
            if state.is_ready:
                return state
        raise StackError(_last_words(log, log_start_bytes))
    except BaseException:
        _end(process, config.data_dir)
        raise


def stop_stack(data_dir: Path, timeout_seconds: float = 60.0) -> bool:
    """Stop the stack of the data directory and return when it is gone; False when there was none.

    Raises:
        StackError: when it is still there after the timeout.
    """
    state = find_stack(data_dir)
    if state is None:
        if is_locked(data_dir):
            raise StackError(f"the stack on {data_dir} is only just starting or stopping; try again in a moment")
        return False
    since = time.time()
    # Not a signal: a second one, from another process that stops the stack, would kill it.
    send_command(Path(state.control), "shutdown", "", timeout_seconds)
    deadline = time.monotonic() + timeout_seconds
    # A supervisor releases its lock shortly before its process ends.
    while is_locked(data_dir) or _lives(state.supervisor_pid, since):
        if time.monotonic() > deadline:
            raise StackError(f"the stack (pid {state.supervisor_pid}) has not stopped after {timeout_seconds:g} s")
        time.sleep(_POLL_INTERVAL_SECONDS)
    return True


def _lives(pid: int, since: float) -> bool:
    """Whether another process than this one has the pid, and had it at that time (Unix seconds)."""
    try:
        process = psutil.Process(pid)
        # It may stay a zombie for ever, as in a container without an init.
        return pid != os.getpid() and process.create_time() <= since and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def start_service(data_dir: Path, name: str, timeout_seconds: float = 60.0) -> None:
    """Start a stopped service of the running stack and return when it is ready.

    Raises:
        StackError: when no stack runs, it has no such service or that does not become ready.
    """
    _command(data_dir, "start", name, timeout_seconds)


def stop_service(data_dir: Path, name: str, timeout_seconds: float = 60.0) -> None:
    """Stop a service of the running stack; it stays stopped until `start_service`.

    Raises:
        StackError: when no stack runs or it has no such service.
    """
    _command(data_dir, "stop", name, timeout_seconds)


def restart_service(data_dir: Path, name: str, timeout_seconds: float = 60.0) -> None:
    """Restart a service of the running stack gracefully and return when it is ready.

    Raises:
        StackError: when no stack runs, it has no such service or that does not become ready.
    """
    _command(data_dir, "restart", name, timeout_seconds)


def _command(data_dir: Path, command: str, service: str, timeout_seconds: float) -> None:
    state = find_stack(data_dir)
    if state is None:
        raise StackError(f"no stack is running on {data_dir}; start one first")
    send_command(Path(state.control), command, service, timeout_seconds)


def _plan(config: StackConfig, on_event: OnEvent) -> tuple[list[ServiceSpec], StackState]:
    """The processes of the stack in order, and the state that it will publish, still without services."""
    data_dir = config.data_dir
    ports = Ports(data_dir)
    credentials = load_credentials(data_dir)
    api_key = any_source_key(credentials.api_key)
    specs = []
    kafka_logins: dict[str, dict[str, str]] = {}
    kafka_bootstrap = database_url = reader_url = dashboard_database_url = ""
    # The cheap checks first: a port in use should be reported before a download, not after it.
    addresses = claim_addresses(config, ports, "", "")
    if "postgres" in config.services:
        access = Access(
            config.postgres_host, config.postgres_database, config.postgres_reader, credentials.reader_password,
            credentials.services_password, load_settings().database_schema,
        )  # fmt: skip
        postgres = local_postgres(data_dir, ports, credentials.database_password, access)
        database_url, reader_url = postgres.services_url, access.reader_url(postgres.port)
        dashboard_database_url = postgres.local_reader_url
        specs.append(postgres.spec)
    if "kafka" in config.services:
        jars = ready_kafka(lambda message: on_event(StackEvent(message)))
        users = KafkaUsers(credentials.kafka_password)
        kafka = local_kafka(data_dir, ports, jars, users, short_lived=config.short_lived)
        kafka_bootstrap = kafka.bootstrap
        kafka_logins = {name: users.login(name) for name in SERVICE_USERS}
        specs.insert(0, kafka.spec)
    addresses = replace(
        addresses, kafka_bootstrap=kafka_bootstrap, database_url=database_url,
        dashboard_database_url=dashboard_database_url, kafka_logins=kafka_logins,
    )  # fmt: skip
    specs += service_specs(config, addresses, api_key)
    state = StackState(
        supervisor_pid=os.getpid(),
        kafka_bootstrap=kafka_bootstrap,
        database_url=database_url,
        producer_url=url_of(config.producer_host, addresses.ports["producer"]) if "producer" in config.services else "",
        stream_url=f"http://{HOST}:{addresses.stream_ports[0]}" if "stream" in config.services else "",
        sink_url=f"http://{HOST}:{addresses.ports['sink']}" if "sink" in config.services else "",
        dashboard_url=url_of(config.dashboard_host, addresses.ports["dashboard"])
        if "dashboard" in config.services
        else "",
        api_key=api_key,
        started_at=datetime.now(UTC),
        control="",
        services=(),
        reader_url=reader_url,
        kafka_password=credentials.kafka_password if kafka_bootstrap else "",
    )
    return specs, state


async def _supervise(config: StackConfig, specs: list[ServiceSpec], state: StackState, on_event: OnEvent) -> None:
    def publish(event: StackEvent) -> None:
        services = tuple(
            ServiceState(service.spec.name, service.pid, service.state, service.restarts, str(service.spec.log))
            for service in supervisor.services
        )
        # On a full disk the services matter more than the file about them.
        with contextlib.suppress(OSError):
            write_state(config.data_dir, replace(state, control=str(control), services=services))
        on_event(event)

    supervisor = Supervisor(specs, publish)
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            on_event(StackEvent("killing every process"))
            supervisor.kill_all()
        stop.set()

    on_stop_signal(on_signal, hang_up=True)

    async def shutdown(_: str) -> None:
        stop.set()

    commands = {"shutdown": shutdown, "start": supervisor.start, "stop": supervisor.stop, "restart": supervisor.restart}
    async with control_socket(config.data_dir, commands) as control:
        supervisor.start_all()
        await stop.wait()
        on_event(StackEvent("stopping"))
        await supervisor.stop_all()


def _states(data_dir: Path, process: subprocess.Popen[bytes], timeout_seconds: float) -> Iterator[StackState]:
    """The published states of a starting stack, one at each poll, until its process ends.

    Raises:
        StackError: when it is late or a service dies at every start.
    """
    deadline = time.monotonic() + timeout_seconds
    while process.poll() is None:
        is_late = time.monotonic() > deadline
        state = find_stack(data_dir)
        if state is not None and state.supervisor_pid == process.pid:
            yield state
            _give_up_if_hopeless(state, is_late, timeout_seconds)
        elif is_late:
            raise StackError(f"the stack did not start within {timeout_seconds:g} s; see {data_dir / 'logs'}")
        time.sleep(_POLL_INTERVAL_SECONDS)


def _announce(state: StackState, announced: set[str], on_event: OnEvent) -> None:
    for service in state.services:
        if service.state == "running" and service.name not in announced:
            announced.add(service.name)
            on_event(StackEvent(f"{service.name} is ready", service.name, "running"))


def _last_words(log: Path, log_start_bytes: int) -> str:
    """Why the background process ended: its error, or else everything that it wrote."""
    words = log.read_bytes()[log_start_bytes:].decode(errors="replace").strip()
    return words.rpartition("error: ")[2] or f"the stack ended at once; see {log}"


def _give_up_if_hopeless(state: StackState, is_late: bool, timeout_seconds: float) -> None:
    waiting = [service for service in state.services if service.state != "running"]
    dying = [service for service in waiting if service.restarts >= _HOPELESS_RESTARTS]
    if not dying and not is_late:
        return
    # Of services that wait for each other, the first in order delays the others.
    culprit = (dying or waiting)[0]
    what = "dies at every start" if dying else f"was not ready within {timeout_seconds:g} s"
    raise StackError(f"{culprit.name} {what}; the end of {culprit.log}:\n{tail(Path(culprit.log))}")


def _end(process: subprocess.Popen[bytes], data_dir: Path) -> None:
    """Stop a background stack that did not come up; by force if need be, and its children die with it."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    (data_dir / "stack.json").unlink(missing_ok=True)


def main() -> int:
    """Run the stack until it is told to stop; an error at the start is the last line of its log."""

    def log_event(event: StackEvent) -> None:
        _log.info(event.message, service=event.service, state=event.state)

    try:
        run_stack(StackConfig.from_json(sys.argv[1]), log_event)
    except TickpipeError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
