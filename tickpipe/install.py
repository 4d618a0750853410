"""`tickpipe kit` and `tickpipe install-service`: what puts the relay on a trading PC, and a service on this machine."""
# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from marketdata.errors import SettingsError, TickpipeError
from tickpipe.console import DONE, err, out

#: Versions of Python that wheels are fetched for, as in pyproject.toml.
_PYTHONS: Final = ("3.11", "3.12", "3.13")

#: The name of the platform and Python that this command runs on.
_HERE: Final = "here"

_Platform = Annotated[
    list[str],
    typer.Option(
        "--platform", metavar="TAG", help="With --wheels: for which PC, again for another; `here` is this machine."
    ),
]


def kit(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write it; created when missing.")],
    *,
    wheels: Annotated[
        bool, typer.Option("--wheels", help="Also download every wheel that is needed, for a PC without internet.")
    ] = False,
    platform: _Platform = ["win_amd64"],  # noqa: B006  # typer copies it
) -> None:
    """Write what a trading PC needs: this version's relay as a wheel, the EA, the Windows scripts, install.ps1.

    A running server hands the same out at http://HOST:18001/windows/. Files that are there are replaced.

    Examples:

    * `tickpipe kit E:\\`
    * `tickpipe kit /media/usb/tickpipe --wheels`
    """
    from runtime.kit import REQUIREMENTS, WHEELS, kit_files

    files = kit_files()
    for old in (folder / WHEELS).glob("tickpipe-*.whl"):
        old.unlink()
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    if wheels:
        for name in platform:
            _download(files[REQUIREMENTS].decode(), folder / WHEELS, name)
    out.print(str(folder), markup=False, soft_wrap=True)


def _download(requirements: str, folder: Path, platform: str) -> None:
    """The locked wheels for a platform, for each Python; their hashes are checked."""
    import tempfile

    pip = _pip()
    with tempfile.TemporaryDirectory() as scratch:
        listed = Path(scratch, "requirements.txt")
        for version in (None,) if platform == _HERE else _PYTHONS:
            listed.write_text(requirements if version is None else needed_on(requirements, platform, version))
            chosen = [] if version is None else ["--platform", platform, "--python-version", version]
            err.print(f"wheels for {platform}{f', Python {version}' if version else ''}", markup=False)
            done = subprocess.run(  # noqa: S603  # this machine's pip, no shell
                [
                    *pip, "download", "--quiet", "--disable-pip-version-check", "--no-cache-dir", "--no-deps",
                    "--only-binary=:all:", "--require-hashes", "--requirement", str(listed), "--dest", str(folder),
                    *chosen,
                ],
                check=False,
            )  # fmt: skip
            if done.returncode:
                raise SettingsError("not every wheel could be downloaded; pip says why above")


#: Begins of platform tags, and what Python calls the system there.
_SYSTEMS: Final = {"win": "win32", "macosx": "darwin", "manylinux": "linux", "musllinux": "linux", "linux": "linux"}

#: What Windows calls processors that tags name otherwise.
_WINDOWS_MACHINES: Final = {"win_amd64": "AMD64", "win_arm64": "ARM64", "win32": "x86"}


def needed_on(requirements: str, platform: str, python: str) -> str:
    """Those of locked requirements that a platform (`win_amd64`) and a Python (`3.13`) need, without conditions.

    pip would judge the conditions by the machine that it runs on, whatever `--platform` says.
    """
    from packaging.markers import Marker

    system = next((name for begin, name in _SYSTEMS.items() if platform.startswith(begin)), sys.platform)
    machine = re.search(r"(x86_64|aarch64|arm64|i686|armv7l|ppc64le|s390x|riscv64)$", platform)
    there = {
        "sys_platform": system,
        "platform_machine": _WINDOWS_MACHINES.get(platform) or (machine[0] if machine else ""),
        "python_version": python,
        "python_full_version": f"{python}.0",
    }

    def kept(found: re.Match[str]) -> str:
        name, condition, rest = found.groups()
        return f"{name} {rest}" if condition is None or Marker(condition.strip()).evaluate(there) else ""

    return re.sub(
        r"^([^\s#-]\S*)(?: ; ([^\\\n]+))? *(\\\n(?:\s+--hash=.*\n?)+)", kept, requirements, flags=re.MULTILINE
    )


def _pip() -> list[str]:
    """pip of this environment, else of the Python that it was made from, as in the container image.

    Raises:
        SettingsError: when there is none.
    """
    base = Path(sys.base_prefix, "python.exe" if sys.platform == "win32" else "bin/python3")
    for python in (sys.executable, str(base)):
        command = [python, "-m", "pip"]
        asked = subprocess.run([*command, "--version"], capture_output=True, check=False)  # noqa: S603
        if asked.returncode == 0:
            return command
    raise SettingsError(f"there is no pip to download with; install it: {sys.executable} -m ensurepip")


_SYSTEM_FOLDER: Final = Path("/etc/systemd/system")

#: There while systemd is the machine's init.
_RUNS: Final = Path("/run/systemd/system")

#: What neither the JVM, which writes code, nor PostgreSQL, which gives up root, stumbles over. /tmp stays the
#: machine's: the commands of a shell find the stack's socket and its locks of ports there.
_HARDENING: Final = """\
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
SystemCallArchitectures=native
UMask=0077"""

#: A user's manager may lack the right to mount, and a unit that asks for it would not start there.
_SYSTEM_HARDENING: Final = """
ProtectSystem=full
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK"""


class NotInstalled(TickpipeError):
    """The unit could not be installed; the message tells systemd's reason."""


class What(StrEnum):
    """What a unit runs."""

    UP = "up"
    RELAY = "relay"


@dataclass(frozen=True)
class Unit:
    """A unit of systemd: for the machine, where `user` is whom it runs as, or of the calling user's own manager."""

    what: What
    arguments: tuple[str, ...]
    folder: Path
    user: str | None

    @property
    def name(self) -> str:
        """The name of its file, too."""
        return "tickpipe.service" if self.what is What.UP else "tickpipe-relay.service"

    @property
    def path(self) -> Path:
        """Where systemd looks for it."""
        if self.user is not None:
            return _SYSTEM_FOLDER / self.name
        config = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
        return Path(config) / "systemd" / "user" / self.name

    @property
    def systemctl(self) -> str:
        """The command that manages it."""
        return "systemctl" if self.user is not None else "systemctl --user"

    def text(self) -> str:
        """The unit file."""
        program = ["up"] if self.what is What.UP else ["relay", "serve"]
        words = [sys.executable, "-m", "tickpipe", *program, *self.arguments]
        is_system = self.user is not None
        network = "Wants=network-online.target\nAfter=network-online.target\n" if is_system else ""
        return f"""\
[Unit]
Description=Tickpipe: {"the pipeline of this machine" if self.what is What.UP else "the relay of an EA"}
{network}StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={" ".join(map(_quoted, words))}
WorkingDirectory={_escaped(str(self.folder))}
EnvironmentFile=-{_escaped(str(self.folder))}/.env
{f"User={self.user}" + chr(10) if is_system else ""}Restart=on-failure
RestartSec=5
# The stack stops its servers in order; nothing but the first process needs the signal.
KillMode=mixed
TimeoutStopSec=90
{_HARDENING}{_SYSTEM_HARDENING if is_system else ""}

[Install]
WantedBy={"multi-user.target" if is_system else "default.target"}
"""


def _escaped(text: str) -> str:
    """For a line that holds one value: systemd expands %, and no line can hold a line break.

    Raises:
        NotInstalled: for a control character.
    """
    if not text.isprintable():
        raise NotInstalled(f"a unit cannot hold the control characters of {text!r}")
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """One word of a command line: systemd also expands $ and reads backslashes and quotes."""
    word = _escaped(word).replace("\\", "\\\\").replace("$", "$$").replace('"', '\\"')
    return word if re.fullmatch(r"[\w@%+=:,./$-]+", word) else f'"{word}"'


def install_service(
    *,
    what: Annotated[What, typer.Argument(help="The whole stack, or the relay.")] = What.UP,
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Options of `up` or `relay serve`, after `--`.", metavar="-- OPTIONS")
    ] = None,
    system: Annotated[
        bool | None,
        typer.Option("--system/--user", help="For the machine, or for this user. Default: for the machine as root."),
    ] = None,
    show: Annotated[bool, typer.Option("--print", help="Write the unit, and install nothing.")] = False,
    uninstall: Annotated[bool, typer.Option("--uninstall", help="Stop and remove the unit; data stays.")] = False,
) -> None:
    """Install a systemd unit that starts the stack, or the relay, at boot and again when it fails.

    Settings and keys are read from `.env` in this folder, which is also the folder that relative paths start from.

    Examples:

    * `tickpipe install-service --print`
    * `tickpipe install-service up -- --producer-host 0.0.0.0`
    * `sudo tickpipe install-service relay -- --db /srv/ea.db --forward https://ticks.example.com`
    * `tickpipe install-service --uninstall`
    """
    if sys.platform == "win32":
        raise NotInstalled("systemd is Linux's; on Windows relay/windows/install-service.ps1 installs the relay")
    for_machine = os.geteuid() == 0 if system is None else system
    unit = Unit(what, tuple(arguments or ()), Path.cwd(), _caller() if for_machine else None)
    if show:
        print(unit.text(), end="")
    elif uninstall:
        _uninstall(unit)
    else:
        _install(unit)
    raise typer.Exit(DONE)


def _caller() -> str:
    """Who called, also by way of sudo."""
    import pwd  # Windows, where the relay runs, has none

    return os.environ.get("SUDO_USER") or pwd.getpwuid(os.geteuid()).pw_name


def _install(unit: Unit) -> None:
    text = unit.text()
    try:
        unit.path.parent.mkdir(parents=True, exist_ok=True)
        unit.path.write_text(text)
    except PermissionError as exc:
        raise NotInstalled(f"{exc.filename} cannot be written; use sudo, or --user for a unit of your own") from exc
    out.print(f"Wrote {unit.path}.", markup=False, soft_wrap=True)
    _tell_of_settings(unit.folder)
    commands = [f"{unit.systemctl} daemon-reload", f"{unit.systemctl} enable --now {unit.name}"]
    if unit.user is None:
        # Without lingering a user's manager, and all its units, end with the last session and do not start at boot.
        commands.insert(0, "loginctl enable-linger")
    if _systemd_runs():
        for command in commands:
            _run(command)
        out.print(f"It runs, and starts at boot: {unit.systemctl} status {unit.name}", markup=False, soft_wrap=True)
    else:
        out.print("systemd does not run here. Where it does:", markup=False)
        for command in commands:
            out.print(f"  {command}", markup=False)


def _uninstall(unit: Unit) -> None:
    if not unit.path.exists():
        out.print(f"There is no {unit.path}.", markup=False, soft_wrap=True)
        return
    if _systemd_runs():
        _run(f"{unit.systemctl} disable --now {unit.name}")
    try:
        unit.path.unlink()
    except PermissionError as exc:
        raise NotInstalled(f"{exc.filename} cannot be removed; use sudo") from exc
    if _systemd_runs():
        _run(f"{unit.systemctl} daemon-reload")
    out.print(f"Removed {unit.path}; the data stays.", markup=False, soft_wrap=True)


def _tell_of_settings(folder: Path) -> None:
    here = sorted(name for name in os.environ if name.startswith("TICKPIPE_"))
    if here:
        err.print(
            f"The service does not see the variables of this shell; put them into {folder / '.env'}: {', '.join(here)}",
            style="yellow", markup=False, soft_wrap=True,
        )  # fmt: skip


def _systemd_runs() -> bool:
    return _RUNS.is_dir() and shutil.which("systemctl") is not None


def _run(command: str) -> None:
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode:
        raise NotInstalled(f"`{command}` failed: {done.stderr.strip() or done.stdout.strip()}")
