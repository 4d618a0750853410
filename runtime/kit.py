"""The kit for a trading PC: a wheel of the package that runs here, its locked requirements, the EA, Windows scripts.

It is made of what is installed, so the relay of a PC fits the server that it came from, also in a container image.
"""

import base64
import io
import json
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from hashlib import sha256
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from marketdata.errors import SettingsError

_PACKAGE: Final = "tickpipe"

#: The name of the kit as one file.
KIT_NAME: Final = "tickpipe-windows.zip"

#: Where parts of the wheel stand in the kit.
_PLACES: Final = {"relay/ea/": "DataCollectorPRO/", "relay/windows/": ""}

#: Where the kit has wheels.
WHEELS: Final = "wheels/"

#: What pip asks for, and what the installer reads.
REQUIREMENTS: Final = "requirements.txt"

#: What an installer adds to a package's metadata, which is true of that installation alone.
_OF_THE_INSTALLATION: Final = frozenset(
    {"INSTALLER", "RECORD", "REQUESTED", "direct_url.json", "uv_build.json", "uv_cache.json"}
)

#: Every kit of one version has the same bytes.
_TIME: Final = (2020, 1, 1, 0, 0, 0)


def kit_files() -> dict[str, bytes]:
    """The files of the kit by their path in it.

    Raises:
        SettingsError: when the package's files are not where its installation says.
    """
    found = distribution(_PACKAGE)
    parts = _package_files(found)
    files = {
        place + path.removeprefix(folder): content
        for path, content in parts.items()
        for folder, place in _PLACES.items()
        if path.startswith(folder)
    }
    if REQUIREMENTS not in files:
        raise SettingsError("this installation of tickpipe lacks relay/windows/requirements.txt; install it again")
    files[f"{WHEELS}{_PACKAGE}-{found.version}-py3-none-any.whl"] = _wheel(parts, found.version)
    return files


def packed(files: Mapping[str, bytes]) -> bytes:
    """A zip of files; the same files make the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(zipfile.ZipInfo(path, _TIME), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _wheel(parts: Mapping[str, bytes], version: str) -> bytes:
    record = f"{_PACKAGE}-{version}.dist-info/RECORD"
    lines = [
        f"{path},sha256={base64.urlsafe_b64encode(sha256(content).digest()).rstrip(b'=').decode()},{len(content)}\n"
        for path, content in parts.items()
    ]
    return packed({**parts, record: f"{''.join(lines)}{record},,\n".encode()})


def _package_files(found: Distribution) -> dict[str, bytes]:
    """Every file that a wheel of the package has, by its path there, without RECORD."""
    root = _project_folder(found)
    parts = {}
    for file in found.files or ():
        path = file.as_posix()
        is_metadata = file.parts[0].endswith(".dist-info")
        if is_metadata and file.name in _OF_THE_INSTALLATION:
            continue
        # Of a project that runs from its own folder only the metadata are installed.
        if is_metadata or not (root or path.startswith("..") or "__pycache__" in file.parts):
            parts[path] = Path(str(found.locate_file(file))).read_bytes()
    for path, source in _project_files(root) if root else ():
        parts[path] = source.read_bytes()
    return dict(sorted(parts.items()))


def _project_folder(found: Distribution) -> Path | None:
    """The project's folder where it is run from there (an editable installation)."""
    origin = json.loads(found.read_text("direct_url.json") or "{}")
    if not origin.get("dir_info", {}).get("editable"):
        return None
    return Path(url2pathname(urlsplit(origin["url"]).path))


def _project_files(root: Path) -> Iterator[tuple[str, Path]]:
    """What the build would put into a wheel, as pyproject.toml says."""
    with (root / "pyproject.toml").open("rb") as file:
        wanted = tomllib.load(file)["tool"]["hatch"]["build"]["targets"]["wheel"]
    for source, target in {**{name: name for name in wanted["packages"]}, **wanted["force-include"]}.items():
        for path in (root / source).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield f"{target}/{path.relative_to(root / source).as_posix()}", path
