"""The kit as a PC without internet gets it: it installs from its own folder, runs, and replaces an older relay."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests import plainhttp
from tests.ports import free_port
from tests.scripted import Answer, ScriptedServer
from tests.unit.relay.rows import BASE, tick
from tests.waiting import wait_until
from tickpipe.install import needed_on

pytestmark = [pytest.mark.full, pytest.mark.long(95), pytest.mark.timeout(900)]

#: No index can be asked, whatever this machine's settings say.
OFFLINE = {**os.environ, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

OLD = "0.0.9"


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kit with the wheels for this machine."""
    folder = tmp_path_factory.mktemp("kit")
    command = ["tickpipe", "kit", str(folder), "--wheels", "--platform", "here"]
    subprocess.run([sys.executable, "-m", *command], check=True)
    return folder


@pytest.fixture
def environment(kit: Path, tmp_path: Path) -> Path:
    """An environment with what the kit's requirements list, as the installer makes it."""
    folder = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    wheels, listed = str(kit / "wheels"), str(kit / "requirements.txt")
    pip(folder, "--find-links", wheels, "--require-hashes", "--only-binary", ":all:", "--requirement", listed)
    return folder


def pip(environment: Path, *arguments: str) -> None:
    command = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", *arguments]
    subprocess.run(command, check=True, env=OFFLINE)


def install(environment: Path, wheel: Path) -> None:
    pip(environment, "--no-deps", "--force-reinstall", str(wheel))


def version_in(environment: Path) -> str:
    command = [str(environment / "bin" / "tickpipe"), "--version"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]


def older(wheel: Path, folder: Path) -> Path:
    """The same relay under an older version's name."""
    version = wheel.name.split("-")[1]
    made = folder / wheel.name.replace(version, OLD)
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(made, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if ".dist-info/" in name:
                content = content.replace(version.encode(), OLD.encode())
            target.writestr(name.replace(f"-{version}.", f"-{OLD}."), content)
    return made


@contextmanager
def relay(environment: Path, folder: Path, server: ScriptedServer) -> Iterator[str]:
    """The URL of an installed relay that runs in `folder`."""
    port = free_port()
    command = [str(environment / "bin" / "tickpipe"), "relay", "serve", "--port", str(port), "--forward", server.url]
    variables: Mapping[str, str] = {"PATH": "", "TICKPIPE_RELAY_FORWARD_KEY": "key"}
    with subprocess.Popen(command, cwd=folder, env=variables) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until(lambda: answers(url), what="an installed relay that serves")
            yield url
        finally:
            process.kill()


def answers(url: str) -> bool:
    try:
        return plainhttp.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_it_runs_without_an_index_and_replaces_an_older_relay_without_losing_a_row(
    kit: Path, environment: Path, tmp_path: Path, server: ScriptedServer
) -> None:
    (wheel,) = (kit / "wheels").glob("tickpipe-*.whl")
    folder = tmp_path / "data"
    folder.mkdir()

    # Arrange: an older version stores, while the server takes one request and then none.
    install(environment, older(wheel, tmp_path))
    assert version_in(environment) == OLD
    server.answers = [Answer(200), *[Answer(503)] * 1_000]
    with relay(environment, folder, server) as url:
        for n in range(50):
            assert plainhttp.post(f"{url}/ingest/tick", json={"ticks": [tick(n)]}).status_code == 200

    # Act: the kit's version takes its place.
    install(environment, wheel)
    assert version_in(environment) == wheel.name.split("-")[1]
    # What is installed makes the same kit, as in the container image.
    subprocess.run([str(environment / "bin" / "tickpipe"), "kit", str(tmp_path / "again")], check=True, cwd=folder)
    assert (tmp_path / "again" / "wheels" / wheel.name).read_bytes() == wheel.read_bytes()
    server.answers = []
    with relay(environment, folder, server) as url:
        assert plainhttp.post(f"{url}/ingest/tick", json={"ticks": [tick(50)]}).status_code == 200
        wait_until(lambda: plainhttp.get(f"{url}/stats").json()["pending"] == 0, what="no backlog")
        page = plainhttp.get(url).text

    # Assert
    assert list(dict.fromkeys(item["ts_msc"] - BASE for item in server.taken)) == list(range(51))
    assert "51" in page


def test_a_kit_for_windows_collects_without_an_index(tmp_path: Path) -> None:
    """pip resolves what `tickpipe relay collect` imports from the kit's wheels alone; nothing runs it."""
    command = ["tickpipe", "kit", str(tmp_path), "--wheels"]
    subprocess.run([sys.executable, "-m", *command], check=True)
    for version in ("3.11", "3.12", "3.13"):
        chosen = ["--only-binary=:all:", "--platform", "win_amd64", "--python-version", version]
        found = tmp_path / version
        pip_download = [sys.executable, "-m", "pip", "download", "--quiet", *chosen, "--dest", str(found)]
        listed = tmp_path / f"{version}.txt"
        listed.write_text(needed_on((tmp_path / "requirements.txt").read_text(), "win_amd64", version))
        wheels = ["--find-links", str(tmp_path / "wheels")]
        subprocess.run([*pip_download, *wheels, "--require-hashes", "-r", str(listed)], check=True, env=OFFLINE)
        names = {wheel.name.partition("-")[0].lower() for wheel in found.iterdir()}
        assert {"metatrader5", "numpy", "httpx", "uvicorn", "tzdata"} <= names
