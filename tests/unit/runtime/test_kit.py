"""The kit: its wheel is the package that runs, and it holds everything that the trading PC needs."""

import base64
import io
import re
import zipfile
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from runtime.kit import kit_files, packed
from tickpipe.cli import app
from tickpipe.install import needed_on

ROOT = Path(__file__).parents[3]
WHEEL = f"wheels/tickpipe-{version('tickpipe')}-py3-none-any.whl"


@pytest.fixture(scope="module")
def kit() -> dict[str, bytes]:
    return kit_files()


def test_the_wheel_holds_every_module_as_it_is_here_and_a_true_record(kit: dict[str, bytes]) -> None:
    with zipfile.ZipFile(io.BytesIO(kit[WHEEL])) as archive:
        assert archive.testzip() is None
        parts = {name: archive.read(name) for name in archive.namelist()}
    for package in ("marketdata", "runtime", "producer", "relay", "stream_app", "sink", "dashboard", "tickpipe"):
        for module in (ROOT / package).rglob("*.py"):
            assert parts[module.relative_to(ROOT).as_posix()] == module.read_bytes()
    (record,) = [name for name in parts if name.endswith(".dist-info/RECORD")]
    assert not any(name.endswith((".pyc", ".pth", "direct_url.json")) or name.startswith("..") for name in parts)
    told = dict(line.split(",", 1) for line in parts.pop(record).decode().splitlines())
    assert told.pop(record) == ","
    for name, content in parts.items():
        digest = base64.urlsafe_b64encode(sha256(content).digest()).rstrip(b"=").decode()
        assert told.pop(name) == f"sha256={digest},{len(content)}"
    assert told == {}
    assert {name.rpartition("/")[2] for name in parts if ".dist-info/" in name} == {
        "METADATA", "WHEEL", "entry_points.txt", "LICENSE", "NOTICE",
    }  # fmt: skip


def test_the_ea_has_all_that_it_includes(kit: dict[str, bytes]) -> None:
    ea = {path.partition("/")[2]: text for path, text in kit.items() if path.startswith("DataCollectorPRO/")}
    included = set(re.findall(r'^#include "(.*)"', "\n".join(text.decode("utf-8-sig") for text in ea.values()), re.M))
    assert ea.keys() == included | {"DataCollectorPRO.mq5", "DataCollectorPROService.mq5"}
    assert ea["DataCollectorPRO.mq5"] == (ROOT / "ea" / "DataCollectorPRO.mq5").read_bytes()


def test_the_requirements_are_those_of_the_lock_with_hashes(kit: dict[str, bytes]) -> None:
    pinned = re.findall(
        r"^([\w-]+)==(\S+).*?\\\n((?: +--hash=sha256:[0-9a-f]{64}.*\n)+)", kit["requirements.txt"].decode(), re.M
    )
    lock = (ROOT / "uv.lock").read_text()
    assert {"httpx", "uvicorn", "msgspec", "tzdata", "metatrader5", "numpy"} <= {name for name, _, _ in pinned}
    for name, pinned_version, hashes in pinned:
        assert f'name = "{name}"\nversion = "{pinned_version}"\n' in lock
        for digest in re.findall("sha256:[0-9a-f]+", hashes):
            assert digest in lock


def test_two_kits_of_one_version_are_the_same_bytes(kit: dict[str, bytes]) -> None:
    assert packed(kit) == packed(kit_files())


def test_the_command_writes_it_and_replaces_the_wheel_of_another_version(kit: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "tickpipe-0.0.1-py3-none-any.whl").write_bytes(b"old")
    (tmp_path / "note.txt").write_text("mine")
    done = CliRunner().invoke(app, ["kit", str(tmp_path)])
    assert done.exit_code == 0, done.output
    written = {
        path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    }
    assert written.pop("note.txt") == b"mine"
    assert written == kit


@pytest.mark.parametrize(
    ("platform", "python", "windows_alone"),
    [
        ("win_amd64", "3.11", {"colorama", "tzdata", "metatrader5", "numpy"}),
        ("win_amd64", "3.13", {"colorama", "tzdata", "metatrader5", "numpy"}),
        ("win_arm64", "3.13", {"colorama", "tzdata"}),
        ("manylinux2014_x86_64", "3.12", set()),
        ("macosx_11_0_arm64", "3.12", set()),
    ],
)
def test_wheels_are_those_of_the_pc_they_are_for(
    kit: dict[str, bytes], platform: str, python: str, windows_alone: set[str]
) -> None:
    requirements = kit["requirements.txt"].decode()
    conditional = set(re.findall(r"^(\S+)==.* ; ", requirements, re.M))
    listed = needed_on(requirements, platform, python)
    named = re.findall(r"^([\w-]+)==\S+ \\\n +--hash=", listed, re.M)
    assert ";" not in listed
    assert len(named) == len(set(named)) == len(re.findall(r"^\S", listed, re.M))
    assert set(named) & conditional == windows_alone
