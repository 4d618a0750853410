"""The rooms of the house: services never import each other, and the Windows side needs little."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: What a package may import of this project besides itself; `tickpipe`, the command line, may import all.
MAY_IMPORT = {
    "marketdata": set[str](),
    "producer": {"marketdata"},
    "stream_app": {"marketdata"},
    "sink": {"marketdata"},
    "relay": {"marketdata"},
}

#: What only a server of Kafka, PostgreSQL or the stream needs.
HEAVY = ("aiokafka", "faust", "psycopg", "fastapi", "starlette")


def imported_packages(module: Path) -> set[str]:
    tree = ast.parse(module.read_text())
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_is_below_it(package: str) -> None:
    modules = list((ROOT / package).rglob("*.py"))
    assert modules
    ours = {*MAY_IMPORT, "tickpipe"}
    for module in modules:
        others = imported_packages(module) & ours - {package}
        assert others <= MAY_IMPORT[package], f"{module.relative_to(ROOT)} imports {others}"


def test_the_relay_loads_nothing_that_its_extra_does_not_install() -> None:
    code = "import sys, relay.service, relay.exporter; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "relay" in done.stdout.split()
    assert not set(done.stdout.split()) & set(HEAVY)
