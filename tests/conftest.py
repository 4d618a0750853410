"""One Kafka and one PostgreSQL for the whole run; every test gets topics, groups, ports and a database of its own.

A file that stops a server starts two of its own.
"""

import functools
import gc
import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import psycopg
import pytest
import structlog
import typer.main
import typer.testing
from psycopg import sql

from runtime.kafka import new_producer
from runtime.services import DECLARED
from runtime.settings import Settings, load_settings
from runtime.topics import wait_for_kafka
from tests import accounting, days, first_imports, preloaded, shared_servers, tools
from tests.finished_topics import finish_topics
from tests.guardian import Guardian, folder_in_memory
from tests.kafka_log import KafkaLog
from tests.ports import free_port
from tests.scheduling import GroupScheduling, seconds_of_groups
from tests.scripted import ScriptedServer, scripted_server
from tests.servers import TEST_DATABASE, EmbeddedServers, create_database, formatted
from tests.shared_servers import ServerDesk, SharedServers

if TYPE_CHECKING:
    from tests.containers import ContainerServers

#: Set by `make faults` and `make test-full`: everything runs, not only what `make test` has the time for.
FULL = os.environ.get("TICKPIPE_TESTS") == "full"

# Every run draws new examples, also where CI=true, so a few in each run find in time what many at once would. A slow
# example is the fault of a busy machine. Fixtures are shared by the examples of one test, which none of ours minds.
_ASKED = os.environ.get("TICKPIPE_TEST_EXAMPLES")
_EXAMPLES = int(_ASKED or (500 if FULL else 25))
hypothesis.settings.register_profile(
    "tests",
    hypothesis.settings.get_profile("default"),
    max_examples=_EXAMPLES,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("tests")

#: For a property whose examples take more than 20 ms: 10 in `make test`, elsewhere as many as of others.
fewer_examples = hypothesis.settings(max_examples=_EXAMPLES if FULL or _ASKED else 10)

# Where a test has no logs configured, structlog's default writes tracebacks by rich, with the repr of every local
# variable of every frame: of what C extensions hold, from a server's thread, while other threads change it. A process
# ended with a segmentation fault there once.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)

# Each call of a CliRunner would build all commands of its app again, which takes longer than most of what they do here.
typer.testing._get_command = functools.cache(typer.main.get_command)  # type: ignore[attr-defined]

NewDataDir = Callable[[str], Path]

_STACK = os.environ.get("TICKPIPE_TEST_STACK", "embedded")
_DESK = pytest.StashKey[ServerDesk]()

#: Folders whose tests need no database: to make one takes a quarter of a second of a processor.
_WITHOUT_DATABASE = {"producer", "runtime", "stream_app"}

#: The key that the tests' producers accept, for any source.
API_KEY = "integration-tests"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cpu-report", metavar="FILE", help="write to FILE which test files use how much processor time")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: takes longer than `make test` has the time for; `make test-full` runs it")
    config.addinivalue_line(
        "markers",
        "long(seconds): of a file that takes about so long alone; the longest begin first, see tests/README.md",
    )

    # Half a million objects are made before the first test and stay: no collection of garbage looks at them. Each would
    # take a third of a second.
    gc.disable()

    # A shell that starts the run in the background has it ignore Ctrl-C, and what the tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    guardian = Guardian()

    def clear_up() -> None:
        for process in guardian.dismiss():
            print(f"ended what the tests had left running: {process}", file=sys.stderr)

    config.add_cleanup(clear_up)
    config.add_cleanup(preloaded.close)
    accounting.start(config, guardian.run)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    first_imports.import_share(session.config)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of xdist where to ask for the servers; this process is the controller."""
    if _STACK != "embedded":
        return
    config: pytest.Config = node.config
    if (desk := config.stash.get(_DESK, None)) is None:
        desk = config.stash[_DESK] = ServerDesk()
        config.add_cleanup(desk.close)
    node.workerinput["server_desk"] = desk.address


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling | None:
    return GroupScheduling(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """For `-m full` alone, import no file that has no such test: every process of the run would import them all.

    The mark stands in the file, or in a fixture that its folder shares.
    """
    if config.option.markexpr != "full" or not collection_path.name.startswith("test_") or collection_path.is_dir():
        return None
    files = (collection_path, collection_path.with_name("conftest.py"), collection_path.with_name("editions.py"))
    return (
        None if any("pytest.mark.full" in file.read_text(encoding="utf-8") for file in files if file.exists()) else True
    )


def pytest_report_header() -> str:
    return days.report()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [] if FULL else [item for item in items if item.get_closest_marker("full")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    marks = {item.nodeid: item.get_closest_marker("long") for item in items}
    seconds = seconds_of_groups({test: mark.args[0] if mark else 0 for test, mark in marks.items()})
    # In whole files: what shares fixtures stays together.
    items.sort(key=lambda item: -seconds[item.nodeid.partition("::")[0]])


@pytest.fixture(autouse=True)
def root_logger() -> None:
    """Take away the handlers that earlier commands left behind: their standard error, a CliRunner's, is closed."""
    handlers = logging.root.handlers
    handlers[:] = [one for one in handlers if not getattr(getattr(one, "stream", None), "closed", False)]


@pytest.fixture(scope="session")
def run_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of the run share, for what is made once."""
    own = tmp_path_factory.getbasetemp()
    # A worker of xdist has a folder of its own in that of the controller.
    return own.parent if hasattr(request.config, "workerinput") else own


@pytest.fixture(scope="session")
def new_data_dir(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> NewDataDir:
    """Makes data directories for `EmbeddedServers`, in memory where there is room, by a part of their name.

    They are formatted, see `formatted`.
    """

    def make(name: str) -> Path:
        memory = folder_in_memory()
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=memory)) if memory else tmp_path_factory.mktemp(name)
        return formatted(folder, run_folder / "blank")

    return make


@contextmanager
def started_servers(new_data_dir: NewDataDir) -> "Iterator[EmbeddedServers | ContainerServers]":
    """The servers that `TICKPIPE_TEST_STACK` names: `embedded` (the default) or `containers`."""
    match _STACK:
        case "embedded":
            with EmbeddedServers(new_data_dir("servers"), database_settings=TEST_DATABASE) as embedded:
                yield embedded
        case "containers":
            from tests.containers import ContainerServers  # noqa: PLC0415  # slow to load

            tools.probe("docker", [tools.find("docker"), "info"])
            with ContainerServers() as containers:
                yield containers
        case other:
            raise pytest.UsageError(f"TICKPIPE_TEST_STACK is `embedded` or `containers`, not {other!r}")


@pytest.fixture(scope="session")
def servers(
    request: pytest.FixtureRequest, new_data_dir: NewDataDir, run_folder: Path
) -> "Iterator[SharedServers | EmbeddedServers | ContainerServers]":
    """The servers of the run, which no test stops."""
    if desk := getattr(request.config, "workerinput", {}).get("server_desk"):
        yield shared_servers.ask(desk, run_folder)
        return
    with started_servers(new_data_dir) as started:
        yield started


@pytest.fixture(scope="module")
def own_servers(new_data_dir: NewDataDir) -> "Iterator[EmbeddedServers | ContainerServers]":
    """Servers for a file that stops them: it overrides `servers` by these."""
    with started_servers(new_data_dir) as started:
        yield started


@pytest.fixture
def settings(request: pytest.FixtureRequest, servers: EmbeddedServers, tmp_path: Path) -> Iterator[Settings]:
    """Settings of a pipeline that no other test touches."""
    unique = uuid.uuid4().hex[:12]
    names = {"stream_instance": f"worker-{unique}", "sink_instance": f"sink-{unique}"}
    template = "" if request.path.parent.name in _WITHOUT_DATABASE else "template1"
    with passing_settings(servers, unique, data_dir=tmp_path, template=template, **names) as made:
        yield made


@contextmanager
def passing_settings(
    servers: EmbeddedServers, unique: str, *, server_url: str = "", template: str = "template1", **others: object
) -> Iterator[Settings]:
    """`own_settings`, whose database and topics go after the block."""
    made = own_settings(servers, unique, server_url=server_url, template=template, **others)
    yield made
    with psycopg.connect(server_url or servers.database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(f"test_{unique}")))
    finish_topics(made)


def own_settings(
    servers: EmbeddedServers, unique: str, *, server_url: str = "", template: str = "template1", **others: object
) -> Settings:
    """Settings with topics, groups and ports of their own, and with a database, `test_…`, which is created.

    `server_url` names another database server than that of `servers`. The database is empty, or a copy of `template`;
    with no template there is none.
    """
    server_url = server_url or servers.database_url
    if template:
        create_database(server_url, f"test_{unique}", template)
    usual: dict[str, object] = {
        # Two workers can share them, and the broker works for each.
        "kafka_partitions": 2,
        # What the pipeline loses must not be mended before a test looks.
        "check_days": 0,
        "ledger_days": 0,
        **{f"{service.name}_port": free_port() for service in DECLARED},
    }
    return load_settings(
        kafka_bootstrap=servers.kafka_bootstrap,
        database_url=server_url.rpartition("/")[0] + f"/test_{unique}",
        api_keys={"*": API_KEY},
        ticks_topic=f"ticks.{unique}",
        candles_topic=f"candles.{unique}",
        broker_candles_topic=f"bars.{unique}",
        reference_topic=f"reference.{unique}",
        fills_topic=f"fills.{unique}",
        wanted_topic=f"wanted.{unique}",
        ticks_rejected_topic=f"ticks.rejected.{unique}",
        candles_rejected_topic=f"candles.rejected.{unique}",
        stream_group=f"stream-{unique}",
        archive_group=f"archive-{unique}",
        sink_group=f"sink-{unique}",
        **usual | others,
    )


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """Answers what the test tells it to, in the place of a producer."""
    with scripted_server() as running:
        yield running


@pytest.fixture
async def kafka(settings: Settings) -> AsyncIterator[KafkaLog]:
    """The topics of the test, created, and a producer to write to them."""
    await wait_for_kafka(settings)
    producer = new_producer(settings, linger_ms=5)
    await producer.start()
    yield KafkaLog(settings, producer)
    await producer.stop()
