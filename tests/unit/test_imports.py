"""The rooms of the house: services never import each other, and the Windows side needs little."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.waiting import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]

#: What a package may import of this project besides itself; `tickpipe`, the command line, may import all.
MAY_IMPORT = {
    "marketdata": set[str](),
    "runtime": {"marketdata"},
    "archive": {"marketdata", "runtime"},
    "producer": {"marketdata", "runtime"},
    "stream_app": {"marketdata", "runtime"},
    "sink": {"marketdata", "runtime"},
    "relay": {"marketdata", "runtime"},
    # Its queries are the sink's.
    "dashboard": {"marketdata", "runtime", "sink"},
}

#: What only a server of Kafka, PostgreSQL or the stream needs.
HEAVY = ("aiokafka", "faust", "psycopg", "fastapi", "starlette")


#: What the domain may import besides the standard library: it does no I/O.
PURE = {"msgspec"}

#: Modules of the standard library that talk to the outside world.
IMPURE = {"asyncio", "socket", "ssl", "http", "urllib", "subprocess", "threading", "logging", "sqlite3", "selectors"}


@cache
def nodes_of(module: Path) -> list[ast.AST]:
    """All nodes of a module, which several tests look through."""
    return list(ast.walk(ast.parse(module.read_text())))


def imported_packages(module: Path) -> set[str]:
    names = [alias.name for node in nodes_of(module) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes_of(module) if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_is_below_it(package: str) -> None:
    modules = list((ROOT / package).rglob("*.py"))
    assert modules
    ours = {*MAY_IMPORT, "tickpipe"}
    for module in modules:
        others = imported_packages(module) & ours - {package}
        assert others <= MAY_IMPORT[package], f"{module.relative_to(ROOT)} imports {others}"


def test_the_domain_does_no_io() -> None:
    for module in (ROOT / "marketdata").rglob("*.py"):
        imported = imported_packages(module) - {"marketdata"}
        assert imported <= set(sys.stdlib_module_names) | PURE, module
        assert not imported & IMPURE, module


def test_every_connection_to_the_database_states_what_it_relies_on() -> None:
    """One module opens them; that which prepares the embedded server states it in the options of the connection."""
    opening = {
        str(module.relative_to(ROOT))
        for package in [*MAY_IMPORT, "tickpipe"]
        for module in (ROOT / package).rglob("*.py")
        if re.search(r"\b(AsyncConnection|Connection|Session|psycopg)\.connect\(", module.read_text())
    }
    assert opening == {"sink/db/session.py", "tickpipe/embedded/postgres.py"}


#: Names with an underscore that are public all the same: of named tuples, and `os._exit`.
PUBLIC = {"_replace", "_asdict", "_fields", "_make", "_exit"}


def test_private_names_of_a_library_stand_in_one_module_each() -> None:
    """`stream_app/transport.py` overrides Faust's in subclasses, so there they are names of `self`."""
    for package in (*MAY_IMPORT, "tickpipe"):
        for module in (ROOT / package).rglob("*.py"):
            used = {
                node.attr
                for node in nodes_of(module)
                if isinstance(node, ast.Attribute)
                and re.match(r"_[^_]", node.attr)
                and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
            }
            assert used <= PUBLIC or module.name == "aiokafka_internals.py", f"{module} uses {used - PUBLIC}"


def test_errors_of_kafka_are_mapped_in_one_module() -> None:
    names = re.compile(r"\bKafkaError\b|\bKafkaConnectionError\b")
    for package in (*MAY_IMPORT, "tickpipe"):
        for module in (ROOT / package).rglob("*.py"):
            if module.name not in ("kafka_errors.py", "aiokafka_internals.py"):
                assert not names.search(module.read_text()), module


def test_every_client_of_kafka_says_who_it_is() -> None:
    made = []
    for package in (*MAY_IMPORT, "tickpipe"):
        for module in (ROOT / package).rglob("*.py"):
            for node in nodes_of(module):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Name)
                    and re.fullmatch(r"AIOKafka(Consumer|Producer|AdminClient|Client)|Consumer", node.func.id)
                ):
                    made.append(module.name)
                    assert "**client_options(" in ast.unparse(node) or "**{**client_options(" in ast.unparse(node), (
                        f"{module}:{node.lineno} leaves out TLS and the login"
                    )
    assert {"kafka.py", "kafka_access.py", "pipeline.py"} <= set(made)


def test_the_relay_loads_nothing_that_its_extra_does_not_install() -> None:
    code = "import sys, relay.service, relay.exporter; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS
    )
    assert "relay" in done.stdout.split()
    assert not set(done.stdout.split()) & set(HEAVY)
