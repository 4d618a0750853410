"""The EA compiled for this machine, and terminals to run it in."""

import hashlib
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import tools
from tests.integration.ea import translation
from tests.integration.ea.terminal import Terminal
from tests.integration.relay.conftest import start_relay
from tickpipe.embedded.jars import one_at_a_time

__all__ = ["ea_binary", "start_relay", "start_terminal", "terminal"]

_EA = Path(__file__).parents[3] / "ea"
_SHIM = Path(__file__).parent / "shim"

#: MetaTrader ends a program that divides by zero or reaches outside an array; so does this.
_UNDEFINED = ["-fsanitize=undefined", "-fno-sanitize-recover=all"]

# MetaEditor warns as -Wshadow and -Wconversion do.
_WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror", "-Wno-unused-parameter"]

# Compiled in two thirds of the time of -O1, and warns of as much.
_FLAGS = ["-std=c++17", "-Og", *_WARNINGS, *_UNDEFINED]

StartTerminal = Callable[[], Terminal]


def working_compiler(folder: Path) -> str:
    """g++, once a program of its making has run: it may lack its headers, or the library of the sanitizer."""
    compiler = tools.find("g++")
    source, program = folder / "probe.cpp", folder / "probe"
    source.write_text("#include <string>\nint main() { return static_cast<int>(std::string().size()); }\n")
    tools.probe("g++", [compiler, *_UNDEFINED, source, "-o", program])
    tools.probe("g++", [program])
    return compiler


@pytest.fixture(scope="session")
def ea_binary(request: pytest.FixtureRequest, run_folder: Path) -> Path:
    """Compiled by the first process that needs it; later runs use it until anything that it is made of changes."""
    cache: pytest.Cache | None = getattr(request.config, "cache", None)
    folder = Path(cache.mkdir("ea")) if cache else run_folder / "ea"
    folder.mkdir(exist_ok=True)
    binary, made_of = folder / "ea", folder / "made-of"
    with one_at_a_time(folder):
        wanted = _fingerprint()
        if not (binary.exists() and made_of.exists() and made_of.read_text() == wanted):
            made_of.unlink(missing_ok=True)
            _compile(folder, binary)
            made_of.write_text(wanted)
    return binary


def _fingerprint() -> str:
    """Tells apart what a binary is made of: the sources, the flags, the translation and the compiler."""
    version = subprocess.run([tools.find("g++"), "--version"], capture_output=True, check=True).stdout
    sources = sorted(path for folder in (_EA, _SHIM) for path in folder.iterdir() if path.is_file())
    parts = [version, repr(_FLAGS).encode(), Path(translation.__file__).read_bytes()]
    digest = hashlib.sha256()
    for part in (*parts, *(part for path in sources for part in (path.name.encode(), path.read_bytes()))):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def _compile(folder: Path, binary: Path) -> None:
    compiler = working_compiler(folder)
    translation.translate(_EA, folder)
    includes = [f"-I{_SHIM}", f"-I{folder}"]
    made = binary.with_suffix(".new")
    command = [compiler, *_FLAGS, *includes, str(_SHIM / "driver.cpp"), "-o", str(made)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    made.rename(binary)


@pytest.fixture
def start_terminal(ea_binary: Path, tmp_path: Path) -> Iterator[StartTerminal]:
    """Starts a terminal on the test's files."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Terminal(ea_binary, tmp_path / "Files"))


@pytest.fixture
def terminal(start_terminal: StartTerminal) -> Terminal:
    return start_terminal()
