"""The PowerShell scripts, as far as they can be judged without Windows: over their syntax trees."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tests.unit.relay.powershell import Command, Script, parsed
from tickpipe.cli import app

_FOLDER = Path(__file__).parents[3] / "relay" / "windows"
TEXTS = {path.name: path.read_text() for path in sorted(_FOLDER.glob("*.ps1"))}
SHARED = "tickpipe.ps1"
#: What runs as administrator, with what it shares.
INSTALLERS = ("install.ps1", "install-task.ps1", SHARED)

each_script = pytest.mark.parametrize("name", TEXTS)

_COMMON = {"ErrorAction"}

#: The cmdlets that the scripts use, each with those of its parameters, in Windows PowerShell 5.1, that may be used.
CMDLETS = {
    "Copy-Item": {"LiteralPath", "Destination", "Recurse", "Force"},
    "Disable-ScheduledTask": {"InputObject"},
    "Enable-ScheduledTask": {"InputObject"},
    "ForEach-Object": set(),
    "Get-Acl": {"LiteralPath"},
    "Get-ChildItem": {"LiteralPath", "Path", "Filter", "Force"},
    "Get-CimInstance": {"ClassName", "Filter"},
    "Get-Content": {"LiteralPath", "TotalCount"},
    "Get-Date": set[str](),
    "Get-Item": {"LiteralPath", "Force"},
    "Get-ItemProperty": {"LiteralPath", "Name"},
    "Get-ScheduledTask": {"TaskName"},
    "Invoke-WebRequest": {"Uri", "UseBasicParsing", "TimeoutSec"},
    "Join-Path": {"Path", "ChildPath"},
    "New-Item": {"ItemType", "Path", "Force"},
    "New-Object": {"TypeName", "ArgumentList"},
    "New-ScheduledTaskAction": {"Execute", "Argument", "WorkingDirectory"},
    "New-ScheduledTaskPrincipal": {"UserId", "LogonType", "RunLevel"},
    "New-ScheduledTaskSettingsSet": {
        "MultipleInstances", "StartWhenAvailable", "AllowStartIfOnBatteries", "DontStopIfGoingOnBatteries",
        "ExecutionTimeLimit", "Priority",
    },
    "New-ScheduledTaskTrigger": {"AtStartup", "Once", "At", "RepetitionInterval"},
    "New-TimeSpan": {"Minutes", "Hours"},
    "Out-Host": set(),
    "Out-Null": set(),
    "Read-Host": {"Prompt", "AsSecureString"},
    "Register-ScheduledTask": {"TaskName", "Action", "Trigger", "Settings", "Principal", "Description", "Force"},
    # Its -LiteralPath belongs to another set of parameters than -Parent.
    "Split-Path": {"Parent"},
    "Start-ScheduledTask": {"TaskName", "InputObject"},
    "Start-Sleep": {"Seconds"},
    "Stop-Process": {"Id", "Force"},
    "Stop-ScheduledTask": {"InputObject"},
    "Test-Path": {"LiteralPath", "PathType"},
    "Unregister-ScheduledTask": {"TaskName", "Confirm"},
    "Wait-Process": {"Id", "Timeout"},
    "Where-Object": set(),
    "Write-Output": set(),
}  # fmt: skip

#: What may be called with `&`, or dot-sourced: our own program, Python, and tools by their whole path.
CALLED = {
    "$program", "$Program", "$Python", "(Get-FullPath $Uv)", "(Join-Path $SystemFolder 'icacls.exe')",
    "(Join-Path $PSScriptRoot 'tickpipe.ps1')",
}  # fmt: skip

#: Variables of the environment that an installer may read or set; a user may have set any of them.
VARIABLES = {"USERNAME", "UV_PYTHON_INSTALL_DIR"}

#: Options of pip, venv and uv.
_INSTALLING = {
    "--quiet", "--isolated", "--disable-pip-version-check", "--only-binary", "--no-index", "--find-links",
    "--require-hashes", "--requirement", "--no-deps", "--force-reinstall", "--managed-python", "--no-config", "--seed",
    "--python",
}  # fmt: skip


def wrong_commands(scripts: dict[str, Script]) -> Iterator[str]:
    """Commands and parameters that do not exist."""
    options = set(_options(typer.main.get_group(app))) | _INSTALLING
    shared = scripts[SHARED].functions
    for name, script in scripts.items():
        functions = {**shared, **script.functions}
        for command in script.commands:
            where = f"{name}:{command.line}: {command.name}"
            if command.is_called:
                if command.name not in CALLED:
                    yield f"{where} is called"
            elif command.name in functions:
                if len(command.values) > len(functions[command.name]) or set(command.parameters) - set(
                    functions[command.name]
                ):
                    yield f"{where} does not take {command.values} {command.parameters}"
            elif command.name not in CMDLETS:
                yield f"{where} does not exist"
            elif unknown := set(command.parameters) - CMDLETS[command.name] - _COMMON:
                yield f"{where} has no {unknown}"
        for option in re.findall(r"(?<=['\s])--[a-z][a-z-]*", _code(script)):
            if option not in options:
                yield f"{name}: tickpipe has no {option}"


def _options(command: Any) -> Iterator[str]:
    """Every option of a command and of those below it."""
    yield from (option for parameter in command.params for option in parameter.opts)
    for inner in getattr(command, "commands", {}).values():
        yield from _options(inner)


def unsafe(scripts: dict[str, Script]) -> Iterator[str]:
    """What would give away the key, or let others than administrators decide what runs."""
    for name, script in scripts.items():
        for word in ("Bypass", "Hidden", "Invoke-Expression", "iex ", "Start-Process", "Get-Command", "VIRTUAL_ENV"):
            if word.lower() in _code(script).lower():
                yield f"{name}: {word}"
    found = {name: scripts[name].commands for name in INSTALLERS}
    for name, commands in found.items():
        if others := scripts[name].environment - VARIABLES:
            yield f"{name}: the environment's {others}"
        for command in commands:
            yield from (f"{name}:{command.line}: {why}" for why in _unsafe_command(command))
    for name in ("install.ps1", "install-task.ps1"):
        yield from (f"{name}: {why}" for why in _wrong_order(found[name]))
    protect = [" ".join(c.values) for c in found[SHARED] if c.function == "Protect-Folder" and c.name == "Set-Rights"]
    steps = ("/setowner", "/reset", "/inheritance:r")
    if len(protect) < len(steps) or not all(step in text for step, text in zip(steps, protect, strict=False)):
        yield "a folder keeps rights that somebody else gave it"
    ended = [c for c in found[SHARED] if c.name == "Where-Object" and c.function == "Stop-Task"]
    if not ended or "$_.CommandLine -match $database" not in ended[0].values[0]:
        yield "the relay of another database is ended"


def _unsafe_command(command: Command) -> Iterator[str]:
    values = " ".join(command.values)
    match command.name:
        case "Read-Host" if "AsSecureString" not in command.parameters:
            yield "the key is shown while it is typed"
        case "New-ScheduledTaskAction" if command.values[0] != "$Program":
            yield "a task runs something between"
        case "New-ScheduledTaskSettingsSet" if "Priority 4" not in _pairs(command):
            yield "a task waits for everything else"
        case "New-ScheduledTaskPrincipal" if not {
            "RunLevel Limited",
            "UserId $ServiceSid",
            "LogonType ServiceAccount",
        } <= _pairs(command) and not {"RunLevel Limited", "LogonType S4U"} <= _pairs(command):
            yield "a task runs with more rights than it needs"
        case "$Python" if command.parameters != ["I"]:
            yield "this folder and the environment add to what Python loads"
        case "Invoke-Python" if "$pip" in values and not re.search("--require-hashes|--no-index", values):
            yield "pip takes what no hash names"
        case "Stop-Process" if command.function != "Stop-Task":
            yield "a process ends that is none of ours"


def _pairs(command: Command) -> set[str]:
    """`-Name value`, for a command whose switches take no part."""
    switches = {"StartWhenAvailable", "AllowStartIfOnBatteries", "DontStopIfGoingOnBatteries"}
    named = [name for name in command.parameters if name not in switches]
    return {f"{name} {value}" for name, value in zip(named, command.values, strict=True)}


def _wrong_order(commands: list[Command]) -> Iterator[str]:
    names = [command.name for command in commands if not command.function]
    order = ["Assert-Administrator", "Remove-Task", "Protect-Folder", "Request-Key", "Register-Task"]
    if [name for name in names if name in order] != order:
        yield f"not in this order: {order}"


def _code(script: Script) -> str:
    """The text without comments."""
    return re.sub(r"(?m)^\s*#.*", "", re.sub(r"<#.*?#>", "", script.text, flags=re.S))


def scripts(texts: dict[str, str] = TEXTS) -> dict[str, Script]:
    return {name: parsed(text) for name, text in texts.items()}


@each_script
def test_it_parses(name: str) -> None:
    assert parsed(TEXTS[name]).faults == []


def test_the_parser_finds_a_missing_brace() -> None:
    assert Script(TEXTS["install.ps1"].replace("if ($Uninstall) {", "if ($Uninstall)")).faults


@each_script
def test_windows_powershell_reads_it_right(name: str) -> None:
    # Without a byte order mark Windows PowerShell 5.1 takes a file for ANSI.
    assert TEXTS[name].isascii()
    # Of PowerShell 7 only: ?? and ?: and && and ||.
    assert not re.search(r"\?\?|&&|\|\|", TEXTS[name])


@each_script
def test_it_has_no_path_of_one_machine_and_no_secret(name: str) -> None:
    code = re.sub(r"HKLM:\\", "", _code(parsed(TEXTS[name])))
    assert not re.search(r"[A-Z]:\\", code)
    assert not re.search(r"(?i)(password|token|key)\s*=\s*['\"]\S", code)


@pytest.mark.parametrize("name", sorted(TEXTS.keys() - {SHARED}))
def test_every_parameter_is_explained(name: str) -> None:
    text = TEXTS[name]
    assert text.startswith("<#\n.SYNOPSIS\n")
    assert ".EXAMPLE" in text
    declared = text[text.index("param(") : text.index("\n)\n")].splitlines()
    for line, before in zip(declared[1:], declared, strict=False):
        if "$" in line:
            assert before.lstrip().startswith("#"), line


def test_every_command_and_parameter_exists() -> None:
    assert list(wrong_commands(scripts())) == []


def test_nobody_but_administrators_decides_what_runs_and_nobody_sees_the_key() -> None:
    assert list(unsafe(scripts())) == []


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        (SHARED, "Wait-Process -Id", "Wait-Process -Number"),
        (SHARED, "Get-Acl -LiteralPath", "Read-Acl -LiteralPath"),
        (SHARED, "Protect-Folder {", "Protect-Directory {"),
        (SHARED, "& (Join-Path $SystemFolder 'icacls.exe')", "& icacls.exe"),
        ("install.ps1", "Request-Key $keyFile $NewKey.IsPresent $ServiceSid", "Request-Key $keyFile 1 $ServiceSid 2"),
        ("install.ps1", "'--key-file', $keyFile", "'--keyfile', $keyFile"),
        ("install.ps1", "relay check --to", "relay check --server"),
    ],
)
def test_a_command_that_does_not_exist_is_found(name: str, good: str, bad: str) -> None:
    assert good in TEXTS[name]
    assert list(wrong_commands(scripts(TEXTS | {name: TEXTS[name].replace(good, bad)})))


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        (SHARED, " -AsSecureString", ""),
        (SHARED, "-Execute $Program", "-Execute $shell"),
        (SHARED, " -Priority 4", " -Priority 7"),
        (SHARED, "[Environment]::GetFolderPath('ProgramFiles')", "$env:ProgramFiles"),
        (SHARED, " -and $_.CommandLine -match $database", ""),
        (SHARED, "Set-Rights $Folder @('/reset')", ""),
        (SHARED, "    if ($Named) {", "    Get-Command 'tickpipe.exe'\n    if ($Named) {"),
        ("install.ps1", "-UserId $ServiceSid", "-UserId $SystemSid"),
        ("install.ps1", "-RunLevel Limited", "-RunLevel Highest"),
        ("install.ps1", "& $Python -I @Arguments", "& $Python @Arguments"),
        ("install.ps1", "'--require-hashes', ", ""),
        ("install.ps1", "    Protect-Folder $Data $ServiceSid\n", ""),
        ("install.ps1", "\nAssert-Administrator\n", "\n"),
        ("install-task.ps1", "Protect-Folder $Data $account\n", ""),
        ("install-task.ps1", "$Data = Get-FullPath $Data", "$env:TICKPIPE_RELAY_FORWARD_KEY = $Key"),
    ],
)
def test_an_unsafe_script_is_found(name: str, good: str, bad: str) -> None:
    assert good in TEXTS[name]
    assert list(unsafe(scripts(TEXTS | {name: TEXTS[name].replace(good, bad)})))


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
    said = re.search(r"^\$OlderCommands = '(.*)'$", TEXTS[SHARED], re.M)
    assert said is not None
    assert bool(re.search(said[1], command)) is is_older
    for script in ("run-exporter.ps1", "run-verify-sql.ps1"):
        assert "\nWrite-OlderTask\n" in TEXTS[script]


def test_the_exporter_takes_the_parameters_of_an_older_one() -> None:
    text = TEXTS["run-exporter.ps1"]
    declared = text[text.index("param(") : text.index("\n)\n")]
    assert {"Api", "Token", "PageSize", "Batch", "All", "SinceLastHour"} <= set(re.findall(r"\$(\w+)", declared))
    assert "Mandatory" not in declared


def test_no_file_that_a_script_reads_or_writes_keeps_the_relay_from_being_installed_again() -> None:
    """`install.ps1` takes a data folder of Tickpipe's own files alone."""
    (known,) = re.findall(r"\$known = '(.+)'", TEXTS[SHARED])
    files = {name for text in TEXTS.values() for name in re.findall(r"Join-Path \$(?:TickpipeData|Data) '(.+?)'", text)}
    assert {"ea.db", "key.txt", "server-url.txt", "relay.log"} <= files
    besides = {"ea.db-wal", "ea.db-shm", "ea.db-storing", "ea.db-forwarding", "relay.log.1", "ea.db-copy"}
    assert [name for name in sorted(files | besides) if not re.search(known, name)] == []
    assert not re.search(known, "holiday.jpg")
