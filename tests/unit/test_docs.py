"""What the documentation names is there: files, functions, commands, settings, and the targets of links."""

import pkgutil
import re
import shlex
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from typer.core import TyperCommand, TyperGroup
from typer.testing import CliRunner

from runtime.settings import Settings
from tests.architecture import IN_FILE, PACKAGES, PAGE, ROOT, names
from tests.faults.record import PAGE as RELIABILITY
from tests.faults.record import with_stored
from tests.unit.test_imports import MAY_IMPORT
from tickpipe.cli import app

PAGES = [*sorted(ROOT.glob("README*.md")), ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}

FOLDERS = {*PACKAGES, "benchmarks", "compose", "docs", "ea", "k8s", "tests"}

#: In a piece of code: a path with a folder, or the bare name of a file of ours.
_PATH = re.compile(r"(?<![\w./~-])(?:[\w-]+/[\w./*-]*|[\w-]+\.(?:py|sql|js|mq5|mqh|ps1))(?![\w/])")

#: What commands write, and what stands for the name of another file.
MADE = {"benchmarks/results/", "relay.log", "tickpipe.exe", "SCRIPT.ps1"}


@cache
def targets_of_make() -> set[str]:
    """Targets of the Makefile and its parts."""
    return {
        target
        for file in (ROOT / "Makefile", *(file for folder in sorted(FOLDERS) for file in (ROOT / folder).rglob("*.mk")))
        for line in re.findall(r"^([a-z][\w -]*):(?!=)", file.read_text(), re.MULTILINE)
        for target in line.split()
    }


COMMANDS = {
    *(command.name or command.callback.__name__ for command in app.registered_commands if command.callback),
    *(group.name for group in app.registered_groups),
}

_VARIABLE = re.compile(r"\bTICKPIPE_[A-Z0-9_]*[A-Z0-9]\b(?!_)")


@cache
def variables() -> set[str]:
    """Variables that the services read, and those that scripts, compose and tests do."""
    return {f"TICKPIPE_{name.upper()}{of}" for name in Settings.model_fields for of in ("", "_FILE")} | {
        name
        for folder in sorted(FOLDERS - {"docs"})
        for file in (ROOT / folder).rglob("*")
        if file.suffix in (".py", ".sh", ".ps1", ".yaml", ".mk") and file != Path(__file__)
        for name in _VARIABLE.findall(file.read_text())
    }


@cache
def is_there(path: str) -> bool:
    """Whether a path from the root, or a bare file name, leads to something."""
    if "/" in path:
        return any(ROOT.glob(path.rstrip("/")))
    return any(any((ROOT / folder).rglob(path)) for folder in FOLDERS)


def paths_in(text: str) -> set[str]:
    """The paths of ours that stand as code in a text."""
    found = {path.rstrip(".") for code in re.findall(r"`([^`\n]+)`", text) for path in _PATH.findall(code)}
    return {path for path in found if "/" not in path or path.partition("/")[0] in FOLDERS}


def test_a_path_is_recognised() -> None:
    text = "`sink/writer.py`, `make -C docs/x.md`, `rule.py`, `source/symbol`, http://a/sink/b, `http://h/sink/c.py`"
    assert paths_in(text) == {"sink/writer.py", "docs/x.md", "rule.py"}
    assert is_there("sink/writer.py")
    assert is_there("sink/")
    assert is_there("rule.py")
    assert not is_there("marketdata/writer.py")
    assert not is_there("no_such_module.py")


def failures(fault: Callable[[str], object]) -> dict[str, object]:
    """By page what `fault` finds in its text, of the pages where it finds something."""
    return {page: found for page, text in TEXTS.items() if (found := fault(text))}


def test_the_files_that_pages_name_exist() -> None:
    assert failures(lambda text: [path for path in paths_in(text) - MADE if not is_there(path)]) == {}


def test_the_links_of_pages_lead_somewhere() -> None:
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\(([^)#\s]+)", page.read_text())]
    assert len(links) > 100
    assert [(page, link) for page, link in links if "://" not in link and not (page.parent / link).exists()] == []


@cache
def is_a_name(name: str) -> bool:
    """Whether the dotted name leads to a module or to something in one."""
    try:
        pkgutil.resolve_name(name)
    except (AttributeError, ImportError):
        return False
    return True


def test_the_functions_that_pages_name_exist() -> None:
    assert not is_a_name("runtime.settings.no_such_name")
    assert failures(lambda text: [name for name in set(names(text)) - MADE if not is_a_name(name)]) == {}


def unknown_commands(text: str) -> set[str]:
    """Commands in the code of a page that are not ours."""
    code = "\n".join(a or b for a, b in re.findall(r"```\w*\n(.*?)```|`([^`\n]+)`", text, re.DOTALL))
    targets = set(re.findall(r"\bmake ([a-z][\w-]*)", code)) - targets_of_make()
    # Not `kubectl -n tickpipe get`.
    commands = set(re.findall(r"(?<![\w/.:-])(?<!-n )tickpipe ([a-z][a-z-]*)", code)) - COMMANDS
    paths = {module: ROOT.joinpath(*module.split(".")) for module in re.findall(r"python -m ([\w.]+)", code)}
    modules = {
        module
        for module, path in paths.items()
        if not path.with_suffix(".py").exists() and not (path / "__main__.py").exists()
    }
    return targets | commands | modules


def test_the_commands_that_pages_name_exist() -> None:
    assert unknown_commands("`make tset`, `tickpipe sned` and `python -m snik`") == {"tset", "sned", "snik"}
    assert failures(unknown_commands) == {}


@cache
def refusal(written: str) -> str:
    """What a command says to options that it does not take; many stand on several pages."""
    # With --help a command looks at its options and does nothing; the text of its help is asked for elsewhere.
    with pytest.MonkeyPatch.context() as patch:
        for kind in (TyperCommand, TyperGroup):
            patch.setattr(kind, "format_help", lambda *_: None)
        result = CliRunner().invoke(app, [*shlex.split(written), "--help"])
    return result.stderr or f"ends with {result.exit_code}" if result.exit_code else ""


def test_an_option_is_refused() -> None:
    assert refusal("send --speed max ticks.csv") == ""
    assert "No such option: --sped" in refusal("send --sped max ticks.csv")


def refused_commands(text: str) -> dict[str, str]:
    """By command of a page what is said to options that it does not take."""
    refused = {}
    lines = re.findall(r"^(?:[ >$]*|.*\| )tickpipe ([a-z].+)", text, re.MULTILINE)
    for line in [*lines, *re.findall(r"`tickpipe ([a-z][^`\n]+)`", text)]:
        written = re.split(r"\s#|\s[|>]|…|`", re.sub("(--[a-z-]+) …", r"\1 1", line))[0]
        if why := refusal(written):
            refused[written] = why
    return refused


def test_the_commands_of_pages_take_the_options_that_the_pages_give_them() -> None:
    assert refused_commands("`tickpipe send --sped max`").keys() == {"send --sped max"}
    assert failures(refused_commands) == {}


def test_the_settings_that_pages_name_exist() -> None:
    assert failures(lambda text: set(_VARIABLE.findall(text)) - variables()) == {}


def test_the_files_that_comments_name_exist() -> None:
    for package in PACKAGES:
        for module in (ROOT / package).rglob("*.py"):
            named = set(re.findall(r"(?<![\w/.])(?:docs|tests)/[\w/-]+\.(?:py|md)\b", module.read_text()))
            assert {path for path in named if not is_there(path)} == set(), module


def test_what_the_architecture_names_in_scripts_and_sql_exists() -> None:
    named = IN_FILE.findall(PAGE.read_text())
    assert {file for _, _, file in named} >= {"dashboard/static/js/rule.js", "sink/sql/queries.sql"}
    for first, second, file in named:
        text = (ROOT / file).read_text()
        for part in [part for name in (first, second) for part in name.split(".") if part]:
            assert re.search(rf"(?<![\w#]){re.escape(part)}(?!\w)", text), f"{file} has no {part}"


def test_the_architecture_tells_who_may_import_whom() -> None:
    rows = re.findall(r"^\| (`\w+/`.*?) \| .*? \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    told = {
        folder: set(re.findall(r"`(\w+)`", imports))
        for folders, imports in rows
        for folder in re.findall(r"`(\w+)/`", folders)
    }
    assert told == {**MAY_IMPORT, "tickpipe": set()}


def test_the_architecture_is_short_enough_to_be_read() -> None:
    assert len(PAGE.read_text().splitlines()) <= 120


def test_the_page_of_reliability_shows_what_is_stored() -> None:
    page = RELIABILITY.read_text()
    assert with_stored(page) == page
