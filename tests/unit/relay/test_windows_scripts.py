"""The PowerShell scripts, as far as they can be judged without Windows: they parse and name nothing of one machine."""

import re
from pathlib import Path

import pytest
import tree_sitter_powershell
from tree_sitter import Language, Node, Parser

_FOLDER = Path(__file__).parents[3] / "relay" / "windows"
SCRIPTS = sorted(_FOLDER.glob("*.ps1"))
#: What a user calls, and what the Task Scheduler calls.
ENTRIES = [path for path in SCRIPTS if path.name != "tickpipe.ps1"]

_parser = Parser(Language(tree_sitter_powershell.language()))


def by_name(path: Path) -> str:
    return path.name


def faults(node: Node) -> list[str]:
    here = [f"line {node.start_point.row + 1}"] if node.is_error or node.is_missing else []
    return here + [fault for child in node.children for fault in faults(child)]


@pytest.mark.parametrize("path", SCRIPTS, ids=by_name)
def test_it_parses(path: Path) -> None:
    assert faults(_parser.parse(path.read_bytes()).root_node) == []


def test_the_parser_finds_a_missing_brace() -> None:
    text = (_FOLDER / "run-relay.ps1").read_bytes()
    assert faults(_parser.parse(text.replace(b"if ($Forward) {", b"if ($Forward)")).root_node)


@pytest.mark.parametrize("path", SCRIPTS, ids=by_name)
def test_windows_powershell_reads_it_right(path: Path) -> None:
    # Without a byte order mark Windows PowerShell 5.1 takes a file for ANSI.
    assert path.read_bytes().isascii()
    # Of PowerShell 7 only: ?? and ?: and && and ||.
    assert not re.search(r"\?\?|&&|\|\|", path.read_text())


@pytest.mark.parametrize("path", SCRIPTS, ids=by_name)
def test_it_has_no_path_of_one_machine_and_no_secret(path: Path) -> None:
    code = re.sub(r"<#.*?#>", "", path.read_text(), flags=re.S)
    assert not re.search(r"[A-Z]:\\", code)
    assert not re.search(r"(?i)(password|token|key)\s*=\s*['\"]\S", code)


#: Of Windows PowerShell 5.1 and its module ScheduledTasks.
CMDLETS = frozenset(
    {
        "Add-Content", "ForEach-Object", "Get-CimInstance", "Get-Command", "Get-Content", "Get-Date",
        "Get-Item", "Get-ScheduledTask", "Invoke-WebRequest", "Join-Path", "Move-Item", "New-Item",
        "New-Object", "New-ScheduledTaskAction", "New-ScheduledTaskPrincipal", "New-ScheduledTaskSettingsSet",
        "New-ScheduledTaskTrigger", "New-TimeSpan", "Out-Null", "Register-ScheduledTask", "Resolve-Path",
        "Select-Object", "Split-Path", "Start-ScheduledTask", "Start-Sleep", "Stop-Process",
        "Stop-ScheduledTask", "Test-Path", "Unregister-ScheduledTask", "Where-Object", "Write-Output",
    }
)  # fmt: skip


@pytest.mark.parametrize("path", SCRIPTS, ids=by_name)
def test_every_command_exists(path: Path) -> None:
    shared = (_FOLDER / "tickpipe.ps1").read_text()
    own = set(re.findall(r"^function ([A-Za-z-]+)", shared + path.read_text(), re.M))
    code = re.sub(r"#.*", "", re.sub(r"<#.*?#>", "", path.read_text(), flags=re.S))
    assert set(re.findall(r"\b[A-Z][a-z]+[A-Za-z]*-[A-Z]\w+", code)) - own <= CMDLETS


@pytest.mark.parametrize("path", ENTRIES, ids=by_name)
def test_every_parameter_is_explained(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("<#\n.SYNOPSIS\n")
    assert ".EXAMPLE" in text
    declared = text[text.index("param(") : text.index("\n)\n")].splitlines()
    for line, before in zip(declared[1:], declared, strict=False):
        if "$" in line:
            assert before.lstrip().startswith("#"), line
    for name in re.findall(r"'(-[A-Z]\w+)'", text):
        # What an installer hands on, its script takes.
        assert any(f"${name[1:]}" in other.read_text() for other in ENTRIES), name


@pytest.mark.parametrize(
    ("command", "is_older"),
    [
        ("powershell.exe -File D:\\mt5\\run-exporter.ps1 -Token x", True),
        ("python.exe D:\\mt5\\export_ticks.py --db ea.db", True),
        ("python.exe -m edge_relay", True),
        ("D:\\API-Lite\\start.bat", True),
        ("powershell.exe -File C:\\Windows\\cleanup.ps1", False),
        ("tickpipe.exe relay serve", False),
    ],
)
def test_tasks_of_an_older_exporter_are_told_by_their_commands(command: str, is_older: bool) -> None:
    said = re.search(r"^\$OlderCommands = '(.*)'$", (_FOLDER / "tickpipe.ps1").read_text(), re.M)
    assert said is not None
    assert bool(re.search(said[1], command)) is is_older
    for script in ("run-exporter.ps1", "run-verify-sql.ps1"):
        assert "\nWrite-OlderTask\n" in (_FOLDER / script).read_text()


def test_the_exporter_takes_the_parameters_of_an_older_one() -> None:
    text = (_FOLDER / "run-exporter.ps1").read_text()
    declared = text[text.index("param(") : text.index("\n)\n")]
    assert {"Api", "Token", "PageSize", "Batch", "All", "SinceLastHour"} <= set(re.findall(r"\$(\w+)", declared))
    assert "Mandatory" not in declared
