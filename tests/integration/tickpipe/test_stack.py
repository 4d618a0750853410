"""The embedded stack for real: Kafka, PostgreSQL and stand-ins for our own services, each a process of its own."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from aiokafka.admin import NewTopic

from marketdata.errors import StackError
from runtime.kafka import admin_client, new_consumer, new_producer
from runtime.settings import load_settings
from tests.integration.stack import Stack
from tests.kafka_tool import tool_command
from tests.servers import formatted
from tests.waiting import PATIENCE_SECONDS, wait_until
from tickpipe.embedded.stack import (
    StackConfig,
    StackState,
    find_stack,
    restart_service,
    start_detached,
    start_service,
    stop_service,
    stop_stack,
)
from tickpipe.embedded.state import is_locked

pytestmark = pytest.mark.long(15)

_STAND_IN = str(Path(__file__).with_name("standin.py"))
_TOPIC = "kept"


def _config(data_dir: Path, *services: str, **commands: tuple[str, ...]) -> StackConfig:
    stand_ins = {kind: (sys.executable, _STAND_IN, kind) for kind in ("producer", "stream", "sink")}
    chosen = services or ("kafka", "postgres", "producer", "stream", "sink")
    return StackConfig(data_dir, producer_port=0, services=chosen, commands=stand_ins | commands, short_lived=True)


@pytest.fixture(scope="module")
def stack_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data directory of a whole running stack, started by a user in Turkey who hides nothing from others.

    The folder in which it was started is gone since.
    """
    data_dir, gone = tmp_path_factory.mktemp("stack"), tmp_path_factory.mktemp("gone")
    umask = os.umask(0)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=tr -Duser.country=TR")
            patch.setenv("LC_ALL", "tr_TR.UTF-8")
            patch.setenv("TZ", "Asia/Kathmandu")
            patch.chdir(gone)
            start_detached(_config(data_dir))
    finally:
        os.umask(umask)
    gone.rmdir()
    yield data_dir
    stop_stack(data_dir)


@pytest.fixture
def small_dir(tmp_path: Path) -> Iterator[Path]:
    """A data directory whose stack, if the test leaves one, is stopped."""
    yield tmp_path
    stop_stack(tmp_path)


def _descendants(data_dir: Path) -> list[psutil.Process]:
    state = find_stack(data_dir)
    assert state is not None
    return psutil.Process(state.supervisor_pid).children(recursive=True)


async def _write_and_read_back(state: StackState, topic: str) -> list[bytes]:
    settings = load_settings(**state.kafka_settings)
    async with admin_client(settings) as admin:
        if topic not in await admin.list_topics():
            await admin.create_topics([NewTopic(topic, 1, 1)])
    producer = new_producer(settings)
    await producer.start()
    await producer.send_and_wait(topic, b"a record")
    await producer.stop()
    return await _records(state, topic, at_least=1)


async def _records(state: StackState, topic: str, at_least: int) -> list[bytes]:
    consumer = new_consumer(load_settings(**state.kafka_settings), topic, auto_offset_reset="earliest")
    await consumer.start()
    values: list[bytes] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(values) < at_least:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                values += [record.value for record in records]
    await consumer.stop()
    return values


async def test_servers_take_records_and_rows(stack_dir: Path) -> None:
    state = find_stack(stack_dir)
    assert state is not None

    assert await _write_and_read_back(state, "first") == [b"a record"]
    with psycopg.connect(state.database_url) as connection:
        row = connection.execute(
            "SELECT current_database(), current_setting('TimeZone'), current_user::text, rolsuper"
            " FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
    assert row == ("market", "UTC", "tickpipe", False)
    with psycopg.connect(state.reader_url) as connection:
        assert connection.info.user == "reader"


def test_database_refuses_a_wrong_password(stack_dir: Path) -> None:
    state = find_stack(stack_dir)
    assert state is not None
    host = state.database_url.rpartition("@")[2]

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"postgresql://postgres:wrong@{host}")


@pytest.mark.full
def test_kafkas_own_tools_run_against_it(stack_dir: Path) -> None:
    state = find_stack(stack_dir)
    assert state is not None
    command = tool_command(
        "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", state.kafka_bootstrap,
        "--command-config", str(stack_dir / "kafka" / "client.properties"), "--list",
    )  # fmt: skip

    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_state_and_secrets_are_readable_by_their_owner_only(stack_dir: Path) -> None:
    for name in ("stack.json", "secrets.json", "kafka/server.properties", "kafka/client.properties", "logs/kafka.log"):
        assert (stack_dir / name).stat().st_mode & 0o077 == 0


def test_nobody_else_may_write_what_the_servers_store(stack_dir: Path) -> None:
    files = [path for path in stack_dir.rglob("*") if not path.is_symlink() and path.name != "stack.lock"]
    assert len(files) > 100
    assert [path for path in files if path.stat().st_mode & 0o022] == []


@pytest.mark.parametrize("name", ["stream", pytest.param("postgres", marks=pytest.mark.full)])
def test_killed_service_is_started_again(stack_dir: Path, name: str) -> None:
    assert Stack(stack_dir).kill(name)[name] >= 1


@pytest.mark.full
def test_a_kafka_that_crashes_reports_beside_its_log_and_is_started_again(stack_dir: Path) -> None:
    pid = Stack(stack_dir).found().service("kafka").pid
    assert Stack(stack_dir).kill("kafka", by=signal.SIGSEGV)["kafka"] >= 1
    assert [path.name for path in (stack_dir / "logs").glob("kafka-crash-*")] == [f"kafka-crash-{pid}.log"]
    assert list(Path.cwd().glob(f"hs_err_pid{pid}*")) == []


@pytest.mark.full
def test_too_few_descriptors_are_named_with_the_cure(small_dir: Path) -> None:
    done = subprocess.run(
        ["prlimit", "--nofile=64:64", sys.executable, "-m", "tickpipe.embedded.stack",
         _config(small_dir, "producer").to_json()],
        capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: a process may open no more than 64 files here, and Kafka needs 256;")


def test_second_start_on_the_same_directory_is_refused(stack_dir: Path) -> None:
    with pytest.raises(StackError, match="already running"):
        start_detached(_config(stack_dir))
    assert find_stack(stack_dir) is not None


def test_stopped_service_stays_stopped_until_it_is_started(stack_dir: Path) -> None:
    stop_service(stack_dir, "sink")
    stopped = find_stack(stack_dir)
    start_service(stack_dir, "sink")
    started = find_stack(stack_dir)

    assert stopped is not None
    assert started is not None
    assert (stopped.service("sink").state, stopped.service("sink").pid) == ("stopped", None)
    assert started.service("sink").state == "running"


def test_restart_gives_a_new_process_and_counts_no_death(stack_dir: Path) -> None:
    before = find_stack(stack_dir)
    restart_service(stack_dir, "producer")
    after = find_stack(stack_dir)

    assert before is not None
    assert after is not None
    assert after.service("producer").pid != before.service("producer").pid
    assert after.service("producer").restarts == before.service("producer").restarts


def test_unknown_service_is_named_in_the_error(stack_dir: Path) -> None:
    with pytest.raises(StackError, match="no service 'nobody'"):
        restart_service(stack_dir, "nobody")


@pytest.mark.full
@pytest.mark.fault
async def test_stack_beside_another_outlives_the_kill_of_its_supervisor_with_its_data(
    stack_dir: Path, small_dir: Path, run_folder: Path
) -> None:
    # Arrange: a second stack beside the first, with a record and a row in it.
    formatted(small_dir, run_folder / "blank")
    state = start_detached(_config(small_dir, "kafka", "postgres"))
    neighbour = find_stack(stack_dir)
    assert neighbour is not None
    assert neighbour.kafka_bootstrap != state.kafka_bootstrap
    await _write_and_read_back(state, _TOPIC)
    with psycopg.connect(state.database_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS a_row")
    family = _descendants(small_dir)

    # Act
    os.kill(state.supervisor_pid, signal.SIGKILL)

    # Assert: no orphan, nobody fooled by what stack.json still says, and after a new start everything is there.
    assert len(family) >= 3  # java, postgres and what postgres forks
    assert psutil.wait_procs(family, timeout=PATIENCE_SECONDS)[1] == []
    assert (small_dir / "stack.json").exists()
    assert find_stack(small_dir) is None
    again = start_detached(_config(small_dir, "kafka", "postgres"))
    assert (again.kafka_bootstrap, again.database_url) == (state.kafka_bootstrap, state.database_url)
    assert await _records(again, _TOPIC, at_least=1) == [b"a record"]
    with psycopg.connect(again.database_url) as connection:
        assert connection.execute("SELECT a_row FROM kept").fetchone() == (1,)
    family = _descendants(small_dir)
    assert stop_stack(small_dir)
    assert psutil.wait_procs(family, timeout=0)[1] == []
    assert not stop_stack(small_dir)


def test_variables_of_another_postgresql_lead_nobody_astray(
    small_dir: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    formatted(small_dir, run_folder / "blank")
    for name, value in (
        ("PGSSLMODE", "verify-full"), ("PGSERVICE", "elsewhere"), ("PGTARGETSESSIONATTRS", "standby"), ("PGTZ", "Mars"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)

    start_detached(_config(small_dir, "kafka", "postgres"))
    for command in ("migrate", "status"):
        done = subprocess.run(
            [sys.executable, "-m", "tickpipe", "db", command, "--data-dir", str(small_dir)],
            capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


@pytest.mark.full
def test_stop_returns_when_the_process_has_ended(small_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor lets its lock go before its process ends."""
    (small_dir / "sitecustomize.py").write_text("import atexit, time\natexit.register(time.sleep, 4)\n")
    monkeypatch.setenv("PYTHONPATH", str(small_dir), prepend=os.pathsep)
    supervisor = psutil.Process(start_detached(_config(small_dir, "producer")).supervisor_pid)

    assert stop_stack(small_dir)

    assert psutil.wait_procs([supervisor], timeout=0)[1] == []


def test_start_quotes_the_log_of_the_service_that_fails(small_dir: Path) -> None:
    failing = (sys.executable, "-c", "raise SystemExit('the disk is made of cheese')")

    with pytest.raises(StackError, match=r"(?s)producer dies at every start.*the disk is made of cheese"):
        start_detached(_config(small_dir, "producer", producer=failing))
    assert find_stack(small_dir) is None


def test_taken_port_of_the_producer_is_named_with_the_cure(small_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=rf"^port {port} is in use; .* choose another with --producer-port$"):
            start_detached(StackConfig(small_dir, producer_port=port, services=("producer",)))


@pytest.mark.full
def test_long_path_of_the_data_directory_takes_commands_too(tmp_path: Path) -> None:
    data_dir = tmp_path / ("long" * 30)

    state = start_detached(_config(data_dir, "producer"))
    restart_service(data_dir, "producer")

    assert stop_stack(data_dir)
    assert not Path(state.control).exists()


def test_second_signal_kills_at_once(small_dir: Path) -> None:
    state = start_detached(_config(small_dir, "producer", producer=(sys.executable, _STAND_IN, "producer", "stubborn")))
    supervisor = psutil.Process(state.supervisor_pid)
    started = time.monotonic()

    supervisor.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert find_stack(small_dir) is not None
    supervisor.send_signal(signal.SIGINT)
    # Its lock is the last that it gives up.
    wait_until(lambda: find_stack(small_dir) is None and not is_locked(small_dir), what="the end of the stack")

    # It gives a service that does not stop fifteen seconds.
    assert time.monotonic() - started < 14
