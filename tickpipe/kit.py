"""`tickpipe kit`: the kit for a trading PC as a folder, for a PC that cannot reach this server or the internet."""

# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from marketdata.errors import SettingsError
from tickpipe.console import err, out

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

    # pip judges `; sys_platform == 'win32'` by the machine that it runs on.
    needed = re.sub(r" ; [^\\\n]+", " ", requirements)
    pip = _pip()
    with tempfile.TemporaryDirectory() as scratch:
        listed = Path(scratch, "requirements.txt")
        listed.write_text(needed)
        for version in (None,) if platform == _HERE else _PYTHONS:
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
