"""With each extra alone: what can be imported, and that whatever cannot names an extra that would bring it."""

import json
from pathlib import Path

import pytest

from tests.extras import ROOT, Installed, packages, tops
from tickpipe.console import EXTRAS

#: Each extra, and the packages that work with it alone.
WORKS = {
    "": ("marketdata",),
    "kafka": ("marketdata",),
    "producer": ("marketdata", "producer"),
    "stream": ("marketdata", "stream_app"),
    "sink": ("marketdata", "sink"),
    "dashboard": ("marketdata", "dashboard", "sink"),
    "relay": ("marketdata", "relay"),
    "embedded": ("marketdata", "runtime", "producer", "stream_app", "sink", "dashboard", "tickpipe"),
}

_PACKAGES = ("marketdata", "runtime", "producer", "relay", "stream_app", "sink", "dashboard", "tickpipe")

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in _PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if path.name != "__main__.py"
)

_IMPORT_EACH = """
import importlib, json, sys
failed = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as exc:
        failed[name] = exc.name
json.dump(failed, sys.stdout)
"""

_HELP_OF_EACH = """
from typer.main import get_command
from tickpipe.cli import app

root = get_command(app)

def walk(command, words):
    print(words, flush=True)
    assert root.main([*words, "--help"], "tickpipe", standalone_mode=False) == 0
    for name, child in getattr(command, "commands", {}).items():
        walk(child, [*words, name])

walk(root, [])
"""


@pytest.mark.parametrize(
    "extra", [pytest.param(extra, marks=() if extra in {"", "relay"} else pytest.mark.full) for extra in WORKS]
)
def test_every_module_loads_or_lacks_what_an_extra_brings(extra: str, tmp_path: Path) -> None:
    done = Installed(tmp_path, *filter(None, [extra])).run(_IMPORT_EACH, *MODULES)

    assert done.returncode == 0, done.stderr
    lacking: dict[str, str] = json.loads(done.stdout)
    assert {missing.partition(".")[0] for missing in lacking.values()} <= set(EXTRAS)
    assert not [name for name in lacking if name.partition(".")[0] in WORKS[extra]], lacking


def test_every_package_is_brought_by_the_extra_that_is_named() -> None:
    for name, extra in EXTRAS.items():
        brought = {top for one in packages(extra) for top in tops(one)}
        assert {name, f"{name}.py"} & brought, f"{extra} does not bring {name}"


def test_every_command_has_help_without_any_extra(tmp_path: Path) -> None:
    done = Installed(tmp_path).run(_HELP_OF_EACH)

    assert done.returncode == 0, done.stderr
    assert {"['send']", "['relay', 'serve']"} <= {*done.stdout.splitlines()}
